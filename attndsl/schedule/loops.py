"""Loops of a bound relation become comparisons, and tables of numbers worked out once for each position.

    any j in 0..3: q - k == pow2(j)        -->  q - k == 1 or q - k == 2 or q - k == 4
    any j in 0..n[q]: k == q - j * j       -->  0 < n[q] and k == q  or  1 < n[q] and k == q - 1  or ...
    any j in a[q]..a[q] + 2: k == t[j]     -->  k == t[a[q]] or k == t[a[q] + 1]
    any j in k..q: odd[j]                  -->  c[k] < c[q]            c[x]: how many j < x are odd
    any j in 0..m: f[j] <= q < g[j] and P  -->  P at the few j of the query, which a table holds
    any j in 0..m: (q * j + k) % 97 == 1   -->  t[q, k % 97]
    count j in 0..m: f[j] <= q             -->  t[q]

Law: for every pair of the call both sides evaluate alike. No loop is left, so whatever is done with the
relation afterwards knows of none. Numbers are tried one by one only where no better way is known.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any, Final, cast

import numpy as np

from attndsl import ir
from attndsl.analysis import Interpreter
from attndsl.schedule.allowed import allowed, split
from attndsl.schedule.alternatives import bounds_of, equation, is_long, sets_of
from attndsl.schedule.intervals import union
from attndsl.schedule.loop_parts import (
    FEWER,
    NARROW,
    WIDEST_TABLE,
    Ranks,
    TooManyAlternatives,
    conditions_of,
    digest_of,
    has_numbers,
    is_any,
    loop_from_start,
    nothing_found,
    range_known,
    speaks_of_other,
    tested,
    with_body,
    written_size,
)
from attndsl.schedule.magnitude import check_magnitude
from attndsl.schedule.model import IntArray
from attndsl.schedule.summaries import TileAxis
from attndsl.source import AttnDslError

_MOST_NODES: Final = 1 << 16  # of bodies that are written out, all together: about a second
_MOST_VALUES: Final = 1 << 31  # of a body, at all positions of one side: some seconds


class Loops:
    """Takes the loops out of one bound relation. ``made`` are the tables that it reads from then on."""

    def __init__(self, queries: TileAxis, keys: TileAxis) -> None:
        self._queries, self._keys = queries, keys
        self._done: dict[ir.Node, ir.Node] = {}
        self._spent = 0
        self._bounds = Interpreter(
            functools.partial(range_known, (queries, keys)), np.zeros(1, dtype=object)
        )
        self.made: dict[str, Any] = {}

    def read(self, root: ir.Node) -> ir.Node:
        """The same relation without loops.

        Raises:
            AttnDslError: A403, a number that is worked out passes 2**62; A404, a loop in a loop is too wide.
            TooManyAlternatives: a loop is too wide.
        """
        stack = [root]
        while stack:
            node = stack.pop()
            if node in self._done:
                continue
            parts = (node.start, node.stop) if isinstance(node, ir.Loop) else node.parts
            missing = [part for part in parts if part not in self._done]
            if missing:
                stack += [node, *missing]
                continue
            fresh = tuple(self._done[part] for part in parts)
            if isinstance(node, ir.Loop):
                self._done[node] = self._without(node, *fresh)
            elif isinstance(node, ir.Load) and all(isinstance(x, ir.Const) for x in fresh):
                value = ir.evaluate(ir.rebuild(node, fresh), self._env())
                number = node.kind is ir.Sort.INT
                self._done[node] = ir.Const(int(value)) if number else ir.BoolConst(bool(value))
            else:
                same = all(new is old for new, old in zip(fresh, parts, strict=True))
                self._done[node] = self._shorter(node if same else ir.rebuild(node, fresh))
        return self._done[root]

    def _without(self, node: ir.Loop, start: ir.Node, stop: ir.Node) -> ir.Node:
        variable, make = ir.Index(node.level), ir.exists if is_any(node) else ir.total
        loop = make(start, stop, lambda j: ir.substitute(node.body, {variable: j}))
        if not isinstance(loop, ir.Loop):  # it could be solved, now that lengths are numbers
            return self.read(loop)
        sides = loop.deps & ir.Deps.PAIR
        if not sides:
            return self._alone(loop)
        if not loop.body.deps & ir.Deps.PAIR:
            return self._counted(loop)
        if sides == ir.Deps.PAIR:
            return self._of_pair(loop)
        return self._of_side(loop, self._queries if sides == ir.Deps.QUERY else self._keys)

    # ------------------------------------------------------------------ long disjunctions

    def _shorter(self, node: ir.Node) -> ir.Node:
        """A long disjunction, or its negation, by the intervals that each position sees, where those are fewer."""
        if not is_long(node):
            return node
        if isinstance(node, ir.Or):
            return self._as_intervals(node) or node
        found = self._as_intervals(cast(ir.Or, ir.negate(node)))
        return node if found is None else ir.negate(found)

    def _as_intervals(self, root: ir.Or) -> ir.Node | None:
        bounds, count = bounds_of(root), len(root.items)
        if bounds is None or 0 in (self._queries.length, self._keys.length):
            return None
        names: dict[ir.Node, str] = {}
        for term, found in bounds.items():
            least, most = self._hull(term)
            limits = (most if bound is None else bound for bound in found)
            names[term] = self._kept(np.clip(np.fromiter(limits, np.int64), least - 1, most))

        def alternative(place: ir.Node) -> ir.Node:
            loads = {
                name: ir.Load(name, ir.Sort.INT, (place,), ir.Deps.NONE) for name in names.values()
            }
            return ir.conj(*(ir.le(term, loads[name]) for term, name in names.items()))

        loop = ir.exists(ir.ZERO, ir.Const(count), alternative)
        made = self._joined(loop, count) if isinstance(loop, ir.Exists) else None
        is_fewer = made is not None and FEWER * len(made.parts) <= count
        return made if is_fewer else None

    # ------------------------------------------------------------------ what positions do not change

    def _alone(self, loop: ir.Loop) -> ir.Node:
        check_magnitude(loop, self._queries, self._keys)
        values = self._values(loop.body, loop.level, *self._ends(loop))
        return ir.BoolConst(bool(values.any())) if is_any(loop) else ir.Const(int(values.sum()))

    def _counted(self, loop: ir.Loop) -> ir.Node:
        """By sums of the body over all that is smaller than a limit."""
        check_magnitude(loop, self._queries, self._keys)
        low, high = self._hull(loop.start)[0], self._hull(loop.stop)[1]
        values = self._values(loop.body, loop.level, low, high)
        if not values.any():
            return ir.FALSE if is_any(loop) else ir.ZERO
        if is_any(loop) and values.all():
            return ir.lt(loop.start, loop.stop)
        sums = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
        name = self._kept(sums)

        def below(limit: ir.Node) -> ir.Node:
            least, most = self._hull(limit)
            if least < low or most > high:
                limit = ir.clamp(limit, ir.Const(low), ir.Const(high))
            place = ir.sub(limit, ir.Const(low))
            if isinstance(place, ir.Const):
                return ir.Const(int(sums[place.value]))
            return ir.Load(name, ir.Sort.INT, (place,), ir.Deps.NONE)

        first, last = below(loop.start), below(loop.stop)
        if is_any(loop):
            return ir.lt(first, last)
        if values.min() >= 0:
            return ir.maximum(ir.ZERO, ir.sub(last, first))
        return ir.select(ir.lt(loop.start, loop.stop), ir.sub(last, first), ir.ZERO)

    def _values(self, body: ir.Node, level: int, low: int, high: int) -> IntArray:
        """A body that depends on nothing but the variable, for all numbers between."""
        if high - low > WIDEST_TABLE:
            raise TooManyAlternatives(high - low)
        numbers = np.arange(low, max(low, high), dtype=np.int64)
        found = np.asarray(ir.evaluate(body, self._env(indices={level: numbers})))
        return np.broadcast_to(found, numbers.shape)

    def _env(self, **more: Any) -> ir.Env:
        known: dict[str, Any] = {
            "q": 0,
            "k": 0,
            "sizes": {},
            "tables": self._queries.tables,
            "fits": True,
        }
        return ir.Env(**known | more)

    # ------------------------------------------------------------------ what one position decides

    def _of_side(self, loop: ir.Loop, axis: TileAxis) -> ir.Node:
        """By its value at each position."""
        if axis.length == 0:
            return nothing_found(loop)
        if is_any(loop) and has_numbers(loop) and self._width(loop) <= NARROW:
            return self._tried(loop, *self._numbers(loop))
        check_magnitude(loop, self._queries, self._keys)
        ranks = self._ranked(loop)
        if ranks is not None:
            found = ranks.at(axis.values(ranks.term))
        else:
            width, from_start = self._width(loop), self._width_from_start(loop)
            if from_start is not None and 2 * from_start < width:
                width, loop = from_start, loop_from_start(loop, from_start)
            if width * axis.length > _MOST_VALUES:
                raise TooManyAlternatives(width)
            found = self._evaluated(loop, width, axis)
        kept = found != 0 if is_any(loop) else found
        return self._read_at(self._kept(kept), loop.sort, axis)

    def _evaluated(self, loop: ir.Loop, width: int, axis: TileAxis) -> IntArray:
        try:
            return axis.values(loop)
        except AttnDslError as error:
            if error.code != "A404":
                raise
            raise TooManyAlternatives(width) from error

    def _ranked(self, loop: ir.Loop) -> Ranks | None:
        """Counts, for any x, the fixed numbers f(j) with ``x <= f(j)``, or with ``x == f(j)``."""
        test = tested(loop)
        sides = None if test is None else split(test[0], loop.level)
        if test is None or sides is None or (loop.start.deps | loop.stop.deps) & ir.Deps.PAIR:
            return None
        comparison, wanted = test
        for part in (sides[0], ir.Total(loop.level, loop.start, loop.stop, sides[1])):
            check_magnitude(part, self._queries, self._keys)
        values = self._values(sides[1], loop.level, *self._ends(loop))
        return Ranks(sides[0], np.sort(values), isinstance(comparison, ir.Eq), wanted)

    def _read_at(self, name: str, kind: ir.Sort, axis: TileAxis) -> ir.Node:
        """The entry of a position of that side."""
        place = ir.sub(ir.Pos(axis.side), ir.Const(axis.start))
        return ir.Load(name, kind, (place,), ir.Deps.NONE)

    # ------------------------------------------------------------------ what a pair decides

    def _of_pair(self, loop: ir.Loop) -> ir.Node:
        if 0 in (self._queries.length, self._keys.length):
            return nothing_found(loop)
        width, from_start = self._width(loop), self._width_from_start(loop)
        fewest = width if from_start is None else min(width, from_start)
        if isinstance(loop, ir.Exists) and fewest > NARROW:
            if isinstance(loop.body, ir.Or):
                return self.read(ir.disj(*(with_body(loop, part) for part in loop.body.items)))
            for way in (self._joined, self._gathered, self._by_value):
                found = way(loop, fewest)
                if found is not None:
                    return found
        if isinstance(loop, ir.Total) and fewest > NARROW:
            ranks = self._ranked(loop)
            if ranks is not None and (looked := self._looked_up(ranks)) is not None:
                return looked
        if from_start is not None and 2 * from_start < width:
            distances = map(ir.Const, range(from_start))
            return self._tried(loop, from_start, (ir.add(loop.start, t) for t in distances))
        return self._tried(loop, *self._numbers(loop))

    def _looked_up(self, ranks: Ranks) -> ir.Node | None:
        """The count, in a table of all that the term may be."""
        low, high = self._hull(ranks.term)
        if high - low >= WIDEST_TABLE:
            return None
        table = self._kept(ranks.at(np.arange(low, high + 1, dtype=np.int64)))
        place = ir.sub(ranks.term, ir.Const(low))
        return ir.Load(table, ir.Sort.INT, (place,), ir.Deps.NONE)

    def _numbers(self, loop: ir.Loop) -> tuple[int, Iterator[ir.Node]]:
        """Count of the numbers that may lie between the limits, and the numbers."""
        found = self._range(loop)
        return len(found), map(ir.Const, found)

    def _tried(self, loop: ir.Loop, count: int, numbers: Iterator[ir.Node]) -> ir.Node:
        """The body at each of so many numbers, where it lies between the limits."""
        variable, parts = ir.Index(loop.level), list[ir.Node]()
        self._spent += count * written_size(loop.body)
        if count > ir.WIDEST_RANGE or self._spent > _MOST_NODES:
            raise TooManyAlternatives(count)
        for number in numbers:
            limits = ir.conj(ir.le(loop.start, number), ir.lt(number, loop.stop))
            body = ir.substitute(loop.body, {variable: number})
            if is_any(loop):
                parts.append(self.read(ir.conj(limits, body)))
            else:
                parts.append(self.read(ir.select(limits, body, ir.ZERO)))
        return ir.disj(*parts) if is_any(loop) else ir.add(ir.ZERO, *parts)

    def _joined(self, loop: ir.Exists, fewest: int) -> ir.Node | None:
        """By the intervals of the other side that each position sees, where each number is a region."""
        items, numbers = conditions_of(loop), self._range(loop)
        if len(numbers) > WIDEST_TABLE:
            return None
        self._check(loop.level, numbers, *items)
        found = union(items, loop.level, numbers, (self._queries, self._keys))
        if found is None:
            return None
        rows, tables = found
        column = ir.Pos(rows.side.other)
        parts = []
        for first, last in zip(*tables, strict=True):
            low_, high = (self._read_at(self._kept(x), ir.Sort.INT, rows) for x in (first, last))
            parts.append(ir.conj(ir.le(low_, column), ir.le(column, high)))
        return ir.disj(*parts)

    def _gathered(self, loop: ir.Exists, fewest: int) -> ir.Node | None:
        """By the numbers that one side allows at each position, where those are few."""
        items, numbers = conditions_of(loop), self._range(loop)
        best: tuple[IntArray, TileAxis] | None = None
        for axis in (self._queries, self._keys):
            own = ir.conj(*(item for item in items if not speaks_of_other(item, axis)))
            if not axis.owns(own) or len(numbers) * axis.length > _MOST_VALUES >> 2:
                continue
            most = fewest // FEWER if best is None else len(best[0]) - 1
            parts = own.items if isinstance(own, ir.And) else (own,)
            sides = itertools.chain(*(split(part, loop.level) or () for part in parts))
            self._check(loop.level, numbers, own, *(ir.Le(side, 0) for side in sides))
            made = allowed(own, loop.level, numbers, axis, most)
            best = best if made is None else (made, axis)
        if best is None:
            return None
        slots, axis = best
        rest = ir.conj(*(item for item in items if speaks_of_other(item, axis)))
        found = []
        for slot in slots:
            number = self._read_at(self._kept(slot), ir.Sort.INT, axis)
            some = ir.substitute(rest, {ir.Index(loop.level): number})
            found.append(self.read(ir.conj(ir.ge(number, ir.Const(numbers.start)), some)))
        return ir.disj(*found)

    def _by_value(self, loop: ir.Exists, fewest: int) -> ir.Node | None:
        """By the values that the numbers give a position, looked up by what the other side asks for."""
        items, numbers = conditions_of(loop), self._range(loop)
        if len(numbers) > WIDEST_TABLE:
            return None
        for axis in (self._queries, self._keys):
            others = [item for item in items if speaks_of_other(item, axis)]
            found = equation(others[0], axis, ir.Index(loop.level)) if len(others) == 1 else None
            if found is None:
                continue
            mine, theirs = found
            own = ir.conj(*(item for item in items if item is not others[0]))
            self._check(loop.level, numbers, own, others[0], ir.Le(mine, 0), ir.Le(theirs, 0))
            least, most = self._hull(theirs)
            table = sets_of(mine, own, loop.level, numbers, axis, range(least, most + 1))
            if table is not None:
                place = ir.sub(ir.Pos(axis.side), ir.Const(axis.start))
                index = place, ir.sub(theirs, ir.Const(least))
                return ir.Load(self._kept(table), ir.Sort.BOOL, index, ir.Deps.NONE)
        return None

    def _range(self, loop: ir.Loop) -> range:
        """The numbers that may lie between the limits."""
        low = self._hull(loop.start)[0]
        return range(low, low + self._width(loop))

    def _check(self, level: int, numbers: range, *parts: ir.Node) -> None:
        """Whether parts of a body keep within 64 bits, at all of the numbers."""
        limits = ir.Const(numbers.start), ir.Const(numbers.stop)
        for part in parts:
            check_magnitude(ir.Exists(level, *limits, part), self._queries, self._keys)

    # ------------------------------------------------------------------ limits

    def _hull(self, limit: ir.Node) -> tuple[int, int]:
        """The least and the greatest value."""
        check_magnitude(limit, self._queries, self._keys)
        found = self._bounds.range(limit)
        return int(found.low[0]), int(found.high[0])

    def _width(self, loop: ir.Loop) -> int:
        """How many numbers lie between the least start and the greatest stop."""
        return max(0, self._hull(loop.stop)[1] - self._hull(loop.start)[0])

    def _width_from_start(self, loop: ir.Loop) -> int | None:
        """How many numbers a loop runs over at most; None where that is no gain."""
        if has_numbers(loop):
            return None
        return max(0, self._hull(ir.sub(loop.stop, loop.start))[1])

    def _ends(self, loop: ir.Loop) -> tuple[int, int]:
        """Both limits, where they depend on no position."""
        start, stop = (int(ir.evaluate(x, self._env())) for x in (loop.start, loop.stop))
        return start, max(start, stop)

    # ------------------------------------------------------------------ tables

    def _kept(self, values: Any) -> str:
        """The name of a table with those values. It starts with a place, ends with the contents."""
        digest = digest_of(values)
        known = (name for name in self.made if name.endswith(f"[{digest}]"))
        name = next(known, f"#{len(self.made)}[{digest}]")
        self.made[name] = self._queries.tables[name] = self._keys.tables[name] = values
        return name
