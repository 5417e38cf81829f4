"""Conditions solved for the key: the keys that a query sees follow by arithmetic, or by a look at a row of a table."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import numpy as np

from attndsl import ir
from attndsl.schedule.key_runs import (
    FARTHEST,
    Keys,
    between,
    key_positions,
    key_union,
    runs_of,
    size,
)
from attndsl.schedule.model import IntArray

_DEEPEST: Final = 32  # alternations of `and` and `or` that are solved; deeper ones are tried


class Place(NamedTuple):
    """One query of a call: every leaf but the key is known."""

    q: int
    batch: int
    head: int
    sizes: Mapping[str, int]
    tables: Mapping[str, Any]
    mask: ir.Mask
    heads: int
    layer: int

    def evaluate(self, node: ir.Node, k: Any) -> Any:
        """The value of a node at these keys."""
        mask = self.mask
        env = ir.Env(
            *(self.q, k, self.sizes, self.tables, self.batch, self.head, self.heads, self.layer),
            *(mask.queries, mask.keys),
            places=dict(mask.places),
            place=mask.places[0][1] if mask.places else None,
        )
        return ir.evaluate(node, env)


Solver: TypeAlias = Callable[[Place, Keys], Keys]  # the keys, of these, for which a node is true


_Number: TypeAlias = Callable[[Place], int]


class _Inverse(Protocol):
    """Finds the keys, of these, at which an integer is from ``low`` to ``high``; None: without that bound."""

    def __call__(self, at: Place, within: Keys, /, low: int | None, high: int | None) -> Keys: ...


@functools.lru_cache(maxsize=512)
def solver(node: ir.Node, depth: int = 0) -> Solver:
    """How a condition is solved for the key; what cannot be solved is tried, key by key."""
    if not _moves(node):
        holds = _number(node)
        return lambda at, within: within if holds(at) else ()
    match node:
        case ir.Or(items=items) if depth < _DEEPEST:
            ways = [solver(item, depth + 1) for item in items]

            def either(at: Place, within: Keys) -> Keys:
                return key_union([way(at, within) for way in ways])

            return either
        case ir.And(items=items) if depth < _DEEPEST:
            edges = [edge for item in items if (edge := _edge(item))]
            bounds = [item for item in items if _bound(item) and not _edge(item)]
            bounds.sort(key=_is_listed)
            others = [item for item in items if not _bound(item)]
            others.sort(key=lambda item: not isinstance(item, ir.Or))
            return _all_of(edges, [solver(item, depth + 1) for item in (*bounds, *others)])
        case _ if edge := _edge(node):
            return _all_of([edge], [])
        case _:
            return _bound(node) or functools.partial(_tried, node)


class _Edge(NamedTuple):
    """The keys up to ``factor * q + constant``, or those from it on."""

    is_last: bool
    factor: int
    constant: int


def _edge(node: ir.Node) -> _Edge | None:
    """A comparison as one end of the keys, where the query alone moves it."""
    if not isinstance(node, ir.Le):
        return None
    terms, constant = ir.linear(node.item)
    sides = {term.side: factor for term, factor in terms.items() if isinstance(term, ir.Pos)}
    sign, factor = sides.get(ir.Side.KEY, 0), sides.get(ir.Side.QUERY, 0)
    if len(sides) < len(terms) or abs(sign) != 1:
        return None
    return _Edge(sign == 1, -sign * factor, sign * (node.bound - constant))


def _all_of(edges: Sequence[_Edge], steps: Sequence[Solver]) -> Solver:
    """Cuts the keys at all edges at once, then takes the steps. Each function less is felt in each decoded token."""

    def solve(at: Place, within: Keys) -> Keys:
        q, low, high = at.q, -FARTHEST, FARTHEST
        for is_last, factor, constant in edges:
            end = factor * q + constant
            if not is_last:
                low = max(low, end)
            elif end < high:
                high = end
        within = between(within, low, high)
        for step in steps:
            if not len(within):
                return ()
            within = step(at, within)
        return within

    return solve


def is_solved(node: ir.Node, depth: int = 0) -> bool:
    """Whether ``solver`` tries no key of a condition."""
    if isinstance(node, ir.And | ir.Or) and _moves(node):
        return depth < _DEEPEST and all(is_solved(item, depth + 1) for item in node.items)
    return not _moves(node) or _bound(node) is not None


def _moves(node: ir.Node) -> bool:
    return bool(node.deps & ir.Deps.KEY)


def _is_listed(node: ir.Node) -> bool:
    """Whether the keys of a comparison are looked up or listed one by one: where they are few, that is cheap."""
    return ir.holds(node, ir.Load, ir.Mod)


def _tried(node: ir.Node, at: Place, within: Keys) -> Keys:
    """The keys at which the node evaluates to true."""
    keys = key_positions(within)
    holds = np.asarray(at.evaluate(node, keys), dtype=bool)
    return runs_of(keys[np.broadcast_to(holds, keys.shape)])


@functools.lru_cache(maxsize=512)
def _bound(node: ir.Node) -> Solver | None:
    """How a comparison is solved; None where its keys must be tried."""
    match node:
        case ir.Le(item=item, bound=bound):
            solved, low = _inverse(item), None
        case ir.Eq(item=item, bound=bound):
            solved, low = _inverse(item, exact=True), bound
        case ir.Load():
            solved, low, bound = _looked_up(node), 1, 1
        case ir.Not(item=ir.Load() as item):
            solved, low, bound = _looked_up(item), 0, 0
        case _:
            return None
    # no function of ours: it would be called for each condition of each decoded token
    return None if solved is None else functools.partial(solved, low=low, high=bound)


def _inverse(node: ir.Node, *, exact: bool = False) -> _Inverse | None:
    """How an integer is inverted; ``exact``: for one value, not for a range of them."""
    match node:
        case ir.Pos(side=ir.Side.KEY):
            return lambda _, within, low, high: between(within, low, high)
        case ir.Load():
            return _looked_up(node)
        case ir.Sum():
            return _inverse_of_sum(node, exact=exact)
        case ir.FloorDiv(left=left, right=right) if not _moves(right):
            inner, divisor = _inverse(left), _number(right)
            if inner is None:
                return None

            def quotient(at: Place, within: Keys, low: int | None, high: int | None) -> Keys:
                d = divisor(at)
                if d < 1:  # the quotient is 0
                    return within if _holds_zero(low, high) else ()
                high = None if high is None else high * d + d - 1
                return inner(at, within, None if low is None else low * d, high)

            return quotient
        case ir.Mod(left=left, right=right) if exact and not _moves(right):
            return _residue(left, _number(right))
        case _:
            return None


def _inverse_of_sum(node: ir.Sum, *, exact: bool) -> _Inverse | None:
    found = _split(node)
    if found is None:
        return None
    term, factor, others = found
    inner = _inverse(term, exact=exact)
    if inner is None:
        return None
    size = abs(factor)

    def inverse(at: Place, within: Keys, low: int | None, high: int | None) -> Keys:
        still = others(at)
        low = None if low is None else low + still
        high = None if high is None else high + still
        if factor < 0:
            low, high = None if high is None else -high, None if low is None else -low
        if size == 1:
            return inner(at, within, low, high)
        least = None if low is None else -(-low // size)
        most = None if high is None else high // size
        if least is not None and most is not None and least > most:
            return ()
        return inner(at, within, least, most)

    return inverse


def _split(node: ir.Node) -> tuple[ir.Node, int, _Number] | None:
    """(the one term that the key moves, its coefficient, the others with the sign turned); None if it moves several."""
    terms, constant = ir.linear(node)
    moving = [(term, factor) for term, factor in terms.items() if _moves(term)]
    if len(moving) != 1:
        return None
    turned = {term: -factor for term, factor in terms.items() if term is not moving[0][0]}
    return *moving[0], _number(ir.combine(turned, -constant))


def _residue(node: ir.Node, modulus: _Number) -> _Inverse | None:
    """The keys at which what goes with the key, or against it, leaves one remainder."""
    found = _split(node)
    if found is None or not isinstance(found[0], ir.Pos) or abs(found[1]) != 1:
        return None
    _, sign, others = found

    def inverse(at: Place, within: Keys, low: int | None, high: int | None) -> Keys:
        m = modulus(at)
        assert low is not None, "one remainder"
        if m < 1:  # the remainder is 0
            return within if low == 0 else ()
        if not 0 <= low < m:
            return ()
        first = sign * (low + others(at)) % m
        if isinstance(within, np.ndarray):
            found: IntArray = within[within % m == first]
            return found
        parts = []
        for start, stop in within:
            parts.append(np.arange(start + (first - start) % m, stop, m, dtype=np.int64))
        if len(parts) == 1:
            return parts[0]
        return np.concatenate(parts) if parts else ()

    return inverse


def _looked_up(node: ir.Load) -> _Inverse | None:
    """How a table by position is read backwards; None where it is read elsewhere than at the key."""
    match node.index:
        case (ir.Pos(side=ir.Side.KEY),):
            row = _row_of(node)
        case _:
            return None

    def inverse(at: Place, within: Keys, low: int | None, high: int | None) -> Keys:
        entries = row(at)
        if len(within) == 1 and isinstance(within, tuple):
            start, stop = within[0]
            if start >= 0 and stop <= len(entries):
                return _run_of(entries, start, stop, low, high)
        inside = between(within, 0, len(entries) - 1)
        if isinstance(inside, np.ndarray):
            found = runs_of(inside[_in_range(entries[inside], low, high)])
        elif len(inside) == 1:
            found = _run_of(entries, *inside[0], low, high)
        else:
            found = key_union([_run_of(entries, *run, low, high) for run in inside])
        if not _holds_zero(low, high) or size(inside) == size(within):
            return found
        outside = (between(within, None, -1), between(within, len(entries), None))
        return key_union((*outside, found))  # the value there is 0

    return inverse


def _row_of(node: ir.Load) -> Callable[[Place], Any]:
    """The entries by position that a read sees, of its batch element and head; one row may serve all."""
    table, ambient = node.table, node.ambient
    by_batch, by_head = bool(ambient & ir.Deps.BATCH), bool(ambient & ir.Deps.HEAD)

    def row(at: Place) -> Any:
        array = at.tables[table]
        if by_batch:
            array = array[at.batch if len(array) > 1 else 0]
        if by_head:
            array = array[at.head if len(array) > 1 else 0]
        return array

    return row


def _run_of(entries: IntArray, start: int, stop: int, low: int | None, high: int | None) -> Keys:
    """The positions of one run whose entries are in the range."""
    values: Any = entries[start:stop]
    holds = values == low if low == high else _in_range(values, low, high)
    searched = holds.tobytes()  # faster than argmax, which goes backwards by copying
    first, last = searched.find(1), searched.rfind(1) + 1
    if not last:
        return ()
    if searched.find(0, first, last) < 0:  # one after the other: there is no need to list them
        return ((start + first, start + last),)
    return runs_of(np.flatnonzero(holds[first:last]) + (start + first))


def _in_range(values: IntArray, low: int | None, high: int | None) -> Any:
    holds = np.ones(len(values), bool) if low is None else values >= low
    return holds if high is None else holds & (values <= high)


def _holds_zero(low: int | None, high: int | None) -> bool:
    return (low is None or low <= 0) and (high is None or high >= 0)


@functools.lru_cache(maxsize=512)
def _number(node: ir.Node) -> _Number:
    """How a value that does not depend on the key is computed."""
    match node:
        case ir.Const(value=value) | ir.BoolConst(value=value):
            return lambda _: value
        case ir.Pos():
            return lambda at: at.q
        case ir.Size(name=name):
            return lambda at: at.sizes[name]
        case ir.Sum(terms=((ir.Pos(), factor),), constant=constant):
            return lambda at: factor * at.q + constant
        case ir.Sum(terms=((term, factor),), constant=constant):
            inner = _number(term)
            return lambda at: factor * inner(at) + constant
        case ir.Sum(terms=((first, a), (second, b)), constant=constant):
            left, right = _number(first), _number(second)
            return lambda at: a * left(at) + b * right(at) + constant
        case ir.Mod(left=dividend, right=ir.Const(value=m)) if m > 0:
            inner = _number(dividend)
            return lambda at: inner(at) % m
        case ir.FloorDiv(left=dividend, right=ir.Const(value=m)) if m > 0:
            inner = _number(dividend)
            return lambda at: inner(at) // m
        case ir.Le(item=item, bound=bound):
            inner = _number(item)
            return lambda at: inner(at) <= bound
        case ir.Load(index=(ir.Pos(),)):
            return _entry(node, None)
        case ir.Load(index=(index,)):
            return _entry(node, _number(index))
        case _:
            return lambda at: int(at.evaluate(node, 0))


def _entry(node: ir.Load, index: _Number | None) -> _Number:
    """An entry of a table with one dim beside batch and head, by default that of the query; 0 outside."""
    row = _row_of(node)

    def number(at: Place) -> int:
        entries, place = row(at), index(at) if index else at.q
        return entries.item(place) if 0 <= place < len(entries) else 0

    return number
