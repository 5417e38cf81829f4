"""Partitions of a grid: a query sees the keys of its own window, stripe, strip or residue class."""

from __future__ import annotations

from typing import Any

import numpy as np

from .registry import Oracle, lists, says
from .tokens import Tokens, all_of, among, same, spread, up

TWO_D = "y=6 x=8 window=2 | y=7 x=10 window=3 | y=1 x=9 window=4 heads=2 batch=2 | y=5 x=1 window=1"
SHIFTED = (
    "y=8 x=8 window=4 | y=8 x=8 window=4 layer=1 | y=9 x=7 window=3 layer=1"
    "| y=5 x=11 window=7 layer=3 heads=2 | y=1 x=6 window=2 layer=2"
)
RECTANGLES = (
    "y=8 x=8 height=2 width=4 heads=2 | y=8 x=8 height=2 width=4 heads=2 layer=1"
    "| y=7 x=9 height=2 width=6 heads=4 layer=1 | y=1 x=10 height=1 width=3 heads=2"
)
RESIDUES = "y=8 x=8 {0}=4 | y=7 x=9 {0}=2 | y=1 x=5 {0}=3"
BOXES = (
    "t=4 y=4 x=6 group_t=2 group_y=2 group_x=3 | t=3 y=5 x=4 group_t=2 group_y=2 group_x=2"
    "| t=1 y=6 x=7 group_t=2 group_y=3 group_x=3 heads=2"
)
DENSE = "y=3 x=4 m=5 | y=1 x=6 m=2 heads=2"
POOLED = "y x -> image: y x + pooled: py px"
SCALES = "text: s + high: y x + low: ly lx"


def square(q: Tokens, k: Tokens, window: int) -> Any:
    return same(q, k, "y x", window, window)


def swin(q: Tokens, k: Tokens, window: int, layer: int) -> Any:
    """Every other layer moves the borders by half a window; what is cut off at an edge stays apart."""
    shift = window // 2 if layer % 2 else 0
    return same(q, k, "y x", window, window, shifts=(shift, shift))


def turned(height: int, width: int, head: int, heads: int, layer: int) -> Any:
    """The sides of a head's rectangles, and how far its layer shifts them."""
    sizes = (height, width) if head < heads // 2 else (width, height)
    return sizes, tuple(size // 2 if layer % 2 else 0 for size in sizes)


def rgt(q: Tokens, k: Tokens, height: int, width: int, head: int, heads: int, layer: int) -> Any:
    sizes, shifts = turned(height, width, head, heads, layer)
    return same(q, k, "y x", *sizes, shifts=shifts)


def craft(
    q: Tokens, k: Tokens, y: int, x: int, height: int, width: int, head: int, heads: int, layer: int
) -> Any:
    """Rolled first, so that the windows wrap around the image."""
    sizes, shifts = turned(height, width, head, heads, layer)
    given = zip((y, x), sizes, shifts, strict=True)
    down, across = (np.roll(np.arange(n) // size, shift) for n, size, shift in given)
    return (down[q.y] == down[k.y]) & (across[q.x] == across[k.x])


def tiles(q: Tokens, k: Tokens, y: int, x: int, count: int) -> Any:
    """``count`` equal tiles an axis."""
    return (q.y * count // y == k.y * count // y) & (q.x * count // x == k.x * count // x)


def units(
    q: Tokens, k: Tokens, y: int, x: int, window_y: int, window_x: int, chosen_units: Any, head: int
) -> Any:
    down, across = up(y, window_y), up(x, window_x)
    mine, theirs = (
        (each.t * down + each.y // window_y) * across + each.x // window_x for each in (q, k)
    )
    return (mine == theirs) | among(chosen_units[head, mine], theirs)


def grids(
    q: Tokens, k: Tokens, axes: str, extents: tuple[int, ...], counts: tuple[int, ...]
) -> Any:
    """``counts`` tokens an axis, evenly spaced."""
    return spread(q, k, axes, *map(up, extents, counts))


def windows_or_pooled(q: Tokens, k: Tokens, window: int, high: bool) -> Any:
    """A head of the one kind sees its window of the image, a head of the other all pooled tokens."""
    return k.image & square(q, k, window) if high else k.pooled


def scale_dit(q: Tokens, k: Tokens, window: int, high_to_low: Any, low_to_low: Any) -> Any:
    """The role table; two of its cells depend on how many low-resolution tokens there are."""
    own = q.high & k.high & square(q, k, window)
    return q.text | k.text | own | q.high & k.low & high_to_low | q.low & k.low & low_to_low


def scale_dit_large(
    q: Tokens, k: Tokens, y: int, x: int, ly: int, lx: int, window: int, block: int
) -> Any:
    """A low token lies on the high grid where both grids cover the image."""
    down, across = k.ly * (y // ly) // window, k.lx * (x // lx) // window
    under = (q.y // window == down) & (q.x // window == across)
    mine, theirs = ((each.ly * lx + each.lx) // block for each in (q, k))
    return scale_dit(q, k, window, under, mine == theirs)


RULES: tuple[Oracle, ...] = (
    *(says(row, name, "y x", square, TWO_D, part=part) for row, name, part in (
        (7, "rat", "window"), (23, "lvit", ""), (24, "maformer", ""), (32, "gcvit", ""),
        (40, "complete_modelling", "local"), (43, "davit", ""), (45, "lola_specvit", ""),
        (63, "crossformer", "sda"))),
    *(says(row, name, "y x", swin, SHIFTED, part=part) for row, name, part in (
        (8, "hat", "window"), (29, "lamamba", ""), (34, "maniqa", ""))),
    *(says(row, name, "y x -> m", lambda q, k: True, DENSE, part="global", dense=True)
      for row, name in ((6, "rgt"), (24, "maformer"))),
    says(6, "rgt", "y x", rgt, RECTANGLES),
    says(9, "ultragen", "t y x", lambda q, k, y, x, even, odd, layer:
         tiles(q, k, y, x, odd if layer % 2 else even),
         "t=2 y=8 x=8 even=4 odd=5 | t=1 y=10 x=5 even=4 odd=5 layer=1"
         "| t=3 y=4 x=6 even=2 odd=3 layer=2 | t=2 y=1 x=7 even=2 odd=3 layer=1"),
    says(10, "simplegvr", "t y x", lambda q, k, unit, layer:
         same(q, k, "t", unit, shifts=(-(unit // 2) if layer % 2 else 0,)),
         "t=10 y=2 x=2 unit=5 | t=12 y=1 x=3 unit=5 layer=1 | t=1 y=2 x=2 unit=4 layer=1"
         "| t=9 y=2 x=1 unit=4 layer=3", part="interleave"),
    says(10, "simplegvr", "t y x", units,
         "t=2 y=4 x=6 window_y=2 window_x=3 units=8 slots=1 heads=2 batch=2"
         "| t=2 y=5 x=4 window_y=2 window_x=3 units=12 slots=2"
         "| t=5 y=1 x=3 window_y=3 window_x=2 units=10 slots=3",
         part="sparse_local", chosen_units=lists("batch heads units", "units", "slots")),
    says(13, "craft", "y x", craft, RECTANGLES),
    says(19, "sviptr", "y x", lambda q, k, stripe, head, heads:
         same(q, k, "x" if head < heads // 2 else "y", stripe),  # full-height stripes first
         "y=4 x=9 stripe=3 heads=2 | y=5 x=7 stripe=2 heads=4 | y=1 x=8 stripe=4 heads=2"),
    says(19, "sviptr", "y x -> py px", lambda q, k: True, "y=4 x=6 py=2 px=3 | y=3 x=5 py=1 px=2",
         part="global", dense=True),
    says(21, "maxvit", "y x", lambda q, k, block: square(q, k, window=block),
         "y=6 x=6 block=3 | y=7 x=9 block=4 | y=1 x=5 block=2", part="block"),
    says(21, "maxvit", "y x", lambda q, k, y, x, grid_size:
         grids(q, k, "y x", (y, x), (grid_size, grid_size)),
         "y=6 x=9 grid_size=3 | y=8 x=8 grid_size=2 | y=7 x=10 grid_size=3 | y=1 x=5 grid_size=2",
         part="grid"),
    says(27, "dformer", "t y x", lambda q, k, group_t, group_y, group_x:
         same(q, k, "t y x", group_t, group_y, group_x), BOXES, part="local"),
    says(27, "dformer", "t y x", lambda q, k, t, y, x, group_t, group_y, group_x:
         grids(q, k, "t y x", (t, y, x), (group_t, group_y, group_x)), BOXES, part="dilated"),
    says(38, "hilo", POOLED, lambda q, k, window, low, head, heads:
         windows_or_pooled(q, k, window, window > 1 and head < heads - heads * low // 100),
         "y=4 x=6 py=2 px=3 window=2 low=50 heads=4 | y=5 x=7 py=2 px=3 window=3 low=50 heads=3"
         "| y=1 x=6 py=1 px=2 window=3 low=90 heads=2 | y=3 x=2 py=3 px=2 window=1 low=50 heads=2",
         part="both"),
    says(40, "complete_modelling", "y x", lambda q, k, window: spread(q, k, "y x", window, window),
         RESIDUES.format("window"), part="between"),
    says(48, "attn_upsample", "y x -> cy cx", lambda q, k, window, scale:
         all_of(fine // (scale * window) == there // window for fine, there in ((q.y, k.cy), (q.x, k.cx))),
         "y=8 x=8 cy=4 cx=4 window=2 scale=2 | y=7 x=10 cy=4 cx=5 window=3 scale=2"
         "| y=1 x=12 cy=1 cx=4 window=2 scale=3"),
    says(57, "scale_dit", SCALES, lambda q, k, window: scale_dit(q, k, window, True, True),
         "s=2 y=4 x=6 ly=2 lx=3 window=2 | s=1 y=5 x=7 ly=3 lx=4 window=3"
         "| s=3 y=1 x=8 ly=1 lx=4 window=4 heads=2", part="small"),
    says(57, "scale_dit", SCALES, scale_dit_large,
         "s=2 y=8 x=8 ly=4 lx=4 window=4 block=4 | s=1 y=6 x=9 ly=2 lx=3 window=3 block=4"
         "| s=1 y=1 x=10 ly=1 lx=5 window=4 block=2", part="large"),
    says(59, "sgformer", POOLED, lambda q, k, window, head, heads:
         windows_or_pooled(q, k, window, head >= heads // 2),
         "y=8 x=9 py=2 px=2 window=7 heads=2 | y=5 x=6 py=2 px=3 window=3 heads=4"
         "| y=1 x=8 py=1 px=2 window=3 heads=2"),
    says(63, "crossformer", "y x", lambda q, k, interval: spread(q, k, "y x", interval, interval),
         RESIDUES.format("interval"), part="lda"),
    says(67, "vsa", "y x -> b s", lambda q, k, x, window:
         k.b == q.y // window * up(x, window) + q.x // window,
         "y=4 x=6 b=6 s=4 window=2 heads=2 | y=5 x=4 b=4 s=9 window=3 batch=2"
         "| y=1 x=7 b=3 s=1 window=3"),
    says(80, "lrgt", "v y x", lambda q, k, side: spread(q, k, "y x", side, side),
         "v=3 y=4 x=4 side=2 | v=2 y=5 x=7 side=3 | v=1 y=1 x=8 side=7 heads=2", part="grouped"),
    says(80, "lrgt", "v y x", lambda q, k: q.v == k.v, "v=3 y=4 x=4 | v=2 y=5 x=3", part="view"),
    says(106, "yolo12", "y x", lambda q, k, y, x, areas:
         q.at * areas // (y * x) == k.at * areas // (y * x),
         "y=8 x=4 areas=4 | y=5 x=7 areas=4 | y=6 x=3 areas=1 | y=6 x=5 areas=4 | y=1 x=9 areas=2"),
    says(110, "srformer", "y x -> fy fx", lambda q, k, window, shift:
         all_of((a - shift) // window == (2 * b - shift) // window for a, b in ((q.y, k.fy), (q.x, k.fx))),
         "y=8 x=8 fy=4 fx=4 window=4 shift=0 | y=8 x=8 fy=4 fx=4 window=4 shift=2"
         "| y=10 x=6 fy=5 fx=3 window=4 shift=2 | y=2 x=12 fy=1 fx=6 window=8 shift=4 heads=2"),
)  # fmt: skip
