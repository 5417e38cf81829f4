"""Runs an emitted file on a GPU on which nothing happens: `python -m tests.rooms.emission.compiling FILE`."""

import json
import sys
from pathlib import Path

import torch
import triton

from tests.rooms.emission.outside import loaded
from tests.support.no_gpu import Driver

KERNELS = ("forward", "merge_outputs")


class Noted:
    """A kernel whose launches are noted, and made."""

    def __init__(self, kernel, launched: list[str]) -> None:
        self.kernel, self.launched = kernel, launched

    def __getitem__(self, grid):
        self.launched.append(self.kernel.__name__)
        return self.kernel[grid]


def launched(path: Path) -> list[str]:
    """The kernels of a forward over tensors of the CPU, that the driver takes for its own."""
    module, found = loaded(path), []
    for name in KERNELS:
        setattr(module, name, Noted(getattr(module, name), found))
    module.architecture = lambda device: "sm90"
    module.SHORTEST = 1
    module.check = lambda *given: None
    doc = torch.arange(512)[None] // 100
    q, k, v = (torch.randn(1, 2, 512, 64).half() for _ in "qkv")
    module.attention(q, k, v, doc=doc)
    return found


if __name__ == "__main__":
    triton.runtime.driver.set_active(Driver())
    print(json.dumps(launched(Path(sys.argv[1]))))
