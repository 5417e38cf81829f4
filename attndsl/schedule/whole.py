"""Blocks of queries that see the same keys, all of them or those up to themselves: the whole form of a call.

    q // 64 == k // 64 and k <= q   -->   blocks of 64 tokens, each a triangle
    k < 64 or k <= q                -->   64 keys that all queries see, and a triangle of the others
    k % 64 == 63 and k <= q         -->   a staircase: each query sees the first few of the keys

Comparisons between positions are put aside where all pairs meet them. The rest reads a few numbers of the query and
a few of the key, and ``k <= q``: queries that have the same numbers see the same keys, but for those behind them. The
relation is evaluated twice for each pair of such classes, as if ``k <= q`` held and as if not, which proves the blocks;
nothing is known by name.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from attndsl import ir
from attndsl.passes import split_sides
from attndsl.schedule.building import classes_of
from attndsl.schedule.calls import Call
from attndsl.schedule.layouts import stable_order
from attndsl.schedule.model import BoolArray, IntArray, ShortArray
from attndsl.schedule.relations import positions_of, tiled_relation
from attndsl.schedule.summaries import TileAxis

# Tokens of a class on average, below which blocks are too small to be worth a kernel: then tiles hold several of them.
LEAST_TOKENS: Final = 8
FEWER_KEYS: Final = 2  # times, than queries, that a staircase has: tiles are as good at more
_FEW_CLASSES: Final = 16  # so many are always looked at
# Pairs of classes that are evaluated, and of blocks and keys that are looked at.
_MOST_CELLS: Final = 1 << 22
_CAUSAL: Final = ir.le(ir.Pos(ir.Side.KEY), ir.Pos(ir.Side.QUERY))

StateArray: TypeAlias = np.ndarray[Any, np.dtype[np.int8]]


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """Blocks of one shape: all of ``queries`` i against all of ``keys`` i, or of equally many the first up to each.

    Rows of q and k, int64 [items, n] and [items, m], ascending in each item.
    """

    queries: IntArray
    keys: IntArray
    is_causal: bool
    seen: IntArray | None = None  # [n], of a staircase: how many keys each query sees, ascending

    @property
    def pairs(self) -> int:
        """Live pairs."""
        items, n = map(int, self.queries.shape)
        if self.seen is not None:
            return items * int(self.seen.sum())
        return items * (n * (n + 1) // 2 if self.is_causal else n * int(self.keys.shape[1]))

    @property
    def nbytes(self) -> int:
        """Bytes of the rows."""
        return self.queries.nbytes + self.keys.nbytes


@dataclass(frozen=True, slots=True, eq=False)
class Whole:
    """The blocks of a call, by distinct (batch, head) class; no pair is in two of a class."""

    q_len: int
    k_len: int
    classes: tuple[tuple[Blocks, ...], ...]
    class_of: ShortArray  # [1 or batch, 1 or heads], index into classes

    @property
    def nbytes(self) -> int:
        """Bytes of the rows."""
        return self.class_of.nbytes + sum(part.nbytes for one in self.classes for part in one)

    def keyless(self) -> BoolArray:
        """True for each query that sees no key, bool [1 or batch, 1 or heads, q_len]."""
        found = np.ones((len(self.classes), self.q_len), dtype=bool)
        for row, parts in zip(found, self.classes, strict=True):
            for part in parts:
                row[part.queries.reshape(-1)] = False
        return found[self.class_of]


class _NotWhole(Exception):
    """The pairs of the relation are no blocks, or too many small ones."""


def whole(mask: ir.Mask, call: Call) -> Whole | None:
    """The whole form of a normal mask in a call; None where it has none.

    Raises:
        AttnDslError: A403, a number in the pattern passes 2**62; A404, a quantifier is too wide; A407, memory.
    """
    if not call.q_len or not call.k_len:
        return None
    roots, class_of, tables = classes_of(mask, call)
    sides = positions_of(mask, call)
    lengths = call.q_len, call.k_len
    found = []
    try:
        for (root,) in roots:
            relation = tiled_relation(root, *sides, lengths, tables)
            found.append(_blocks(relation.root, relation.queries, relation.keys))
    except _NotWhole:
        return None
    names: dict[object, int] = {}
    same = np.array([names.setdefault(_name(blocks), len(names)) for blocks in found], np.int32)
    alike = dict(zip(same.tolist(), found, strict=True))
    return Whole(
        *lengths, tuple(alike[number] for number in range(len(alike))), _narrowed(same[class_of])
    )


def _name(blocks: tuple[Blocks, ...]) -> object:
    """Equal for equal blocks."""
    return tuple(
        (
            *(part.queries.shape, part.queries.tobytes(), part.keys.tobytes(), part.is_causal),
            None if part.seen is None else part.seen.tobytes(),
        )
        for part in blocks
    )


def _narrowed(class_of: ShortArray) -> ShortArray:
    """One entry where all batch elements, or all heads, are of one class."""
    for axis in (0, 1):
        first = class_of.take([0], axis)
        class_of = first if (class_of == first).all() else class_of
    return class_of


def _blocks(root: ir.Node, queries: TileAxis, keys: TileAxis) -> tuple[Blocks, ...]:
    root = ir.transform(root, lambda node: _decided(node, queries, keys), ir.Le)
    before, behind = (ir.substitute(root, {_CAUSAL: known}) for known in (ir.TRUE, ir.FALSE))
    atoms = list(dict.fromkeys((*_atoms(before), *_atoms(behind))))
    of_queries, of_keys = (_classes(axis, atoms) for axis in (queries, keys))
    examples = of_queries[0], of_keys[0]
    seen = _pairs(before, queries, keys, examples)
    always = _pairs(behind, queries, keys, examples)
    assert not (always & ~seen).any(), "normal relations negate no comparison, but turn it"
    states = seen.astype(np.int8) + always.astype(np.int8)
    shapes = defaultdict[Any, list[tuple[IntArray, IntArray]]](list)
    for mine, theirs, near in _joined(states, of_queries[1], of_keys[1]):
        for block, (kind, steps) in _parts(mine, theirs, near, keys.start - queries.start):
            shapes[len(block[0]), len(block[1]), kind, steps].append(block)
    return tuple(
        Blocks(
            _side([block[0] for block in each]),
            _side([block[1] for block in each]),
            kind == "triangle",
            np.frombuffer(steps, np.int64) if kind == "stairs" else None,
        )
        for (_, _, kind, steps), each in shapes.items()
    )


def _parts(
    queries: IntArray, keys: IntArray, near: IntArray, shift: int
) -> Iterator[tuple[tuple[IntArray, IntArray], tuple[str, bytes]]]:
    """The blocks of queries that see all of ``keys`` and, of ``near``, those up to themselves; with their kinds.

    Row r of k stands at row r + ``shift`` of q.

    Raises:
        _NotWhole: a staircase of so many keys that tiles are no worse.
    """
    at = near + shift
    low, high = np.searchsorted(at, (queries[0], queries[-1] + 1))
    if low < high and at[high - 1] <= queries[0]:
        low = high
    if low:
        keys = np.sort(np.concatenate([keys, near[:low]]))
    if len(keys):
        yield (queries, keys), ("full", b"")
    if low == high:
        return
    near, at = near[low:high], at[low:high]
    queries = queries[np.searchsorted(queries, at[0]) :]
    if np.array_equal(queries, at):
        yield (queries, near), ("triangle", b"")
    elif len(near) * FEWER_KEYS <= len(queries):
        steps = np.searchsorted(at, queries, side="right")
        yield (queries, near), ("stairs", steps.astype(np.int64).tobytes())
    else:
        raise _NotWhole


def _side(rows: list[IntArray]) -> IntArray:
    """Rows of equally many tokens, [items, n]."""
    return np.concatenate(rows).reshape(len(rows), -1)


def _decided(node: ir.Node, queries: TileAxis, keys: TileAxis) -> ir.Node:
    """A comparison that all pairs meet, or none, as a constant."""
    assert isinstance(node, ir.Le)
    sides = split_sides(node.item) if node.is_pair else None
    if sides is None:
        return node
    ranges = queries.summary(sides[0], 0), keys.summary(sides[1], 0)
    if int(ranges[0].high[0]) - int(ranges[1].low[0]) <= node.bound:
        return ir.TRUE
    return ir.FALSE if int(ranges[0].low[0]) - int(ranges[1].high[0]) > node.bound else node


def _atoms(root: ir.Node) -> list[ir.Node]:
    """The terms of one side that the relation reads."""
    found: dict[ir.Node, None] = {}
    seen: set[ir.Node] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if not node.is_pair:
            found[node] = None
        elif isinstance(node, ir.And | ir.Or | ir.Not):
            stack.extend(node.parts)
        else:
            sides = split_sides(node.item) if isinstance(node, ir.Le | ir.Eq) else None
            if sides is None:
                raise _NotWhole
            found |= dict.fromkeys(sides)
    return list(found)


def _classes(axis: TileAxis, atoms: list[ir.Node]) -> tuple[IntArray, IntArray]:
    """A row of each class of rows in which all terms of that side are equal, [classes]; the class of each, [length]."""
    own = [node for node in atoms if axis.owns(node)]
    most = max(_FEW_CLASSES, axis.length // LEAST_TOKENS)
    if any(axis.slope(node) for node in own) and axis.length > most:
        raise _NotWhole  # no two values are equal
    if not own:
        return np.zeros(1, np.int64), np.zeros(axis.length, np.int64)
    values = [axis.values(node) for node in own]
    order = stable_order(values)
    begins = np.zeros(axis.length, dtype=bool)
    begins[0] = True
    for value in values:
        ordered = value[order]
        begins[1:] |= ordered[1:] != ordered[:-1]
    if np.count_nonzero(begins) > most:
        raise _NotWhole
    found = np.empty(axis.length, dtype=np.int64)
    found[order] = np.cumsum(begins) - 1
    return order[begins], found


def _pairs(
    root: ir.Node, queries: TileAxis, keys: TileAxis, examples: tuple[IntArray, IntArray]
) -> BoolArray:
    """Whether the queries of a class see the keys of another, by a row of each, [classes of q, classes of k]."""
    shape = len(examples[0]), len(examples[1])
    if shape[0] * shape[1] > _MOST_CELLS:
        raise _NotWhole
    q, k = queries.positions(examples[0])[:, None], keys.positions(examples[1])
    env = ir.Env(q=q, k=k, sizes={}, tables=queries.tables, fits=True)
    return np.array(np.broadcast_to(np.asarray(ir.evaluate(root, env), dtype=bool), shape))


def _joined(
    states: StateArray, of_queries: IntArray, of_keys: IntArray
) -> list[tuple[IntArray, IntArray, IntArray]]:
    """The rows of each block, by the first query: queries, the keys that all of them see, those that later ones see.

    Args:
        states: [classes of q, classes of k]: 0 where no pair is live, 1 where those with k <= q are, 2 where all are.
        of_queries: class of each query.
        of_keys: class of each key.
    """
    names: dict[bytes, int] = {}
    block_of = np.array([names.setdefault(row.tobytes(), len(names)) for row in states])
    of_blocks = np.stack([np.frombuffer(name, np.int8) for name in names])
    live = np.flatnonzero(of_blocks.any(1))
    theirs, near = (_keys_of(of_blocks == state, of_keys) for state in (2, 1))
    queries = _by_number(block_of[of_queries], len(names))
    made = [(queries[number], theirs[number], near[number]) for number in live.tolist()]
    return sorted(made, key=lambda block: int(block[0][0]))


def _keys_of(seen: BoolArray, of_keys: IntArray) -> list[IntArray]:
    """The keys of each block, by their classes, [blocks, classes]."""
    if not seen.any():
        return [np.zeros(0, np.int64)] * len(seen)
    if (seen.sum(0) <= 1).all():  # a key is in one block, or in none
        owner = np.where(seen.any(0), seen.argmax(0), -1)
        return _by_number(owner[of_keys], len(seen))
    if len(seen) * len(of_keys) > _MOST_CELLS:
        raise _NotWhole
    return [np.flatnonzero(row[of_keys]) for row in seen]


def _by_number(numbers: IntArray, count: int) -> list[IntArray]:
    """The rows that have each number, ascending; those below 0 are nowhere."""
    order = np.argsort(numbers, kind="stable")
    edges = np.searchsorted(numbers[order], np.arange(count + 1))
    return [order[low:high] for low, high in itertools.pairwise(edges)]
