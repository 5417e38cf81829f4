"""A GPU on which nothing happens: Triton compiles for it as ever, and what reaches its driver is kept.

Run as a program, not under TRITON_INTERPRET: launches the kernels of a call, each twice with the same
tensors, and prints whether the driver is told the same by the first, long way and by the second, short one.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

import attndsl
from attndsl.backends import Request
from attndsl.backends import triton as backend
from attndsl.backends.configs import Config
from attndsl.backends.launching import Launch

LAUNCHED: list[tuple[Any, ...]] = []


class Launcher:
    """The driver's handle of a compiled kernel."""

    def __init__(self, *_: Any) -> None: ...

    def __call__(self, *args: Any) -> None:
        grid, (stream, function, packed, _, *rest) = args[:3], args[3:]  # _ is made for hooks
        given = (x.data_ptr() if isinstance(x, torch.Tensor) else x for x in rest)
        LAUNCHED.append((grid, stream, function, packed, *given))


class Driver:
    """The part of a driver that a launch needs."""

    launcher_cls: type = Launcher

    def __init__(self) -> None:
        self.utils = self

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int) -> int:
        return 7

    def get_device_properties(self, _device: int) -> dict[str, int]:
        return {"max_shared_mem": 227 << 10}

    def load_binary(self, *_: Any) -> tuple[int, int, int, int, int]:
        return 1, 2, 64, 0, 1024


def both_ways(length: int, longest: int | None) -> list[dict[str, Any]]:
    """Every kernel of a forward and a backward, and of the same over tensors that are not aligned."""
    found: list[dict[str, Any]] = []
    once = Launch.__call__

    def twice(launch: Launch, *args: Any) -> None:
        del LAUNCHED[:]
        once(launch, *args)
        once(launch, *args)
        name, first, second = launch._kernel.__name__, *LAUNCHED
        found.append({"kernel": name, "same": first == second, "short": bool(launch._compiled)})

    p = attndsl.compile("causal")
    call = p._program.call(length, length, 1, 2, None, {})
    (part,) = p._program.tiled(call, "natural", (64, 64))
    runner = backend.Triton(lambda *_: Config(64, 64, 4, 1), longest)
    Launch.__call__ = twice  # type: ignore[method-assign]
    for start in (0, 1):
        q, k, v = (
            torch.zeros(start + 128 * length, dtype=torch.float16)[start:].view(1, 2, length, 64)
            for _ in range(3)
        )
        kernels = runner.lower(part, Request.of(q, k, v, gradient=True))
        out, lse = kernels.forward(q, k, v, scale=0.1)
        kernels.backward(q, k, v, out, lse, q, lse, scale=0.1)
    Launch.__call__ = once  # type: ignore[method-assign]
    return found


if __name__ == "__main__":
    triton.runtime.driver.set_active(Driver())
    print(json.dumps(both_ways(*json.loads(sys.argv[1]))))
