"""The patterns that `make gpu` measures, each beside the same pattern as a mask_mod of flex_attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

import attndsl

HEADS = 16  # of the measured calls; bigbird draws its blocks for each of them


@dataclass(frozen=True)
class Contest:
    """A pattern, and the same as a mask_mod: ``mod(tokens, device)(b, h, q, k)``."""

    name: str
    pattern: str
    values: dict[str, Any] = field(default_factory=dict)
    mod: Callable[[int, str], Callable[..., Any]] = lambda n, device: lambda b, h, q, k: q >= k
    extents: Callable[[int], dict[str, int] | None] = lambda n: None
    inputs: Callable[[int], dict[str, torch.Tensor]] = lambda n: {}
    heads_differ: bool = False

    def ours(self) -> attndsl.Pattern:
        """The compiled pattern."""
        return attndsl.compile(self.pattern, **self.values)


def _window(w: int) -> Callable[[int, str], Callable[..., Any]]:
    return lambda n, device: lambda b, h, q, k: (q >= k) & (q - k < w)


def _ids(n: int) -> torch.Tensor:
    """Documents of 200 to 6,000 tokens, the same ones each time."""
    lengths = torch.randint(200, 6_000, (n // 200 + 1,), generator=torch.Generator().manual_seed(0))
    return torch.repeat_interleave(torch.arange(len(lengths)), lengths)[:n]


def _documents(n: int, device: str) -> Callable[..., Any]:
    ids = _ids(n).to(device)
    return lambda b, h, q, k: (q >= k) & (ids[q] == ids[k])


def _longformer(n: int, device: str) -> Callable[..., Any]:
    return lambda b, h, q, k: ((q - k).abs() <= 256) | (q < 4) | (k < 4)


def _dilated(n: int, device: str) -> Callable[..., Any]:
    return lambda b, h, q, k: ((q - k).abs() <= 512) & ((q - k) % 8 == 0)


def _strided(n: int, device: str) -> Callable[..., Any]:
    return lambda b, h, q, k: (q >= k) & ((q - k < 128) | ((q - k) % 128 == 0))


def _bigbird(n: int, device: str) -> Callable[..., Any]:
    """Random blocks are what the pattern says they are: read from its tiles, which are its blocks."""
    schedule = attndsl.compile("bigbird").schedule(n, heads=HEADS, tile=(64, 64))
    live = torch.zeros(HEADS, n // 64, n // 64, dtype=torch.bool)
    for head in range(HEADS):
        row, column = torch.from_numpy(schedule.plan(0, head).full.pairs()).long().T
        live[head, row, column] = True
    live = live.to(device)
    return lambda b, h, q, k: live[h, q // 64, k // 64]


def _width(n: int) -> int:
    """Extents of an image of n tokens."""
    return 128 if n >= 8_192 else 16


def _side(n: int) -> int:
    """Extents of a video of n tokens."""
    return 32 if n >= 8_192 else 8


def _near(i: Any, j: Any, length: int, size: int) -> Any:
    half = size // 2
    return (i.clamp(half, length - 1 - half) - j).abs() <= half


def _image(n: int, device: str) -> Callable[..., Any]:
    width = _width(n)
    rows = n // width
    return lambda b, h, q, k: (
        _near(q // width, k // width, rows, 13) & _near(q % width, k % width, width, 13)
    )


def _video(n: int, device: str) -> Callable[..., Any]:
    side = _side(n)
    area, frames = side * side, n // (side * side)
    return lambda b, h, q, k: (
        _near(q // area, k // area, frames, 5)
        & _near(q // side % side, k // side % side, side, 7)
        & _near(q % side, k % side, side, 7)
    )


CONTESTS = {
    contest.name: contest
    for contest in (
        Contest("causal", "causal"),
        Contest("window 512", "causal_window", {"w": 512}, _window(512)),
        Contest("window 4096", "causal_window", {"w": 4096}, _window(4096)),
        Contest(
            "documents",
            "input doc: int[pos]\npattern p = doc[q] == doc[k] and causal",
            mod=_documents,
            inputs=lambda n: {"doc": _ids(n)},
        ),
        Contest("longformer", "pattern p = window(256) or q < 4 or k < 4", mod=_longformer),
        Contest("bigbird", "bigbird", mod=_bigbird, heads_differ=True),
        Contest("dilated 8", "pattern p = abs(q - k) <= 512 and (q - k) % 8 == 0", mod=_dilated),
        Contest("strided 128", "strided", {"s": 128}, _strided),
        Contest(
            "image 13x13",
            "neighborhood2d",
            {"sy": 13},
            _image,
            lambda n: {"y": n // _width(n), "x": _width(n)},
        ),
        Contest(
            "video 5x7x7",
            "neighborhood3d",
            {"st": 5, "sy": 7, "sx": 7},
            _video,
            lambda n: {"t": n // _side(n) ** 2, "y": _side(n), "x": _side(n)},
        ),
    )
}
