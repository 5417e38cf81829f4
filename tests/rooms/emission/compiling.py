"""Cross-compiles the kernels of an emitted file: `python -m tests.rooms.emission.compiling FILE`."""

import json
import sys
from pathlib import Path

import torch

from tests.rooms.emission.outside import loaded
from tests.support.crosscompile import Job, Recorder

KERNELS = (
    "classify", "pack", "forward", "merge_outputs", "prepare_backward", "backward_queries",
    "backward_keys", "sum_chunks",
)  # fmt: skip


def compiled(path: Path, arguments: tuple, target: str, arch: str) -> list[dict]:
    """Reports of all kernels that a forward and backward launch."""
    module, launches = loaded(path), []
    for name in KERNELS:
        if hasattr(module, name):
            setattr(module, name, Recorder(getattr(module, name), launches))
    module.architecture = lambda device: arch
    module.SHORTEST = 1
    states = module.Schedule.states

    def every(self, bq, bk):
        """As many PARTIAL as FULL tiles."""
        found = states(self, bq, bk)
        return found.copy_(torch.arange(found.numel()).reshape(found.shape) % 2 + 1)

    module.Schedule.states = every
    q, k = torch.empty(1, 2, 512, 64, dtype=torch.bfloat16), torch.empty(1, 2, 512, 64).bfloat16()
    schedule = module.schedule_of(512, 512, 1, 2, q.device, *arguments)
    out, lse = module.run_forward(schedule, q, k, k, 0.1)
    module.run_backward(schedule, q, k, k, out, lse, out, None, 0.1)
    return [Job(*launch, target, {}).report() for launch in launches]


if __name__ == "__main__":
    given = (torch.arange(512)[None] // 100,) if "documents" in sys.argv[1] else ()
    print(json.dumps(compiled(Path(sys.argv[1]), given, "cuda:90", "sm90")))
