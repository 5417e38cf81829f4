"""Axes and segments by name: in one space, in the two of a pattern, and from space to space."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from attndsl import ir


@dataclass(frozen=True, slots=True)
class Place:
    """One axis of one segment."""

    segment: str
    axis: str
    extent: int | None = None

    @property
    def full(self) -> str:
        """The name the IR uses."""
        return f"{self.segment}.{self.axis}"


@dataclass(frozen=True, slots=True)
class Pair:
    """Where queries and keys live."""

    queries: ir.Space = ir.FLAT
    keys: ir.Space = ir.FLAT

    @property
    def is_rectangular(self) -> bool:
        return self.queries != self.keys

    def of(self, side: ir.Side | None) -> tuple[ir.Space, ...]:
        """The space of one side; both, once each, for None."""
        match side:
            case ir.Side.QUERY:
                return (self.queries,)
            case ir.Side.KEY:
                return (self.keys,)
            case None:
                return (self.queries, self.keys) if self.is_rectangular else (self.keys,)

    def places(self, side: ir.Side | None, axis: str, segment: str | None = None) -> list[Place]:
        """All axes of that name, in the named segment or in any."""
        found = (
            place
            for space in self.of(side)
            for place in places_of(space)
            if place.axis == axis and segment in (None, place.segment)
        )
        return list(dict.fromkeys(found))

    def segment(self, side: ir.Side | None, name: str) -> ir.Segment | None:
        """The segment of that name, if the space of that side has it."""
        return next((s for space in self.of(side) if (s := space.segment(name))), None)

    def names(self, side: ir.Side | None) -> list[str]:
        """All axis and segment names of that side."""
        places = [place for space in self.of(side) for place in places_of(space)]
        return [n for place in places for n in (place.axis, place.full, place.segment)]

    def translate_segment(self, side: ir.Side | None, segment: ir.Segment) -> ir.Segment | None:
        """The segment that a pattern written for another space means here.

        The one of the same name; without it, the only one that has all its axes.
        """
        same = self.segment(side, segment.name)
        if same is not None:
            return same
        wanted = {axis.name for axis in segment.axes}
        candidates = [each for space in self.of(side) for each in space.segments]
        found = [each for each in candidates if wanted <= {axis.name for axis in each.axes}]
        return found[0] if len(found) == 1 else None

    def translate(self, side: ir.Side | None, place: Place) -> Place | None:
        """The axis that a pattern written for another space means here.

        The same axis of a segment of the same name; without one, the only axis of that name.
        """
        same = self.places(side, place.axis, place.segment)
        found = same or self.places(side, place.axis)
        return found[0] if len(found) == 1 else None


FLAT_PAIR = Pair()


def places_of(space: ir.Space) -> list[Place]:
    """All axes of a space, in order."""
    return [
        Place(segment.name, axis.name, axis.extent)
        for segment in space.segments
        for axis in segment.axes
    ]


def size_of(place: Place) -> ir.Node:
    """The extent of an axis: a constant if its declaration fixes it."""
    return ir.Size(place.full) if place.extent is None else ir.Const(place.extent)


def segment_size(segment: ir.Segment) -> ir.Node:
    """How many tokens a segment has."""
    fixed = math.prod(axis.extent for axis in segment.axes if axis.extent is not None)
    product: ir.Node = ir.Const(fixed)
    for axis in segment.axes:
        if axis.extent is None:
            product = ir.mul(product, ir.Size(f"{segment.name}.{axis.name}"))
    return product


def dim_size(table: ir.Table, dim: str | int, pair: Pair) -> ir.Node:
    """How many entries a run-time table has along one of its dims."""
    match dim:
        case int():
            return ir.Const(dim)
        case "q" | "k":
            return ir.Size(dim)
        case "pos":
            return ir.Size("k")
        case _:
            sides: Iterable[ir.Side] = (ir.Side.KEY, ir.Side.QUERY)
            found = [place for side in sides for place in pair.places(side, dim)]
            return size_of(found[0]) if found else ir.Size(f"{table.name}:{dim}")
