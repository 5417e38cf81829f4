"""Puts the rows of a call where their tokens stand.

    k <= q                 -->  k + k_start[batch] <= q + q_start[batch] and k < kv_len[batch]
    doc[q]                 -->  doc[q_pos[batch, q]]
    keep[k - 1]            -->  keep[k_row[batch, k_pos[batch, k] - 1]]         (an input over the rows of k)
    len(k)                 -->  "len k"[batch]                                   (a length that differs in the batch)

Law: row i of the queries and row j of the keys see each other just if the tokens that they hold do, in the call on the
tokens that exist, laid out in order; a row without a token sees nothing and is seen by nothing. Positions that are one
run, alike in all batch elements, need no table: those of the queries are left to the call, which says where query 0
stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from attndsl import ir
from attndsl.passes.lower_coordinates import lower_root
from attndsl.source import AttnDslError, Diagnostic

_FARTHEST: Final = 1 << 28  # positions of which the row is looked up, eight bytes each


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A mask of the rows of one call, and the tables it reads beside those of the pattern."""

    mask: ir.Mask
    tables: Mapping[str, Any]
    first: int  # the position that the mask takes query 0 for
    expressions: tuple[ir.Node, ...] = ()  # those that were given, of the rows

    @property
    def nbytes(self) -> int:
        """Bytes of the tables."""
        return sum(int(array.nbytes) for array in self.tables.values())


def set_positions(
    mask: ir.Mask,
    at: ir.Positions,
    shapes: Mapping[str, tuple[int, ...]],
    expressions: Sequence[ir.Node] = (),
) -> Placed:
    """The mask of the rows as they lie in memory. ``shapes`` are those of the tables, without batch and head.

    ``expressions`` over positions and tables of the mask, real ones too, are placed with it.

    Raises:
        AttnDslError: A407, an input over rows is read at positions too far out to be looked up.
    """
    setter = _Setter(mask, at, shapes)
    root = ir.transform(lower_root(mask.root, mask), setter.rule)
    zeros = ir.transform(lower_root(mask.zeros, mask), setter.rule)
    exist = setter.q.exist
    made = replace(mask, align=ir.Align.START, zeros=ir.select(exist, zeros, ir.ZERO))
    made = made.with_root(ir.conj(exist, setter.k.exist, root))
    more = tuple(ir.transform(lower_root(each, mask), setter.rule) for each in expressions)
    read = ir.tables_read(*more) | {table.name for table in made.tables}
    kept = [table for table in mask.tables if table.name in read]
    made = replace(made, tables=(*kept, *setter.declared))
    return Placed(made, setter.arrays, setter.q.first, more)


class _Setter:
    """The substitution, and the tables that it needs."""

    def __init__(self, mask: ir.Mask, at: ir.Positions, shapes: Mapping[str, tuple[int, ...]]):
        self.arrays: dict[str, Any] = {}
        self.declared: list[ir.Table] = []
        self._mask, self._sizes, self._shapes = mask, at.sizes, shapes
        self._is_open = at.is_open
        told = (
            x for side in (at.q, at.k) for x in (side.start, side.stop, side.at) if x is not None
        )
        self._lengths = np.zeros(max(map(len, told)), dtype=np.int64)
        self._tables = {table.name: table for table in mask.tables}
        self.q = _Side(ir.Side.QUERY, at.q, self)
        self.k = _Side(ir.Side.KEY, at.k, self)

    def rule(self, node: ir.Node) -> ir.Node:
        match node:
            case ir.Pos(side=ir.Side.QUERY):
                return self.q.position
            case ir.Pos():
                return self.k.position
            case ir.Size(name=name) if ":" not in name:  # others are dims of tables
                return self._size(name)
            case ir.Load() | ir.reals.Row():
                return self._read(node)
            case _:
                return node

    def _size(self, name: str) -> ir.Node:
        values = np.array([sizes[name] for sizes in self._sizes])
        if self._is_open:
            return self.by_batch(f"len {name}", self._lengths, is_open=True)
        if (values == values[0]).all():
            return ir.Size(name)
        return self.by_batch(f"len {name}", values)

    def by_batch(self, name: str, values: ir.IntArray, *, is_open: bool = False) -> ir.Node:
        """A number of each batch element; a constant where they are known to be alike."""
        if not is_open and (values == values[:1]).all():
            return ir.Const(int(values[0]))
        return self.table(name, values, "batch")

    def table(self, name: str, array: Any, *dims: str, index: ir.Node | None = None) -> ir.Node:
        """A read of a table of our own, by a name that no program can spell."""
        if dims[0] == "batch" and len(array) == 1:
            array, dims = array[0], dims[1:]
        made = ir.Table(f"<{name}>", ir.Sort.INT, dims)
        if made.name not in self.arrays:
            self.arrays[made.name] = array
            self.declared.append(made)
        places = () if index is None else (index,)
        return ir.Load(made.name, ir.Sort.INT, places, made.ambient)

    def _read(self, node: ir.Load | ir.reals.Row) -> ir.Node:
        """The read at rows, where the table has an entry for each; nothing where there is no token."""
        table = self._tables[node.table]
        shape = self._shapes[node.table]
        index: list[ir.Node] = []
        guards: list[ir.Node] = []
        is_row = isinstance(node, ir.reals.Row)
        for dim, place, size in zip(table.indexed_dims, node.index, shape, strict=not is_row):
            row, inside = self._entry(dim, place, size)
            index.append(row)
            guards.append(inside)
        inside = ir.conj(*guards)
        if isinstance(node, ir.reals.Row):  # outside of a table, a row is 0
            nowhere = ir.select(inside, index[0], ir.Const(-1)) if index else None
            places = (nowhere, *index[1:]) if nowhere is not None else ()
            return ir.reals.Row(node.table, places, node.ambient)
        found = ir.Load(node.table, node.kind, tuple(index), node.ambient)
        if node.kind is ir.Sort.BOOL:
            return ir.conj(inside, found)
        if node.kind is ir.Sort.REAL:
            return ir.reals.choose(inside, found, ir.reals.NOUGHT)
        nothing = ir.Const(-1) if table.is_list else ir.ZERO  # a row of a list outside is empty
        return ir.select(inside, found, nothing)

    def _entry(self, dim: str | int, place: ir.Node, size: int) -> tuple[ir.Node, ir.Node]:
        """The entry along a dim that is read at an index, and whether the table of the law has it."""
        match dim:
            case "q" if self._mask.align is ir.Align.END:
                return self.q.row(ir.add(place, ir.sub(self._size("k"), self._size("q"))))
            case "q":
                return self.q.row(place)
            case "k":
                return self.k.row(place)
            case int():
                return place, ir.TRUE
            case _:
                pass
        axes = ["k"] if dim == "pos" else ir.axes_named(self._mask, dim)
        is_known = not self._is_open or not axes or axes[0] not in ("q", "k")
        if not axes or (is_known and all(sizes[axes[0]] == size for sizes in self._sizes)):
            return place, ir.TRUE
        ends = self._mask.align is ir.Align.END
        if dim == "pos" and (place is self.k.position or (ends and place is self.q.position)):
            return place, ir.TRUE
        return place, ir.lt(place, self._size(axes[0]))


class _Side:
    """The rows of one side: their positions, whether they hold a token, and the row of a position."""

    def __init__(self, side: ir.Side, rows: ir.Rows, setter: _Setter) -> None:
        self._side, self._rows, self._setter = side, rows, setter
        self.first = 0
        at = ir.Pos(side)
        if rows.at is not None:
            self.position = setter.table(f"{side}_pos", rows.at, "batch", side.value, index=at)
            everywhere = "at" not in rows.unknown and bool((rows.at >= 0).all())
            self.exist = ir.TRUE if everywhere else ir.ge(self.position, ir.ZERO)
            return
        unknown = rows.unknown
        self._start = setter.by_batch(f"{side}_start", rows.start, is_open="start" in unknown)
        self._stop = setter.by_batch(f"{side}_stop", rows.stop, is_open="stop" in unknown)
        if side is ir.Side.QUERY and isinstance(self._start, ir.Const):
            self.first, self.position = self._start.value, at
        else:
            self.position = ir.add(at, self._start)
        stops = "stop" in unknown or bool((rows.stop < rows.count).any())
        inside = ir.lt(ir.sub(self.position, self._start), self._stop) if stops else ir.TRUE
        begins = not rows.before and ("start" in unknown or bool((rows.start < 0).any()))
        self.exist = ir.conj(inside, ir.ge(self.position, ir.ZERO) if begins else ir.TRUE)

    def row(self, position: ir.Node) -> tuple[ir.Node, ir.Node]:
        """The row of the token at a position, and whether there is one."""
        side, rows = self._side, self._rows
        if position is self.position:
            return ir.sub(ir.Pos(side), ir.Const(self.first)), ir.TRUE
        if rows.at is not None:
            table = self._setter.table(
                f"{side}_row", _rows_by_position(rows), "batch", "pos", index=position
            )
            row = ir.sub(table, ir.ONE)
            return row, ir.ge(row, ir.ZERO)
        row = ir.sub(position, self._start)
        least = ir.TRUE if rows.before else ir.ge(position, ir.ZERO)
        return row, ir.conj(least, ir.ge(row, ir.ZERO), ir.lt(row, self._stop))


def _rows_by_position(rows: ir.Rows) -> ir.IntArray:
    """A table of the row of each position plus one, int64 [batch or 1, positions]; 0 where there is no token.

    A read outside of a table is 0, too, so that both are told alike.
    """
    assert rows.at is not None, "rows of one run are computed"
    if "at" in rows.unknown:
        raise ir.NotOpen("the row of a position is looked up")
    longest = int(rows.end().max(initial=0))
    if longest > _FARTHEST:
        title = f"an input over rows is read at positions of up to {longest:,}"
        notes = (f"the row of a position is looked up among at most {_FARTHEST:,}",)
        raise AttnDslError(Diagnostic("A407", title, notes=notes))
    found = np.zeros((len(rows.at), longest), dtype=np.int64)
    element, row = np.nonzero(rows.exist())
    found[element, rows.at[element, row]] = row + 1
    return found
