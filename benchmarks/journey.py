"""How often one call changes rooms on its way through the package: what its reader must follow.

    python benchmarks/journey.py [--json benchmarks/results/journey.json]

A room is a sub-package of `attndsl`, or a file beside them. Only calls of the package's own functions count; a change
is one whose room differs from that of the call before. A causal window of 512 keys, 256 tokens, one head of 64 in
float32. Each back end has a process of its own, whose imports and parser's tables are done before, with nothing
remembered on disk; "warm" is the third equal call.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from machine import circumstances

ROOT = Path(__file__).parents[1] / "attndsl"
PATTERN = "pattern p = k <= q and q - k < 512"
OTHER = "pattern other = k <= q"  # imports, and builds the parser's tables
TOKENS = 256


def room(file: str) -> str | None:
    """The room of a source file, None for what is not the package's."""
    path = Path(file)
    return path.relative_to(ROOT).parts[0] if path.is_relative_to(ROOT) else None


def journey(run: Callable[[], object]) -> dict[str, int]:
    """Calls, functions, files and changes of room of one run."""
    rooms: dict[str, str | None] = {}
    calls: list[tuple[str, str]] = []  # file and function, of the package alone

    def heard(frame: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        if code.co_filename not in rooms:
            rooms[code.co_filename] = room(code.co_filename)
        if rooms[code.co_filename] is not None:
            calls.append((code.co_filename, code.co_qualname))

    sys.setprofile(heard)
    try:
        run()
    finally:
        sys.setprofile(None)
    ways = [rooms[file] for file, _ in calls]
    return {
        "calls": len(calls),
        "functions": len(set(calls)),
        "files": len({file for file, _ in calls}),
        "changes of room": sum(a != b for a, b in itertools.pairwise(ways)),
    }


def travelled(backend: str) -> dict[str, dict[str, int]]:
    """The journeys to one backend, in this process: compiling, the first call, a warm one."""
    import torch

    import attndsl

    tensors = [torch.randn(1, 1, TOKENS, 64) for _ in range(3)]
    attndsl.compile(OTHER)(*tensors, backend=backend)
    compiled: list[Any] = []
    found = {"compile": journey(lambda: compiled.append(attndsl.compile(PATTERN)))}

    def call() -> object:
        return compiled[0](*tensors, backend=backend)

    found[f"first call, {backend}"] = journey(call)
    call()
    return found | {f"warm call, {backend}": journey(call)}


def main() -> None:
    """Count, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--backend", choices=("blocked", "triton"), help="one of them, as JSON")
    given = parser.parse_args()
    if given.backend:
        print(json.dumps(travelled(given.backend)))
        return
    found: dict[str, dict[str, int]] = {}
    for backend in ("triton", "blocked"):  # the same compile is in both
        command = [sys.executable, __file__, "--backend", backend]
        env = os.environ | {
            "ATTNDSL_CACHE_DIR": "",
            "TRITON_INTERPRET": str(int(backend == "triton")),
        }
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=env)
        found = json.loads(done.stdout) | found
    for name, row in found.items():
        print(f"{name:24}" + "".join(f"{count:7} {what}" for what, count in row.items()))
    if given.json:
        report = circumstances() | {"pattern": PATTERN, "tokens": TOKENS, "journeys": found}
        given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
