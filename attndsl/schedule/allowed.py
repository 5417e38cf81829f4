"""The numbers of a loop that each position allows, where those are few: slots by position.

    any j in 0..m: first[j] <= q < last[j] and P(j, q, k)      few j for each q, of many

Where all conditions compare one term of the position with terms of the number, each number allows a run of
the positions sorted by that term, which a binary search finds. Other conditions are evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from attndsl import ir
from attndsl.schedule.model import IntArray
from attndsl.schedule.summaries import TileAxis

AT_ONCE: Final = 1 << 20  # truth values


def allowed(own: ir.Node, level: int, numbers: range, axis: TileAxis, most: int) -> IntArray | None:
    """The numbers for which ``own`` holds at each position, [slots, length], below all where there are fewer.

    Args:
        own: Depends on the position of the side and on the bound variable of the level.
        level: Of the variable.
        numbers: What the variable may be.
        axis: The side, in natural order.
        most: How many numbers a position may allow; where one allows more, there are no slots.
    """
    found = _runs(own, level, numbers, axis)
    parts = [found] if found is not None else _evaluated(own, level, numbers, axis)
    slots = np.full((0, axis.length), numbers.start - 1, dtype=np.int64)
    for part in parts:
        if part.widest > most:
            return None
        if part.widest > len(slots):
            more = np.full((part.widest - len(slots), axis.length), numbers.start - 1)
            slots = np.concatenate([slots, more])
        part.write(slots, numbers.start)
    return slots


class _Runs:
    """Runs of places, one for each number: [first, stop)."""

    def __init__(self, first: IntArray, stop: IntArray, order: IntArray) -> None:
        self._first, self._order = first, order
        self._lengths = np.maximum(stop - first, 0)
        some = self._lengths > 0
        edges = np.zeros(len(order) + 1, dtype=np.int64)
        np.add.at(edges, first[some], 1)
        np.add.at(edges, stop[some], -1)
        self._counts = np.cumsum(edges[:-1])
        self.widest = int(self._counts.max(initial=0))

    def write(self, slots: IntArray, start: int) -> None:
        """Writes the numbers, from ``start`` on, into the slots of the places that they allow."""
        lengths = self._lengths
        before = np.cumsum(lengths) - lengths
        places = np.arange(int(lengths.sum())) - np.repeat(before - self._first, lengths)
        by_place = np.argsort(places, kind="stable")
        numbers = np.repeat(np.arange(len(lengths)), lengths)[by_place]
        places, firsts = places[by_place], np.cumsum(self._counts) - self._counts
        slots[np.arange(len(places)) - firsts[places], self._order[places]] = start + numbers


class _Grid:
    """Truth values of all numbers at some places, [places, numbers]."""

    def __init__(self, holds: IntArray, first: int) -> None:
        self._holds, self._first = holds, first
        self._counts = np.count_nonzero(holds, axis=1)
        self.widest = int(self._counts.max(initial=0))

    def write(self, slots: IntArray, start: int) -> None:
        """Writes the numbers, from ``start`` on, into the slots of the places that they allow."""
        places, numbers = np.nonzero(self._holds)
        firsts = np.cumsum(self._counts) - self._counts
        slots[np.arange(len(places)) - firsts[places], self._first + places] = start + numbers


def _evaluated(own: ir.Node, level: int, numbers: range, axis: TileAxis) -> Iterator[_Grid]:
    at_once = max(1, AT_ONCE // max(1, len(numbers)))
    for start in range(0, axis.length, at_once):
        places = np.arange(start, min(start + at_once, axis.length))
        position = axis.positions(places)[:, None]
        env = replace(_env(level, numbers, axis), q=position, k=position)
        holds = np.broadcast_to(ir.evaluate(own, env), (len(places), len(numbers)))
        yield _Grid(holds, start)


def _env(level: int, numbers: range, axis: TileAxis) -> ir.Env:
    tried = np.arange(numbers.start, numbers.stop, dtype=np.int64)
    return ir.Env(q=0, k=0, sizes={}, tables=axis.tables, fits=True, indices={level: tried})


def _runs(own: ir.Node, level: int, numbers: range, axis: TileAxis) -> _Runs | None:
    """The places sorted by the one term that all conditions compare, and the run of each number."""
    items = own.items if isinstance(own, ir.And) else (own,)
    conditions = [item for item in items if item.deps & ir.Deps.PAIR]
    sides = [split(item, level) for item in conditions]
    bases = {_unsigned(term) for term, _ in filter(None, sides)}
    if None in sides or len(bases) != 1:
        return None
    base, env, shape = bases.pop(), _env(level, numbers, axis), (len(numbers),)
    values = axis.values(base)
    order = np.argsort(values, kind="stable")
    values = values[order]
    first, stop = np.zeros(shape, np.int64), np.full(shape, axis.length)
    for item in (item for item in items if item not in conditions):
        stop = np.where(ir.evaluate(item, env), stop, 0)
    for item, (term, limit) in zip(conditions, filter(None, sides), strict=True):
        ends = np.broadcast_to(np.asarray(ir.evaluate(limit, env)), shape)
        if isinstance(item, ir.Eq) or term is not base:  # base >= -limit, or base == limit
            ends = ends if term is base else -ends
            first = np.maximum(first, np.searchsorted(values, ends, side="left"))
        if isinstance(item, ir.Eq) or term is base:
            stop = np.minimum(stop, np.searchsorted(values, ends, side="right"))
    return _Runs(first, stop, order)


def split(item: ir.Node, level: int) -> tuple[ir.Node, ir.Node] | None:
    """(x, y) where the comparison is ``x <= y`` or ``x == y``, x of the position and y of the number alone."""
    if not isinstance(item, ir.Le | ir.Eq):
        return None
    terms, constant = ir.linear(item.item)
    variable = ir.Index(level)
    mine = {term: -c for term, c in terms.items() if variable in ir.postorder(term)}
    if any(term.deps & ir.Deps.PAIR for term in mine):
        return None
    rest = {term: c for term, c in terms.items() if term not in mine}
    return ir.combine(rest), ir.combine(mine, item.bound - constant)


def _unsigned(term: ir.Node) -> ir.Node:
    return min(term, ir.scale(term, -1), key=lambda node: node.digest)
