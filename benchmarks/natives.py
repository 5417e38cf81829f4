"""Race of patterns against their published forms in plain torch: a table, and JSON.

    python benchmarks/natives.py [--json benchmarks/results/natives.json] [--quick] [--only PART]

A row is a pattern at a size, in a dtype, on one thread or two, forward or forward and backward. Both contestants are
first held against each other, values and gradients: where they differ, the row is refused. Then they take turns, who
begins changes, and the medians are compared: processor time on one thread, elapsed time on two. Masks and indices,
which a module keeps, are made outside of the time; ours is called plainly, not bound. The whole takes about ten
minutes; --quick takes a size a row, one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import torch
from machine import circumstances
from native_forms import Size
from native_rows import NATIVES, Native
from torch import Tensor

Step: TypeAlias = Callable[[], list[Tensor]]

SECONDS, FEWEST, MOST = 0.3, 5, 41  # of the rounds of a race: time for them, fewest, most
# Largest difference of the two, as a share of the largest number: several roundings of the dtype.
NEAR = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
CLOCKS = {1: time.process_time, 2: time.perf_counter}


def steps(native: Native, size: Size, dtype: torch.dtype) -> dict[str, dict[str, Step]]:
    """Forward, and forward and backward, of ours and of the published form, over the same tensors."""
    *leaves, dout = size.tensors(dtype)
    tracked = [x.clone().requires_grad_() for x in leaves]
    found: dict[str, dict[str, Step]] = {"forward": {}, "forward + backward": {}}
    for name, run in (("ours", native.ours(size)), ("published", native.published(size))):

        def forward(run: Callable[..., Tensor] = run) -> list[Tensor]:
            with torch.no_grad():
                return [run(*leaves)]

        def both(run: Callable[..., Tensor] = run) -> list[Tensor]:
            out = run(*tracked)
            return [out.detach(), *torch.autograd.grad(out, tracked, dout)]

        found["forward"][name] = forward
        if native.backward:
            found["forward + backward"][name] = both
    return {which: runs for which, runs in found.items() if runs}


def fault(runs: dict[str, Step], dtype: torch.dtype) -> str:
    """Where the two differ, or nothing."""
    gaps = [
        float((x.float() - y.float()).abs().max() / y.float().abs().max())
        for x, y in zip(runs["ours"](), runs["published"](), strict=True)
    ]
    bad = [gap for gap in gaps if not gap < NEAR[dtype]]
    return f"they differ by {max(bad):.1e}" if bad else ""


def race(runs: dict[str, Step], threads: int) -> dict[str, float]:
    """The median milliseconds of each; they take turns, who begins changes."""
    clock, order = CLOCKS[threads], list(runs)
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + SECONDS
    for turn in range(MOST):
        if turn >= FEWEST and time.perf_counter() > end:
            break
        for name in order if turn % 2 else reversed(order):
            begin = clock()
            runs[name]()
            times[name].append(1e3 * (clock() - begin))
    return {name: statistics.median(found) for name, found in times.items()}


def measured(native: Native, quick: bool) -> Iterator[dict[str, Any]]:
    """A row for each size, dtype, number of threads and direction."""
    for size in native.sizes[: 1 if quick else None]:
        for dtype in (torch.float32, torch.bfloat16):
            for which, runs in steps(native, size, dtype).items():
                row = {
                    "native": native.name,
                    "size": str(size),
                    "dtype": str(dtype)[6:],
                    "pass": which,
                }
                if found := fault(runs, dtype):
                    yield row | {"fault": found}
                    continue
                for threads in (1,) if quick else (1, 2):
                    torch.set_num_threads(threads)
                    times = race(runs, threads)
                    yield row | {
                        "threads": threads,
                        "ours ms": round(times["ours"], 3),
                        "published ms": round(times["published"], 3),
                        "published / ours": round(times["published"] / times["ours"], 3),
                    }


def summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Geometric mean of each direction, the least ratio, and how many are lost."""
    found = {}
    for which in dict.fromkeys(row["pass"] for row in rows):
        ratios = [
            row["published / ours"] for row in rows if row["pass"] == which and "fault" not in row
        ]
        if ratios:
            found[which] = {
                "rows": len(ratios),
                "geometric mean": round(math.exp(statistics.fmean(map(math.log, ratios))), 3),
                "least": min(ratios),
                "below 0.95": sum(ratio < 0.95 for ratio in ratios),
            }
    return found


def main() -> None:
    """Measure, print, save after each pattern."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="one size, one thread")
    parser.add_argument("--only", default="", help="part of the names of rows")
    given = parser.parse_args()
    torch.manual_seed(0)
    report, rows = circumstances(), []
    for native in NATIVES:
        if given.only not in native.name:
            continue
        for row in measured(native, given.quick):
            rows.append(row)
            print(", ".join(f"{value}" for value in row.values()), flush=True)
        if given.json:
            whole = report | {"threads": 2, "summary": summary(rows), "rows": rows}
            given.json.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(summary(rows), indent=1))


if __name__ == "__main__":
    main()
