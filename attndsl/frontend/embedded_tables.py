"""Positions, coordinates and inputs of a pattern in Python."""

from __future__ import annotations

from typing import NoReturn

from attndsl import ir
from attndsl.source import AttnDslError

from .callers import here
from .embedding import (
    Expr,
    Operand,
    as_expr,
    expect,
    merged,
    node_of,
)
from .errors import make_error
from .joining import Container, Readable
from .rows import SHIFT, in_row, open_size, stored


class Coordinate(Expr):
    """``q.y``; ``q.image.y`` where several segments have the axis."""

    __slots__ = ("_axis", "_side")

    def __init__(self, side: ir.Side, axis: str) -> None:
        """An axis by its own name, or by "segment.axis"."""
        super().__init__(ir.Coord(side, axis))
        self._side = side
        self._axis = axis

    def __getattr__(self, axis: str) -> Coordinate:
        if axis.startswith("_") or "." in self._axis:
            raise AttributeError(axis)
        return Coordinate(self._side, f"{self._axis}.{axis}")


class Position(Expr):
    """``q`` or ``k``: the flat position, and by attribute its coordinates."""

    __slots__ = ("_side",)

    def __init__(self, side: ir.Side) -> None:
        """One of the two."""
        super().__init__(ir.Pos(side))
        self._side = side

    def __getattr__(self, axis: str) -> Coordinate:
        if axis.startswith("_"):
            raise AttributeError(axis)
        return Coordinate(self._side, axis)

    def inside(self, segment: str) -> Expr:
        """Whether the token lies in the segment of that name."""
        return Expr(ir.Inside(self._side, segment))


class Table(Readable):
    """A run-time input, read by ``table[...]`` at positions or other ints."""

    def __init__(self, table: ir.Table) -> None:
        """Wrap the declaration."""
        self.table = table

    def only_value(self) -> Expr | None:
        """The value of a table without dims."""
        read = None if self.table.indexed_dims or self.table.is_list else self[()]
        return read if isinstance(read, Expr) else None

    def __getitem__(self, index: Operand | tuple[Operand, ...]) -> Expr | Row:
        items = self._own(index if isinstance(index, tuple) else (index,))
        wanted = len(self.table.indexed_dims) - self.table.is_list
        if len(items) == wanted - 1 and self.table.kind is ir.Sort.REAL:
            return Row(self.table, tuple(expect(ir.Sort.INT, "an index", item) for item in items))
        if len(items) != wanted:
            title = f"`{self.table.name}` takes {wanted} indices, not {len(items)}"
            raise AttnDslError(make_error("A205", title, here()))
        parts = tuple(expect(ir.Sort.INT, "an index", item) for item in items)
        if self.table.is_list:
            return Row(self.table, parts)
        nodes = tuple(part._node for part in parts)
        entries = stored(self.table, nodes, SHIFT)
        node = ir.Load(self.table.name, self.table.kind, entries, self.table.ambient)
        return merged(node, (*parts, Expr(node, (self.table,))))

    def _own(self, items: tuple[Operand, ...]) -> tuple[Operand, ...]:
        """The indices without those that say ``batch`` and ``head``, which are known: ``slope[head]``."""
        said = [dim for dim in self.table.dims if dim in ("batch", "head")]
        lead = [node_of(item) for item in items[: len(said)] if isinstance(item, Expr)]
        own = len(self.table.indexed_dims)
        is_said = lead == [ir.Var(str(dim)) for dim in said]
        return items[len(said) :] if is_said and len(items) == len(said) + own else items

    def __add__(self, other: Operand) -> Expr:
        return as_expr(self) + other

    def __radd__(self, other: Operand) -> Expr:
        return other + as_expr(self)

    def __sub__(self, other: Operand) -> Expr:
        return as_expr(self) - other

    def __rsub__(self, other: Operand) -> Expr:
        return other - as_expr(self)

    def __mul__(self, other: Operand) -> Expr:
        return as_expr(self) * other

    def __rmul__(self, other: Operand) -> Expr:
        return other * as_expr(self)

    def __truediv__(self, other: Operand) -> Expr:
        return as_expr(self) / other

    def __rtruediv__(self, other: Operand) -> Expr:
        return other / as_expr(self)

    def __neg__(self) -> Expr:
        return -as_expr(self)


class Row(Container):
    """A row of a list table, for ``k.isin(neighbors[q])``, or of a table of reals: a vector, for ``dot``."""

    def __init__(self, table: ir.Table, index: tuple[Expr, ...]) -> None:
        """The row at the index."""
        self.table = table
        self.index = index

    def __contains__(self, item: object) -> NoReturn:
        raise TypeError(f"write x.isin({self.table.name}[...]) instead of `in`")

    def holds(self, item: Expr) -> Expr:
        """Whether some slot of the row holds the item; as ``in`` of the language."""
        wanted = expect(ir.Sort.INT, "in", item)
        index = [each._node for each in self.index]
        node = in_row(self.table, index, wanted._node, SHIFT, open_size(self.table))
        return merged(node, (*self.index, wanted, Expr(node, (self.table,))))


def table(name: str, kind: str, *dims: str | int) -> Table:
    """An input as the language's `input name: kind[dims]`; kind is "int", "bool", "list" or "real"."""
    order = [{"batch": 0, "head": 1}.get(str(dim), 2) for dim in dims]
    if kind not in ("int", "bool", "list", "real") or order != sorted(order) or not dims:
        title = f"an input is int, bool, list or real, its dims lead with batch and head: `{name}` is not"
        raise AttnDslError(make_error("A209", title, here()))
    sort = {"bool": ir.Sort.BOOL, "real": ir.Sort.REAL}.get(kind, ir.Sort.INT)
    made = ir.Table(name, sort, dims, kind == "list", here())
    if (wrong := ir.table_fault(made)) is not None:
        raise AttnDslError(make_error("A209", f"there is no such input: {wrong}", here()))
    return Table(made)


q = Position(ir.Side.QUERY)


k = Position(ir.Side.KEY)


head, heads, batch, layer = (Expr(ir.Var(name)) for name in ("head", "heads", "batch", "layer"))
