"""Smart constructors of truth values: comparisons, conjunctions, disjunctions and choices in canonical form.

Comparisons have their constant on the right, negations sit on the leaves, and a junction keeps the strongest
of the bounds on one line, as ``arithmetic`` keeps sums.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable
from weakref import WeakKeyDictionary

from attndsl.ir.arithmetic import (
    difference,
    digest_of,
    divided,
    linear,
    scale,
    static_range,
)
from attndsl.ir.interning import Node, Sort
from attndsl.ir.nodes import And, BoolConst, Eq, Le, Not, Or, Select, Sum

TRUE = BoolConst(True)
FALSE = BoolConst(False)


# ---------------------------------------------------------------- comparisons


def le(left: Node, right: Node) -> Node:
    """left <= right."""
    terms, constant = difference(left, right)
    return _at_most(terms, -constant)


def _at_most(terms: dict[Node, int], bound: int) -> Node:
    if not terms:
        return BoolConst(bound >= 0)
    factor = math.gcd(*terms.values())
    # g*x <= b  <=>  x <= b // g
    item = divided(terms, factor)
    bound //= factor
    low, high = static_range(item)
    if high is not None and high <= bound:
        return TRUE
    if low is not None and low > bound:
        return FALSE
    return Le(item, bound)


def lt(left: Node, right: Node) -> Node:
    """left < right."""
    terms, constant = difference(left, right)
    return _at_most(terms, -constant - 1)


def ge(left: Node, right: Node) -> Node:
    """left >= right."""
    return le(right, left)


def gt(left: Node, right: Node) -> Node:
    """left > right."""
    return lt(right, left)


def eq(left: Node, right: Node) -> Node:
    """left == right, on integers or truth values."""
    if left is right:
        return TRUE
    if left.sort is Sort.BOOL:
        return disj(conj(left, right), conj(negate(left), negate(right)))
    return _is_zero(*difference(left, right))


def eq_number(item: Node, number: int) -> Node:
    """item == number, of an integer."""
    terms, constant = linear(item)
    return _is_zero(terms, constant - number)


def _is_zero(terms: dict[Node, int], constant: int) -> Node:
    """Whether the sum of the terms and the constant is 0."""
    if not terms:
        return BoolConst(constant == 0)
    factor = math.gcd(*terms.values())
    if constant % factor:  # g*x == b has no solution unless g divides b
        return FALSE
    first = min(terms, key=digest_of)
    factor = factor if terms[first] > 0 else -factor
    item = divided(terms, factor)
    bound = -constant // factor
    low, high = static_range(item)
    if (low is not None and bound < low) or (high is not None and bound > high):
        return FALSE
    return Eq(item, bound)


def ne(left: Node, right: Node) -> Node:
    """left != right."""
    return negate(eq(left, right))


# ---------------------------------------------------------------- logic


def negate(item: Node) -> Node:
    """Logical not, pushed to the leaves. Iterative: depth is no limit."""
    if not isinstance(item, And | Or):
        return _denied(item)
    done: dict[Node, Node] = {}
    waiting: list[And | Or] = [item]
    while waiting:
        node = waiting[-1]
        made = known() if (known := _negations.get(node)) else None
        if made is None:
            inner = [p for p in node.items if isinstance(p, And | Or) and p not in done]
            if inner:
                waiting += inner
                continue
            parts = [done.get(part) or _denied(part) for part in node.items]
            made = disj(*parts) if isinstance(node, And) else conj(*parts)
        done[waiting.pop()] = made
        _negations[node] = weakref.ref(made)
    return done[item]


# Remembered, because an expression that shares parts would otherwise be walked once per path to them.
_negations: WeakKeyDictionary[Node, weakref.ref[Node]] = WeakKeyDictionary()


def _denied(item: Node) -> Node:
    """Logical not of what is no conjunction and no disjunction."""
    match item:
        case BoolConst(value=value):
            return BoolConst(not value)
        case Not(item=inner):
            return inner
        case Le(item=inner, bound=bound):  # not x <= b  <=>  -x <= -b-1
            return Le(scale(inner, -1), -bound - 1)
        case _:
            return Not(item)


def conj(*items: Node) -> Node:
    """Logical and."""
    return _Junction(And).joined(items).node()


def disj(*items: Node) -> Node:
    """Logical or."""
    return _Junction(Or).joined(items).node()


def chained(kind: type[And] | type[Or], items: Iterable[Node]) -> Node:
    """``items[0] and items[1] and ...``, each joined to what the ones before it gave, in linear time."""
    found = _Junction(kind)
    for item in items:
        found.joined((item,))
    return found.node()


class _Junction:
    """A conjunction or disjunction while it grows: flat, without doubles, comparisons of one item merged."""

    def __init__(self, kind: type[And] | type[Or]) -> None:
        self._kind = kind
        self._is_and = kind is And
        self._absorbing = FALSE if kind is And else TRUE
        self._is_absorbed = False
        self._parts: dict[Node, None] = {}  # but for comparisons
        self._denied: set[Node] = set()  # whose opposites are among the parts
        self._limits: dict[Node, int] = {}
        self._lines: dict[object, int] = {}  # how many limits are of a line, in both directions
        self._duals: list[Or | And] = []  # not entered in _holders yet
        self._holders: dict[Node, list[Node]] = {}  # the duals that hold a node

    def joined(self, items: Iterable[Node]) -> _Junction:
        """The same with more parts."""
        if self._is_absorbed:
            return self
        if self._duals:
            for dual in self._duals:
                for inner in dual.items:
                    self._holders.setdefault(inner, []).append(dual)
            self._duals = []
        fresh: list[Node] = []
        moved: dict[Node, None] = {}
        for item in items:
            for part in item.items if isinstance(item, self._kind) else (item,):
                self._enter(part, fresh, moved)
        if not self._contradicts(fresh, moved):
            self._absorb(fresh, moved)
        return self

    def node(self) -> Node:
        """The node built so far."""
        if self._is_absorbed:
            return self._absorbing
        parts = [*self._parts, *(Le(item, bound) for item, bound in self._limits.items())]
        if len(parts) < 2:
            return parts[0] if parts else BoolConst(self._is_and)
        return self._kind(tuple(sorted(parts, key=digest_of)))

    def _enter(self, part: Node, fresh: list[Node], moved: dict[Node, None]) -> None:
        if isinstance(part, Le):
            # x <= a and x <= b  <=>  x <= min(a, b);  or: max
            known = self._limits.get(part.item)
            if known is None:
                line = _line_of(part.item)
                self._lines[line] = self._lines.get(line, 0) + 1
            if known is None or ((part.bound < known) == self._is_and and part.bound != known):
                self._limits[part.item] = part.bound
                moved[part.item] = None
        elif isinstance(part, BoolConst):
            self._is_absorbed |= part is self._absorbing
        elif part not in self._parts:
            self._parts[part] = None
            fresh.append(part)
            if isinstance(part, Not):
                self._denied.add(part.item)

    def _contradicts(self, fresh: list[Node], moved: Iterable[Node]) -> bool:
        """x <= b and x >= c > b; x <= b or x >= b+1; x and not x; x or not x."""
        for item in moved:
            if self._lines[_line_of(item)] > 1:
                opposite = self._limits.get(scale(item, -1))
                if opposite is not None:
                    gap = self._limits[item] + opposite
                    self._is_absorbed |= gap < 0 if self._is_and else gap >= -1
        for part in fresh if self._denied else ():
            other = part.item if isinstance(part, Not) else part
            self._is_absorbed |= other in self._denied and other in self._parts
        return self._is_absorbed

    def _absorb(self, fresh: list[Node], moved: Iterable[Node]) -> None:
        """x and (x or y) = x;  x or (x and y) = x."""
        for part in fresh:
            if isinstance(part, And | Or):
                if any(map(self._has, part.items)):
                    del self._parts[part]
                else:
                    self._duals.append(part)
        if self._holders:
            limits = (Le(item, self._limits[item]) for item in moved)
            for part in (*fresh, *limits):
                for dual in self._holders.pop(part, ()):
                    self._parts.pop(dual, None)

    def _has(self, part: Node) -> bool:
        if isinstance(part, Le):
            return self._limits.get(part.item) == part.bound
        return part in self._parts


def _line_of(item: Node) -> object:
    """A key of an item, and of its opposite; cheaper than the opposite itself."""
    if not isinstance(item, Sum):
        return ((item, 1),)
    if item.terms[0][1] > 0:
        return item.terms
    return tuple((term, -factor) for term, factor in item.terms)


def implies(premise: Node, conclusion: Node) -> Node:
    """Not premise, or conclusion."""
    return TRUE if premise is conclusion else disj(negate(premise), conclusion)


def select(cond: Node, yes: Node, no: Node) -> Node:
    """if cond then yes else no, on integers or truth values."""
    if isinstance(cond, BoolConst):
        return yes if cond.value else no
    if yes is no:
        return yes
    if yes.sort is Sort.BOOL:
        return disj(conj(cond, yes), conj(negate(cond), no))
    if isinstance(cond, Not):
        return Select(cond.item, no, yes)
    return Select(cond, yes, no)
