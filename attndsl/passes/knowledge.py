"""Knowledge at the place of a condition: bounds of linear terms, and conditions that hold or fail.

A few laws of integers, each with its reason beside it, applied to at most two facts at a time: enough for
what people write twice, and cheap. ``decide`` says True or False only where that holds for every length,
head and input; None says nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from attndsl import ir

Bounds: TypeAlias = tuple[float, float]  # both inclusive; integers but for the infinities
Terms: TypeAlias = dict[ir.Node, int]  # of a linear combination, with their coefficients
Key: TypeAlias = frozenset[tuple[ir.Node, int]]  # the same up to its sign: x - y and y - x are one

_ANYTHING: Final[Bounds] = (-math.inf, math.inf)
_MOST_PARTNERS = 16  # facts that are added to another, for each term they share
_DEEPEST = 6  # levels of an expression that bounds are looked for in
_NESTED = 24  # conditions within each other that are looked into
_LARGE = 1 << 62  # larger bounds are not told apart


@dataclass(slots=True)
class Budget:
    """Remaining budget for one mask, in steps of some microseconds."""

    left: int = 6_000

    def spend(self) -> bool:
        """Whether one step more may be taken."""
        self.left -= 1
        return self.left > 0


@dataclass(slots=True)
class _Facts:
    """Facts by what they speak of; each belongs to an owner, so that it can be taken back."""

    limits: dict[Key, dict[int, Bounds]] = field(default_factory=dict)
    verdicts: dict[ir.Node, dict[int, bool]] = field(default_factory=dict)
    partners: dict[ir.Node, list[Terms]] = field(default_factory=dict)  # term -> what has limits
    owned: dict[int, list[dict[int, Bounds] | dict[int, bool]]] = field(default_factory=dict)


class Known:
    """Facts of one level upon those of the levels around it."""

    def __init__(self, effort: Budget, around: Known | None = None) -> None:
        self.effort = effort
        self._around = around
        self._facts = _Facts()
        self._but: int | None = None

    def inside(self) -> Known:
        """A new level: what it learns, this one does not."""
        return Known(self.effort, self)

    def without(self, owner: int) -> Known:
        """The same facts but for those of one owner of this level."""
        made = Known(self.effort, self._around)
        made._facts, made._but = self._facts, owner
        return made

    # ------------------------------------------------------------------ learning

    def learn(self, node: ir.Node, owner: int = 0) -> None:
        """Take ``node`` to hold."""
        match node:
            case ir.And(items=items):
                for item in items:
                    self.learn(item, owner)
            case ir.Le(item=item, bound=bound):
                self._limit(item, (-math.inf, bound), owner)
            case ir.Eq(item=item, bound=bound):
                self._judge(node, True, owner)
                self._limit(item, (bound, bound), owner)
            case ir.Not(item=item):
                self._judge(item, False, owner)
            case _:
                self._judge(node, True, owner)

    def forget(self, owner: int) -> None:
        """Take back what that owner of this level brought."""
        for entry in self._facts.owned.pop(owner, ()):
            entry.pop(owner, None)

    def _judge(self, node: ir.Node, verdict: bool, owner: int) -> None:
        entry = self._facts.verdicts.setdefault(node, {})
        entry[owner] = verdict
        self._facts.owned.setdefault(owner, []).append(entry)

    def _limit(self, item: ir.Node, bounds: Bounds, owner: int) -> None:
        """Bounds of an item, and of the dividends of its quotients.

        x // m <= h                 -->  x <= h*m + m - 1,  and likewise below
        l <= x // m - y // m <= h   -->  l*m - (m - 1) <= x - y <= h*m + (m - 1)
        """
        terms, constant = ir.linear(item)
        self._note(terms, _shift(bounds, -constant), owner)
        match [(c, *found) for t, c in terms.items() if (found := _quotient(t))]:
            case [(c, x, m)] if len(terms) == 1:
                low, high = _times(bounds, c)
                inner, offset = ir.linear(x)
                self._note(inner, (low * m - offset, high * m + m - 1 - offset), owner)
            case [(c, x, m), (d, y, n)] if len(terms) == 2 and c == -d and m == n:
                low, high = _times(bounds, c)
                inner, offset = ir.linear(ir.sub(x, y))
                self._note(inner, (low * m - (m - 1) - offset, high * m + (m - 1) - offset), owner)
            case _:
                pass

    def _note(self, terms: Terms, bounds: Bounds, owner: int) -> None:
        if not terms:
            return
        key, sign = _key(terms)
        entry = self._facts.limits.get(key)
        if entry is None:
            entry = self._facts.limits[key] = {}
            for term in terms:
                self._facts.partners.setdefault(term, []).append(terms)
        entry[owner] = _meet(entry.get(owner, _ANYTHING), _times(bounds, sign))
        self._facts.owned.setdefault(owner, []).append(entry)

    # ------------------------------------------------------------------ asking

    def decide(self, node: ir.Node, depth: int = _NESTED) -> bool | None:
        """Whether a condition always holds, or never does, given what is known."""
        if depth <= 0 or not self.effort.spend():
            return None
        match node:
            case ir.BoolConst(value=value):
                return value
            case ir.Not(item=item):
                found = self.decide(item, depth - 1)
                return None if found is None else not found
            case ir.And(items=items):
                return self._junction(items, False, depth - 1)
            case ir.Or(items=items):
                return self._junction(items, True, depth - 1)
            case ir.Le(item=item, bound=bound):
                low, high = self.between(item)
                return True if high <= bound else False if low > bound else None
            case ir.Eq(item=item, bound=bound):
                return self._equal(node, item, bound)
            case _:
                return self._verdict(node)

    def _junction(self, items: Iterable[ir.Node], absorbing: bool, depth: int) -> bool | None:
        found = {self.decide(item, depth) for item in items}
        if absorbing in found:
            return absorbing
        return None if None in found else not absorbing

    def _equal(self, node: ir.Node, item: ir.Node, bound: int) -> bool | None:
        said = self._verdict(node)
        if said is not None:
            return said
        low, high = self.between(item)
        if not low <= bound <= high:
            return False
        if low == high or self._congruent(item, bound):
            return True
        return None

    def _congruent(self, item: ir.Node, bound: int) -> bool:
        """x % m == y % m where x - y is a known multiple of m, or x % n == y % n and m divides n."""
        match list(ir.linear(item)[0].items()):
            case [
                (ir.Mod(left=x, right=ir.Const(value=m)), c),
                (ir.Mod(left=y, right=ir.Const(value=n)), d),
            ] if c == -d and m == n and bound == 0:
                pass
            case _:
                return False
        low, high = self.between(ir.sub(x, y))
        if low == high and low % m == 0:
            return True
        known = self._divided(ir.Mod, x, y)
        return any(size % m == 0 and bounds == (0, 0) for size, bounds in known)

    def _divided(
        self, kind: type[ir.FloorDiv] | type[ir.Mod], x: ir.Node, y: ir.Node
    ) -> Iterator[tuple[int, Bounds]]:
        """Bounds of x // n - y // n, or of x % n - y % n, and n, for every constant n they are known of."""
        for facts, but in self._levels():
            for term, known in itertools.islice(facts.partners.items(), 4 * _MOST_PARTNERS):
                found = _over(term, kind)
                if found is None or found[0] is not x:
                    continue
                other = kind(y, ir.Const(found[1]))
                for terms in known:
                    if len(terms) == 2 and terms.get(other) == -terms[term]:
                        key, sign = _key(terms)
                        yield found[1], _times(_joint(facts.limits[key], but), sign * terms[term])

    def _verdict(self, node: ir.Node) -> bool | None:
        for facts, but in self._levels():
            for owner, verdict in facts.verdicts.get(node, {}).items():
                if owner != but:
                    return verdict
        return None

    def _levels(self) -> Iterator[tuple[_Facts, int | None]]:
        level: Known | None = self
        while level is not None:
            yield level._facts, level._but
            level = level._around

    # ------------------------------------------------------------------ bounds

    def between(self, item: ir.Node) -> Bounds:
        """Bounds of an integer: its own, those of its terms, and those that one more fact gives."""
        terms, constant = ir.linear(item)
        found = _meet(self._plain(terms), self._quotients(terms))
        for have, shared in self._partners(terms):
            if not self.effort.spend():
                break
            factor, left = divmod(terms[shared], have[shared])
            if left:
                continue
            rest = dict(terms)
            for term, count in have.items():
                rest[term] = rest.get(term, 0) - factor * count
            plain = self._plain({term: count for term, count in rest.items() if count})
            if plain != _ANYTHING:
                found = _meet(found, _plus(_times(self._recorded(have), factor), plain))
        return _shift(found, constant)

    def _partners(self, terms: Terms) -> Iterator[tuple[Terms, ir.Node]]:
        for facts, _ in self._levels():
            for term in terms:
                for have in itertools.islice(facts.partners.get(term, ()), _MOST_PARTNERS):
                    yield have, term

    def _recorded(self, terms: Terms) -> Bounds:
        some = next(iter(terms))
        levels = [each for each in self._levels() if some in each[0].partners]
        if not levels:
            return _ANYTHING
        key, sign = _key(terms)
        found = _ANYTHING
        for facts, but in levels:
            entry = facts.limits.get(key)
            if entry:
                found = _meet(found, _joint(entry, but))
        return _times(found, sign)

    def _plain(self, terms: Terms, depth: int = _DEEPEST) -> Bounds:
        """Bounds of a linear combination by what is recorded of it, and by its terms one by one."""
        total: Bounds = (0, 0)
        for term, factor in terms.items():
            total = _plus(total, _times(self._term(term, depth), factor))
            if total == _ANYTHING:
                break
        return _meet(total, self._recorded(terms)) if len(terms) > 1 else total

    def _range(self, item: ir.Node, depth: int) -> Bounds:
        terms, constant = ir.linear(item)
        return _shift(self._plain(terms, depth), constant)

    def _quotients(self, terms: Terms) -> Bounds:
        """l <= x - y <= h  -->  floor(l / m) <= x // m - y // m <= ceil(h / m).

        The same of x // n - y // n where n divides m, since x // m = (x // n) // (m / n).
        """
        match [(c, *found) for t, c in terms.items() if (found := _quotient(t))]:
            case [(c, x, m), (d, y, n)] if c == -d and m == n and len(terms) == 2:
                pass
            case _:
                return _ANYTHING
        gap = _ratio(self._range(ir.sub(x, y), _DEEPEST), m)
        for finer, bounds in self._divided(ir.FloorDiv, x, y):
            if m % finer == 0:
                gap = _meet(gap, _ratio(bounds, m // finer))
        return _times(gap, c)

    def _term(self, term: ir.Node, depth: int) -> Bounds:
        found = self._recorded({term: 1})
        if depth <= 0 or not self.effort.spend():
            return found
        return _meet(found, self._shape(term, depth - 1))

    def _shape(self, term: ir.Node, depth: int) -> Bounds:  # noqa: C901 - an arm a node
        """Bounds of a term by what it is made of."""
        match term:
            case ir.Size() | ir.Var(name="head" | "heads" | "batch"):
                return 0, math.inf
            case ir.Mod(left=left, right=right):
                low, high = self._range(left, depth)
                _, most = self._range(right, depth)
                if low >= 0 and isinstance(right, ir.Const) and high < right.value:
                    return low, high
                return 0, max(0, min(most - 1, high if low >= 0 else math.inf))
            case ir.FloorDiv(left=left, right=ir.Const(value=m)):
                low, high = self._range(left, depth)
                return _floor(low, m), _floor(high, m)
            case ir.FloorDiv(left=left):  # towards zero at the most, and 0 for a divisor below 1
                low, high = self._range(left, depth)
                return min(low, 0), max(high, 0)
            case ir.Mul(left=left, right=right):
                least = [min(self._range(item, depth)[0], _LARGE) for item in (left, right)]
                return (math.prod(least), math.inf) if min(least) >= 0 else _ANYTHING
            case ir.Min(items=items) | ir.Max(items=items):
                ranges = [self._range(item, depth) for item in items]
                pick = min if isinstance(term, ir.Min) else max
                return pick(each[0] for each in ranges), pick(each[1] for each in ranges)
            case ir.Abs(item=item):
                low, high = self._range(item, depth)
                return max(low, -high, 0), max(-low, high)
            case ir.Select(yes=yes, no=no):
                one, two = self._range(yes, depth), self._range(no, depth)
                return min(one[0], two[0]), max(one[1], two[1])
            case ir.Entry(values=values):
                return min(0, *values), max(0, *values)
            case ir.ILog2():
                return -1, 62
            case ir.Pow2():
                return 0, 1 << 62
            case _:
                return _ANYTHING


def _over(term: ir.Node, kind: type[ir.FloorDiv] | type[ir.Mod]) -> tuple[ir.Node, int] | None:
    """(x, m) of x // m, or of x % m, with a constant m."""
    match term:
        case (
            ir.FloorDiv(left=left, right=ir.Const(value=m))
            | ir.Mod(left=left, right=ir.Const(value=m))
        ) if isinstance(term, kind):
            return left, m
        case _:
            return None


def _quotient(term: ir.Node) -> tuple[ir.Node, int] | None:
    return _over(term, ir.FloorDiv)


def _key(terms: Terms) -> tuple[Key, int]:
    """Terms up to their sign, and the sign."""
    first = min(terms, key=lambda term: term.digest) if len(terms) > 1 else next(iter(terms))
    if terms[first] > 0:
        return frozenset(terms.items()), 1
    return frozenset((term, -factor) for term, factor in terms.items()), -1


def _joint(entry: dict[int, Bounds], but: int | None) -> Bounds:
    found = _ANYTHING
    for owner, bounds in entry.items():
        if owner != but:
            found = _meet(found, bounds)
    return found


def _meet(one: Bounds, two: Bounds) -> Bounds:
    return max(one[0], two[0]), min(one[1], two[1])


def _plus(one: Bounds, two: Bounds) -> Bounds:
    return one[0] + two[0], one[1] + two[1]


def _shift(bounds: Bounds, by: int) -> Bounds:
    return bounds[0] + by, bounds[1] + by


def _times(bounds: Bounds, factor: int) -> Bounds:
    low, high = (bounds[0] * factor, bounds[1] * factor)
    return (low, high) if factor > 0 else (high, low)


def _floor(value: float, m: int) -> float:
    return value if math.isinf(value) else value // m


def _ratio(bounds: Bounds, m: int) -> Bounds:
    low, high = bounds
    return _floor(low, m), -_floor(-high, m)
