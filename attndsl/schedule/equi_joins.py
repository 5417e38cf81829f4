"""Equi-join of both sides on their values, for equations that ranges cannot decide.

    k // 64 == hash(q // 64) % 1024        cluster[q] == cluster[k], clusters in disorder

The range of such a term on a tile says nothing, so that refinement would go down to every tile of the
square. The values that a tile holds are few, though: sorted by value, both sides give the pairs of tiles
that hold a common one directly, as a database joins two tables.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field

import numpy as np

from attndsl import ir
from attndsl.passes import split_sides
from attndsl.schedule.model import BoolArray, IntArray, once_each
from attndsl.schedule.summaries import TileAxis

_SAMPLE = 16  # tiles of either side looked at to see whether joining pays
_LARGEST_JOIN = 1 << 22  # common values of pairs of tiles
LARGEST_TABLE = 1 << 24  # pairs of boxes, a byte each


@dataclass(frozen=True, slots=True, eq=False)
class EquiJoin:
    """The pairs of tiles on which an equation has a solution, exactly."""

    rows: IntArray
    columns: IntArray
    n_tiles: tuple[int, int]  # numbers of query tiles and of key tiles
    _levels: dict[tuple[int, int], BoolArray | IntArray] = field(default_factory=dict)

    def may_hold(self, levels: tuple[int, int], rows: IntArray, columns: IntArray) -> BoolArray:
        """True for each box of those levels on which the equation may hold."""
        known = self._levels.get(levels)
        if known is None:
            known = self._levels[levels] = self._known(levels)
        if known.ndim == 2:
            return np.asarray(known[rows, columns], dtype=bool)
        wanted = _codes(rows, columns)
        place = np.searchsorted(known, wanted)
        return known[np.minimum(place, len(known) - 1)] == wanted if len(known) else wanted < 0

    def _known(self, levels: tuple[int, int]) -> BoolArray | IntArray:
        """A table of all boxes of those levels; where it would be too large, those it may hold on, sorted."""
        shape = tuple(-(-count >> level) for count, level in zip(self.n_tiles, levels, strict=True))
        rows, columns = self.rows >> levels[0], self.columns >> levels[1]
        if math.prod(shape) > LARGEST_TABLE:
            return once_each(_codes(rows, columns))
        return _table(shape, rows, columns)


def _table(shape: tuple[int, ...], rows: IntArray, columns: IntArray) -> BoolArray:
    found = np.zeros(shape, dtype=bool)
    found[rows, columns] = True
    return found


def _codes(rows: IntArray, columns: IntArray) -> IntArray:
    return (rows << 32) | columns


def equi_join(node: ir.Node, queries: TileAxis, keys: TileAxis) -> EquiJoin | None:
    """Returns the join of an equation between a per-query and a per-key term; None where ranges decide as much."""
    memo: dict[tuple[ir.Node, TileAxis], EquiJoin | None] = queries.equi_joins
    if (node, keys) not in memo:
        memo[node, keys] = _found(node, queries, keys)
    return memo[node, keys]


def _found(node: ir.Node, queries: TileAxis, keys: TileAxis) -> EquiJoin | None:
    sides = split_sides(node.item) if isinstance(node, ir.Eq) else None
    if sides is None or not isinstance(node, ir.Eq):
        return None
    mine, theirs = sides
    if not (queries.owns(mine) and keys.owns(theirs)):
        return None
    theirs = ir.add(theirs, ir.Const(node.bound))
    if not _pays(mine, theirs, queries, keys):
        return None
    met = _joined(_distinct(mine, queries), _distinct(theirs, keys))
    return None if met is None else EquiJoin(*met, (queries.n_tiles, keys.n_tiles))


def _pays(mine: ir.Node, theirs: ir.Node, queries: TileAxis, keys: TileAxis) -> bool:
    """Whether ranges overlap on many pairs of sampled tiles, and values meet on few of those."""
    ranges = queries.summary(mine, 0), keys.summary(theirs, 0)
    picks = _picked(queries.n_tiles), _picked(keys.n_tiles)
    low = [item.low[pick] for item, pick in zip(ranges, picks, strict=True)]
    high = [item.high[pick] for item, pick in zip(ranges, picks, strict=True)]
    overlap = (low[0][:, None] <= high[1]) & (high[0][:, None] >= low[1])
    count = int(np.count_nonzero(overlap))
    if count * 8 < overlap.size:
        return False
    sides = list(zip((mine, theirs), (queries, keys), picks, strict=True))
    if all(axis.is_dense(node, pick) for node, axis, pick in sides):
        return False
    held = [
        _once_each(axis.on_tiles(node, pick).reshape(-1), axis.tile) for node, axis, pick in sides
    ]
    met = _joined(*held)
    return met is not None and 4 * int(np.count_nonzero(_table(overlap.shape, *met))) <= count


@functools.lru_cache(maxsize=64)
def _picked(count: int) -> IntArray:
    return once_each(np.linspace(0, count - 1, min(count, _SAMPLE)).astype(np.int64))


def _distinct(node: ir.Node, axis: TileAxis) -> tuple[IntArray, IntArray]:
    """(values, tiles): each value of each tile once, sorted by value."""
    if (known := axis.equi_joins.get(node)) is not None:
        return known[0], known[1]
    found = axis.equi_joins[node] = _once_each(axis.values(node), axis.tile)
    return found


def _once_each(values: IntArray, tile: int) -> tuple[IntArray, IntArray]:
    """(values, tiles) of values by place: those of each tile once, by value and then by tile."""
    bits = (len(values) // tile + 1).bit_length()
    low, high = int(values.min(initial=0)), int(values.max(initial=0))
    if high - low >= 1 << (62 - bits):  # there is no room for a value and a tile in one number
        distinct, ranks = np.unique(values, return_inverse=True)
        ranks, tiles = _once_each(ranks.reshape(-1), tile)
        return distinct[ranks], tiles
    codes = ((values - low) << bits) | np.arange(len(values)) // tile
    codes = once_each(codes[np.diff(codes, prepend=-1) != 0])  # most neighbours are equal
    return (codes >> bits) + low, codes & ((1 << bits) - 1)


def _joined(
    mine: tuple[IntArray, IntArray], theirs: tuple[IntArray, IntArray]
) -> tuple[IntArray, IntArray] | None:
    """The pairs of tiles that hold a common value, once for each."""
    (values, rows), (others, columns) = mine, theirs
    first, last = (np.searchsorted(others, values, side) for side in ("left", "right"))
    counts = last - first
    if int(counts.sum()) > _LARGEST_JOIN:
        return None
    starts = np.repeat(first - np.cumsum(counts) + counts, counts)
    return np.repeat(rows, counts), columns[starts + np.arange(len(starts))]
