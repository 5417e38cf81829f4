"""The first call of a process: compiling the pattern, its schedule and the attention itself.

    python benchmarks/cold.py [--tokens 8192] [--json cold.json] [--flex]

Each round is a new process, whose imports are done before the clock starts, and which finds the tables of
the parser that one before it kept. A causal window of 512 keys, 8 heads of 64. "first" is `attndsl.compile`
and the first call together, "second" the same call again: the difference is what being first costs. Medians
of five rounds, milliseconds. With --flex the same of compiled flex_attention, whose rounds take turns with
these: its blocks, its kernel (nothing kept from before), the first call.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import circumstances

PATTERN = "pattern local(w: int = 512) = 0 <= q - k < w"
OURS = """
import json, sys, time
import torch, attndsl
attndsl.compile
tensors = [torch.randn(1, 8, int(sys.argv[1]), 64, dtype=getattr(torch, sys.argv[2])) for _ in range(3)]
start = time.perf_counter()
pattern = attndsl.compile(sys.argv[3])
compiled = time.perf_counter()
pattern(*tensors)
first = time.perf_counter()
pattern(*tensors)
print(json.dumps([compiled - start, first - start, time.perf_counter() - first]))
"""
FLEX = """
import json, sys, time
import torch
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
import torch._inductor.compile_fx
tokens = int(sys.argv[1])
tensors = [torch.randn(1, 8, tokens, 64, dtype=getattr(torch, sys.argv[2])) for _ in range(3)]

def local(b, h, q, k):
    return (q - k >= 0) & (q - k < 512)

start = time.perf_counter()
blocks = create_block_mask(local, None, None, tokens, tokens, device="cpu")
attention = torch.compile(flex_attention, dynamic=False)
attention(*tensors, block_mask=blocks)
first = time.perf_counter()
attention(*tensors, block_mask=blocks)
print(json.dumps([first - start, time.perf_counter() - first]))
"""


def measure(tokens: int, dtype: str, with_flex: bool, rounds: int = 5) -> dict[str, Any]:
    """One row."""
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    with tempfile.TemporaryDirectory() as kept:
        _round(OURS, tokens, dtype, {"ATTNDSL_CACHE_DIR": kept})
        for _ in range(rounds):
            ours.append(_round(OURS, tokens, dtype, {"ATTNDSL_CACHE_DIR": kept}))
            if with_flex:
                with tempfile.TemporaryDirectory() as fresh:
                    theirs.append(_round(FLEX, tokens, dtype, {"TORCHINDUCTOR_CACHE_DIR": fresh}))
    row: dict[str, Any] = {"dtype": dtype}
    row |= _medians(("compile ms", "first, with compile ms", "second ms"), ours)
    if theirs:
        row |= _medians(("flex, first ms", "flex, second ms"), theirs)
        row["flex / ours, first"] = round(row["flex, first ms"] / row["first, with compile ms"], 1)
    return row


def _round(script: str, tokens: int, dtype: str, env: dict[str, str]) -> list[float]:
    """Seconds printed by a new process."""
    command = [sys.executable, "-c", script, str(tokens), dtype, PATTERN]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ | env)
    found: list[float] = json.loads(done.stdout)
    return found


def _medians(names: Sequence[str], rounds: Sequence[Sequence[float]]) -> dict[str, float]:
    medians = (1e3 * statistics.median(column) for column in zip(*rounds, strict=True))
    return {name: round(value, 1) for name, value in zip(names, medians, strict=True)}


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--flex", action="store_true", help="it needs a C++ compiler")
    given = parser.parse_args()
    rows = [measure(given.tokens, dtype, given.flex) for dtype in ("float32", "bfloat16")]
    for row in rows:
        print(", ".join(f"{name} {value}" for name, value in row.items()))
    if given.json:
        report = circumstances() | {"pattern": PATTERN, "tokens": given.tokens, "rows": rows}
        given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
