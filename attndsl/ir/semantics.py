"""The meaning of the IR: pointwise evaluation by broadcasting. Everything else is checked against it.

Shares no code with the passes, the analysis or the schedules, so that it can judge them. Written with
operators that NumPy and torch spell alike, hence the ``xp`` namespace: run-time tables may be evaluated
where they live. Numbers are those of mathematics: 64 bits where they are enough, else Python's own.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Final, TypeAlias, assert_never, cast

import numpy as np

from attndsl.cache import Memo
from attndsl.ir import nodes as n
from attndsl.ir.arithmetic import check_size
from attndsl.ir.array_arithmetic import (
    NUMBER,
    Value,
    choose,
    guarded,
    ilog2,
    negated,
    numpy_of,
    pow2,
    read,
)
from attndsl.ir.interning import Deps, Node, Side, Sort
from attndsl.ir.loops import trials
from attndsl.ir.mask import Space
from attndsl.ir.nodes import AnyNode
from attndsl.ir.walks import holds, postorder
from attndsl.source import AttnDslError, Diagnostic, Label, Span

WIDEST_RANGE = 4096  # of a quantifier, at the lengths of a call
# Bodies that loops within each other try, all together: some seconds at few pairs.
MOST_TRIALS = 1 << 18


@dataclass(frozen=True)
class Env:
    """Values for the free names of a mask.

    ``q`` and ``k`` are flat positions (already aligned), ``batch`` and ``head`` indices: ints or arrays
    that broadcast together. ``sizes`` maps the names of ``Size`` nodes to ints, ``tables`` table names to
    arrays with the dims the mask declares.
    """

    q: Value
    k: Value
    sizes: Mapping[str, int]
    tables: Mapping[str, Value] = field(default_factory=dict)
    batch: Value = 0
    head: Value = 0
    heads: int = 1
    layer: int = 0
    queries: Space = Space()
    keys: Space = Space()
    fits: bool = False  # whether it is known that no number on the way needs more than 64 bits
    xp: ModuleType = np
    indices: Mapping[int, Value] = field(default_factory=dict)
    places: Mapping[Node, Span] = field(default_factory=dict)  # of loops in the program, for errors
    place: Span | None = None  # of the loop around


def evaluate(root: Node, env: Env, known: Mapping[Node, Value] | None = None) -> Value:
    """The value of ``root`` under ``env``, broadcast over its positions, heads and batch.

    ``known``: values of some nodes in it, which are not looked into.
    """
    found = dict(known or {})
    plan = _planned(root, found) if found and root not in found else None
    try:
        return _Evaluator(env, found).value(root, plan)
    except OverflowError:
        return _Unlimited(env, dict(known or {})).value(root, plan)


def settled(condition: Node) -> Node:
    """True or false for a condition of numbers alone, such as those of a list that is given; any other as it is."""
    if holds(condition, n.Pos, n.Coord, n.Inside, n.Size, n.Var, n.Load):
        return condition
    return n.BoolConst(bool(evaluate(condition, Env(q=0, k=0, sizes={}))))


class _Evaluator:
    """One evaluation: a memo of the values of closed sub-expressions."""

    def __init__(self, env: Env, memo: dict[Node, Value]) -> None:
        self.env = env
        self.memo = memo
        self._sizes: dict[int, int] = {}  # of arrays in the memo, by identity
        self._joined: dict[Node, Value] = {}  # what is known of conjunctions and disjunctions

    def value(self, root: Node, plan: Plan | None = None) -> Value:
        for node, joins, dropped in _whole_plan(root) if plan is None else plan:
            made = self.memo[node] = self._kept(self._step(cast(AnyNode, node)))
            if node.sort is Sort.INT and not isinstance(made, NUMBER) and not self.env.fits:
                self._sizes[id(made)] = self._size(made)
            for whole in joins:
                self._join(whole, made)
            for old in dropped:
                self._sizes.pop(id(self.memo.pop(old)), None)
        return self.memo[root]

    def _join(self, whole: n.And | n.Or, value: Value) -> Value:
        """A conjunction or disjunction as far as it is known, with one more of its items."""
        known = self._joined.get(whole)
        if known is not None:
            value = known & value if isinstance(whole, n.And) else known | value
        self._joined[whole] = value
        return value

    def _kept(self, value: Value) -> Value:
        return value

    def _check(self, *products: tuple[Value, int | Value]) -> None:
        """Whether a sum of products fits 64 bits, whatever their signs.

        Raises:
            OverflowError: it may not.
        """
        if not self.env.fits and sum(self._size(a) * self._size(b) for a, b in products) >= 1 << 63:
            raise OverflowError

    def _size(self, value: Value) -> int:
        """The greatest absolute value."""
        if isinstance(value, NUMBER):
            return abs(int(value))
        found = self._sizes.get(id(value))
        if found is None:
            found = max(int(value.max()), -int(value.min())) if math.prod(value.shape) else 0
        return found

    def _step(self, node: AnyNode) -> Value:  # noqa: C901 - one arm per node class
        env, xp, at = self.env, self.env.xp, self.memo
        match node:
            case n.Const(value=value) | n.BoolConst(value=value):
                return value
            case n.Pos(side=side):
                return self._position(side)
            case n.Coord(side=side, axis=axis):
                return self._coordinate(side, axis)
            case n.Inside(side=side, segment=segment):
                start, size, _ = _layout(self._space(side), segment, env.sizes)
                position = self._position(side)
                return (start <= position) & (position < start + size)
            case n.Size(name=name):
                return env.sizes[name]
            case n.Var(name=name):
                return getattr(env, name)
            case n.Index(level=level):
                return env.indices[level]
            case n.Sum(terms=terms, constant=constant):
                self._check((constant, 1), *((at[term], c) for term, c in terms))
                items = (at[term] if c == 1 else c * at[term] for term, c in terms)
                total = functools.reduce(operator.add, items)
                return total + constant if constant else total
            case n.Mul():
                self._check((at[node.left], at[node.right]))
                return at[node.left] * at[node.right]
            case n.FloorDiv():
                return guarded(xp, operator.floordiv, at[node.left], at[node.right])
            case n.Mod():
                return guarded(xp, operator.mod, at[node.left], at[node.right])
            case n.Min(items=items):
                return functools.reduce(
                    lambda a, b: choose(xp, a < b, a, b), (at[item] for item in items)
                )
            case n.Max(items=items):
                return functools.reduce(
                    lambda a, b: choose(xp, a > b, a, b), (at[item] for item in items)
                )
            case n.Abs(item=item):
                self._check((at[item], 1))
                return abs(at[item])
            case n.ILog2(item=item):
                return ilog2(xp, at[item])
            case n.Pow2(item=item):
                return pow2(xp, at[item])
            case n.Select():
                return choose(xp, at[node.cond], at[node.yes], at[node.no])
            case n.Load():
                return self._load(node)
            case n.Entry(values=values, index=index):
                if isinstance(place := at[index], int):
                    return values[place] if 0 <= place < len(values) else 0
                return read(xp, xp.asarray(values), [], [place], False)
            case n.Le(item=item, bound=bound):
                return at[item] <= bound
            case n.Eq(item=item, bound=bound):
                return at[item] == bound
            case n.Not(item=item):
                return negated(at[item])
            case n.And(items=items) | n.Or(items=items):
                for item in items:  # most have been joined, and are gone
                    if item in at:
                        self._join(node, at[item])
                return self._joined.pop(node)
            case n.Exists() | n.Total():
                return self._loop(node)
            case _:
                assert_never(node)

    def _position(self, side: Side) -> Value:
        return self.env.q if side is Side.QUERY else self.env.k

    def _space(self, side: Side) -> Space:
        return self.env.queries if side is Side.QUERY else self.env.keys

    def _coordinate(self, side: Side, axis: str) -> Value:
        segment, _, name = axis.partition(".")
        space, sizes = self._space(side), self.env.sizes
        start, size, strides = _layout(space, segment, sizes)
        position = self._position(side)
        stride = strides[name]
        local = (position - start) // max(stride, 1) % max(sizes[axis], 1)
        return choose(self.env.xp, (start <= position) & (position < start + size), local, -1)

    def _load(self, node: n.Load) -> Value:
        table = self.env.tables[node.table]
        index = [self.memo[item] for item in node.index]
        ambient = []
        if node.ambient & Deps.BATCH:
            ambient.append(self.env.batch)
        if node.ambient & Deps.HEAD:
            ambient.append(self.env.head)
        return read(self.env.xp, table, ambient, index, node.kind is Sort.BOOL)

    def _loop(self, node: n.Loop) -> Value:
        start, stop = self.memo[node.start], self.memo[node.stop]
        starts, stops = numpy_of(start), numpy_of(stop)
        sums = isinstance(node, n.Total)
        if not np.size(starts) or not np.size(stops):  # there is no pair
            return 0 if sums else False
        first, last = int(np.min(starts)), int(np.max(stops))
        env = replace(self.env, place=self.env.places.get(node, self.env.place))
        if last - first > WIDEST_RANGE:
            raise AttnDslError(too_wide(last - first, env.place))
        if not env.indices and (bodies := trials(node, last - first)[0]) > MOST_TRIALS:
            raise AttnDslError(too_wide(bodies, env.place))
        outside = self._unmoved(node)
        plan = _planned(node.body, outside)
        found: Value = 0 if sums else False
        for j in range(first, last):
            inner = _with_index(env, node.level, j)
            body = type(self)(inner, dict(outside)).value(node.body, plan)
            inside = (start <= j) & (stop > j)
            if sums:
                self._check((found, 1), (body, 1))
                found = found + choose(self.env.xp, inside, body, 0)
            else:
                found = found | inside & body
        return found

    def _unmoved(self, loop: n.Loop) -> dict[Node, Value]:
        """Known values of parts of the body that do not depend on the variable."""
        moved: set[Node] = {n.Index(loop.level)}
        for node in postorder(loop.body):
            if any(part in moved for part in node.parts):
                moved.add(node)
        parts = (node for node in postorder(loop.body) if node not in moved)
        return {node: self.memo[node] for node in parts if node in self.memo}


class _Unlimited(_Evaluator):
    """The same with Python's own integers in arrays: hundreds of times slower."""

    def _check(self, *products: tuple[Value, int | Value]) -> None:
        pass

    def _kept(self, value: Value) -> Value:
        if isinstance(value, NUMBER):
            check_size(int(value))
            return value if isinstance(value, bool) else int(value)
        if not isinstance(value, np.ndarray) or value.dtype.kind == "b":
            return value
        found = value.astype(object, copy=False)
        if found.size:
            check_size(max(found.max(), -found.min()))
        return found


def too_wide(width: int, place: Span | None = None) -> Diagnostic:
    """The diagnostic for a quantifier wider than ``WIDEST_RANGE``, and where it stands if that is known."""
    return Diagnostic(
        "A404",
        f"an `any`, `all`, `count` or `sum` of the pattern runs over {width:,} values at these lengths",
        (Label(place, "every number is tried"),) if place is not None else (),
        notes=(f"at most {WIDEST_RANGE:,} are tried, fewer of each where one is in another",),
        helps=("state it as a comparison, or give the range a bound that does not grow",),
    )


def _with_index(env: Env, level: int, value: int) -> Env:
    return replace(env, indices={**env.indices, level: value})


# Steps in order: a node, the conjunctions and disjunctions it is joined to at once, and values not used any more.
Plan: TypeAlias = list[tuple[Node, list[n.And | n.Or], list[Node]]]

_PLANS: Final = Memo(4096, 1 << 18, len)  # by root; weighed by nodes, which it keeps alive


def _whole_plan(root: Node) -> Plan:
    return _PLANS(root, lambda: _planned(root, {}))


def _planned(root: Node, memo: Mapping[Node, Value]) -> Plan:
    """How to evaluate a root while few values are held, however many items its conjunctions have."""
    order = _closed_postorder(root, memo)
    plan: Plan = [(node, [], []) for node in order]
    place = {node: index for index, node in enumerate(order)}
    last = list(range(len(order)))
    for index, node in enumerate(order):
        used = [*node.parts, *postorder(node.body)] if isinstance(node, n.Loop) else node.parts
        for part in used:
            if (where := place.get(part, index)) >= index:  # known, or of a body and not met before
                continue
            if isinstance(node, n.And | n.Or):
                plan[where][1].append(node)
            else:
                last[where] = index
    for where, index in enumerate(last[:-1]):  # the root is the last one
        plan[index][2].append(order[where])
    return plan


def held_at_once(root: Node) -> int:
    """The most values of pairs that are held at once."""
    most = held = 0
    for node, _, dropped in _whole_plan(root):
        held += node.is_pair
        most = max(most, held)
        held -= sum(old.is_pair for old in dropped)
    return most


def _closed_postorder(root: Node, memo: Mapping[Node, Value]) -> list[Node]:
    """Children first, not entering what is already known or the bodies of loops."""
    order: list[Node] = []
    seen: set[Node] = set(memo)
    stack: list[tuple[Node, bool]] = [(root, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
            continue
        if node in seen:
            continue
        seen.add(node)
        stack.append((node, True))
        inner = (node.start, node.stop) if isinstance(node, n.Loop) else node.parts
        stack.extend([(part, False) for part in reversed(inner) if part not in seen])
    return order


def _layout(
    space: Space, segment: str, sizes: Mapping[str, int]
) -> tuple[int, int, dict[str, int]]:
    """Start and size of a segment, and the stride of each of its axes (row-major)."""
    start = 0
    for item in space.segments:
        size = 1
        strides: dict[str, int] = {}
        for axis in reversed(item.axes):
            strides[axis.name] = size
            size *= sizes[f"{item.name}.{axis.name}"]
        if item.name == segment:
            return start, size, strides
        start += size
    raise KeyError(segment)
