"""Units in the Python form of selections: their numbers, tokens and summaries."""

from __future__ import annotations

from attndsl import ir
from attndsl.source import AttnDslError

from .callers import here
from .embedding import Expr
from .errors import make_error
from .real_embedding import Vector
from .unit_frames import open_unit

sel = ir.selection


class Side:
    """The units of one side in an expression: their numbers, tokens, and summaries."""

    def __init__(self, side: ir.Side, units: sel.Groups) -> None:
        """``units`` of the queries or keys."""
        self._side = side
        self._units = units
        self._number = open_unit(side, units)
        self.number = Expr(self._number)

    def mean(self, *, unit: bool = False) -> Vector:
        """The mean vector, of vectors divided by their lengths where ``unit``."""
        return self._pooled(sel.Pool.MEAN, unit)

    def max(self, *, unit: bool = False) -> Vector:
        """The greatest of each channel."""
        return self._pooled(sel.Pool.MAX, unit)

    def min(self, *, unit: bool = False) -> Vector:
        """The least of each channel."""
        return self._pooled(sel.Pool.MIN, unit)

    def _pooled(self, how: sel.Pool, unit: bool) -> Vector:
        return Vector(sel.Pooled(how, self._side, self._units, unit), ())


class BlockSide(Side):
    """The blocks of one side."""

    def __init__(self, side: ir.Side, units: sel.Units) -> None:
        """``units`` of the queries or keys."""
        super().__init__(side, units)
        self.start = Expr(units.start(self._number))
        """The first token."""
        self.end = Expr(units.end(self._number, ir.Size("k")))
        """The token behind the last."""


class Blocks(BlockSide):
    """`blocks(size, every stride)` of the language: units of keys; as ``queries``, units of queries."""

    def __init__(self, size: int, every: int | None = None, *, whole: bool = False) -> None:
        """See `blocks`."""
        stride = size if every is None else every
        if not 0 < stride <= size <= sel.LARGEST_UNIT:
            title = (
                f"blocks have from 1 to 2**20 tokens, one every so many or fewer: {size}, {stride}"
            )
            raise AttnDslError(make_error("A306", title, here()))
        self.units = sel.Units(size, stride, whole)
        super().__init__(ir.Side.KEY, self.units)
        self.queries = BlockSide(ir.Side.QUERY, self.units)

    def bound(self) -> Expr:
        """`bound(q, k)`: the greatest product of the query with a vector between least and greatest."""
        return Expr(sel.Bound(self.units))

    def antidiagonal(self) -> Expr:
        """`antidiagonal(q, k)` of a block of queries and one of keys."""
        return Expr(sel.Antidiagonal(self.units))


def blocks(size: int, every: int | None = None, *, whole: bool = False) -> Blocks:
    """Blocks of ``size`` tokens, a new one every ``every``; ``whole`` leaves out those that the end cuts.

    Raises:
        AttnDslError: A306, sizes are not positive, or tokens are left out.
    """
    return Blocks(size, every, whole=whole)
