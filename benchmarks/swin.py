"""Attention of a Swin block, shifted windows and a trained table, beside the published form in plain torch.

    python benchmarks/swin.py [--json swin.json]

Times are processor seconds on one thread, the shortest of some rounds that take turns: batch 8, float32, windows of
7 by 7 shifted by 3, the first three stages of Swin-T. Forward and backward, with the gradients of queries, keys, values
and table. The published form (Liu et al., 2021, released code) rolls the image, reshapes it to windows, adds the table
by an index that is made once, and goes back; its products are those of torch.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from machine import circumstances
from scores import race
from torch import Tensor

import attndsl

BATCH, WIDTH, WINDOW = 8, 32, 7
STAGES = {56: 3, 28: 6, 14: 12}  # heads by the side of the image; the last stage is one window


def places(side: int, shift: int) -> tuple[Tensor, Tensor]:
    """The entry of the table for each pair of a window, and what is added to each pair of each window."""
    at = torch.arange(WINDOW)
    y, x = (z.flatten() for z in torch.meshgrid(at, at, indexing="ij"))
    entry = (y[:, None] - y + WINDOW - 1) * (2 * WINDOW - 1) + x[:, None] - x + WINDOW - 1
    bands = torch.zeros(side, dtype=torch.int64)
    bands[-WINDOW:-shift], bands[-shift:] = 1, 2
    region = windows((3 * bands[:, None] + bands).reshape(1, 1, side * side, 1), side, 0)[..., 0]
    apart = region[:, 0, :, None] != region[:, 0, None, :]
    return entry, torch.zeros(apart.shape).masked_fill(apart, -100.0)


def windows(x: Tensor, side: int, shift: int) -> Tensor:
    """[B, H, side * side, D] rolled back by the shift, as [B * windows, H, WINDOW ** 2, D]."""
    batch, heads, _, width = x.shape
    image = x.view(batch, heads, side, side, width).roll((-shift, -shift), (2, 3))
    n = side // WINDOW
    parts = image.view(batch, heads, n, WINDOW, n, WINDOW, width).permute(0, 2, 4, 1, 3, 5, 6)
    return parts.reshape(batch * n * n, heads, WINDOW * WINDOW, width)


def joined(x: Tensor, side: int, shift: int) -> Tensor:
    """The way back from windows."""
    n, (_, heads, _, width) = side // WINDOW, x.shape
    parts = x.view(-1, n, n, heads, WINDOW, WINDOW, width).permute(0, 3, 1, 4, 2, 5, 6)
    image = parts.reshape(-1, heads, side, side, width).roll((shift, shift), (2, 3))
    return image.reshape(-1, heads, side * side, width)


def published(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    side: int,
    shift: int,
    entry: Tensor,
    apart: Tensor,
) -> Tensor:
    """Window attention as released."""
    q, k, v = (windows(x, side, shift) for x in (q, k, v))
    scores = q * WIDTH**-0.5 @ k.mT + table[:, entry]
    count, heads, area, _ = scores.shape
    by_image = scores.view(-1, len(apart), heads, area, area) + apart[:, None]
    return joined(by_image.view(count, heads, area, area).softmax(-1) @ v, side, shift)


def measured() -> list[dict[str, Any]]:
    """Each stage: milliseconds of both, and how far apart their results are."""
    rows, shift = [], WINDOW // 2
    ours = attndsl.compile("swin_v1", m=WINDOW, r=shift)
    for side, heads in STAGES.items():
        *leaves, dout = (torch.randn(BATCH, heads, side * side, WIDTH) for _ in range(4))
        table = 0.02 * torch.randn(heads, (2 * WINDOW - 1) ** 2)
        given = [x.requires_grad_() for x in (*leaves, table)]
        entry, apart = places(side, shift)
        call = ours.bind(side * side, heads=heads, batch=BATCH, extents={"y": side, "x": side})

        def mine(given: Any = given, call: Any = call) -> Tensor:
            out: Tensor = call(*given[:3], table=given[3])
            return out

        def theirs(
            given: Any = given, side: int = side, e: Tensor = entry, a: Tensor = apart
        ) -> Tensor:
            return published(*given, side, shift, e, a)

        def step(run: Any, given: Any = given, dout: Tensor = dout) -> list[Tensor]:
            out = run()
            return [out, *torch.autograd.grad(out, given, dout)]

        apart_by = max(
            float((x - y).detach().abs().max() / y.detach().abs().max())
            for x, y in zip(step(mine), step(theirs), strict=True)
        )
        found = race(
            {"ours": lambda s=step, r=mine: s(r), "published": lambda s=step, r=theirs: s(r)}
        )
        row = {"side": side, "heads": heads, "largest relative difference": apart_by}
        row |= {f"{name} ms": round(1000 * x, 1) for name, x in found.items()}
        row["published / ours"] = round(found["published"] / found["ours"], 2)
        print(", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    report = circumstances() | {"batch": BATCH, "width": WIDTH, "window": WINDOW}
    report["rows"] = measured()
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
