"""How fast schedules are made, against flex_attention's create_block_mask: a table, and JSON.

    python benchmarks/schedules.py [--json schedules.json] [--quick]

The pattern is a causal window of 512 keys plus 4 global keys, tile 128 x 128, in milliseconds:
the first schedule of a process, the pattern compiled for it ("cold"), and the median of the next ones
("warm": of the compiled pattern, no schedule remembered). create_block_mask runs once eagerly, and compiled
three times, of which the last counts.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import circumstances

from attndsl import ir
from attndsl.frontend import k, q, to_mask
from attndsl.passes import normalise
from attndsl.schedule import Call, Schedule, plan

WINDOW, GLOBALS, TILE = 512, 4, (128, 128)
PATTERN = (k <= q) & ((q - k < WINDOW) | (k < GLOBALS))
LENGTHS = (8_192, 32_768, 65_536, 262_144, 1_048_576)


def milliseconds(run: Callable[[], Any]) -> float:
    """How long one run takes."""
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def compiled() -> ir.Mask:
    """The pattern in normal form."""
    return normalise(to_mask(PATTERN))


def ours(mask: ir.Mask, length: int) -> Schedule:
    """The exact schedule: nothing is remembered between calls."""
    return plan(mask, Call(length, length), TILE)


def theirs(length: int, traced: bool) -> float:
    """create_block_mask of the same pattern."""
    import torch
    from torch.nn.attention.flex_attention import create_block_mask

    def rule(b: Any, h: Any, i: Any, j: Any) -> Any:
        return (j <= i) & ((i - j < WINDOW) | (j < GLOBALS))

    make = torch.compile(create_block_mask) if traced else create_block_mask

    def run() -> float:
        gc.collect()
        return milliseconds(
            lambda: make(rule, None, None, length, length, device="cpu", BLOCK_SIZE=TILE)
        )

    return [run() for _ in range(3)][-1] if traced else run()


def measure(length: int, rounds: int = 15) -> dict[str, Any]:
    """One row of our own."""
    cold = milliseconds(lambda: ours(compiled(), length))
    mask = compiled()
    warm = statistics.median(milliseconds(lambda: ours(mask, length)) for _ in range(rounds))
    made = ours(mask, length)
    return {
        "tokens": length,
        "cold ms": round(cold, 2),
        "warm ms": round(warm, 2),
        "live tiles": made.full.nnz + made.partial.nnz,
        "index bytes": made.nbytes,
    }


def compare(rows: list[dict[str, Any]], length: int, traced: bool) -> dict[str, Any]:
    """create_block_mask at a length, and how many times longer it takes."""
    taken = theirs(length, traced)
    warm = next(row["warm ms"] for row in rows if row["tokens"] == length)
    return {
        "tokens": length,
        "create_block_mask": "compiled" if traced else "eager",
        "ms": round(taken, 1),
        "ratio to ours, warm": round(taken / warm),
    }


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="without create_block_mask")
    given = parser.parse_args()
    rows = [measure(length) for length in LENGTHS]
    others: list[dict[str, Any]] = []
    if not given.quick:
        others = [compare(rows, 32_768, traced=False), compare(rows, 65_536, traced=True)]
    for row in rows + others:
        print(", ".join(f"{name} {value}" for name, value in row.items()))
    if given.json:
        report = circumstances() | {
            "pattern": f"causal, window of {WINDOW} keys and {GLOBALS} global keys, tile {TILE}",
            "rows": rows,
            "flex_attention": others,
        }
        given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
