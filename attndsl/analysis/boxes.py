"""Abstract interpretation: what can a pattern be on a box of queries times keys?

``Interpreter`` evaluates an expression on many boxes at once.
A box is EMPTY when the root may not hold, FULL when it may not fail. ``known`` supplies the ranges of
per-query and per-key terms, so that whoever has exact summaries of them (the schedule keeps one per
tile) can give those instead of interval arithmetic.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import TypeAlias, assert_never, cast

import numpy as np

from attndsl import ir
from attndsl.analysis import ranges
from attndsl.analysis.ranges import Array, Range, Truths

Known: TypeAlias = Callable[[ir.Node], Range | Truths | None]

UNKNOWN = 1 << 62  # bounds of a table value nobody has summarised


class Interpreter:
    """Ranges of all sub-expressions of one root on one set of boxes."""

    def __init__(self, known: Known, template: Array) -> None:
        """``template`` gives shape and dtype of the boxes' arrays."""
        self._known = known
        self._zero = template * 0
        self._memo: dict[ir.Node, Range | Truths] = {}

    def truths(self, root: ir.Node) -> Truths:
        """The possible truth values of ``root``."""
        return cast(Truths, self._value(root))

    def range(self, root: ir.Node) -> Range:
        """The possible values of ``root``."""
        return cast(Range, self._value(root))

    def _value(self, root: ir.Node) -> Range | Truths:
        stack = [(root, False)]
        while stack:
            node, ready = stack.pop()
            if node in self._memo:
                continue
            if ready:
                self._memo[node] = self._step(cast(ir.AnyNode, node))
            elif (given := self._known(node)) is not None:
                self._memo[node] = given
            else:
                stack.append((node, True))
                stack.extend((part, False) for part in parts_of(node) if part not in self._memo)
        return self._memo[root]

    def _step(self, node: ir.AnyNode) -> Range | Truths:  # noqa: C901 - one arm per node class
        match node:
            case ir.Const(value=value):
                return Range.point(self._zero + value)
            case ir.BoolConst(value=value):
                holds = (self._zero == 0) & value
                return Truths(holds, ~holds)
            case ir.Sum(constant=constant):
                summands = (ranges.scale(self.range(part), c) for part, c in split_sum(node))
                return ranges.shift(functools.reduce(ranges.add, summands), constant)
            case ir.Mul():
                made = ranges.mul(self.range(node.left), self.range(node.right))
                if self._zero.dtype == object:  # of any size
                    for end in (made.low, made.high):
                        ir.check_size(max(map(abs, end.flat), default=0))
                return made
            case ir.FloorDiv():
                return ranges.floordiv(self.range(node.left), self.range(node.right))
            case ir.Mod():
                return ranges.mod(self.range(node.left), self.range(node.right))
            case ir.Min(items=items):
                return functools.reduce(ranges.minimum, map(self.range, items))
            case ir.Max(items=items):
                return functools.reduce(ranges.maximum, map(self.range, items))
            case ir.Abs(item=item):
                return ranges.absolute(self.range(item))
            case ir.ILog2(item=item):
                return ranges.monotone(self.range(item), _ilog2)
            case ir.Pow2(item=item):
                return _pow2_range(self.range(item))
            case ir.Entry(values=values):
                return Range(self._zero + min(0, *values), self._zero + max(0, *values))
            case ir.Select():
                cond, yes, no = (
                    self.truths(node.cond),
                    self.range(node.yes),
                    self.range(node.no),
                )
                return ranges.choose(cond, yes, no)
            case ir.Le(item=item, bound=bound):
                return ranges.at_most(self.range(item), bound)
            case ir.Eq(item=item, bound=bound):
                return ranges.equals(self.range(item), bound)
            case ir.Not(item=item):
                inner = self.truths(item)
                return Truths(inner.may_fail, inner.may_hold)
            case ir.And(items=items):
                parts = [self.truths(item) for item in items]
                holds = functools.reduce(operator.and_, (part.may_hold for part in parts))
                return Truths(holds, functools.reduce(operator.or_, (p.may_fail for p in parts)))
            case ir.Or(items=items):
                parts = [self.truths(item) for item in items]
                fails = functools.reduce(operator.and_, (part.may_fail for part in parts))
                return Truths(functools.reduce(operator.or_, (p.may_hold for p in parts)), fails)
            case ir.Exists():
                return self._exists(node)
            case ir.Total():
                return self._total(node)
            case (
                ir.Pos() | ir.Coord() | ir.Size() | ir.Var() | ir.Index() | ir.Load() | ir.Inside()
            ):
                return self._unknown(node)
            case _:
                assert_never(node)

    def _unknown(self, node: ir.Node) -> Range | Truths:
        if node.sort is ir.Sort.BOOL:
            anything = self._zero == 0
            return Truths(anything, anything)
        return Range(self._zero - UNKNOWN, self._zero + UNKNOWN)

    def _exists(self, node: ir.Exists) -> Truths:
        start, stop = self.range(node.start), self.range(node.stop)
        body = self.inside(node).truths(node.body)
        return Truths(
            body.may_hold & (start.low < stop.high),
            body.may_fail | (start.high >= stop.low),
        )

    def _total(self, node: ir.Total) -> Range:
        start, stop = self.range(node.start), self.range(node.stop)
        body = self.inside(node).range(node.body)
        fewest = ranges.at_least(stop.low - start.high, 0)
        times = ranges.maximum(Range.point(fewest), Range.point(stop.high - start.low))
        return ranges.mul(body, Range(fewest, times.high))

    def inside(self, node: ir.Loop) -> Interpreter:
        """For the body: the variable ranges over the hull of its limits."""
        start, stop = self.range(node.start), self.range(node.stop)
        last = ranges.maximum(Range.point(stop.high - 1), Range.point(start.low)).high
        variable = Range(start.low, last)
        bound: dict[ir.Node, Range] = {ir.Index(node.level): variable}
        return Interpreter(lambda item: bound.get(item) or self._known(item), self._zero)


def parts_of(node: ir.Node) -> tuple[ir.Node, ...]:
    """The sub-expressions whose ranges the step for ``node`` needs."""
    match node:
        case ir.Sum():
            return tuple(part for part, _ in split_sum(node))
        case ir.Exists(start=start, stop=stop) | ir.Total(start=start, stop=stop):
            return (start, stop)
        case ir.Load():
            return ()
        case _:
            return node.parts


@functools.lru_cache(maxsize=65_536)
def split_sum(node: ir.Sum) -> tuple[tuple[ir.Node, int], ...]:
    """The terms of a sum with all per-query terms joined in one node and all per-key terms in another.

    Joined terms are summarised together, which is exact where the sum of their summaries is not
    (``q - q % 64`` is constant on a block; the difference of the two ranges is not).
    """
    queries = {t: c for t, c in node.terms if t.deps & ir.Deps.PAIR == ir.Deps.QUERY}
    keys = {t: c for t, c in node.terms if t.deps & ir.Deps.PAIR == ir.Deps.KEY}
    rest = [(t, c) for t, c in node.terms if t not in queries and t not in keys]
    if not node.is_pair:
        return node.terms
    joined = [(ir.combine(group), 1) for group in (queries, keys) if group]
    return (*joined, *rest)


def _ilog2(values: Array) -> Array:
    if values.dtype == object:
        return np.array([v.bit_length() - 1 if v >= 1 else -1 for v in values.flat], dtype=object)
    xp = ranges.namespace(values)
    rest, found = ranges.at_least(values, 1), values * 0
    for shift in (32, 16, 8, 4, 2, 1):
        is_large = rest >= (1 << shift)
        found = found + is_large * shift
        rest = xp.where(is_large, rest >> shift, rest)
    logarithm: Array = xp.where(values < 1, -1, found)
    return logarithm


def _pow2_range(item: Range) -> Range:
    """Not monotone: 0 below exponent 0 and above 62."""
    xp = ranges.namespace(item.low)
    low, high = xp.clip(item.low, 0, 62), xp.clip(item.high, 0, 62)
    one = xp.ones_like(low)
    risky = (item.low < 0) | (item.high > 62)
    return Range(
        xp.where(risky, low * 0, one << low),
        xp.where(item.high < 0, high * 0, one << high),
    )
