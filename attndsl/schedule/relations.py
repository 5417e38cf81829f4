"""The relation of a call in tiles: its axes in some token order, its numbers known to fit 64 bits."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attndsl import ir
from attndsl.schedule.calls import MOST_TOKENS, Call
from attndsl.schedule.layouts import (
    band_ranks,
    ranked_table,
    stable_order,
)
from attndsl.schedule.magnitude import check_magnitude
from attndsl.schedule.model import (
    IntArray,
    TokenOrder,
)
from attndsl.schedule.summaries import TileAxis
from attndsl.source import AttnDslError, Diagnostic


@dataclass(frozen=True, slots=True)
class TiledRelation:
    """One distinct root on its two sides, each in some order and cut into tiles."""

    root: ir.Node
    queries: TileAxis
    keys: TileAxis

    def ordered(self, q_order: TokenOrder | None, k_order: TokenOrder | None) -> TiledRelation:
        """Same relation in other orders."""
        if q_order is None and k_order is None:
            return self
        return TiledRelation(
            self.root, self.queries.reordered(q_order), self.keys.reordered(k_order)
        )


def order_of(axis: TileAxis, keys: Sequence[ir.Node], name: str) -> TokenOrder | None:
    """The side sorted by these keys of its position; None where that is the natural order."""
    if not keys or axis.length == 0:
        return None
    wanted = tuple(keys)
    if wanted not in axis.orders:
        rows = _sorted(axis, wanted)
        natural = bool((rows[1:] > rows[:-1]).all())
        made = None if natural else TokenOrder(rows, name, wanted)
        known = (order for order in axis.orders.values() if order is not None)
        alike = (order for order in known if _is_same(order.rows, rows))
        axis.orders[wanted] = None if made is None else next(alike, made)
    return axis.orders[wanted]


def _is_same(some: IntArray, other: IntArray) -> bool:
    """Whether two permutations of the same are one; those that are not differ at most places."""
    return np.array_equal(some[::512], other[::512]) and np.array_equal(some, other)


def _sorted(axis: TileAxis, keys: tuple[ir.Node, ...]) -> IntArray:
    for node in itertools.chain(*map(ir.postorder, keys)):
        if isinstance(node, ir.Load) and (listed := ranked_table(node.table)) is not None:
            axis.tables.setdefault(node.table, band_ranks(axis.tables[listed]))
    return stable_order([axis.values(key) for key in keys])


def positions_of(mask: ir.Mask, call: Call) -> tuple[range, range]:
    """The positions of the queries and of the keys of a call."""
    shift = mask.shift(call.q_len, call.k_len) if call.first is None else call.first
    return range(shift, shift + call.q_len), range(call.k_len)


def axes_of(
    queries: range, keys: range, tile: tuple[int, int], tables: Mapping[str, Any]
) -> tuple[TileAxis, TileAxis]:
    """Both sides in natural order.

    Raises:
        AttnDslError: A407, they are too long: values by position are held in arrays.
    """
    longest = max(len(queries), len(keys))
    if longest > MOST_TOKENS:
        title = f"{longest:,} tokens are too many to be scheduled"
        notes = (f"at most {MOST_TOKENS:,}",)
        raise AttnDslError(Diagnostic("A407", title, notes=notes))
    known = dict(tables)  # to which ranks of bands are added
    return (
        TileAxis(ir.Side.QUERY, len(queries), queries.start, tile[0], known),
        TileAxis(ir.Side.KEY, len(keys), keys.start, tile[1], known),
    )


def tiled_relation(
    root: ir.Node, queries: range, keys: range, tile: tuple[int, int], tables: Mapping[str, Any]
) -> TiledRelation:
    """A root on both sides in natural order.

    Raises:
        AttnDslError: A403, a number in the pattern passes 2**62 at these lengths.
    """
    axes = axes_of(queries, keys, tile, tables)
    check_magnitude(root, *axes)
    return TiledRelation(root, *axes)
