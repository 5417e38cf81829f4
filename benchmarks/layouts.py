"""Benefit of token orders: live tiles, and the CPU backend's time. Prints a table and JSON.

    python benchmarks/layouts.py [--json layouts.json] [--flex]

Tiles are those of 128 x 128 in natural order and with layout="auto", which may split a pattern in parts.
Times are processor seconds on one thread, the shortest of some rounds that take turns: forward and
backward of 4 heads of 64, float32, in natural order and with "auto". With --flex also the compiled
flex_attention of the same mask, for the cases that state it; its CPU form has no backward.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from machine import circumstances

import attndsl

HEADS, WIDTH, TILE, ROUNDS = 4, 64, (128, 128), 2
SQUARE = {"y": 128, "x": 128}
SUMMARIES = "pattern p = causal and (q - k < 128 or k % 128 == 127)"
VIDEO = """\
grid video(t, y, x)
pattern window3d over video =
    clamped(q.t, k.t, len(t), 18) and clamped(q.y, k.y, len(y), 24) and clamped(q.x, k.x, len(x), 24)
"""


Mod: TypeAlias = Callable[[Any, Any, Any, Any], Any]


def _dilated(d: int) -> Mod:
    return lambda b, h, i, j: ((i - j).abs() <= 64 * d) & ((i - j) % d == 0)


def _maxvit(b: Any, h: Any, i: Any, j: Any) -> Any:
    return (i // 128 % 16 == j // 128 % 16) & (i % 16 == j % 16)


def _summaries(b: Any, h: Any, i: Any, j: Any) -> Any:
    return (i >= j) & ((i - j < 128) | (j % 128 == 127))


def _strided(b: Any, h: Any, i: Any, j: Any) -> Any:
    return (i >= j) & ((i - j < 128) | ((i - j) % 128 == 0))


@dataclass(frozen=True)
class Case:
    """A pattern at a length; ``timed`` if the backend is to run it, ``mod`` the same for flex_attention."""

    name: str
    text: str
    tokens: int
    extents: dict[str, int] = field(default_factory=dict)
    timed: bool = True
    mod: Mod | None = None

    def parts(self, pattern: attndsl.Pattern, layout: str) -> Any:
        """The schedules of a call."""
        return pattern.parts(self.tokens, tile=TILE, layout=layout, extents=self.extents or None)


CASES = (
    Case("dilated, 64 steps of 8 to either side", "pattern p = dilated(64, 8)", 8192, mod=_dilated(8)),
    Case("dilated, 64 steps of 16 to either side", "pattern p = dilated(64, 16)", 8192, mod=_dilated(16)),
    Case("MaxViT grid 8 x 8 over 128 x 128", "pattern p over image = maxvit_grid(8)", 16_384, SQUARE, mod=_maxvit),
    Case("Swin 8 x 8 over 128 x 128", "pattern p over image = swin(8)", 16_384, SQUARE),
    Case("columns of 128 x 128", "pattern p over image = axial2d(0)", 16_384, SQUARE, timed=False),
    Case("neighbourhood 13 x 13 over 128 x 128", "pattern p over image = neighborhood2d(13)", 16_384, SQUARE),
    Case("neighbourhood 7 x 7 over 128 x 128", "pattern p over image = neighborhood2d(7)", 16_384, SQUARE),
    Case("window 18 x 24 x 24 over 30 x 48 x 80", VIDEO, 115_200, {"t": 30, "y": 48, "x": 80}, timed=False),
    Case("window 128 or every 128th key, causal", SUMMARIES, 16_384, mod=_summaries),
    Case("the same", SUMMARIES, 65_536, timed=False),
    Case("window 128 or every 128th key back, causal", "pattern p = strided(128)", 16_384, mod=_strided),
    Case("the same back", "pattern p = strided(128)", 65_536, timed=False),
    Case("causal window of 512", "pattern p = causal_window(512)", 8192),
)  # fmt: skip


def counted(case: Case) -> dict[str, Any]:
    """Tiles before and after, and what the search took."""
    pattern = attndsl.compile(case.text)
    (natural,) = case.parts(pattern, "natural")
    start = time.process_time()
    parts = case.parts(pattern, "auto")
    taken = time.process_time() - start
    plans = [part.plan() for part in parts]
    return {
        "pattern": case.name,
        "tokens": case.tokens,
        "natural tiles": natural.plan().live,
        "auto tiles": sum(plan.live for plan in plans),
        "auto full": sum(plan.full.nnz for plan in plans),
        "orders": [
            [order.name if order else "natural" for order in (plan.q_order, plan.k_order)]
            for plan in plans
        ],
        "search, processor ms": round(1e3 * taken),
    }


def race(runs: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The shortest processor time of each, in ms, taking turns."""
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(ROUNDS + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if turn:  # the first one warms up
                best[name] = min(best[name], 1e3 * (time.process_time() - start))
    return best


def timed(case: Case, with_flex: bool) -> dict[str, Any]:
    """Forward and backward in both orders."""
    pattern = attndsl.compile(case.text)
    *leaves, dout = (torch.randn(1, HEADS, case.tokens, WIDTH) for _ in range(4))
    tracked = [x.clone().requires_grad_() for x in leaves]
    forward: dict[str, Callable[[], Any]] = {}
    backward: dict[str, Callable[[], Any]] = {}
    for layout in ("natural", "auto"):
        options: dict[str, Any] = {"layout": layout, "extents": case.extents or None}
        out = pattern(*tracked, **options)
        forward[layout] = lambda options=options: pattern(*leaves, **options)
        backward[layout] = lambda out=out: torch.autograd.grad(
            out, tracked, dout, retain_graph=True
        )
    if with_flex and case.mod is not None:
        forward["flex"] = flex(case.mod, leaves)
    ways, back = race(forward), race(backward)
    row: dict[str, Any] = {"pattern": case.name, "tokens": case.tokens}
    row["forward ms"] = {name: round(value, 1) for name, value in ways.items()}
    row["backward ms"] = {name: round(value, 1) for name, value in back.items()}
    row["forward, natural / auto"] = round(ways["natural"] / ways["auto"], 2)
    row["backward, natural / auto"] = round(back["natural"] / back["auto"], 2)
    if "flex" in ways:
        row["forward, flex / auto"] = round(ways["flex"] / ways["auto"], 2)
    return row


def flex(mod: Mod, leaves: list[torch.Tensor]) -> Callable[[], torch.Tensor]:
    """Compiled flex_attention, its blocks found beforehand."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    tokens = leaves[0].shape[2]
    blocks = create_block_mask(mod, None, None, tokens, tokens, device="cpu")
    run = torch.compile(flex_attention, dynamic=False)
    return torch.no_grad()(lambda: run(*leaves, block_mask=blocks))


def main() -> None:
    """Count, measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--flex", action="store_true", help="it needs a C++ compiler")
    given = parser.parse_args()
    torch.set_num_threads(1)
    tiles = [counted(case) for case in CASES]
    for row in tiles:
        print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    times = []
    for case in CASES:
        if case.timed:
            times.append(timed(case, given.flex))
            print(", ".join(f"{name} {value}" for name, value in times[-1].items()), flush=True)
    if given.json:
        report = circumstances() | {"heads": HEADS, "width": WIDTH, "tiles": tiles, "times": times}
        given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
