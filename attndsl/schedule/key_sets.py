"""The keys that single queries see: for calls of so few queries that tiles would be mostly air.

    k <= q and q - k < w or k < g     q = 5000     -->  [0, g) and [5000 - w + 1, 5001)

Conditions that bound the key are solved for it; what they leave is tried, all keys at once. The price follows the
keys that are seen, not the length, where the conditions allow.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from attndsl import ir
from attndsl.schedule.building import Call, positions_of
from attndsl.schedule.model import IntArray, ShortArray

Runs: TypeAlias = tuple[tuple[int, int], ...]  # [start, stop), ascending and apart
Keys: TypeAlias = Runs | IntArray  # an array: ascending positions

MOST_RUNS: Final = 8  # slices that are joined; more of them are gathered key by key
_FARTHEST: Final = 1 << 62  # from position 0; no token is
_DEEPEST: Final = 32  # alternations of `and` and `or` that are solved; deeper ones are tried
_ONE_CLASS: Final = np.zeros((1, 1), np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class KeySets:
    """The keys of each query of a call, by distinct (batch, head) class."""

    classes: tuple[tuple[Keys, ...], ...]  # [classes][queries]
    class_of: ShortArray  # [1 or batch, 1 or heads], index into classes

    @property
    def nbytes(self) -> int:
        """Bytes of the positions."""
        arrays = (keys for one in self.classes for keys in one if isinstance(keys, np.ndarray))
        return self.class_of.nbytes + sum(keys.nbytes for keys in arrays)


def key_sets(mask: ir.Mask, call: Call) -> KeySets:
    """The keys that each query of a call sees under a normal mask."""
    queries, keys = positions_of(mask, call)
    whole: Runs = ((keys.start, keys.stop),) if keys else ()
    deps, solve = mask.root.deps, solver(mask.root)
    batches = call.batch if deps & ir.Deps.BATCH else 1
    heads = call.heads if deps & ir.Deps.HEAD else 1
    about = call.sizes, call.tables, mask, call.heads, call.layer
    found = [
        tuple(
            () if q < 0 and mask.is_placed else solve(Place(q, b, h, *about), whole)
            for q in queries  # none stands before the first token
        )
        for b, h in itertools.product(range(batches), range(heads))
    ]
    return in_classes(found, batches)


def in_classes(found: Sequence[tuple[Keys, ...]], batches: int) -> KeySets:
    """The keys of each query, for each batch element and in it for each head, equal ones together."""
    if len(found) == 1:
        return KeySets((found[0],), _ONE_CLASS)
    names: dict[object, int] = {}
    classes: list[tuple[Keys, ...]] = []
    class_of = []
    for rows in found:
        class_of.append(names.setdefault(tuple(map(_name, rows)), len(names)))
        if len(names) > len(classes):
            classes.append(rows)
    return KeySets(tuple(classes), np.array(class_of, np.int32).reshape(batches, -1))


def key_union(sets: Sequence[Keys]) -> Keys:
    """All keys that are in one of the sets."""
    runs: list[tuple[int, int]] = []
    others = []
    for keys in sets:
        if isinstance(keys, tuple):
            runs += keys
        else:
            others.append(keys)
    if len(runs) > 1:
        runs.sort()
    joined = _as_runs(runs)
    if not others:
        return joined
    if isinstance(joined, np.ndarray):
        return functools.reduce(np.union1d, (joined, *others))
    some = others[0] if len(others) == 1 else functools.reduce(np.union1d, others)
    parts, low = [], 0
    for start, stop in joined:  # what lies between runs is kept
        parts += [some[low : some.searchsorted(start)], np.arange(start, stop)]
        low = int(some.searchsorted(stop))
    return np.concatenate([*parts, some[low:]]) if joined else some


def key_positions(keys: Keys) -> IntArray:
    """The keys one by one, int64, ascending."""
    if isinstance(keys, np.ndarray):
        return keys
    parts = [np.arange(start, stop, dtype=np.int64) for start, stop in keys]
    return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.int64), *parts])


def size(keys: Keys) -> int:
    """How many keys."""
    if isinstance(keys, np.ndarray):
        return len(keys)
    return sum(stop - start for start, stop in keys)


def _name(keys: Keys) -> object:
    return keys if isinstance(keys, tuple) else keys.tobytes()


def _as_runs(ordered: Sequence[tuple[int, int]]) -> Keys:
    """Runs in order of their starts, joined where they meet; positions where they are many."""
    joined: list[tuple[int, int]] = []
    for start, stop in ordered:
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        elif start < stop:
            joined.append((start, stop))
    return tuple(joined) if len(joined) <= MOST_RUNS else key_positions(tuple(joined))


def _of(found: IntArray) -> Keys:
    """Ascending positions, as runs where these are few."""
    if not len(found):
        return ()
    cuts = np.flatnonzero(found[1:] != found[:-1] + 1)
    if len(cuts) >= MOST_RUNS:
        return found
    starts, stops = found[[0, *(cuts + 1)]], found[[*cuts, -1]] + 1
    return tuple(zip(starts.tolist(), stops.tolist(), strict=True))


def _between(keys: Keys, low: int | None, high: int | None) -> Keys:
    """The keys from ``low`` to ``high``, both included; None: without that bound."""
    if not isinstance(keys, tuple):
        low = -_FARTHEST if low is None else max(low, -_FARTHEST)
        high = _FARTHEST if high is None else min(high, _FARTHEST)
        return keys[keys.searchsorted(low) : keys.searchsorted(high, side="right")]
    cut = []
    for start, stop in keys:
        if low is not None and low > start:
            start = low
        if high is not None and high < stop:
            stop = high + 1
        if start < stop:
            cut.append((start, stop))
    return tuple(cut)


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
        )
        return ir.evaluate(node, env)


Solver: TypeAlias = Callable[[Place, Keys], Keys]  # the keys, of these, for which a node is true
_Number: TypeAlias = Callable[[Place], int]
# The keys, of these, at which an integer is from ``low`` to ``high``; None: without that bound.
_Inverse: TypeAlias = Callable[[Place, int | None, int | None, Keys], Keys]


@functools.lru_cache(maxsize=512)
def solver(node: ir.Node, depth: int = 0) -> Solver:
    """How a condition is solved for the key; what cannot be solved is tried, key by key."""
    if not _moves(node):
        holds = _number(node)
        return lambda at, within: within if holds(at) else ()
    match node:
        case ir.And(items=items) if depth < _DEEPEST:
            bounds = [item for item in items if _bound(item)]
            bounds.sort(key=_is_listed)
            others = [item for item in items if item not in bounds]
            others.sort(key=lambda item: not isinstance(item, ir.Or))
            steps = [solver(item, depth + 1) for item in (*bounds, *others)]

            def both(at: Place, within: Keys) -> Keys:
                for step in steps:
                    if not len(within):
                        return ()
                    within = step(at, within)
                return within

            return both
        case ir.Or(items=items) if depth < _DEEPEST:
            ways = [solver(item, depth + 1) for item in items]
            return lambda at, within: key_union([way(at, within) for way in ways])
        case _:
            return _bound(node) or functools.partial(_tried, node)


def is_solved(node: ir.Node, depth: int = 0) -> bool:
    """Whether ``solver`` tries no key of a condition."""
    if isinstance(node, ir.And | ir.Or) and _moves(node):
        return depth < _DEEPEST and all(is_solved(item, depth + 1) for item in node.items)
    return not _moves(node) or _bound(node) is not None


def _moves(node: ir.Node) -> bool:
    return bool(node.deps & ir.Deps.KEY)


def _is_listed(node: ir.Node) -> bool:
    """Whether the keys of a comparison are looked up or listed one by one: where they are few, that is cheap."""
    return any(isinstance(each, ir.Load | ir.Mod) for each in ir.postorder(node))


def _tried(node: ir.Node, at: Place, within: Keys) -> Keys:
    """The keys at which the node evaluates to true."""
    keys = key_positions(within)
    holds = np.asarray(at.evaluate(node, keys), dtype=bool)
    return _of(keys[np.broadcast_to(holds, keys.shape)])


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
    return None if solved is None else lambda at, within: solved(at, low, bound, within)


def _inverse(node: ir.Node, *, exact: bool = False) -> _Inverse | None:
    """How an integer is inverted; ``exact``: for one value, not for a range of them."""
    match node:
        case ir.Pos(side=ir.Side.KEY):
            return lambda _, low, high, within: _between(within, low, high)
        case ir.Load():
            return _looked_up(node)
        case ir.Sum():
            return _inverse_of_sum(node, exact=exact)
        case ir.FloorDiv(left=left, right=right) if not _moves(right):
            inner, divisor = _inverse(left), _number(right)
            if inner is None:
                return None

            def quotient(at: Place, low: int | None, high: int | None, within: Keys) -> Keys:
                d = divisor(at)
                if d < 1:  # the quotient is 0
                    return within if _holds_zero(low, high) else ()
                high = None if high is None else high * d + d - 1
                return inner(at, None if low is None else low * d, high, within)

            return quotient
        case ir.Mod(left=left, right=right) if exact and not _moves(right):
            return _residue(left, _number(right))
        case _:
            return None


def _inverse_of_sum(node: ir.Sum, *, exact: bool) -> _Inverse | None:
    found = _split(node)
    if found is None:
        return None
    term, factor, rest = found
    inner = _inverse(term, exact=exact)
    if inner is None:
        return None
    size = abs(factor)

    def inverse(at: Place, low: int | None, high: int | None, within: Keys) -> Keys:
        still = rest(at)
        low = None if low is None else low - still
        high = None if high is None else high - still
        if factor < 0:
            low, high = None if high is None else -high, None if low is None else -low
        if size == 1:
            return inner(at, low, high, within)
        least = None if low is None else -(-low // size)
        most = None if high is None else high // size
        if least is not None and most is not None and least > most:
            return ()
        return inner(at, least, most, within)

    return inverse


def _split(node: ir.Node) -> tuple[ir.Node, int, _Number] | None:
    """(the one term that the key moves, its coefficient, the rest); None if it moves several."""
    terms, constant = ir.linear(node)
    moving = [(term, factor) for term, factor in terms.items() if _moves(term)]
    if len(moving) != 1:
        return None
    rest = ir.combine({t: c for t, c in terms.items() if t is not moving[0][0]}, constant)
    return *moving[0], _number(rest)


def _residue(node: ir.Node, modulus: _Number) -> _Inverse | None:
    """The keys at which what goes with the key, or against it, leaves one remainder."""
    found = _split(node)
    if found is None or not isinstance(found[0], ir.Pos) or abs(found[1]) != 1:
        return None
    _, sign, rest = found

    def inverse(at: Place, low: int | None, high: int | None, within: Keys) -> Keys:
        m = modulus(at)
        assert low is not None, "one remainder"
        if m < 1:  # the remainder is 0
            return within if low == 0 else ()
        if not 0 <= low < m:
            return ()
        first = sign * (low - rest(at)) % m
        if isinstance(within, np.ndarray):
            found: IntArray = within[within % m == first]
            return found
        starts = ((start + (first - start) % m, stop) for start, stop in within)
        parts = [np.arange(start, stop, m, dtype=np.int64) for start, stop in starts]
        return np.concatenate(parts) if parts else ()

    return inverse


def _looked_up(node: ir.Load) -> _Inverse | None:
    """How a table by position is read backwards; None where it is read elsewhere than at the key."""
    match node.index:
        case (ir.Pos(side=ir.Side.KEY),):
            row = _row_of(node)
        case _:
            return None

    def inverse(at: Place, low: int | None, high: int | None, within: Keys) -> Keys:
        entries = row(at)
        if isinstance(within, tuple) and len(within) == 1:
            run = within[0]
            if run[0] >= 0 and run[1] <= len(entries):
                return _run_of(entries, run, low, high)
        inside = _between(within, 0, len(entries) - 1)
        if isinstance(inside, np.ndarray):
            found = _of(inside[_in_range(entries[inside], low, high)])
        elif len(inside) == 1:
            found = _run_of(entries, inside[0], low, high)
        else:
            found = key_union([_run_of(entries, run, low, high) for run in inside])
        if not _holds_zero(low, high) or size(inside) == size(within):
            return found
        outside = (_between(within, None, -1), _between(within, len(entries), None))
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


def _run_of(entries: IntArray, run: tuple[int, int], low: int | None, high: int | None) -> Keys:
    """The positions of one run whose entries are in the range."""
    start, stop = run
    holds = _in_range(entries[start:stop], low, high)
    searched = holds.tobytes()  # faster than argmax, which goes backwards by copying
    first, last = searched.find(1), searched.rfind(1) + 1
    if not last:
        return ()
    if searched.find(0, first, last) < 0:  # one after the other: there is no need to list them
        return ((start + first, start + last),)
    return _of(np.flatnonzero(holds[first:last]) + (start + first))


def _in_range(values: IntArray, low: int | None, high: int | None) -> Any:
    if low == high is not None:
        return values == low
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
        case ir.Load(index=(index,)):
            return _entry(node, _number(index))
        case _:
            return lambda at: int(at.evaluate(node, 0))


def _entry(node: ir.Load, index: _Number) -> _Number:
    """An entry of a table with one dim beside batch and head; 0 outside."""
    row = _row_of(node)

    def number(at: Place) -> int:
        entries, place = row(at), index(at)
        return int(entries[place]) if 0 <= place < len(entries) else 0

    return number
