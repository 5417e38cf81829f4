"""The first call of a process: compiling the pattern, its schedule and the attention itself.

    python benchmarks/cold.py [--tokens 8192] [--json cold.json]

Each round is a new process, whose imports are done before the clock starts, and which finds the tables of the parser
that one before it kept. A causal window of 512 keys,
8 heads of 64. "first" is `attndsl.compile` and the first call together, "second" the same call again:
the difference is what being first costs. Medians of five rounds, milliseconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from machine import circumstances

PATTERN = "pattern local(w: int = 512) = 0 <= q - k < w"
ROUND = """
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


def measure(tokens: int, dtype: str, rounds: int = 5) -> dict[str, Any]:
    """One row."""
    command = [sys.executable, "-c", ROUND, str(tokens), dtype, PATTERN]
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"ATTNDSL_CACHE_DIR": folder}
        runs = [
            subprocess.run(command, check=True, capture_output=True, env=env)
            for _ in range(rounds + 1)
        ]
    times = [json.loads(run.stdout) for run in runs[1:]]
    names = ("compile", "first, with compile", "second")
    medians = [1e3 * statistics.median(column) for column in zip(*times, strict=True)]
    return {"dtype": dtype} | {
        f"{name} ms": round(value, 1) for name, value in zip(names, medians, strict=True)
    }


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = [measure(given.tokens, dtype) for dtype in ("float32", "bfloat16")]
    for row in rows:
        print(", ".join(f"{name} {value}" for name, value in row.items()))
    if given.json:
        report = circumstances() | {"pattern": PATTERN, "tokens": given.tokens, "rows": rows}
        given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
