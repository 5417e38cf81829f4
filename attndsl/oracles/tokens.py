"""Spaces of tokens: coordinates as a column for queries and a row for keys, which broadcast to [Q, K]."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def segments(text: str) -> list[tuple[str, list[str]]]:
    """Reads "text: s + image: y x": each segment's name and axes, last fastest; one alone needs no name."""
    parts = (part.rpartition(":") for part in text.split("+"))
    return [(name.strip(), axes.split()) for name, _, axes in parts]


class Tokens:
    """Tokens of a space: ``tokens.y`` is a coordinate of each, ``tokens.image`` whether it is of a segment.

    A token of a segment without the axis has -1 there; ``tokens.at`` counts all. An axis that is a number has no
    coordinate.
    """

    def __init__(self, text: str, extents: Mapping[str, int], shape: tuple[int, int]) -> None:
        """Lays them out in a column, of shape (-1, 1), or in a row, of shape (1, -1)."""
        read = segments(text)
        sizes = [[extents[a] if a in extents else int(a) for a in axes] for _, axes in read]
        stops = np.cumsum([0, *map(math.prod, sizes)])
        self.count = int(stops[-1])
        self._known: dict[str, Array] = {"at": np.arange(self.count).reshape(shape)}
        for (name, axes), size, start, stop in zip(read, sizes, stops, stops[1:], strict=False):
            self._known[name] = np.zeros(self.count, bool).reshape(shape)
            self._known[name].flat[start:stop] = True
            for axis, at in zip(axes, np.indices(size).reshape(len(size), -1), strict=True):
                self._known.setdefault(axis, np.full(self.count, -1).reshape(shape))
                self._known[axis].flat[start:stop] = at

    def __getattr__(self, name: str) -> Any:
        if name in self._known:
            return self._known[name]
        raise AttributeError(name)


def among(lists: Any, token: Any) -> Any:
    """Whether a token stands in a list, the last axis of ``lists``."""
    return (lists == token[..., None]).any(axis=-1)


def all_of(conditions: Iterable[Any]) -> Any:
    """All conditions, pair by pair."""
    held: Any = True
    for condition in conditions:
        held = held & condition
    return held


def same(q: Tokens, k: Tokens, axes: str, *sizes: int, shifts: tuple[int, ...] = ()) -> Any:
    """Same window on every axis; a border stands at each shift + multiple of the size."""
    given = zip(axes.split(), sizes, shifts or (0,) * len(sizes), strict=True)
    return all_of(
        (getattr(q, axis) - shift) // size == (getattr(k, axis) - shift) // size
        for axis, size, shift in given
    )


def near(q: Tokens, k: Tokens, axes: str, reach: int) -> Any:
    """At most ``reach`` apart on every axis."""
    return all_of(abs(getattr(q, axis) - getattr(k, axis)) <= reach for axis in axes.split())


def spread(q: Tokens, k: Tokens, axes: str, *steps: int) -> Any:
    """Same residue on every axis: every ``step``-th token."""
    given = zip(axes.split(), steps, strict=True)
    return all_of(getattr(q, axis) % step == getattr(k, axis) % step for axis, step in given)


def up(n: int, m: int) -> int:
    """n / m, rounded up."""
    return -(-n // m)


def outside(*axes: tuple[Any, int]) -> Any:
    """How many places of a box lie off a grid; an axis is given as its places, last, and its extent."""
    slots, inside = 1, 1
    for places, extent in axes:
        slots *= places.shape[-1]
        inside = inside * ((places >= 0) & (places < extent)).sum(axis=-1)
    return slots - inside
