"""The lists schedule: for sets that differ from query to query, the queries of each block of keys.

    k <= q and k // 64 in picked[q]   -->   block 0: queries 17, 64, 65, ...   block 1: ...

Every alternative of the relation (`list_form`) is evaluated to ranges of keys, one for each query and each number of
its loop; ranges are cut at blocks, and what one query sees of one block is joined: a pair counts once, and an entry
that names no key is nowhere. Conditions that bound no range are evaluated on the pairs that are left. Work and memory
follow the entries of the lists, never the square of the length.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np

from attndsl import ir
from attndsl.passes import split_sides
from attndsl.schedule.calls import Call
from attndsl.schedule.layouts import stable_order
from attndsl.schedule.list_form import Alternative, list_form
from attndsl.schedule.model import BoolArray, IntArray, ShortArray, written_out
from attndsl.schedule.relations import positions_of

Bits: TypeAlias = np.ndarray[Any, np.dtype[np.uint64]]
Ranges: TypeAlias = tuple[
    IntArray, IntArray
]  # first keys and those after the last, [queries, slots]

BLOCK: Final = 64  # keys of a block: a bit each of one word
_SHIFT: Final = BLOCK.bit_length() - 1
ALL: Final = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
# Entries of a chunk of queries, so that what is made of them stays some 64 MiB.
SLOTS_AT_ONCE: Final = 1 << 18
_MOST_ENTRIES: Final = 1 << 22  # of such a chunk, past which sets are no short lists
_PAIRS_AT_ONCE: Final = 1 << 20
_QUERIES_AT_ONCE: Final = 4096  # whose ranges stay in the cache while they are worked on
_ROW: Final = 0xFFFF_FFFF  # the half of a code that is a row of q; the other is a block
_FROM: Final = ALL << np.arange(BLOCK, dtype=np.uint64)  # the keys of a block from each of them on
_UP_TO: Final = ALL >> np.arange(BLOCK, dtype=np.uint64)[::-1]  # and those up to each of them


@dataclass(frozen=True, slots=True, eq=False)
class KeyBlocks:
    """The queries of a chunk, ``first`` to ``stop``, that see something of each block of keys."""

    first: int
    stop: int
    queries: ShortArray  # [entries], rows of q, by block and then increasing
    starts: IntArray  # [blocks + 1], the first entry of each block
    bits: Bits  # [entries]; bit i is key i of the block

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.queries.nbytes + self.starts.nbytes + self.bits.nbytes

    @property
    def blocks(self) -> IntArray:
        """The block of each entry."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))


@dataclass(frozen=True, slots=True, eq=False)
class Lists:
    """The lists of a call, by distinct (batch, head) class."""

    q_len: int
    k_len: int
    classes: tuple[tuple[KeyBlocks, ...], ...]
    class_of: ShortArray  # [1 or batch, 1 or heads], index into classes
    # Rows of k that are key 0, 1, ... of the lists, [k_len]; None where they are in that order.
    order: IntArray | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the lists; nothing is held for pairs that no list names."""
        held = (chunk.nbytes for one in self.classes for chunk in one)
        return self.class_of.nbytes + sum(held)

    def keyless(self) -> BoolArray:
        """True for each query that sees no key, bool [1 or batch, 1 or heads, q_len]."""
        found = np.ones((len(self.classes), self.q_len), dtype=bool)
        for row, chunks in zip(found, self.classes, strict=True):
            for chunk in chunks:
                row[chunk.queries] = False
        return found[self.class_of]


class _NotListed(Exception):
    """The relation is no list at these lengths and contents, or its sets are too large for one.

    ``term``, of keys, would make it one if keys were taken in its order.
    """

    def __init__(self, term: ir.Node | None = None) -> None:
        self.term = term


def lists(mask: ir.Mask, call: Call) -> Lists | None:
    """The lists of a normal mask in a call; None where the relation is none, or names too much.

    Raises:
        AttnDslError: A403, a number in the pattern passes 2**62.
    """
    form = list_form(mask.root)
    if form is None or not call.q_len or not call.k_len:
        return None
    try:
        return _listed(mask, call, form, None)
    except _NotListed as refusal:
        if refusal.term is None:
            return None
        keys = np.arange(call.k_len, dtype=np.int64)
        place = _Place(mask, call, {}, 0, 0)
        values = np.asarray(ir.evaluate(refusal.term, place.env(0, keys, {})))
    try:
        return _listed(mask, call, form, stable_order([np.broadcast_to(values, keys.shape)]))
    except _NotListed:
        return None


def _listed(
    mask: ir.Mask, call: Call, form: tuple[Alternative, ...], order: IntArray | None
) -> Lists:
    """The lists with keys in an order.

    Raises:
        _NotListed: there are none.
    """
    deps = mask.root.deps
    shape = (
        call.batch if deps & ir.Deps.BATCH else 1,
        call.heads if deps & ir.Deps.HEAD else 1,
    )
    classes: list[tuple[KeyBlocks, ...]] = []
    class_of = np.zeros(shape, dtype=np.int32)
    tables = {name: _wide(table) for name, table in call.tables.items()}
    for b, h in np.ndindex(shape):
        place = _Place(mask, call, tables, b, h, order)
        made = tuple(place.chunks(form))
        class_of[b, h] = next((n for n, x in enumerate(classes) if _alike(x, made)), len(classes))
        if class_of[b, h] == len(classes):
            classes.append(made)
    return Lists(call.q_len, call.k_len, tuple(classes), class_of, order)


def _alike(some: tuple[KeyBlocks, ...], others: tuple[KeyBlocks, ...]) -> bool:
    """Whether two classes see the same keys; most that do not differ in how many entries there are."""
    pairs = list(zip(some, others, strict=True))
    return all(len(x.queries) == len(y.queries) for x, y in pairs) and all(
        np.array_equal(mine, theirs)
        for x, y in pairs
        for mine, theirs in ((x.queries, y.queries), (x.starts, y.starts), (x.bits, y.bits))
    )


def _wide(table: Any) -> Any:
    array = np.asarray(table)
    return array if array.dtype.kind == "b" else array.astype(np.int64, copy=False)


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """One batch element and head of a call."""

    mask: ir.Mask
    call: Call
    tables: Mapping[str, Any]
    batch: int
    head: int
    order: IntArray | None = None  # of keys
    sides: dict[ir.Node, KeyValues | None] = field(default_factory=dict)

    def env(self, q: Any, k: Any, indices: Mapping[int, Any]) -> ir.Env:
        """The environment of positions."""
        call, mask = self.call, self.mask
        return ir.Env(
            *(q, k, call.sizes, self.tables, self.batch, self.head, call.heads, call.layer),
            *(mask.queries, mask.keys),
            indices=indices,
        )

    def chunks(self, form: tuple[Alternative, ...]) -> Iterator[KeyBlocks]:
        """The blocks of all queries, chunk by chunk."""
        queries, _ = positions_of(self.mask, self.call)
        first = self.mask.absent(self.call.q_len, self.call.k_len)  # none stands before a token
        slots = sum(self._slots(each, queries) for each in form)
        if slots > ir.WIDEST_RANGE:
            raise _NotListed
        step = max(BLOCK, SLOTS_AT_ONCE // max(1, slots) // BLOCK * BLOCK)
        for low in range(0, len(queries), step):
            stop = min(low + step, len(queries))
            rows = np.arange(max(low, min(first, stop)), stop, dtype=np.int64)
            yield self._key_blocks(form, low, stop, rows, rows + queries.start)

    def _slots(self, alternative: Alternative, queries: range) -> int:
        """How many numbers the loop of an alternative has."""
        if alternative.loop is None:
            return 1
        q = np.arange(queries.start, queries.stop, dtype=np.int64)
        first, stop = self._limits(alternative.loop, q)
        return max(0, stop - first)

    def _limits(self, loop: ir.Exists, q: IntArray) -> tuple[int, int]:
        env = self.env(q, 0, {})
        first, stop = (np.asarray(ir.evaluate(x, env)) for x in (loop.start, loop.stop))
        return int(first.min()), int(stop.max())

    def _key_blocks(
        self, form: tuple[Alternative, ...], first: int, stop: int, rows: IntArray, q: IntArray
    ) -> KeyBlocks:
        n_blocks = -(-self.call.k_len // BLOCK)
        steps = range(0, len(rows), _QUERIES_AT_ONCE)
        parts = [
            self._entries(each, rows[low : low + _QUERIES_AT_ONCE], q[low : low + _QUERIES_AT_ONCE])
            for each, low in itertools.product(form, steps)
        ]
        codes = np.concatenate([np.zeros(0, np.int64), *(code for code, _ in parts)])
        bits = np.concatenate([np.zeros(0, np.uint64), *(part for _, part in parts)])
        codes, bits = _joined(codes, bits)
        blocks, queries = codes >> 32, (codes & _ROW).astype(np.int32)
        starts = np.searchsorted(blocks, np.arange(n_blocks + 1))
        return KeyBlocks(first, stop, queries, starts, bits)

    def _entries(
        self, alternative: Alternative, rows: IntArray, q: IntArray
    ) -> tuple[IntArray, Bits]:
        """(block << 32 | row, bits) of one alternative, in any order."""
        low, high, rest = self._ranges(alternative, q)
        live = low < high
        rows = np.repeat(rows, np.count_nonzero(live, axis=1))
        low, high = low[live], high[live] - 1
        blocks, last = low >> _SHIFT, high >> _SHIFT
        if not np.array_equal(blocks, last):
            counts = last - blocks + 1
            if int(counts.sum()) > _MOST_ENTRIES:
                raise _NotListed
            blocks = written_out(blocks, last + 1)
            low, high, rows = (np.repeat(x, counts) for x in (low, high, rows))
            low, high = (
                np.maximum(low, blocks << _SHIFT),
                np.minimum(high, (blocks << _SHIFT) + BLOCK - 1),
            )
        bits = _FROM.take(low & (BLOCK - 1)) & _UP_TO.take(high & (BLOCK - 1))
        codes = blocks << 32 | rows
        if rest:
            codes, bits = _joined(codes, bits)
            bits = self._filtered(codes, bits, rest)
            codes, bits = codes[bits != 0], bits[bits != 0]
        return codes, bits

    def _filtered(self, codes: IntArray, bits: Bits, rest: tuple[ir.Node, ...]) -> Bits:
        """The bits of pairs on which the rest of the conditions holds."""
        start = positions_of(self.mask, self.call)[0].start
        node, offsets = ir.conj(*rest), np.arange(BLOCK, dtype=np.int64)
        found = bits.copy()
        step = _PAIRS_AT_ONCE // BLOCK
        for low in range(0, len(codes), step):
            some = codes[low : low + step, None]
            q, k = (some & _ROW) + start, (some >> 32) * BLOCK + offsets
            k = np.minimum(k, self.call.k_len - 1)
            env = self.env(q, k if self.order is None else self.order[k], {})
            holds = np.broadcast_to(np.asarray(ir.evaluate(node, env)), k.shape)
            found[low : low + step] &= packed_bits(holds)
        return found

    def _ranges(
        self, alternative: Alternative, q: IntArray
    ) -> tuple[IntArray, IntArray, tuple[ir.Node, ...]]:
        """(low, high) [queries, slots] of the keys, and the conditions that do not bound them."""
        loop, indices, shape = alternative.loop, dict[int, Any](), (len(q), 1)
        conditions = []
        if loop is not None:
            first, stop = self._limits(loop, q)
            j = np.arange(first, max(first, stop), dtype=np.int64)[None]
            indices, shape = {loop.level: j}, (len(q), j.shape[1])
            env = self.env(q[:, None], 0, {})
            conditions = [j >= ir.evaluate(loop.start, env), j < ir.evaluate(loop.stop, env)]
        env = self.env(q[:, None], 0, indices)
        low, high = np.zeros((1, 1), np.int64), np.full((1, 1), self.call.k_len)
        rest = []
        for item in alternative.items:
            if not item.deps & ir.Deps.KEY:
                conditions.append(ir.evaluate(item, env))
            elif (found := self._range(item, env)) is not None:
                low, high = np.maximum(low, found[0]), np.minimum(high, found[1])
            elif loop is not None and ir.Index(loop.level) in ir.postorder(item):
                raise _NotListed(self._unordered(item))
            else:
                rest.append(item)
        for holds in conditions:
            high = high * holds  # no key, where it does not
        return np.broadcast_to(low, shape), np.broadcast_to(high, shape), tuple(rest)

    def _range(self, item: ir.Node, env: ir.Env) -> tuple[Any, Any] | None:
        """The keys for which a comparison holds, where they are one range of each query."""
        if not isinstance(item, ir.Le | ir.Eq):
            return None
        sides = split_sides(item.item)  # item = mine - theirs
        if sides is None or ir.holds(sides[1], ir.Index):
            return None
        keys = self._key_values(sides[1])
        if keys is None:
            return None
        least = np.asarray(ir.evaluate(ir.sub(sides[0], ir.Const(item.bound)), env))
        if least.dtype == object:
            return None
        return keys.equal(least) if isinstance(item, ir.Eq) else keys.at_least(least)

    def _unordered(self, item: ir.Node) -> ir.Node | None:
        """The term of keys of an equation, where it is one of numbers and no input."""
        sides = split_sides(item.item) if isinstance(item, ir.Eq) else None
        if self.order is not None or sides is None or ir.holds(sides[1], ir.Index, ir.Load):
            return None
        return sides[1]

    def _key_values(self, node: ir.Node) -> KeyValues | None:
        if node not in self.sides:
            k = np.arange(self.call.k_len, dtype=np.int64) if self.order is None else self.order
            values = np.asarray(ir.evaluate(node, self.env(0, k, {})))
            self.sides[node] = KeyValues.of(np.broadcast_to(values, k.shape))
        return self.sides[node]


@dataclass(frozen=True, slots=True, eq=False)
class KeyValues:
    """The values of a term at all keys, where they only rise, or only fall: ``sign`` times these rise."""

    values: IntArray
    sign: int
    places: IntArray | None  # the first key of each value from the least to one past the greatest

    @staticmethod
    def of(values: Any) -> KeyValues | None:
        """None where they rise and fall, or pass 64 bits."""
        if values.dtype == object:
            return None
        steps = np.diff(values)
        sign = -1 if (steps < 0).any() else 1
        if (steps * sign < 0).any():
            return None
        values = np.ascontiguousarray(values * sign)
        span = int(values[-1]) - int(values[0]) + 2
        places = None
        if span <= 4 * len(values) + BLOCK:
            places = np.searchsorted(values, np.arange(span) + values[0])
        return KeyValues(values, sign, places)

    def equal(self, wanted: IntArray) -> Ranges:
        """The range of keys that have each value."""
        if self.sign < 0:
            wanted = -wanted
        return self._first(wanted), self._first(wanted + 1)

    def at_least(self, bound: IntArray) -> Ranges:
        """The range of keys whose value is no less."""
        whole = np.zeros_like(bound), np.full_like(bound, len(self.values))
        if self.sign > 0:
            return self._first(bound), whole[1]
        return whole[0], self._first(1 - bound)

    def _first(self, wanted: IntArray) -> IntArray:
        """The first key whose risen value is no less than wanted."""
        if self.places is None:
            return np.searchsorted(self.values, wanted)
        found: IntArray = self.places.take(wanted - self.values[0], mode="clip")
        return found


def packed_bits(holds: BoolArray) -> Bits:
    """Words of truth values [n, BLOCK]; bit i is the i-th."""
    found: Bits = np.packbits(holds, axis=-1, bitorder="little").view(np.uint64).reshape(-1)
    return found


def _joined(codes: IntArray, bits: Bits) -> tuple[IntArray, Bits]:
    """Each code once, in order, with all of its bits."""
    if not len(codes):
        return codes, bits
    order = stable_order([codes >> 32, codes & _ROW])
    codes, bits = codes[order], bits[order]
    first = np.flatnonzero(np.diff(codes, prepend=-1))
    if len(first) == len(codes):
        return codes, bits
    return codes[first], np.bitwise_or.reduceat(bits, first)
