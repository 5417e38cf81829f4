"""Predicted against measured time of the CPU backend, and what layout="auto" makes of it: a table, and JSON.

    python benchmarks/prediction.py [--rounds 3] [--json benchmarks/results/prediction.json]

Each pattern runs in natural order, with "auto", and in the orders named beside it; 4 heads of 64, float32,
forward and backward. Times are processor seconds on one thread, the shortest of some rounds that take
turns; equal orders are one run. Two questions: do the predictions rank the runs as the clock does (Spearman's
coefficient), and is the order that "auto" takes within a tenth of the best of those tried?
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import circumstances

import attndsl
from attndsl.backends import REFERENCE, Machine, this_machine

HEADS, WIDTH, NEAR = 4, 64, 1.1
SQUARE, LARGE, ODD = {"y": 64, "x": 64}, {"y": 96, "x": 96}, {"y": 56, "x": 56}
VIDEO = {"t": 8, "y": 24, "x": 24}


@dataclass(frozen=True)
class Case:
    """A pattern in one call, and orders of tokens to try beside "natural" and "auto"."""

    text: str
    tokens: int
    orders: tuple[str, ...] = ()
    extents: dict[str, int] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)

    @property
    def layouts(self) -> tuple[str, ...]:
        """All orders that run."""
        return ("natural", "auto", *self.orders)


def documents(length: int, count: int, ordered: bool) -> dict[str, Any]:
    """An input ``doc``: packed one after the other, or in disorder."""
    ids = np.random.default_rng(0).integers(0, count, length)
    return {"doc": torch.from_numpy(np.sort(ids) if ordered else ids)[None]}


CASES = (
    Case("full", 2048, ("residues(8)",)),
    Case("causal", 4096, ("residues(8)",)),
    Case("prefix(512)", 4096, ("residues(4)",)),
    Case("window(64)", 8192, ("residues(2)",)),
    Case("window(256)", 4096, ("residues(2)",)),
    Case("causal_window(512)", 8192, ("residues(2)",)),
    Case("causal_window(100)", 6000, ("residues(2)",)),
    Case("wrapped_window(200)", 4096, ("residues(2)",)),
    Case("dilated(64, 2)", 4096, ("residues(2)", "residues(4)")),
    Case("dilated(64, 8)", 8192, ("residues(8)", "residues(4)", "residues(16)")),
    Case("dilated(32, 16)", 8192, ("residues(16)", "residues(8)")),
    Case("causal_dilated(128, 4)", 8192, ("residues(4)", "residues(2)")),
    Case("power_of_two", 4096, ("residues(2)",)),
    Case("streaming(256, 4)", 8192, ("residues(2)",)),
    Case("longformer(128, 8)", 8192, ("residues(2)",)),
    Case("longformer(256, 64)", 4096, ("residues(2)",)),
    Case("block(100)", 8000, ("residues(2)",)),
    Case("block_causal(64)", 4096, ("residues(2)",)),
    Case("lookback(128, 1)", 8192, ("residues(2)",)),
    Case("halo(64, 32)", 8192, ("residues(2)",)),
    Case("residues(8)", 4096, ("residues(8)", "residues(4)")),
    Case("residues(50)", 3000, ("residues(50)", "residues(25)")),
    Case("strided(64)", 4096, ("residues(8)",)),
    Case("strided(128)", 8192),
    Case("strided_by_head(64)", 4096),
    Case("fixed(64, 4)", 4096),
    Case("causal and (q - k < 128 or k % 128 == 127)", 8192),
    Case("bigbird(64, 1, 3)", 8192),
    Case("random_blocks(64, 8)", 4096),
    Case("neighborhood2d(7)", 4096, ("boxes(y=8, x=8)", "boxes(y=4, x=16)", "morton(y, x)"), SQUARE),
    Case("neighborhood2d(13)", 9216, ("boxes(y=8, x=8)", "boxes(y=4, x=16)", "morton(y, x)"), LARGE),
    Case("neighborhood2d(21)", 9216, ("boxes(y=8, x=8)", "boxes(y=16, x=4)", "morton(y, x)"), LARGE),
    Case("box2d(5, 5, 4)", 4096, ("residues(y=4, x=4)", "boxes(y=8, x=8)"), SQUARE),
    Case("swin(8)", 9216, ("boxes(y=8, x=8)", "morton(y, x)"), LARGE),
    Case("swin(7, 3)", 3136, ("boxes(y=7, x=7)", "morton(y, x)"), ODD),
    Case("maxvit_grid(8)", 4096, ("residues(y=8, x=8)",), SQUARE),
    Case("axial2d(0)", 4096, ("axes(x, y)", "morton(y, x)"), SQUARE),
    Case("axial2d(1)", 4096, ("axes(x, y)",), SQUARE),
    Case("cross2d", 4096, ("axes(x, y)", "boxes(y=8, x=8)"), SQUARE),
    Case("halo2d(8, 3)", 4096, ("boxes(y=8, x=8)", "morton(y, x)"), SQUARE),
    Case("box3d(3, 5, 5)", 4608, ("boxes(t=2, y=4, x=8)", "boxes(t=4, y=4, x=4)"), VIDEO),
    Case("neighborhood3d(4, 9, 9)", 4608, ("boxes(t=2, y=4, x=8)", "boxes(t=4, y=4, x=4)"), VIDEO),
    Case("axial3d(0)", 4608, ("axes(y, x, t)",), VIDEO),
    Case("frame_causal", 4608, ("axes(y, x, t)",), VIDEO),
    Case("documents_causal", 8192, ("sorted(doc)",), {}, documents(8192, 16, ordered=True)),
    Case("documents", 4096, ("sorted(doc)",), {}, documents(4096, 16, ordered=False)),
)  # fmt: skip


def compiled(case: Case) -> attndsl.Pattern:
    """The pattern, over the grid that its name asks for."""
    grids = {frozenset("yx"): " over image", frozenset("tyx"): " over volume"}
    return attndsl.compile(f"pattern p{grids.get(frozenset(case.extents), '')} = {case.text}")


def contestants(case: Case, machine: Machine) -> list[dict[str, Any]]:
    """A row for each order: what is predicted, and what to run."""
    pattern = compiled(case)
    *leaves, dout = (torch.randn(1, HEADS, case.tokens, WIDTH) for _ in range(4))
    tracked = [x.clone().requires_grad_() for x in leaves]
    rows: list[dict[str, Any]] = []
    for layout in case.layouts:
        options = {"layout": layout, "extents": case.extents or None, **case.inputs}
        size = {"heads": HEADS, "head_dim": WIDTH}
        out = pattern(*tracked, **options)
        rows.append(
            {
                "pattern": case.text,
                "tokens": case.tokens,
                "layout": layout,
                "orders": orders(pattern, case, layout),
                "predicted": pattern.predict(case.tokens, **size, **options, machine=machine),
                "by reference": pattern.predict(case.tokens, **size, **options, machine=REFERENCE),
                "forward": lambda options=options: pattern(*leaves, **options),
                "backward": lambda out=out: torch.autograd.grad(
                    out, tracked, dout, retain_graph=True
                ),
            }
        )
    return rows


def orders(pattern: attndsl.Pattern, case: Case, layout: str) -> list[Any]:
    """Everything that tells two orders of tokens apart."""
    schedules = pattern.running(
        case.tokens, heads=HEADS, head_dim=WIDTH, layout=layout, extents=case.extents, **case.inputs
    )
    plans = [plan for each in schedules for plan in each.plans]
    sides = [order for plan in plans for order in (plan.q_order, plan.k_order)]
    return [plan.live for plan in plans] + [order and order.rows.tolist() for order in sides]


def measured(rows: list[dict[str, Any]], rounds: int) -> list[dict[str, Any]]:
    """The rows with times in ms: the shortest round of each."""
    distinct: list[dict[str, Any]] = []  # equal orders are one run
    for row in rows:
        same = [each for each in distinct if each["orders"] == row["orders"]]
        row["time"] = (
            same[0]["time"] if same else {"forward": float("inf"), "backward": float("inf")}
        )
        distinct += [] if same else [row]
    for turn in range(rounds):
        for row in distinct if turn % 2 else distinct[::-1]:
            for way, known in row["time"].items():
                row[way]()  # the first finds the memory as another run has left it
                row["time"][way] = min(known, milliseconds(row[way]))
    return [
        {name: row[name] for name in ("pattern", "tokens", "layout")}
        | {
            name: {"forward": 1e3 * row[name].forward, "backward": 1e3 * row[name].backward}
            for name in ("predicted", "by reference")
        }
        | {"measured": row["time"]}
        for row in rows
    ]


def milliseconds(run: Callable[[], Any]) -> float:
    """Processor time of one run."""
    start = time.process_time()
    run()
    return 1e3 * (time.process_time() - start)


def spearman(one: list[float], other: list[float]) -> float:
    """The correlation of ranks."""
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def ranking(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """How well each kind of prediction ranks all runs, and those in natural order alone."""
    found = {}
    natural = [row for row in rows if row["layout"] == "natural"]
    for kind in ("predicted", "by reference"):
        for direction in ("forward", "backward"):
            clock = [row["measured"][direction] for row in rows]
            told = [row[kind][direction] for row in rows]
            off = [abs(a / b - 1) for a, b in zip(told, clock, strict=True)]
            found[f"{kind}, {direction}"] = {
                "rank correlation, all runs": round(spearman(told, clock), 4),
                "rank correlation, natural order": round(
                    spearman(
                        [row[kind][direction] for row in natural],
                        [row["measured"][direction] for row in natural],
                    ),
                    4,
                ),
                "median error": round(statistics.median(off), 3),
                "largest error": round(max(off), 3),
            }
    return found


def choices(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each pattern, the time with "auto" over that of the best order tried, forward and backward."""
    made = []
    for case in CASES:
        runs = {
            row["layout"]: sum(row["measured"].values())
            for row in rows
            if (row["pattern"], row["tokens"]) == (case.text, case.tokens)
        }
        best = min(runs, key=lambda layout: runs[layout])
        made.append(
            {"pattern": case.text, "best": best, "auto / best": round(runs["auto"] / runs[best], 3)}
        )
    return made


def show(row: dict[str, Any]) -> str:
    """A line of the table."""
    cells = [
        f"{row['measured'][way]:8.1f} {row['predicted'][way]:8.1f}"
        for way in ("forward", "backward")
    ]
    return f"{row['pattern'][:44]:44} {row['tokens']:5} {row['layout']:24} {'   '.join(cells)}"


def main() -> None:
    """Predict, measure, compare, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="patterns whose text has this in it")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    machine = this_machine()
    taken = time.process_time() - start
    print(f"{'':75} forward: ms, predicted; backward")
    rows = []
    for case in CASES:
        if given.only in case.text:
            for row in measured(contestants(case, machine), given.rounds):
                rows.append(row)
                print(show(row), flush=True)
    summary = {
        "calibration, seconds": round(taken, 2),
        "ranking": ranking(rows) if len(rows) > 9 else {},
    }
    if not given.only:
        made = choices(rows)
        near = [each for each in made if each["auto / best"] <= NEAR]
        far = [each for each in made if each["auto / best"] > NEAR]
        summary |= {
            "patterns": len(made),
            "auto within a tenth of the best": len(near) / len(made),
            "not so": far,
        }
    print(json.dumps(summary, indent=2))
    if given.json:
        report = circumstances() | {"heads": HEADS, "width": WIDTH} | summary
        report |= {"factors, ns": machine.record(), "runs": rows}
        given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
