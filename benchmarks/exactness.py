"""Schedules against brute force: every pattern of the prelude, several lengths, every tile counted.

    python benchmarks/exactness.py [--json exactness.json]

For each schedule: live tiles, EMPTY tiles that it visits, FULL tiles that it masks, live tiles that it
misses, and pairs on which schedule and dense meaning differ. All but the first should be 0; the exit
status says whether they are.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from machine import circumstances

import attndsl
from attndsl import ir
from attndsl.schedule import Schedule
from attndsl.verification import Random, draw_inputs

# Values of the parameters that have no default, by name.
VALUES: dict[str, Any] = {
    "n": 4, "left": 90, "w": 200, "d": 8, "b": 32, "tokens": [0, 77, 500], "h": 11, "s": 40,
    "size": 13, "count": 3, "sy": 7, "st": 5, "axis": 1, "ends": [130, 512, 700],
}  # fmt: skip
LENGTHS = {
    1: [(777,), (1024,), (2500,)],
    2: [(19, 37), (32, 32), (48, 50)],
    3: [(5, 11, 13), (8, 16, 16)],
    4: [(5, 7, 5, 13), (4, 64, 4, 100)],
}
TILES = ((64, 64), (128, 128))
FAULTS = ("empty visited", "full masked", "live missed", "pairs wrong")


def instances() -> Iterator[attndsl.Pattern]:
    """Every pattern of the prelude."""
    for shown in attndsl.patterns.catalogue():
        needed = [p.name for p in shown.parameters if p.default is None]
        yield attndsl.compile(shown.name, **{name: VALUES[name] for name in needed})


def calls(pattern: attndsl.Pattern) -> Iterator[dict[str, Any]]:
    """Lengths and extents, as keywords."""
    spaces = (pattern.ir.queries, pattern.ir.keys)
    names = list(dict.fromkeys(name for space in spaces for name in axes_of(space)))
    for sizes in LENGTHS[max(1, len(names))]:
        extents = dict(zip(names, sizes, strict=False))
        q_len, k_len = (length_of(space, extents, sizes[0]) for space in spaces)
        yield {"q_len": q_len, "k_len": k_len, "extents": extents}


def axes_of(space: ir.Space) -> list[str]:
    return [f"{part.name}.{axis.name}" for part in space.segments for axis in part.axes]


def length_of(space: ir.Space, extents: dict[str, int], flat: int) -> int:
    parts = [[extents[name] for name in axes_of(ir.Space(segments=(s,)))] for s in space.segments]
    return sum(math.prod(part) for part in parts) if parts else flat


def count(schedule: Schedule, dense: Any) -> Counter[str]:
    """Compares the schedule with the dense mask, over batch and heads."""
    (bq, bk), (rows, columns) = schedule.tile, schedule.grid
    found: Counter[str] = Counter()
    for batch, head in np.ndindex(*dense.shape[:2]):
        plan, meant = schedule.plan(batch, head), dense[batch, head]
        live, total = (_per_tile(x, rows, bq, columns, bk) for x in (meant, np.ones_like(meant)))
        full, partial = (_marks(tiles, rows, columns) for tiles in (plan.full, plan.partial))
        found["live"] += int((live > 0).sum())
        found["empty visited"] += int(((full | partial) & (live == 0)).sum())
        found["full masked"] += int((partial & (live == total)).sum())
        found["live missed"] += int((~(full | partial) & (live > 0)).sum())
        found["pairs wrong"] += int((schedule.cover(batch, head) != meant).sum())
    return found


def _per_tile(pairs: Any, rows: int, bq: int, columns: int, bk: int) -> Any:
    padded = np.zeros((rows * bq, columns * bk), dtype=np.int64)
    padded[: pairs.shape[0], : pairs.shape[1]] = pairs
    return padded.reshape(rows, bq, columns, bk).sum(axis=(1, 3))


def _marks(tiles: Any, rows: int, columns: int) -> Any:
    marks = np.zeros((rows, columns), dtype=bool)
    marks[tiles.rows, tiles.indices] = True
    return marks


def measure(pattern: attndsl.Pattern, heads: int = 2) -> dict[str, Any]:
    """The counts of all calls and tiles of one pattern."""
    found: Counter[str] = Counter()
    for number, call in enumerate(calls(pattern)):
        sizes = ir.resolve_sizes(pattern.ir, **call)
        inputs = draw_inputs(pattern.ir, sizes, 1, heads, Random(number))
        dense = pattern.mask(**call, heads=heads, **inputs).numpy()
        for tile in TILES:
            found += count(pattern.schedule(**call, heads=heads, tile=tile, **inputs), dense)
            found["schedules"] += 1
    return {"pattern": pattern.name} | {
        name: found[name] for name in ("schedules", "live", *FAULTS)
    }


def main() -> None:
    """Count, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = [measure(pattern) for pattern in instances()]
    for row in rows:
        print(", ".join(f"{name} {value}" for name, value in row.items()))
    wrong = sum(row[fault] for row in rows for fault in FAULTS)
    live, schedules = (sum(row[name] for row in rows) for name in ("live", "schedules"))
    print(f"{len(rows)} patterns, {schedules} schedules, {live} live tiles, {wrong} faults")
    if given.json:
        report = circumstances() | {"tiles": TILES, "values": VALUES, "rows": rows}
        given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
