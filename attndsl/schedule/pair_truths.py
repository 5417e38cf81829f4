"""Truth values of a relation, pair by pair, where bounds do not decide a tile."""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from attndsl import ir
from attndsl.analysis import is_translation_invariant
from attndsl.schedule.model import BoolArray, IntArray, ShortArray
from attndsl.schedule.refine import split_comparison
from attndsl.schedule.summaries import TileAxis
from attndsl.schedule.tile_classes import LOGIC

_Ints: TypeAlias = IntArray | ShortArray


NUMBERS_AT_ONCE = 1 << 16  # int64 elements per chunk (8 bytes each, so 8x fewer than booleans)
TERMS_AT_ONCE = 512  # terms of one side whose values are held


NAMED_AT_ONCE = 64  # alternatives that hold at few keys, before they are written out


def truths_of(
    root: ir.Node, queries: TileAxis, keys: TileAxis, rows: IntArray, columns: IntArray
) -> BoolArray:
    """Like ``ir.evaluate``, but rewrites ``f(q) + g(k) <= c`` to ``f(q) <= c - g(k)`` to avoid a per-pair addition.

    Keys that rise by one are counted to where they equal a query's value. ``rows``, ``columns``: places in
    storage, [n, m, 1] and [n, 1, k].
    """
    q, k = queries.positions(rows), keys.positions(columns)
    env = ir.Env(q=q, k=k, sizes={}, tables=queries.tables, fits=True)
    memo: dict[ir.Node, BoolArray | _Named] = {}

    @functools.lru_cache(maxsize=TERMS_AT_ONCE)
    def of_side(node: ir.Node) -> IntArray:
        return queries.at(node, rows, env) if queries.owns(node) else keys.at(node, columns, env)

    def leaf(node: ir.Node) -> BoolArray | _Named:
        match node:
            case ir.Le() | ir.Eq() if (parts := split_comparison(node)) is not None:
                mine, theirs = of_side(parts[0]), parts[2] - of_side(parts[1])
                return _compared(node, mine, theirs, -keys.slope(parts[1]))
            case _ if node.is_pair:
                return _pair_by_pair(node, env)
            case _:
                return np.asarray(ir.evaluate(node, env))

    uses = Counter(item for node in ir.postorder(root) for item in inner_parts(node))
    stack = [(root, iter(inner_parts(root)), _Gathered(root))]
    while stack:
        node, items, gathered = stack[-1]
        for item in items:
            if item not in memo:
                if inner_parts(item):
                    # the same item is looked at again, as a part that is known
                    stack[-1] = node, itertools.chain((item,), items), gathered
                    stack.append((item, iter(inner_parts(item)), _Gathered(item)))
                    break
                memo[item] = leaf(item)
            gathered.take(memo[item])
            uses[item] -= 1
            if not uses[item]:  # or there would be an array for each of thousands of parts
                del memo[item]
        else:
            memo[node] = gathered.value() if inner_parts(node) else leaf(node)
            stack.pop()
    return _written(memo[root])


def inner_parts(node: ir.Node) -> tuple[ir.Node, ...]:
    """The parts of a junction or negation that depends on the pair."""
    return node.parts if node.is_pair and isinstance(node, LOGIC) else ()


class _Gathered:
    """Value of a junction or negation, its parts taken one after the other."""

    def __init__(self, node: ir.Node) -> None:
        self._node = node
        self._found: BoolArray | None = None
        self._named: list[BoolArray | _Named] = []

    def take(self, part: BoolArray | _Named) -> None:
        """One part more."""
        if isinstance(self._node, ir.Or) and isinstance(part, _Named):
            self._named.append(part)
            if len(self._named) >= NAMED_AT_ONCE:
                self._join(_written(_any(self._named)))
                self._named = []
        else:
            self._join(_written(part))

    def _join(self, part: BoolArray) -> None:
        join = np.logical_or if isinstance(self._node, ir.Or) else np.logical_and
        self._found = part if self._found is None else join(self._found, part)

    def value(self) -> BoolArray | _Named:
        """The whole."""
        if isinstance(self._node, ir.Not):
            assert self._found is not None
            return ~self._found
        if self._found is None:
            return _any(self._named)
        return _any([self._found, *self._named]) if self._named else self._found


def _written(value: BoolArray | _Named) -> BoolArray:
    return value.written() if isinstance(value, _Named) else value


def _pair_by_pair(node: ir.Node, env: ir.Env) -> BoolArray:
    """Like ``ir.evaluate``, on few tiles at a time; functions of q - k alone are evaluated once per difference."""
    alone = _of_difference(node)
    shape = np.broadcast_shapes(env.q.shape, env.k.shape)
    found = np.empty(shape, dtype=bool)
    at_once = max(1, NUMBERS_AT_ONCE // math.prod(shape[1:]))
    for start in range(0, len(found), at_once):
        some = slice(start, start + at_once)
        few = replace(env, q=env.q[some], k=env.k[some])
        found[some] = ir.evaluate(node, few) if alone is None else _looked_up(alone, few)
    return found


def _compared(
    node: ir.Le | ir.Eq, mine: IntArray, theirs: IntArray, slope: int
) -> BoolArray | _Named:
    """Compares values of queries, [n, m, 1], with values of keys, [n, 1, k], which rise by the slope if it is known."""
    if isinstance(node, ir.Eq) and abs(slope) == 1:
        return _Named((mine - theirs[:, :, :1]) * slope, theirs.shape[2])
    few, many = _short(mine), _short(theirs)
    return np.asarray(few <= many if isinstance(node, ir.Le) else few == many)


@dataclass(frozen=True, slots=True, eq=False)
class _Named:
    """Sparse truth values: ``places`` of the few keys at which they hold, in the tile or outside, [n, queries, few]."""

    places: _Ints
    keys: int

    def written(self) -> BoolArray:
        """Expands to one truth value per pair, [n, queries, keys]."""
        count, queries, _ = self.places.shape
        found = np.zeros(count * queries * self.keys, dtype=bool)
        first = np.arange(0, len(found), self.keys, dtype=np.int32).reshape(count, queries, 1)
        found[(self.places + first)[(self.places >= 0) & (self.places < self.keys)]] = True
        return found.reshape(count, queries, self.keys)


def _any(items: list[BoolArray | _Named]) -> BoolArray | _Named:
    """Disjunction; sparse operands are concatenated before they are expanded to dense."""
    named = [item for item in items if isinstance(item, _Named)]
    others = [item for item in items if not isinstance(item, _Named)]
    if named:
        places = np.concatenate([item.places for item in named], axis=2)
        joined = _Named(places, named[0].keys)
        if not others:
            return joined
        others.append(joined.written())
    return functools.reduce(np.logical_or, others)


def _short(values: IntArray) -> _Ints:
    """Casts to int32 where the values fit, since comparisons then take half the time."""
    fits = values.size and values.min() >= -1 << 31 and values.max() < 1 << 31
    return values.astype(np.int32) if fits else values


@functools.lru_cache(maxsize=4096)
def _of_difference(node: ir.Node) -> ir.Node | None:
    """Rewrites the node as a function of q - k, for which q then stands; None if it is none."""
    if not node.is_pair or not is_translation_invariant(node):
        return None
    return ir.substitute(node, {ir.Pos(ir.Side.KEY): ir.ZERO})


def _looked_up(alone: ir.Node, env: ir.Env) -> BoolArray:
    """A function of q - k at each pair, by a table of all differences where those are fewer."""
    apart = env.q - env.k
    low, high = int(apart.min()), int(apart.max())
    if high - low >= apart.size:
        return np.asarray(ir.evaluate(alone, replace(env, q=apart)))
    differences = np.arange(low, high + 1)
    table = np.asarray(ir.evaluate(alone, replace(env, q=differences)))
    return np.asarray(np.broadcast_to(table, differences.shape)[apart - low])
