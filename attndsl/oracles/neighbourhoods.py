"""Keys around a query: clipped, clamped, dilated, strided or grown from a block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .registry import Oracle, ids, says
from .tokens import Tokens, all_of, near, outside, up

PIXELS_AND_POOLED = "y x -> image: y x + pooled: py px"


def natten(
    i: Any, j: Any, n: int, window: int, dilation: int = 1, stride: int = 1, causal: bool = False
) -> Any:
    """Generalized neighbourhood attention on one axis, as published."""
    alike = i % dilation == j % dilation
    last = (n - 1 - i % dilation) // dilation  # of the positions with this residue
    i, j = i // dilation, j // dilation
    if causal:
        leader = np.minimum(i // stride * stride + stride - 1, last)
        return alike & (j <= i) & (leader - j < window)
    left, right = window // 2, window // 2 + window % 2 - 1
    leader = np.minimum(i // stride * stride + stride // 2, last)
    centre = np.maximum(left, np.minimum(leader, last - right))
    return alike & (centre - left <= j) & (j <= centre + right)


def neighbourhood(
    q: Tokens, k: Tokens, axes: str, extents: Sequence[int], *each_axis: Sequence[Any]
) -> Any:
    given = zip(axes.split(), extents, *each_axis, strict=True)
    return all_of(natten(getattr(q, a), getattr(k, a), n, *more) for a, n, *more in given)


def dilated(q: Tokens, k: Tokens, y: int, x: int, window: int, dilation: int = 1) -> Any:
    return neighbourhood(q, k, "y x", (y, x), (window, window), (dilation, dilation))


def a2mamba(q: Tokens, k: Tokens, y: int, x: int, window: int, head: int, heads: int) -> Any:
    steps = [min(n // window, window) if head >= heads // 2 else 1 for n in (y, x)]
    return neighbourhood(q, k, "y x", (y, x), (window, window), steps)


def taps(at: Any, size: int, dilation: int) -> Any:
    """Where a kernel of ``size`` reads around a position, last axis."""
    return at[..., None] + dilation * (np.arange(size) - (size - 1) // 2)


def tic(q: Tokens, k: Tokens, height: int, width: int, dilation: int) -> Any:
    down, across = taps(q.y, height, dilation), taps(q.x, width, dilation)
    return (down == k.y[..., None]).any(-1) & (across == k.x[..., None]).any(-1)


def grown(at: Any, block: int, halo: int) -> Any:
    """The places of a position's block and a halo, last axis."""
    return (at // block * block - halo)[..., None] + np.arange(block + 2 * halo)


def in_halo(q: Any, k: Tokens, block: int, halo: int) -> Any:
    return all_of(
        (-halo <= b - block * (a // block)) & (b - block * (a // block) < block + halo)
        for a, b in ((q.y, k.y), (q.x, k.x))
    )


def halo_outside(q: Any, k: Tokens, y: int, x: int, block: int, halo: int) -> Any:
    return outside((grown(q.y, block, halo), y), (grown(q.x, block, halo), x))


class Strided:
    """The pixels that queries of a grid of every ``stride``-th pixel stand on."""

    def __init__(self, q: Tokens, stride: int) -> None:
        self.y, self.x = q.qy * stride, q.qx * stride


def evenhancer(
    q: Tokens, k: Tokens, t: int, offset: int, radius: int, near_t: Any, near_y: Any, near_x: Any
) -> Any:
    in_frame = k.t == np.clip(near_t[q.n] + offset, 0, t - 1)
    return in_frame & (abs(k.y - near_y[q.n]) <= radius) & (abs(k.x - near_x[q.n]) <= radius)


def evenhancer_outside(
    q: Tokens, k: Tokens, y: int, x: int, radius: int, near_y: Any, near_x: Any
) -> Any:
    side = 2 * radius + 1
    return outside((taps(near_y[q.n], side, 1), y), (taps(near_x[q.n], side, 1), x))


def around_the_cell(pixel: Tokens, cell: Tokens, cell_y: int, cell_x: int) -> Any:
    """The super token is the pixel's own or one of the eight around it."""
    return (abs(pixel.y // cell_y - cell.cy) <= 1) & (abs(pixel.x // cell_x - cell.cx) <= 1)


def cells_outside(q: Tokens, k: Tokens, cy: int, cx: int, cell_y: int, cell_x: int) -> Any:
    return outside((taps(q.y // cell_y, 3, 1), cy), (taps(q.x // cell_x, 3, 1), cx))


def hicom(q: Tokens, k: Tokens, **extents: int) -> Any:
    """Cells of one size, dealt out in turn; one that gets a position less begins one early."""

    def of(cells: int, n: int) -> Any:
        size, whole = up(n, cells), n % cells or cells  # cells that get as many as their size
        got = np.array([size if cell < whole else size - 1 for cell in range(cells)])
        return np.cumsum(got) - size, size

    def inside(axis: str) -> Any:
        first, size = of(extents[f"c{axis}"], extents[axis])
        cell, at = getattr(q, f"c{axis}"), getattr(k, axis)
        return (first[cell] <= at) & (at < first[cell] + size)

    return inside("t") & inside("y") & inside("x")


def context_window(q: Tokens, k: Tokens, window: int, ratio: int) -> Any:
    """Twice the distance from the common centre is below the context's width."""
    return all_of(
        abs(2 * (b - a // window * window) - (window - 1)) < ratio * window
        for a, b in ((q.y, k.y), (q.x, k.x))
    )


SUPER = (
    "y=6 x=8 cy=3 cx=4 cell_y=2 cell_x=2 | y=7 x=9 cy=4 cx=3 cell_y=2 cell_x=3"
    "| y=1 x=10 cy=1 cx=5 cell_y=4 cell_x=2"
)
FIELDS = "u=3 v=2 h=4 w=3 reach=1 | u=2 v=2 h=3 w=5 reach=2 | u=1 v=3 h=7 w=2 reach=5"

RULES: tuple[Oracle, ...] = (
    says(1, "stvit", "y x -> cy cx", around_the_cell, SUPER, part="association", zeros=cells_outside),
    says(1, "stvit", "cy cx -> y x", lambda q, k, cell_y, cell_x:
         around_the_cell(k, q, cell_y, cell_x), SUPER, part="update"),
    says(2, "dlgsanet", "y x", lambda q, k, radius: near(q, k, "y x", radius),
         "y=9 x=8 radius=3 | y=5 x=7 radius=1 heads=2 | y=1 x=6 radius=2"),
    says(8, "hat", "y x", lambda q, k, window, overlap: in_halo(q, k, block=window, halo=overlap),
         "y=8 x=8 window=4 overlap=1 | y=7 x=9 window=4 overlap=2 | y=1 x=6 window=2 overlap=1",
         part="ocab", zeros=lambda q, k, y, x, window, overlap:
         halo_outside(q, k, y, x, block=window, halo=overlap)),
    says(12, "lf_epi", "u v h w", lambda q, k, reach:
         (q.v == k.v) & (q.w == k.w) & near(q, k, "h", reach), FIELDS, part="uh"),
    says(12, "lf_epi", "u v h w", lambda q, k, reach:
         (q.u == k.u) & (q.h == k.h) & near(q, k, "w", reach), FIELDS, part="vw"),
    says(14, "evenhancer", "n -> t y x", evenhancer,
         "n=12 t=4 y=5 x=6 past_t=5 past_y=6 past_x=7 offset=-1 radius=1 batch=2"
         "| n=9 t=3 y=7 x=4 past_t=4 past_y=8 past_x=5 offset=2 radius=3"
         "| n=1 t=1 y=6 x=5 past_t=2 past_y=7 past_x=6 offset=0 radius=2", zeros=evenhancer_outside,
         near_t=ids("batch n", "past_t"), near_y=ids("batch n", "past_y"),  # just outside, as a flow
         near_x=ids("batch n", "past_x")),
    says(18, "dinat", "y x", lambda q, k, y, x, window, dilation, layer:
         dilated(q, k, y, x, window, dilation if layer % 2 else 1),
         "y=7 x=8 window=3 dilation=2 | y=7 x=8 window=3 dilation=2 layer=1"
         "| y=9 x=6 window=2 dilation=3 layer=1 | y=1 x=9 window=5 dilation=4 layer=3"
         "| y=8 x=9 window=4 dilation=2 layer=2 heads=2"),
    says(22, "kan_dina", "y x", dilated,
         "y=7 x=9 window=3 dilation=2 | y=8 x=5 window=3 dilation=3 | y=1 x=10 window=3 dilation=1"),
    says(35, "transnext", PIXELS_AND_POOLED, lambda q, k, window:
         k.pooled | near(q, k, "y x", window // 2),
         "y=4 x=6 py=2 px=3 window=3 | y=7 x=5 py=3 px=2 window=5 | y=1 x=9 py=1 px=2 window=3"),
    says(36, "segman", "y x", dilated,
         "y=7 x=8 window=3 | y=9 x=6 window=5 | y=5 x=5 window=4 | y=1 x=7 window=3"),
    says(42, "hicom", "ct cy cx -> t y x", lambda q, k, ct, cy, cx, t, y, x:
         hicom(q, k, ct=ct, cy=cy, cx=cx, t=t, y=y, x=x),
         "ct=2 cy=2 cx=3 t=4 y=4 x=6 | ct=2 cy=3 cx=2 t=3 y=5 x=5 | ct=1 cy=1 cx=5 t=1 y=3 x=7"),
    says(49, "gna", "n", lambda q, k, n, window, stride, dilation, causal:
         natten(q.n, k.n, n, window, dilation, stride, causal),
         "n=17 window=4 stride=1 dilation=1 causal=false"
         "| n=17 window=4 stride=4 dilation=1 causal=false"
         "| n=18 window=5 stride=2 dilation=2 causal=false"
         "| n=19 window=4 stride=3 dilation=2 causal=true"
         "| n=3 window=5 stride=2 dilation=1 causal=false", part="1d"),
    says(49, "gna", "y x", lambda q, k, y, x, window, stride, dilation, causal:
         neighbourhood(q, k, "y x", (y, x), window, dilation, stride, causal),
         "y=7 x=8 window=(3,4) stride=(1,2) dilation=(1,1) causal=(false,false)"
         "| y=9 x=7 window=(4,3) stride=(4,3) dilation=(1,2) causal=(false,false)"
         "| y=6 x=9 window=(3,3) stride=(2,1) dilation=(1,2) causal=(true,false)"
         "| y=1 x=8 window=(2,5) stride=(1,3) dilation=(1,1) causal=(true,true)", part="2d"),
    says(49, "gna", "t y x", lambda q, k, t, y, x, window, stride, dilation, causal:
         neighbourhood(q, k, "t y x", (t, y, x), window, dilation, stride, causal),
         "t=4 y=4 x=9 window=(2,3,3) stride=(1,2,1) dilation=(1,1,2) causal=(true,false,false)"
         "| t=5 y=3 x=7 window=(3,3,4) stride=(3,1,2) dilation=(1,1,1) causal=(false,false,false)"
         "| t=1 y=4 x=5 window=(1,2,3) stride=(1,2,3) dilation=(1,2,1) causal=(false,true,false)",
         part="3d"),
    says(50, "fna", "n", lambda q, k, n, window, dilation, causal:
         natten(q.n, k.n, n, window, dilation, 1, causal),
         "n=16 window=5 dilation=1 causal=false | n=17 window=4 dilation=3 causal=false"
         "| n=15 window=3 dilation=2 causal=true | n=2 window=3 dilation=1 causal=false", part="1d"),
    says(50, "fna", "y x", lambda q, k, y, x, window, dilation, causal:
         neighbourhood(q, k, "y x", (y, x), window, dilation, (1, 1), causal),
         "y=7 x=8 window=(3,5) dilation=(1,1) causal=(false,false)"
         "| y=9 x=7 window=(4,3) dilation=(2,2) causal=(false,false)"
         "| y=6 x=8 window=(3,3) dilation=(1,2) causal=(true,false)"
         "| y=1 x=9 window=(1,3) dilation=(1,1) causal=(false,true)", part="2d"),
    says(54, "halonet", "y x", in_halo,
         "y=6 x=9 block=3 halo=1 | y=7 x=8 block=4 halo=2 | y=1 x=10 block=2 halo=3 heads=2",
         part="halo", zeros=halo_outside),
    says(54, "halonet", "qy qx -> y x", lambda q, k, block, halo, stride:
         in_halo(Strided(q, stride), k, block, halo),
         "qy=3 qx=4 y=6 x=8 block=2 halo=1 stride=2 | qy=3 qx=3 y=7 x=9 block=4 halo=2 stride=3"
         "| qy=1 qx=5 y=1 x=9 block=3 halo=0 stride=2", part="downsampled",
         zeros=lambda q, k, y, x, block, halo, stride:
         halo_outside(Strided(q, stride), k, y, x, block, halo)),
    says(56, "tic", "y x", tic,
         "y=7 x=8 height=3 width=5 dilation=1 | y=9 x=7 height=3 width=3 dilation=2"
         "| y=1 x=9 height=5 width=3 dilation=3", zeros=lambda q, k, y, x, height, width, dilation:
         outside((taps(q.y, height, dilation), y), (taps(q.x, width, dilation), x))),
    says(60, "varying_window", "y x", context_window,
         "y=8 x=8 window=2 ratio=2 | y=9 x=10 window=2 ratio=4 | y=7 x=11 window=3 ratio=3"
         "| y=1 x=12 window=4 ratio=2 heads=2"),
    says(107, "a2mamba", "y x", a2mamba,
         "y=7 x=9 window=3 heads=2 | y=8 x=4 window=3 heads=4 | y=3 x=11 window=2 heads=2"),
)  # fmt: skip
