"""The keys that single queries see: for calls of so few queries that tiles would be mostly air.

    k <= q and q - k < w or k < g     q = 5000     -->  [0, g) and [5000 - w + 1, 5001)

Conditions that bound the key are solved for it; what they leave is tried, all keys at once. The price follows the
keys that are seen, not the length, where the conditions allow.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from attndsl import ir
from attndsl.schedule.building import Call, positions_of
from attndsl.schedule.model import IntArray, ShortArray

Runs: TypeAlias = tuple[tuple[int, int], ...]  # [start, stop), ascending and apart
Keys: TypeAlias = Runs | IntArray  # an array: ascending positions

MOST_RUNS: Final = 8  # slices that are joined; more of them are gathered key by key
_FARTHEST: Final = 1 << 62  # from position 0; no token is
_DEEPEST: Final = 32  # alternations of `and` and `or` that are solved; deeper ones are tried


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
    deps, solve = mask.root.deps, _solver(mask.root, 0)
    batches = call.batch if deps & ir.Deps.BATCH else 1
    heads = call.heads if deps & ir.Deps.HEAD else 1
    found: dict[object, int] = {}
    classes: list[tuple[Keys, ...]] = []
    class_of = []
    for b, h in itertools.product(range(batches), range(heads)):
        rows = tuple(
            () if q < 0 and mask.is_placed else solve(_Place(q, b, h, mask, call), whole)
            for q in queries  # none stands before the first token
        )
        class_of.append(found.setdefault(tuple(map(_name, rows)), len(found)))
        if len(found) > len(classes):
            classes.append(rows)
    return KeySets(tuple(classes), np.array(class_of, np.int32).reshape(batches, heads))


def key_union(sets: Sequence[Keys]) -> Keys:
    """All keys that are in one of the sets."""
    if all(isinstance(keys, tuple) for keys in sets):
        return _as_runs(sorted(itertools.chain(*sets)))
    return functools.reduce(np.union1d, map(key_positions, sets))


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
    low = -_FARTHEST if low is None else max(low, -_FARTHEST)
    high = _FARTHEST if high is None else min(high, _FARTHEST)
    if isinstance(keys, np.ndarray):
        return keys[np.searchsorted(keys, low) : np.searchsorted(keys, high, side="right")]
    cut = ((max(start, low), min(stop, high + 1)) for start, stop in keys)
    return tuple((start, stop) for start, stop in cut if start < stop)


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """One query of a call: every leaf but the key is known."""

    q: int
    batch: int
    head: int
    mask: ir.Mask
    call: Call

    def evaluate(self, node: ir.Node, k: Any) -> Any:
        """The value of a node at these keys."""
        call, mask = self.call, self.mask
        env = ir.Env(
            *(self.q, k, call.sizes, call.tables, self.batch, self.head, call.heads, call.layer),
            *(mask.queries, mask.keys),
        )
        return ir.evaluate(node, env)


_Solver: TypeAlias = Callable[[_Place, Keys], Keys]  # the keys, of these, for which a node is true
_Number: TypeAlias = Callable[[_Place], int]
# The keys, of these, at which an integer is from ``low`` to ``high``; None: without that bound.
_Inverse: TypeAlias = Callable[[_Place, int | None, int | None, Keys], Keys]


@functools.lru_cache(maxsize=512)
def _solver(node: ir.Node, depth: int) -> _Solver:
    """How a condition is solved for the key."""
    if not _moves(node):
        holds = _number(node)
        return lambda at, within: within if holds(at) else ()
    match node:
        case ir.And(items=items) if depth < _DEEPEST:
            bounds = [item for item in items if _bound(item)]
            others = [item for item in items if item not in bounds]
            others.sort(key=lambda item: not isinstance(item, ir.Or))
            steps = [_solver(item, depth + 1) for item in (*bounds, *others)]

            def both(at: _Place, within: Keys) -> Keys:
                for step in steps:
                    if not size(within):
                        return ()
                    within = step(at, within)
                return within

            return both
        case ir.Or(items=items) if depth < _DEEPEST:
            ways = [_solver(item, depth + 1) for item in items]
            return lambda at, within: key_union([way(at, within) for way in ways])
        case _:
            return _bound(node) or functools.partial(_tried, node)


def _moves(node: ir.Node) -> bool:
    return bool(node.deps & ir.Deps.KEY)


def _tried(node: ir.Node, at: _Place, within: Keys) -> Keys:
    """The keys at which the node evaluates to true."""
    keys = key_positions(within)
    holds = np.asarray(at.evaluate(node, keys), dtype=bool)
    return _of(keys[np.broadcast_to(holds, keys.shape)])


@functools.lru_cache(maxsize=512)
def _bound(node: ir.Node) -> _Solver | None:
    """How a comparison is solved; None where its keys must be tried."""
    match node:
        case ir.Le(item=item, bound=bound):
            solved, low = _inverse(item), None
        case ir.Eq(item=item, bound=bound):
            solved, low = _inverse(item, exact=True), bound
        case _:
            return None
    return None if solved is None else lambda at, within: solved(at, low, bound, within)


def _inverse(node: ir.Node, *, exact: bool = False) -> _Inverse | None:
    """How an integer is inverted; ``exact``: for one value, not for a range of them."""
    match node:
        case ir.Pos(side=ir.Side.KEY):
            return lambda _, low, high, within: _between(within, low, high)
        case ir.Load(table=table, index=(ir.Pos(side=ir.Side.KEY),), kind=ir.Sort.INT):
            return functools.partial(_looked_up, table)
        case ir.Sum():
            return _inverse_of_sum(node, exact=exact)
        case ir.FloorDiv(left=left, right=right) if not _moves(right):
            inner, divisor = _inverse(left), _number(right)
            if inner is None:
                return None

            def quotient(at: _Place, low: int | None, high: int | None, within: Keys) -> Keys:
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

    def inverse(at: _Place, low: int | None, high: int | None, within: Keys) -> Keys:
        still = rest(at)
        low, high = (None if x is None else x - still for x in (low, high))
        if factor < 0:
            low, high = (None if x is None else -x for x in (high, low))
        least = None if low is None else -(-low // abs(factor))
        most = None if high is None else high // abs(factor)
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

    def inverse(at: _Place, low: int | None, high: int | None, within: Keys) -> Keys:
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


def _looked_up(table: str, at: _Place, low: int | None, high: int | None, within: Keys) -> Keys:
    """The keys whose entry in a table by position is in the range."""
    array, declared = at.call.tables[table], next(t for t in at.mask.tables if t.name == table)
    index = (at.batch if dim == "batch" else at.head for dim in declared.dims[:-1])
    entries = array[tuple(index)]
    inside = _between(within, 0, len(entries) - 1)
    if isinstance(inside, np.ndarray):
        values = entries[inside]
    else:
        values = np.concatenate([entries[:0], *(entries[start:stop] for start, stop in inside)])
    if low == high:
        holds = values == low
    else:
        holds = np.ones(len(values), bool) if low is None else values >= low
        holds = holds if high is None else holds & (values <= high)
    found = _of(key_positions(inside)[holds])
    if not _holds_zero(low, high) or size(inside) == size(within):
        return found
    outside = (_between(within, None, -1), _between(within, len(entries), None))
    return key_union((*outside, found))  # the value there is 0


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
            return lambda at: at.call.sizes[name]
        case ir.Sum(terms=terms, constant=constant) if len(terms) == 1:
            ((term, factor),) = terms
            inner = _number(term)
            return lambda at: factor * inner(at) + constant
        case _:
            return lambda at: int(at.evaluate(node, 0))
