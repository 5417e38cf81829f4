"""Cost of compiling every pattern of the prelude, with the search for a token order.

    python benchmarks/searches.py [--json searches.json]

Processor time in a process that has compiled something before: text to schedule, with layout="auto" and
tiles of 128 x 128, about 65,536 and 1,048,576 tokens, nothing kept from before. The shortest of two rounds.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from exactness import VALUES, axes_of, length_of
from machine import circumstances

import attndsl
from attndsl import ir
from attndsl.verification import Random, draw_inputs

EXTENTS = {
    65_536: {1: (65_536,), 2: (256, 256), 3: (16, 64, 64), 4: (16, 64, 16, 4096)},
    1_048_576: {1: (1_048_576,), 2: (1024, 1024), 3: (64, 128, 128), 4: (16, 256, 16, 65_536)},
}
ROUNDS = 2


def measure(name: str, values: dict[str, Any], tokens: int) -> dict[str, Any]:
    """One pattern at one length."""
    mask = attndsl.compile(name, **values).ir
    names = list(
        dict.fromkeys(axis for space in (mask.queries, mask.keys) for axis in axes_of(space))
    )
    sizes = EXTENTS[tokens][max(1, len(names))]
    extents = dict(zip(names, sizes, strict=False))
    q_len, k_len = (length_of(space, extents, sizes[0]) for space in (mask.queries, mask.keys))
    inputs = draw_inputs(mask, ir.resolve_sizes(mask, q_len, k_len, extents), 1, 1, Random(0))
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        pattern = attndsl.compile(name, **values)
        compiled = time.process_time()
        pattern.parts(q_len, k_len, extents=extents, **inputs)
        times.append((time.process_time() - start, compiled - start))
    total, compiling = min(times)
    return {
        "pattern": name,
        "queries": q_len,
        "keys": k_len,
        "compile ms": round(1e3 * compiling, 1),
        "all ms": round(1e3 * total, 1),
    }


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for tokens in EXTENTS:
        for shown in attndsl.patterns.catalogue():
            needed = [p.name for p in shown.parameters if p.default is None]
            rows.append(measure(shown.name, {key: VALUES[key] for key in needed}, tokens))
            print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    if given.json:
        report = circumstances() | {"tile": [128, 128], "rows": rows}
        given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
