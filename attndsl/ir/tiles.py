"""Tiles: boxes of the tokens of a grid, as units of selections.

tile(k)  =  (y(k) // size_y) * ceil(len(x) / size_x) + x(k) // size_x
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from attndsl.ir.arithmetic import add, floordiv, mod, mul, scale
from attndsl.ir.interning import Node
from attndsl.ir.mask import Axis, Space
from attndsl.ir.nodes import Const, Size


@dataclass(frozen=True, slots=True)
class Tiles:
    """Boxes of a grid, ``sizes`` tokens along each axis, numbered row by row; the last ones are cut by its ends.

    ``space`` has one segment, the grid. Each token is in one tile; in it tokens stand in the order of their positions.
    """

    space: Space
    sizes: tuple[int, ...]

    @property
    def axes(self) -> tuple[Axis, ...]:
        """The axes of the grid, one for each size."""
        return self.space.segments[0].axes

    @property
    def is_open(self) -> bool:
        """Whether a call says how long an axis is."""
        return any(axis.extent is None for axis in self.axes)

    def count(self, sizes: Mapping[str, int]) -> int:
        """How many there are, where `Size` nodes have these values."""
        extents = self._known(sizes)
        return math.prod(-(-each // size) for each, size in zip(extents, self.sizes, strict=True))

    def tokens(self, sizes: Mapping[str, int]) -> int:
        """How many tokens the grid has, likewise."""
        return math.prod(self._known(sizes))

    def number_of(self, position: Node) -> Node:
        """The tile that a token of the grid is in."""
        extents = [self._extent(axis) for axis in self.axes]
        number: Node = Const(0)
        for place, (size, many) in enumerate(zip(self.sizes, self._counts(), strict=True)):
            at = floordiv(position, _product(extents[place + 1 :]))
            at = mod(at, extents[place]) if place else at
            number = add(mul(number, many), floordiv(at, Const(size)))
        return number

    def first(self, number: Node) -> dict[str, Node]:
        """The least coordinate along each axis of the tokens of a tile."""
        counts = self._counts()
        found = {}
        for place, (axis, size) in enumerate(zip(self.axes, self.sizes, strict=True)):
            at = floordiv(number, _product(counts[place + 1 :]))
            found[axis.name] = scale(mod(at, counts[place]) if place else at, size)
        return found

    def first_number(self, number: Node) -> Node:
        """The number of a tile along the first axis."""
        return floordiv(number, _product(self._counts()[1:]))

    def _counts(self) -> list[Node]:
        """How many tiles stand along each axis."""
        return [
            floordiv(add(self._extent(axis), Const(size - 1)), Const(size))
            for axis, size in zip(self.axes, self.sizes, strict=True)
        ]

    def _known(self, sizes: Mapping[str, int]) -> list[int]:
        return [sizes[self._full(x)] if x.extent is None else x.extent for x in self.axes]

    def _full(self, axis: Axis) -> str:
        return f"{self.space.segments[0].name}.{axis.name}"

    def _extent(self, axis: Axis) -> Node:
        return Size(self._full(axis)) if axis.extent is None else Const(axis.extent)


def _product(factors: list[Node]) -> Node:
    result: Node = Const(1)
    for factor in factors:
        result = mul(result, factor)
    return result
