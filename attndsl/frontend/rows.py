"""Run-time tables: where a position is stored, and what a row of a list table holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attndsl import ir
from attndsl import syntax as syn

from .spaces import FLAT_PAIR, dim_size

Q, K = ir.Pos(ir.Side.QUERY), ir.Pos(ir.Side.KEY)

SHIFT = ir.Size("@shift")
"""Stands for the position of query 0 while the alignment is open; never in a finished mask."""


def stored(table: ir.Table, index: Sequence[ir.Node], shift: ir.Node) -> tuple[ir.Node, ...]:
    """Positions to entries: a table over queries holds those of this call only."""
    dims = table.indexed_dims
    return tuple(
        ir.sub(at, shift) if dim == "q" else at for dim, at in zip(dims, index, strict=False)
    )


def own_indices(
    table: ir.Table, indices: tuple[syn.Expression, ...], wanted: int
) -> tuple[syn.Expression, ...]:
    """The indices of dims that a read names, where `batch` and `head` are spelled out before them: `t[head, q]`."""
    ambient = [dim for dim in table.dims if dim in ("batch", "head")]
    spelled = [each.name for each in indices[: len(ambient)] if isinstance(each, syn.Name)]
    is_spelled = len(indices) == len(ambient) + wanted and spelled == ambient
    return indices[len(ambient) :] if is_spelled else indices


def only_dim(table: ir.Table) -> str | int | None:
    """The dim whose size is the length of the input by its bare name; None where another could be meant."""
    dims = table.indexed_dims
    return dims[0] if len(dims) == 1 and not table.is_list else None


def open_size(table: ir.Table) -> Callable[[str | int], ir.Node]:
    """Sizes of the table's dims while the spaces are open."""
    return lambda dim: dim_size(table, dim, FLAT_PAIR)


def in_row(
    table: ir.Table,
    index: Sequence[ir.Node],
    wanted: ir.Node,
    shift: ir.Node,
    size: Callable[[str | int], ir.Node],
) -> ir.Node:
    """Whether some slot of the row holds the int.

    Negative slots are empty. A row outside the table is empty too, where a plain read gives 0: key
    0 would otherwise be in it.
    """
    entries = stored(table, index, shift)
    *row_dims, slots = table.indexed_dims
    guards: list[ir.Node] = []
    for dim, at, position in zip(row_dims, entries, index, strict=True):
        if not _is_within(dim, position):
            guards += [ir.le(ir.ZERO, at), ir.lt(at, size(dim))]
    if wanted is not K:  # keys are never negative: no empty slot equals one
        guards.append(ir.le(ir.ZERO, wanted))

    def holds(slot: ir.Node) -> ir.Node:
        return ir.eq(ir.Load(table.name, table.kind, (*entries, slot), table.ambient), wanted)

    return ir.conj(*guards, ir.exists(ir.ZERO, size(slots), holds))


def _is_within(dim: str | int, position: ir.Node) -> bool:
    """Whether the index is plainly an entry of the dim: `k` of a key's, `q` of a query's."""
    return (dim in ("k", "pos") and position is K) or (dim == "q" and position is Q)
