"""Mask to mask: each pass is a verb, a law and a file of the same name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

from attndsl import ir
from attndsl.passes.binding import bind
from attndsl.passes.derivatives import differentiate
from attndsl.passes.drop_implied import drop_implied
from attndsl.passes.dropout import SEED, drop_weights
from attndsl.passes.lower_coordinates import lower_coordinates, lower_root
from attndsl.passes.presence import PRESENT, in_every_call, placed
from attndsl.passes.separate import separate, separate_root, split_sides
from attndsl.passes.set_positions import Placed, set_positions
from attndsl.passes.shift_heads import head_shifted, shift_heads
from attndsl.passes.weights import (
    COLUMN,
    LEVEL,
    column,
    column_weight,
    entmax_rest,
    level,
    softmax_weight,
    with_factor,
    with_zero_keys,
)

PIPELINE: Final[Mapping[str, Callable[[ir.Mask], ir.Mask]]] = {
    "lower_coordinates": lower_coordinates,
    "separate": placed(separate),
    "drop_implied": placed(drop_implied),
}
OPTIONAL: Final = ("separate", "drop_implied")  # nothing relies on their success


def steps(mask: ir.Mask, without: Collection[str] = ()) -> Iterator[tuple[str, ir.Mask]]:
    """Each pass of ``PIPELINE`` in order, by name, and what it makes of the mask."""
    for name, step in PIPELINE.items():
        if name not in without:
            mask = step(mask)
            yield name, mask


def normalise(mask: ir.Mask, without: Collection[str] = ()) -> ir.Mask:
    """The normal form: what the last step gives. ``without`` names optional passes to leave out."""
    for _, made in steps(mask, without):
        mask = made
    return mask


__all__ = [
    "COLUMN",
    "LEVEL",
    "OPTIONAL",
    "PIPELINE",
    "PRESENT",
    "SEED",
    "Placed",
    "bind",
    "column",
    "column_weight",
    "differentiate",
    "drop_weights",
    "entmax_rest",
    "head_shifted",
    "in_every_call",
    "level",
    "lower_root",
    "normalise",
    "separate_root",
    "set_positions",
    "shift_heads",
    "softmax_weight",
    "split_sides",
    "steps",
    "with_factor",
    "with_zero_keys",
]
