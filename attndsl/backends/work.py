"""The work that a back end is given, beside tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from attndsl.schedule import BoundMask, Schedule, TiledMask, tiled

T = TypeVar("T")

_MOST_KEPT = 64  # of a work: passes of calls whose tensors lie in memory alike


@dataclass(frozen=True, slots=True)
class Work:
    """The pairs of one call. ``schedule(tile)`` lists them in tiles of (queries, keys), exactly.

    Equal calls give the same schedule object, so a backend may keep what it derives from one.
    ``bound`` is the relation itself, where there is one: not every schedule comes from a pattern.
    ``name`` tells it apart in every process, whatever the lengths; what has none is not remembered.
    """

    schedule: Callable[[tuple[int, int]], Schedule]
    bound: BoundMask | None = None
    name: str = ""
    _kept: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @staticmethod
    def of(part: TiledMask, name: str = "") -> Work:
        """The pairs of a tiled mask, which is scheduled in tiles of other sizes as they are asked for."""

        @functools.cache
        def schedule(tile: tuple[int, int]) -> Schedule:
            known = part.schedules.get(tile)
            return known or tiled(part.bound, tile, merges=False).schedules[tile]

        return Work(schedule, part.bound, name)

    def keep(self, key: Hashable, make: Callable[[], T]) -> T:
        """Returns the value made under this key before, for as long as the work lives, or makes it."""
        found: T | None = self._kept.get(key)
        if found is None:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            found = self._kept[key] = make()
        return found
