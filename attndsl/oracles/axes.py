"""A chosen axis is shared or free; groups and latents; widths that depend on another axis' distance."""

from __future__ import annotations

from typing import Any

import numpy as np

from .registry import Oracle, given, ids, says
from .tokens import Tokens, same


def in_group(q: Tokens, k: Tokens) -> Any:
    return q.g == k.g


def kinds_of_heads(
    q: Tokens, k: Tokens, window_t: int, window_y: int, window_x: int, kinds: Any, head: int
) -> Any:
    kind = kinds[head]
    return kind == 0 or (
        q.t == k.t if kind == 1 else same(q, k, "t y x", window_t, window_y, window_x)
    )


def radial(q: Tokens, k: Tokens, s: int, block: int, decay: int, full_neighbour: bool) -> Any:
    """Frames t of s places each: the reach halves, and frames are thinned out, as they are further apart.

    ``decay`` is in percent of the share of a frame.
    """
    d, e = abs(q.t - k.t), abs(q.s - k.s)
    bits = np.array([int(each).bit_length() for each in d.flat]).reshape(d.shape)
    share = 2.0 ** int(s).bit_length() / 2.0**bits
    kept = (share >= block) | (d % np.maximum(block / share, 1).astype(int) == 0)
    reach = np.maximum(block, decay / 100 * share)
    reach = np.where(d == 1, s if full_neighbour else s // 2, reach)
    return (k.t == 0) | (d == 0) | kept & (e <= reach)


def presto(q: Tokens, k: Tokens, t: int, segments: int, overlap: int, caption: Any) -> Any:
    """Borders are evenly spaced, rounded down."""
    borders = np.linspace(0, t, segments + 1, dtype=int)
    first, end = borders[caption[k.m]], borders[caption[k.m] + 1]
    return (first - overlap <= q.t) & (q.t < end + overlap)


DATA = "g=4 p=5 | g=1 p=6 | g=7 p=3 heads=2"
LATENT = "g=4 m=3 | g=1 m=5 | g=6 m=1"
BOTH = "g=4 p=5 m=2 | g=3 p=4 m=1 heads=2 | g=2 p=1 m=3"
RADIAL = (
    "t=6 s=8 {}block=2 decay=100 full_neighbour=false | t=9 s=5 {}block=4 decay=100 full_neighbour=true"
    "| t=17 s=4 {}block=2 decay=100 full_neighbour=false"
    "| t=5 s=12 {}block=4 decay=200 full_neighbour=false"
    "| t=7 s=4 {}block=8 decay=100 full_neighbour=false"
)

RULES: tuple[Oracle, ...] = (
    says(5, "redundancy", "t y x", kinds_of_heads,
         "t=2 y=4 x=4 window_t=1 window_y=2 window_x=2 heads=3"
         "| t=3 y=3 x=5 window_t=2 window_y=2 window_x=3 heads=2"
         "| t=1 y=1 x=7 window_t=1 window_y=1 window_x=2 heads=2",
         kinds=given([0, 1, 2], [2, 1], [1, 2])),
    says(11, "lmr", "y x -> r y x", lambda q, k: (q.y == k.y) & (q.x == k.x),
         "r=5 y=3 x=4 | r=1 y=4 x=3 | r=3 y=1 x=7"),
    says(16, "duoformer", "p s", lambda q, k: q.p == k.p, "p=4 s=6 | p=3 s=7 | p=5 s=1"),
    says(26, "fit", "g p", in_group, DATA, part="local"),
    says(26, "fit", "g m -> g p", in_group, BOTH, part="read"),
    says(26, "fit", "g p -> g m", in_group, BOTH, part="write"),
    says(26, "fit", "g m", lambda q, k: k.g <= q.g, LATENT, part="causal_global"),
    says(26, "fit", "g p", lambda q, k: in_group(q, k) & (k.p <= q.p), DATA, part="causal_local",
         causal=True),
    says(26, "fit", "g p -> phantom: w + latent: g m", lambda q, k:
         k.phantom & (q.g == 0) | k.latent & (k.g == q.g - 1),
         "g=4 p=5 m=2 w=2 | g=3 p=4 m=1 w=1 heads=2 | g=2 p=1 m=3 w=3", part="causal_write"),
    says(66, "radial", "t s", radial,
         RADIAL.replace("{}", "") + "| t=1 s=6 block=2 decay=100 full_neighbour=false"),
    says(66, "radial", "video: t s + text: words", lambda q, k, s, block, decay, full_neighbour:
         q.text | k.text | radial(q, k, s, block, decay, full_neighbour),
         RADIAL.format(*(f"words={m} " for m in (3, 1, 2, 5, 1))), part="joint"),
    says(87, "deftan", "t f", lambda q, k: q.t == k.t, "t=4 f=5 | t=1 f=7 | t=6 f=3", part="f"),
    says(87, "deftan", "t f", lambda q, k: q.f == k.f, "t=4 f=5 | t=7 f=1 | t=6 f=3", part="t"),
    says(93, "presto", "t y x -> m", presto,
         "t=10 y=2 x=1 m=12 segments=5 overlap=0 | t=7 y=1 x=2 m=9 segments=3 overlap=1 batch=2"
         "| t=11 y=1 x=1 m=9 segments=5 overlap=0 | t=1 y=2 x=3 m=8 segments=2 overlap=0",
         caption=ids("batch m", "segments")),
    says(99, "mcanet", "y x", lambda q, k: q.x == k.x, "y=4 x=5 | y=7 x=3 | y=1 x=6",
         part="columns"),
    says(99, "mcanet", "y x", lambda q, k: q.y == k.y, "y=4 x=5 | y=7 x=3 | y=6 x=1", part="rows"),
    says(102, "npt", "n d", lambda q, k: q.n == k.n, "n=4 d=5 | n=7 d=3 | n=1 d=6", part="aba"),
    says(102, "npt", "n d", lambda q, k: q.d == k.d, "n=4 d=5 | n=7 d=3 | n=6 d=1", part="abd"),
)  # fmt: skip
