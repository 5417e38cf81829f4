"""What a backend is given to do, beside tensors."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from attndsl.schedule import Part, Schedule

T = TypeVar("T")

_MOST_KEPT = 64  # of a work: passes of calls whose tensors lie in memory alike


@dataclass(frozen=True, slots=True)
class Work:
    """The pairs of one call. ``schedule(tile)`` lists them in tiles of (queries, keys), exactly.

    Equal calls give the same schedule object, so a backend may keep what it derives from one.
    ``part`` is the relation itself, where there is one: not every schedule comes from a pattern.
    ``name`` tells it apart in every process, whatever the lengths; what has none is not remembered.
    """

    schedule: Callable[[tuple[int, int]], Schedule]
    part: Part | None = None
    name: str = ""
    _kept: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def keep(self, key: Hashable, make: Callable[[], T]) -> T:
        """What was made under this key before, as long as the work lives; else made now."""
        found: T | None = self._kept.get(key)
        if found is None:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            found = self._kept[key] = make()
        return found
