"""Exact ranges of per-query and per-key terms on tiles of one side, at every level of refinement.

In natural order, a term that is affine in the position has a closed form. Any other (a coordinate, a
residue, a table) is evaluated once at each position and reduced to a minimum and maximum per tile, then
per pair of tiles, and so on: linear in the length, whatever the term and whatever the order.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from attndsl import ir
from attndsl.analysis import Range, Truths
from attndsl.schedule.distinct import row_classes
from attndsl.schedule.model import BoolArray, IntArray, TokenOrder

AT_ONCE = 1 << 13  # positions evaluated at a time, so that temporaries stay in a core's cache


class TileAxis:
    """One side of the square of pairs: ``length`` positions from ``start`` on, in tiles of ``tile``.

    ``order`` gives the position that each place in storage holds; None is the natural order.
    """

    def __init__(
        self,
        side: ir.Side,
        length: int,
        start: int,
        tile: int,
        tables: dict[str, Any],
        order: TokenOrder | None = None,
    ) -> None:
        self.side = side
        self.length = length
        self.start = start
        self.tile = tile
        self.n_tiles = -(-length // tile)
        self.tables = tables
        self.order = order
        self._natural: TileAxis | None = None  # the same side in natural order
        self._is_sample = False  # True for a few places of a side
        self._owned: dict[ir.Node, bool] = {}
        self._summaries: dict[tuple[ir.Node, int], Range] = {}
        self._values: dict[ir.Node, IntArray] = {}
        self._shapes: dict[ir.Node, tuple[IntArray | None, IntArray]] = {}
        self._pieces: dict[ir.Node, Range] = {}
        self._slopes: dict[ir.Node, int | None] = {}
        self._bounds: dict[str, tuple[int, int]] = {}
        # Weak, because they refer back: memory is freed when the search ends, not at the next garbage collection.
        self._reordered: WeakValueDictionary[TokenOrder, TileAxis] = WeakValueDictionary()
        self.equi_joins: dict[Any, Any] = {}  # a memo of ``meetings``
        self.orders: dict[Any, TokenOrder | None] = {}  # a memo of ``building``

    def reordered(self, order: TokenOrder | None) -> TileAxis:
        """Same side, so far in natural order, in another order."""
        if order is None:
            return self
        made = self._reordered.get(order)
        if made is None:
            made = self._reordered[order] = self._derived(self.length, order)
            made._natural = self
        return made

    def sampled(self, tiles: IntArray) -> TileAxis:
        """Restricts the side to some tiles, in increasing order."""
        places = (tiles[:, None] * self.tile + np.arange(self.tile)).reshape(-1)
        places = places[places < self.length]
        rows = places if self.order is None else self.order.rows[places]
        made = self._derived(len(rows), TokenOrder(rows))
        made._natural, made._is_sample = self._natural or self, True
        return made

    def first(self, length: int) -> TileAxis:
        """Restricts the side to its first positions, in natural order."""
        return self._derived(length)

    def _derived(self, length: int, order: TokenOrder | None = None) -> TileAxis:
        """Same side restricted to other positions; position-independent caches are shared."""
        made = TileAxis(self.side, length, self.start, self.tile, self.tables, order)
        made._owned, made._bounds = self._owned, self._bounds
        return made

    def owns(self, node: ir.Node) -> bool:
        """Whether the node depends on this side's position and not on the other's."""
        known = self._owned.get(node)
        if known is None:
            known = self._owned[node] = node.deps & ir.Deps.PAIR == self.side.deps
        return known

    def count(self, level: int) -> int:
        """Boxes of ``2**level`` tiles."""
        return -(-self.n_tiles >> level) if level else self.n_tiles

    def summary(self, node: ir.Node, level: int) -> Range:
        """Least and greatest value in each box of the level, [count(level)]; truth values as 0 and 1."""
        found = self._summaries.get((node, level))
        if found is None:
            found = self._summaries[node, level] = self._summarised(node, level)
        return found

    def _summarised(self, node: ir.Node, level: int) -> Range:
        slope = self._slope(node)
        if slope is not None:
            return self._affine(node, slope, level)
        if isinstance(node, ir.Le) and self._slope(node.item) is not None:
            item = self.summary(node.item, level)
            return Range(item.high <= node.bound, item.low <= node.bound)
        if (line := _line(node)) is not None:
            inner = self.summary(line.term, level)
            low, high = line.at(inner.low), line.at(inner.high)
            return Range(low, high) if line.factor > 0 else Range(high, low)
        return _halve(self.summary(node, level - 1)) if level else self._reduce(self.values(node))

    def values(self, node: ir.Node) -> IntArray:
        """The value at each position, [length]; truth values as 0 and 1."""
        found = self._values.get(node)
        if found is None:
            line = _line(node)
            found = self._evaluated(node) if line is None else line.at(self.values(line.term))
            self._values[node] = found
        return found

    def at(self, node: ir.Node, places: IntArray, env: ir.Env) -> IntArray:
        """The values at those places, whose positions ``env`` has."""
        if (known := self._values.get(node)) is not None:
            return np.asarray(known[places])
        if (line := _line(node)) is not None and line.term in self._values:
            return line.at(self._values[line.term][places])
        return np.asarray(ir.evaluate(node, env))

    def slope(self, node: ir.Node) -> int:
        """Known difference between neighbouring values; 0 where it is not known."""
        return self._slope(node) or 0

    def table_bounds(self, name: str) -> tuple[int, int]:
        """Least and greatest value that a read of the table can give, the 0 of an index outside it included."""
        found = self._bounds.get(name)
        if found is None:
            values = self.tables[name]
            ends = (int(values.min()), int(values.max())) if values.size else (0, 0)
            found = self._bounds[name] = min(ends[0], 0), max(ends[1], 0)
        return found

    def changes(self, node: ir.Node, tiles: IntArray) -> BoolArray:
        """Whether an offset holds another value than the one before it on any of those tiles, [tile - 1]."""
        values = self.on_tiles(node, tiles)
        return np.asarray((values[:, 1:] != values[:, :-1]).any(axis=0))

    def is_dense(self, node: ir.Node, tiles: IntArray) -> bool:
        """Whether the values may change often enough to fill the range that each of those tiles has."""
        slope = self._slope(node)
        if slope is not None:
            return abs(slope) <= 1
        values = self.on_tiles(node, tiles)
        changes = np.count_nonzero(values[:, 1:] != values[:, :-1], axis=1)
        return bool((values.max(axis=1) - values.min(axis=1) <= changes).all())

    def on_tiles(self, node: ir.Node, tiles: IntArray) -> IntArray:
        """The values on some tiles, [len(tiles), tile]; a last tile that is cut repeats its last value."""
        values = self.values(node)
        if self.length % self.tile == 0:
            return np.asarray(values.reshape(-1, self.tile)[tiles])
        places = tiles[:, None] * self.tile + np.arange(self.tile)
        return np.asarray(values[np.minimum(places, self.length - 1)])

    def _evaluated(self, node: ir.Node) -> IntArray:
        if isinstance(node, ir.Pos):
            return self._position
        natural = self._natural  # which may be tried in other orders, and sampled again
        if natural is not None and not (self._is_sample and node not in natural._values):
            assert self.order is not None
            return natural.values(node).take(self.order.rows)
        if (read := self._read_in_order(node)) is not None:
            return read
        values = np.empty(self.length, dtype=np.int64)
        for start in range(0, self.length, AT_ONCE):
            some = slice(start, start + AT_ONCE)
            position = self._position[some]
            env = ir.Env(q=position, k=position, sizes={}, tables=self.tables, fits=True)
            values[some] = ir.evaluate(node, env)
        return values

    def _read_in_order(self, node: ir.Node) -> IntArray | None:
        """The values of a table that is read at each position, all of which it has; None for other terms."""
        if self.order is not None or self.start < 0 or not isinstance(node, ir.Load):
            return None
        table = self.tables[node.table]
        if node.index != (ir.Pos(self.side),) or table.shape[0] < self.start + self.length:
            return None
        part = table[self.start : self.start + self.length]
        return np.array(part != 0 if node.kind is ir.Sort.BOOL else part, dtype=np.int64)

    @functools.cached_property
    def _position(self) -> IntArray:
        """The position that each place in storage holds, [length]."""
        if self.order is None:
            return np.arange(self.start, self.start + self.length, dtype=np.int64)
        return self.order.rows + self.start if self.start else self.order.rows

    def positions(self, places: IntArray) -> IntArray:
        """The positions that those places in storage hold."""
        return (places if self.order is None else self.order.rows[places]) + self.start

    def shapes(self, node: ir.Node) -> tuple[IntArray | None, IntArray]:
        """For each tile: the class of its values up to an offset, and the offset. [n_tiles] each.

        Two tiles of one class hold the same values after subtracting their offsets. No classes: all
        tiles are of one.
        """
        found = self._shapes.get(node)
        if found is None:
            line = None if self._slope(node) is not None else _line(node)
            if line is None:
                found = self._classify(node)
            else:
                classes, offsets = self.shapes(line.term)
                found = classes, line.at(offsets)
            self._shapes[node] = found
        return found

    def _classify(self, node: ir.Node) -> tuple[IntArray | None, IntArray]:
        slope = self._slope(node)
        if slope is not None:
            return None, self._affine(node, slope, 0).low
        if isinstance(node, ir.Le) and self._slope(node.item) is not None:
            return None, self.summary(node.item, 0).low
        padded = _pad(self.values(node), self.n_tiles * self.tile).reshape(-1, self.tile)
        offset = padded[:, 0] * (node.sort is not ir.Sort.BOOL)
        return row_classes(padded, offset)[1], offset

    def n_shapes(self, node: ir.Node) -> int:
        """How many classes of tiles there are."""
        classes, _ = self.shapes(node)
        return 1 if classes is None else int(classes.max(initial=0)) + 1

    def pieces(self, node: ir.Node) -> Range:
        """Least and greatest value before and after the one great step of each tile, [n_tiles, 2].

        A great step is larger than all other steps of its tile together, for example where one residue class ends
        and the next begins. Tiles of one shape are cut at one place. Without a great step anywhere the result is
        that of whole tiles, [n_tiles, 1].
        """
        found = self._pieces.get(node)
        if found is None:
            found = self._pieces[node] = self._cut(node)
        return found

    def _cut(self, node: ir.Node) -> Range:
        whole, (shapes, _) = self.summary(node, 0), self.shapes(node)
        place = np.zeros(self.n_tiles, dtype=np.int64)
        if shapes is not None:
            example = np.zeros(int(shapes.max(initial=-1)) + 1, dtype=np.int64)
            example[shapes] = np.arange(self.n_tiles)
            place = _great_step(self.on_tiles(node, example))[shapes]
        broken = np.flatnonzero(place)
        if len(broken) == 0:
            return Range(whole.low[:, None], whole.high[:, None])
        values = self.on_tiles(node, broken).reshape(-1)
        edges = np.arange(0, len(values), self.tile).repeat(2)
        edges[1::2] += place[broken]
        low, high = (end[:, None].repeat(2, axis=1) for end in (whole.low, whole.high))
        low[broken] = np.minimum.reduceat(values, edges).reshape(-1, 2)
        high[broken] = np.maximum.reduceat(values, edges).reshape(-1, 2)
        return Range(low, high)

    def _slope(self, node: ir.Node) -> int | None:
        """The coefficient of the position, if the node is affine in it and the order natural."""
        if node.sort is ir.Sort.BOOL or self.order is not None:
            return None
        if node not in self._slopes:
            terms, _ = ir.linear(node)
            affine = all(isinstance(term, ir.Pos) for term in terms)
            self._slopes[node] = sum(terms.values()) if affine else None
        return self._slopes[node]

    def _affine(self, node: ir.Node, slope: int, level: int) -> Range:
        width = self.tile << level
        first = np.arange(self.count(level), dtype=np.int64) * width + self.start
        last = np.minimum(first + (width - 1), self.start + self.length - 1)
        constant = ir.linear(node)[1]
        ends = slope * first + constant, slope * last + constant
        step = first * 0 + abs(slope)
        low, high = ends if slope >= 0 else ends[::-1]
        return Range(low, high, step)

    def _reduce(self, values: IntArray) -> Range:
        edges = np.arange(0, self.length, self.tile)
        return Range(np.minimum.reduceat(values, edges), np.maximum.reduceat(values, edges))


@dataclass(frozen=True, slots=True)
class _Line:
    """A term multiplied and shifted, so that summaries of the term are reused."""

    term: ir.Node
    factor: int
    constant: int

    def at(self, values: IntArray) -> IntArray:
        """Applies the line to values of the term."""
        return self.factor * values + self.constant


def _line(node: ir.Node) -> _Line | None:
    match node:
        case ir.Sum(terms=((term, factor),), constant=constant):
            return _Line(term, factor, constant)
        case _:
            return None


def as_truths(item: Range) -> Truths:
    """A summary of 0 and 1 as possible truth values."""
    return Truths(item.high > 0, item.low == 0)


def _halve(finer: Range) -> Range:
    edges = np.arange(0, len(finer.low), 2)
    return Range(np.minimum.reduceat(finer.low, edges), np.maximum.reduceat(finer.high, edges))


def _great_step(rows: IntArray) -> IntArray:
    """Where in each row the step is that exceeds all its others together, [n]; 0 without one."""
    steps = np.abs(np.diff(rows, axis=1, prepend=rows[:, :1]))
    great = 2 * steps.max(axis=1) > steps.sum(axis=1)
    return np.where(great, steps.argmax(axis=1), 0)


def _pad(values: IntArray, length: int) -> IntArray:
    return (
        np.pad(values, (0, length - len(values)), mode="edge") if len(values) < length else values
    )
