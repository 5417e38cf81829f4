"""Unions of regions between straight lines: for each row, the disjoint intervals of columns that it sees.

    any s in 0..m: a[s] <= q < b[s] and c[s] <= k < d[s] and k - q <= e[s]
    -->  low[q] <= k <= high[q]  or  ...        as many as a row has after its intervals are joined

Each number is a region of rows in a run, whose columns lie between lines of the row. Rows between neighbouring ends
of those runs, a band, are in the same regions. In a band, intervals that are alike in all rows are joined once, and
those that move with the row are left out where a joined one holds all of them. So the work follows bands and regions,
not rows, until the intervals that are left are written down.
"""

from __future__ import annotations

import heapq
import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from attndsl import ir
from attndsl.schedule.model import BoolArray, IntArray, written_out
from attndsl.schedule.summaries import TileAxis

_MOST_PAIRS: Final = 1 << 22  # of bands and regions: about a second
_MOST_ENTRIES: Final = 1 << 23  # intervals of all rows: 128 MB


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    """A bound on columns: ``slope * row + offset`` where it is active, none elsewhere."""

    slope: int
    offset: IntArray  # [numbers]
    active: BoolArray  # [numbers]

    def at(self, numbers: IntArray, rows: IntArray, otherwise: int) -> IntArray:
        """The bound of some numbers in some rows."""
        found = self.slope * rows + self.offset[numbers]
        return np.where(self.active[numbers], found, otherwise)


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """One region a number: rows from ``first`` up to ``stop``, columns between the greatest low and the least high."""

    first: IntArray
    stop: IntArray
    lows: tuple[_Line, ...]
    highs: tuple[_Line, ...]

    def lowest(self, numbers: IntArray, rows: IntArray, axis: TileAxis) -> list[IntArray]:
        """Each lower bound, and the first column."""
        least = axis.start
        return [np.full(len(rows), least), *(x.at(numbers, rows, least) for x in self.lows)]

    def highest(self, numbers: IntArray, rows: IntArray, axis: TileAxis) -> list[IntArray]:
        """Each upper bound, and the last column."""
        most = axis.start + axis.length - 1
        return [np.full(len(rows), most), *(x.at(numbers, rows, most) for x in self.highs)]


def regions(
    items: Sequence[ir.Node], level: int, numbers: range, rows: TileAxis, columns: TileAxis
) -> Regions | None:
    """The regions of the numbers for which all items hold; None where an item is no line.

    Args:
        items: Comparisons of positions and the bound variable of the level, or alternatives of one such
            comparison and conditions of the variable alone.
        level: Of the variable.
        numbers: What the variable may be.
        rows: The side that the regions are runs of.
        columns: The other side.
    """
    tried = np.arange(numbers.start, numbers.stop, dtype=np.int64)
    env = ir.Env(q=0, k=0, sizes={}, tables=rows.tables, fits=True, indices={level: tried})

    def values(node: ir.Node) -> IntArray:
        return np.broadcast_to(np.asarray(ir.evaluate(node, env)), tried.shape)

    first, stop = np.full(tried.shape, rows.start), np.full(tried.shape, rows.start + rows.length)
    lows, highs = list[_Line](), list[_Line]()
    for item in items:
        parts = item.items if isinstance(item, ir.Or) else (item,)
        free = [part for part in parts if not part.deps & ir.Deps.PAIR]
        bound = [part for part in parts if part.deps & ir.Deps.PAIR]
        active = ~values(ir.disj(*free)).astype(bool)
        if not bound:
            stop = np.where(active, first, stop)  # none of the conditions holds
            continue
        if len(bound) > 1 or not isinstance(bound[0], ir.Le | ir.Eq):
            return None
        terms, constant = ir.linear(bound[0].item)
        across, along = terms.pop(ir.Pos(columns.side), 0), terms.pop(ir.Pos(rows.side), 0)
        if any(term.deps & ir.Deps.PAIR for term in terms) or abs(across or along) != 1:
            return None
        rest = values(
            ir.combine(terms, constant - bound[0].bound)
        )  # across*c + along*r + rest <= 0
        both = isinstance(bound[0], ir.Eq)
        if across:
            line = _Line(-along * across, -rest * across, active)
            lows += [line] * (both or across < 0)
            highs += [line] * (both or across > 0)
            continue
        if along > 0 or both:
            stop = np.where(active, np.minimum(stop, -rest * along + 1), stop)
        if along < 0 or both:
            first = np.where(active, np.maximum(first, -rest * along), first)
    return Regions(first, stop, tuple(lows), tuple(highs))


@dataclass(frozen=True, slots=True, eq=False)
class _Bands:
    """Pairs of a band of rows and a number whose region it is in."""

    edges: IntArray  # [bands + 1], positions of rows
    band: IntArray  # [pairs]
    number: IntArray  # [pairs]


def _bands(found: Regions) -> _Bands | None:
    some = np.nonzero(found.first < found.stop)[0]
    first, stop = found.first[some], found.stop[some]
    edges = np.unique(np.concatenate([first, stop]))
    begins, ends = np.searchsorted(edges, first), np.searchsorted(edges, stop)
    if int((ends - begins).sum()) > _MOST_PAIRS:
        return None
    return _Bands(edges, written_out(begins, ends), np.repeat(some, ends - begins))


def _intervals(found: Regions, columns: TileAxis) -> _Intervals | None:
    """The intervals of each band; None where there are too many bands and regions."""
    bands = _bands(found)
    if bands is None:
        return None
    band, number, edges = bands.band, bands.number, bands.edges
    ends = edges[band], edges[band + 1] - 1
    low, high = (
        np.array([bound(number, end, columns) for end in ends])
        for bound in (found.lowest, found.highest)
    )  # [2 ends, bounds, pairs]: lines are monotone, so their extremes lie at the ends
    outer = low.min(0).max(0), high.max(0).min(0)  # columns that some row of the band may see
    inner = low.max((0, 1)), high.min((0, 1))  # columns that all of its rows see
    width = columns.length + 2
    # Across all bands: no interval of one touches one of the next.
    place = band * width - columns.start
    live = outer[0] <= outer[1]
    whole = np.nonzero(live & (inner[0] <= inner[1]))[0]
    begins, stops, lead = _joined(*(place[whole] + each[whole] for each in inner))
    at = np.searchsorted(begins, place + outer[0], side="right") - 1
    held = live & (at >= 0) & (np.append(stops, -1)[at] >= place + outer[1])
    moving = np.nonzero(live & ~held)[0]
    needed = np.unique(
        at[held]
    )  # a group that none relies on repeats what its members say themselves
    fixed = begins[needed] // width
    return _Intervals(
        edges,
        np.concatenate([fixed, band[moving]]),
        np.concatenate([2 * number[whole[lead[needed]]], 2 * number[moving] + 1]),
        (begins[needed] - fixed * width, stops[needed] - fixed * width),
    )


def _joined(first: IntArray, last: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Joins intervals that overlap or touch: first and last of each, ascending, and which of those begins it."""
    order = np.argsort(first, kind="stable")
    first, reach = first[order], np.maximum.accumulate(last[order])
    apart = np.ones(len(first) + 1, dtype=bool)
    apart[1:-1] = first[1:] > reach[:-1] + 1
    return first[apart[:-1]], reach[apart[1:]], order[apart[:-1]]


@dataclass(frozen=True, slots=True, eq=False)
class _Intervals:
    """The intervals of all bands: first those that stand still, then those of one number."""

    edges: IntArray
    band: IntArray  # [intervals]
    name: IntArray  # [intervals]: alike in neighbouring bands that go on with the same one; odd for 2 * number + 1
    still: tuple[
        IntArray, IntArray
    ]  # first and last column of those, counted from the first of all

    def slots(self) -> IntArray:
        """A slot for each; one that goes on in the next band keeps its slot."""
        order = np.lexsort((self.band, self.name))
        if not len(order):
            return order
        name, band = self.name[order], self.band[order]
        begins = np.ones(len(order), dtype=bool)
        begins[1:] = (name[1:] != name[:-1]) | (band[1:] != band[:-1] + 1)
        run = np.cumsum(begins) - 1
        starts = np.nonzero(begins)[0]
        first, last = band[starts], band[np.append(starts[1:], len(order)) - 1]
        slot_of_run = np.empty(len(starts), dtype=np.int64)
        free, busy = list[int](), list[tuple[int, int]]()  # heaps: slots, and (last band, slot)
        for each in np.argsort(first, kind="stable").tolist():
            while busy and busy[0][0] < first[each]:
                heapq.heappush(free, heapq.heappop(busy)[1])
            slot = heapq.heappop(free) if free else len(busy)
            slot_of_run[each] = slot
            heapq.heappush(busy, (int(last[each]), slot))
        found = np.empty(len(order), dtype=np.int64)
        found[order] = slot_of_run[run]
        return found


def _written(
    found: Regions, given: _Intervals, slots: IntArray, rows: TileAxis, columns: TileAxis
) -> tuple[IntArray, IntArray]:
    """First and last column of each interval, [slots, rows]; a slot that a row does not need is empty."""
    shape = int(slots.max(initial=-1)) + 1, rows.length
    low = np.full(shape, columns.start + columns.length)
    high = np.full(shape, columns.start - 1)
    begins, ends = given.edges[given.band], given.edges[given.band + 1]
    which = np.repeat(np.arange(len(slots)), ends - begins)
    row = written_out(begins, ends)
    at = slots[which], row - rows.start
    is_still = which < len(given.still[0])
    number, place = given.name[which[~is_still]] // 2, row[~is_still]
    for table, known, bounds, extreme in (
        (low, given.still[0], found.lowest, np.maximum),
        (high, given.still[1], found.highest, np.minimum),
    ):
        made = np.empty(len(which), dtype=np.int64)
        made[is_still] = known[which[is_still]] + columns.start
        made[~is_still] = extreme.reduce(bounds(number, place, columns))
        table[at] = made
    return low, high


def union(
    items: Sequence[ir.Node], level: int, numbers: range, axes: tuple[TileAxis, TileAxis]
) -> tuple[TileAxis, tuple[IntArray, IntArray]] | None:
    """The side that sees fewer intervals of the other at a position, and their first and last, [slots, length].

    Args:
        items: Conditions on each number, see `regions`.
        level: Of the bound variable.
        numbers: What it may be.
        axes: Both sides, in natural order.

    Returns:
        None where the conditions are no lines, or where there are too many intervals.
    """
    ways = []
    for rows, columns in itertools.permutations(axes):
        found = regions(items, level, numbers, rows, columns)
        made = None if found is None else _intervals(found, columns)
        if found is None or made is None:
            continue
        slots = made.slots()
        count = int(slots.max(initial=-1)) + 1
        if count * rows.length <= _MOST_ENTRIES:
            ways.append((count, found, made, slots, rows, columns))
    if not ways:
        return None
    _, found, made, slots, rows, columns = min(ways, key=operator.itemgetter(0))
    return rows, _written(found, made, slots, rows, columns)
