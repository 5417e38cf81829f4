"""What a backend is given to do, beside tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from attndsl.schedule import Part, Schedule


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
