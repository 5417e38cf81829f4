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
# Nanoseconds of a query and a key that is gathered for it, with its share of a backward.
BY_KEY: Final = 100.0
BY_TILE: Final = 18_000.0  # ns of a tile of queries and a block
MASKED_TILE: Final = 25_000.0  # ns of these where a stored mask says which pairs are seen

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
class Cells:
    """The entries of a chunk by cell, a tile of queries and a block of keys."""

    chunk: KeyBlocks
    cell: IntArray  # [entries]
    starts: IntArray  # [cells], the first query of the tile
    blocks: IntArray  # [cells]
    pairs: IntArray  # [entries], how many keys are seen
    full: BoolArray  # [cells], whether all queries of a tile see all of the block
    dense: BoolArray  # [cells], which are computed for the tile

    @staticmethod
    def of(chunk: KeyBlocks) -> Cells:
        """Finds them, and by counts of queries and pairs which are dense."""
        blocks, tiles = chunk.blocks, (chunk.queries - chunk.first) // TILE
        change = np.diff(blocks << 32 | tiles, prepend=-1) != 0
        cell, first = np.cumsum(change) - 1, np.flatnonzero(change)
        pairs, some = np.full(len(chunk.bits), BLOCK), np.flatnonzero(chunk.bits != ALL)
        pairs[some] = _BITS_OF_BYTE[chunk.bits[some].view(np.uint8)].reshape(-1, BLOCK // 8).sum(1)
        seen, counts = np.add.reduceat(pairs, first), np.diff(first, append=len(cell))
        starts = chunk.first + tiles[first].astype(np.int64) * TILE
        dense = (counts >= MOST) & (starts + TILE <= chunk.stop)
        dense &= seen * BY_KEY >= BY_TILE
        return Cells(chunk, cell, starts, blocks[first], pairs, seen == TILE * BLOCK, dense)

    @property
    def gathers_keys(self) -> bool:
        """Whether the keys of each query are gathered for what is not dense."""
        sparse = ~self.dense[self.cell]
        return bool(self.pairs[sparse].sum() * BY_KEY < np.count_nonzero(sparse) * BY_BLOCK)

    def cost(self) -> tuple[float, float]:
        """Estimated ns of one head: over the lists, and over the tiles that hold them."""
        sparse = ~self.dense[self.cell]
        each = min(self.pairs[sparse].sum() * BY_KEY, np.count_nonzero(sparse) * BY_BLOCK)
        tiles = len(self.dense) * MASKED_TILE - np.count_nonzero(self.full) * (
            MASKED_TILE - BY_TILE
        )
        return float(each + np.count_nonzero(self.dense) * BY_TILE), float(tiles)


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
    def of(cells: Cells) -> ListPlan:
        """Batches of what is computed for tiles, for blocks and for queries."""
        chunk, batches = cells.chunk, tuple(_batches(cells))
        rows = np.concatenate([np.zeros(0, np.int64), *(x.rows.reshape(-1) for x in batches)])
        idle = [
            np.zeros(x.rows.size, bool) if x.idle is None else x.idle.reshape(-1) for x in batches
        ]
        live = np.flatnonzero(~np.concatenate([np.zeros(0, bool), *idle]))
        parts = live[stable_order([rows[live]])]
        counts = np.bincount(rows[live] - chunk.first, minlength=chunk.stop - chunk.first)
        bounds = np.concatenate([[0], np.cumsum(counts)])
        return ListPlan(chunk.first, chunk.stop, batches, parts, bounds)


def _batches(cells: Cells) -> Iterator[ListBatch]:
    chunk = cells.chunk
    queries, blocks, bits = chunk.queries.astype(np.int64), chunk.blocks, chunk.bits
    whole, cut = cells.dense & cells.full, cells.dense & ~cells.full
    if whole.any():
        yield from _by_tile(cells.starts[whole], cells.blocks[whole], None)
    if cut.any():
        some = cut[cells.cell]
        number = (np.cumsum(cut) - 1)[cells.cell[some]]
        seen = number, (queries[some] - chunk.first) % TILE, bits[some]
        yield from _by_tile(cells.starts[cut], cells.blocks[cut], seen)
    left = ~cells.dense[cells.cell]
    queries, blocks, bits = queries[left], blocks[left], bits[left]
    if cells.gathers_keys:
        yield from _by_query(queries, blocks, bits)
        return
    is_full = bits == ALL
    for some in (is_full, ~is_full):
        if some.any():
            yield from _by_block(queries[some], blocks[some], bits[some])


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
