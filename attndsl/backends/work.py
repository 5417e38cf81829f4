"""What a backend is given to do, beside tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from attndsl.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Work:
    """The pairs of one call. ``schedule(tile)`` lists them in tiles of (queries, keys), exactly.

    Equal calls give the same schedule object, so a backend may keep what it derives from one.
    """

    schedule: Callable[[tuple[int, int]], Schedule]
