"""Tiles of a grid in the Python form of selections."""

from __future__ import annotations

from attndsl import ir
from attndsl.source import AttnDslError

from .callers import here
from .embedding import Expr
from .errors import listed, make_error
from .spaces import FLAT_PAIR, Pair
from .unit_sides import Side

sel = ir.selection


class TileSide(Side):
    """The tiles of one side."""

    def __init__(self, side: ir.Side, units: sel.Tiles) -> None:
        """``units`` of the queries or keys."""
        super().__init__(side, units)
        self._first = {axis: Expr(at) for axis, at in units.first(self._number).items()}

    def first(self, axis: str) -> Expr:
        """The least coordinate along an axis, `cube.y` of the language.

        Raises:
            AttnDslError: A206, the grid has no such axis.
        """
        if axis not in self._first:
            title = f"there is no axis {axis!r}: there are {listed(self._first)}"
            raise AttnDslError(make_error("A206", title, here()))
        return self._first[axis]


class Tiles(TileSide):
    """`tiles(y = 4, x = 4) of image` of the language: units of keys; as ``queries``, units of queries."""

    def __init__(self, units: sel.Tiles) -> None:
        """See `tiles`."""
        self.units = units
        super().__init__(ir.Side.KEY, units)
        self.queries = TileSide(ir.Side.QUERY, units)

    def bound(self) -> Expr:
        """`bound(q, k)`: the greatest product of the query with a vector between least and greatest."""
        return Expr(sel.Bound(self.units))


def tiles(grid: ir.Space, **sizes: int) -> Tiles:
    """Boxes of a grid: ``tiles(attndsl.grid("image", "y", "x"), y=4, x=4)``; the ends of axes cut the last ones.

    Raises:
        AttnDslError: A219, it is no grid, or an axis has no size; A306, a size is not positive.
    """
    axes = [axis.name for segment in grid.segments for axis in segment.axes]
    if len(grid.segments) != 1 or {*axes} != sizes.keys():
        title = f"tiles of a grid have a size along each axis, here {listed(axes)}"
        raise AttnDslError(make_error("A219", title, here()))
    for axis, size in sizes.items():
        if not 0 < size <= sel.LARGEST_UNIT:
            title = f"a size of tiles is an int from 1 to 2**20, not {size} along `{axis}`"
            raise AttnDslError(make_error("A306", title, here()))
    return Tiles(sel.Tiles(grid, tuple(sizes[axis] for axis in axes)))


def pair_of(units: object, rows: object) -> Pair:
    """The grids in which queries and keys of a selection stand: those of its tiles, or no grids."""
    found = [each.space if isinstance(each, sel.Tiles) else None for each in (rows, units)]
    queries, keys = found[0] or found[1], found[1] or found[0]
    return FLAT_PAIR if queries is None or keys is None else Pair(queries, keys)
