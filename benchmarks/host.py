"""Processor time of a warm call before a GPU has anything to do: Python, autograd, Triton's launch.

    python benchmarks/host.py

No GPU is needed: the kernels are compiled for one that is not there, over CPU tensors, and its driver launches
nothing; its own time is left out. 8 heads of 64, 512 tokens; the least of some rounds, in microseconds of
one thread. Torch's own attention over 16 tokens measures the machine.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import triton
from torch.nn import functional as F

import attndsl
from attndsl.backends import triton as backend
from tests.support.no_gpu import Driver

CALLS, ROUNDS = 200, 15
PATTERNS: dict[str, dict[str, torch.Tensor]] = {
    "causal": {},
    "documents_causal": {"doc": torch.arange(512)[None] // 100},
}


class Silent:
    """A launcher that does nothing at all."""

    def __init__(self, *_: Any) -> None: ...

    def __call__(self, *_: Any) -> None: ...


def microseconds(run: Callable[[], object]) -> float:
    """Time of one call when nothing else disturbs it."""
    found = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(CALLS):
            run()
        found.append((time.process_time() - started) / CALLS * 1e6)
    return min(found[1:])


def row(attend: Callable[..., torch.Tensor], tokens: int, dtype: torch.dtype) -> list[float]:
    """Forward; forward where gradients are wanted; both passes."""
    leaves = [torch.randn(1, 8, tokens, 64).to(dtype).requires_grad_() for _ in range(3)]
    plain, dout = [x.detach() for x in leaves], leaves[0].detach()
    runs: tuple[Callable[[], object], ...] = (
        lambda: attend(*plain),
        lambda: attend(*leaves),
        lambda: torch.autograd.grad(attend(*leaves), leaves, dout),
    )
    return [microseconds(run) for run in runs]


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    Driver.launcher_cls = Silent
    triton.runtime.driver.set_active(Driver())
    backend.INTERPRETED = True  # so that CPU tensors are taken
    print(f"{'':24}{'forward':>12}{'with graph':>12}{'and backward':>14}")
    for name, inputs in PATTERNS.items():
        p = attndsl.compile(name)
        found = row(lambda *x, p=p, given=inputs: p(*x, backend="triton", **given), 512, torch.half)
        print(f"{name:24}{found[0]:12.0f}{found[1]:12.0f}{found[2]:14.0f}")
    found = row(lambda *x: F.scaled_dot_product_attention(*x, is_causal=True), 16, torch.float32)
    print(f"{'torch, 16 tokens':24}{found[0]:12.0f}{found[1]:12.0f}{found[2]:14.0f}")


if __name__ == "__main__":
    main()
