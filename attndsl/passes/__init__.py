"""Mask to mask: each pass is a verb, a law and a file of the same name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attndsl import ir
from attndsl.passes.binding import TooManyAlternatives, bind
from attndsl.passes.lower_coordinates import lower_coordinates, lower_root
from attndsl.passes.separate import separate, separate_root, split_sides

PIPELINE: Final[tuple[Callable[[ir.Mask], ir.Mask], ...]] = (
    lower_coordinates,
    separate,
)


def normalise(mask: ir.Mask, watch: Callable[[str, ir.Mask], None] | None = None) -> ir.Mask:
    """The normal form: every pass of ``PIPELINE`` in order. ``watch(name, mask)`` sees each result."""
    for step in PIPELINE:
        mask = step(mask)
        if watch is not None:
            watch(step.__name__, mask)
    return mask


__all__ = [
    "PIPELINE",
    "TooManyAlternatives",
    "bind",
    "lower_root",
    "normalise",
    "separate_root",
    "split_sides",
]
