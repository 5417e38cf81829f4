"""Batches of equal items made from lists: which rows meet which keys in one call of a kernel.

Three ways to compute what queries see, chosen by counts:

1. A block that most of a tile of queries see is of the *tile*: its keys are gathered for the tile.
2. Queries that see much of a block are gathered for the *block*, 32 to 256 of them an item.
3. Where lists name single tokens, the keys of each *query* are gathered.

A query has a softmax over the keys of each of its items; they are merged afterwards, each query once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from attndsl.backends.places import IntArray
from attndsl.schedule import ALL, BLOCK, Bits, KeyBlocks, stable_order

BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

TILE: Final = 64  # queries that lie side by side
MOST: Final = 40  # queries of a tile that see a block, from which on it is gathered for all of them
WIDEST: Final = 32  # blocks of an item
HEIGHTS: Final = (256, 128, 64, 32)  # queries of the items of a block
BY_BLOCK: Final = 450.0  # ns of a query and a block, measured beside the next on one core
BY_KEY: Final = 50.0  # ns of a query and a key that is gathered for it

_BITS_OF_BYTE: Final = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1)


@dataclass(frozen=True, slots=True, eq=False)
class ListBatch:
    """Item i: all of ``rows`` i against ``size`` keys from each of ``units`` i times ``size`` on."""

    rows: IntArray  # [items, R], rows of q
    units: IntArray  # [items, L]
    size: int
    bits: Bits | None  # [items, R, L], which keys are seen; None: all of them
    idle: (
        BoolArray | None
    )  # [items, R], rows that are there to fill the item, or see none of its keys

    def cut(self, first: int, stop: int) -> ListBatch:
        """The items first <= i < stop."""
        some = slice(first, stop)
        bits = None if self.bits is None else self.bits[some]
        idle = None if self.idle is None else self.idle[some]
        return ListBatch(self.rows[some], self.units[some], self.size, bits, idle)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        held = (self.rows, self.units, self.bits, self.idle)
        return sum(x.nbytes for x in held if x is not None)


@dataclass(frozen=True, slots=True, eq=False)
class ListPlan:
    """The batches of a chunk of queries, and where the parts of each query lie in them."""

    first: int
    stop: int
    batches: tuple[ListBatch, ...]
    parts: IntArray  # places of the rows of all batches, by query
    bounds: IntArray  # [queries + 1]: the first part of each query

    @property
    def nbytes(self) -> int:
        """Bytes of the batches and places."""
        return self.parts.nbytes + self.bounds.nbytes + sum(x.nbytes for x in self.batches)

    @property
    def count(self) -> int:
        """How many rows all batches have."""
        return sum(x.rows.size for x in self.batches)

    @staticmethod
    def of(chunk: KeyBlocks) -> ListPlan:
        """Chooses how each block is computed."""
        batches = tuple(_batches(chunk))
        rows = np.concatenate([np.zeros(0, np.int64), *(x.rows.reshape(-1) for x in batches)])
        idle = [
            np.zeros(x.rows.size, bool) if x.idle is None else x.idle.reshape(-1) for x in batches
        ]
        live = np.flatnonzero(~np.concatenate([np.zeros(0, bool), *idle]))
        parts = live[stable_order([rows[live]])]
        counts = np.bincount(rows[live] - chunk.first, minlength=chunk.stop - chunk.first)
        bounds = np.concatenate([[0], np.cumsum(counts)])
        return ListPlan(chunk.first, chunk.stop, batches, parts, bounds)


def _batches(chunk: KeyBlocks) -> Iterator[ListBatch]:
    blocks, queries, bits = chunk.blocks, chunk.queries.astype(np.int64), chunk.bits
    tiles = (queries - chunk.first) // TILE
    change = np.diff(blocks * (1 << 32) + tiles, prepend=-1) != 0
    cell = np.cumsum(change) - 1  # a tile of queries and a block
    counts = np.bincount(cell)
    first = np.flatnonzero(change)
    dense = (counts >= MOST) & ((tiles[first] + 1) * TILE <= chunk.stop - chunk.first)
    is_full = bits == ALL
    full = np.bincount(cell, weights=is_full) == TILE
    starts = chunk.first + tiles[first] * TILE
    whole, cut = dense & full, dense & ~full
    if whole.any():
        yield from _by_tile(starts[whole], blocks[first[whole]], None)
    if cut.any():
        some = cut[cell]
        seen = (np.cumsum(cut) - 1)[cell[some]], (queries[some] - chunk.first) % TILE, bits[some]
        yield from _by_tile(starts[cut], blocks[first[cut]], seen)
    left = ~dense[cell]
    queries, blocks, bits, is_full = queries[left], blocks[left], bits[left], is_full[left]
    pairs = BLOCK * int(is_full.sum()) + _popcount(bits[~is_full])
    if pairs * BY_KEY < len(bits) * BY_BLOCK:
        yield from _by_query(queries, blocks, bits)
        return
    for some in (is_full, ~is_full):
        if some.any():
            yield from _by_block(queries[some], blocks[some], bits[some])


def _popcount(bits: Bits) -> int:
    return int(_BITS_OF_BYTE.take(bits.view(np.uint8)).sum(dtype=np.int64))


def _by_tile(
    starts: IntArray, blocks: IntArray, seen: tuple[IntArray, IntArray, Bits] | None
) -> Iterator[ListBatch]:
    """Cells of whole tiles, those of a tile in items of up to ``WIDEST`` blocks.

    ``seen``: (cell, query of its tile, bits) of what is seen of them; None: all.
    """
    order = np.lexsort((blocks, starts))
    starts, blocks = starts[order], blocks[order]
    column = (np.arange(len(starts)) - np.searchsorted(starts, starts)) % WIDEST
    head = np.flatnonzero(column == 0)
    widths = np.diff(head, append=len(starts))
    item = np.cumsum(column == 0) - 1
    place = np.empty_like(order)
    place[order] = np.arange(len(order))  # of each cell among the cells in order
    for width in np.unique(widths).tolist():
        alike = widths == width
        heads = head[alike]
        rows = starts[heads, None] + np.arange(TILE)
        units = blocks[heads[:, None] + np.arange(width)]
        if seen is None:
            yield ListBatch(rows, units, BLOCK, None, None)
            continue
        number = np.cumsum(alike) - 1  # of each item among those of this width
        at = place[seen[0]]
        some = alike[item[at]]
        found = np.zeros((len(heads), TILE, width), np.uint64)
        found[number[item[at[some]]], seen[1][some], column[at[some]]] = seen[2][some]
        yield ListBatch(rows, units, BLOCK, found, (found == 0).all(axis=2))


def _by_block(queries: IntArray, blocks: IntArray, bits: Bits) -> Iterator[ListBatch]:
    """The queries of each block, in items of few heights; the last one of a block is filled up."""
    begins = np.flatnonzero(np.diff(blocks, prepend=-1))
    left = np.diff(begins, append=len(blocks))
    masked = not (bits == ALL).all()
    for height in HEIGHTS:
        counts = left // height if height > HEIGHTS[-1] else -(-left // height)
        run = np.repeat(np.arange(len(begins)), counts)
        if len(run):
            ordinal = np.arange(len(run)) - np.repeat(np.cumsum(counts) - counts, counts)
            place = (begins[run] + ordinal * height)[:, None] + np.arange(height)
            last = (begins + left)[run, None] - 1
            idle = place > last
            place = np.minimum(place, last)
            units = blocks[place[:, :1]]
            seen = bits[place][..., None] if masked else None
            yield ListBatch(queries[place], units, BLOCK, seen, idle if idle.any() else None)
        begins = begins + np.minimum(counts * height, left)
        left = np.maximum(left - counts * height, 0)


def _by_query(queries: IntArray, blocks: IntArray, bits: Bits) -> Iterator[ListBatch]:
    """The keys of each query, those of as many keys together."""
    order = stable_order([queries])  # by block within
    entry, key = np.nonzero(
        np.unpackbits(bits[order].view(np.uint8), bitorder="little").reshape(-1, BLOCK)
    )
    rows, keys = queries[order][entry], blocks[order][entry] * BLOCK + key
    begins = np.flatnonzero(np.diff(rows, prepend=-1))
    counts = np.diff(begins, append=len(rows))
    for count in np.unique(counts).tolist():
        heads = begins[counts == count]
        yield ListBatch(rows[heads, None], keys[heads[:, None] + np.arange(count)], 1, None, None)
