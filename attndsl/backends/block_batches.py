"""Batches of equally shaped blocks made from the tiles of a plan: few calls with few wasted pairs.

1. Cells (live tiles) of one query tile that lie side by side are a *run*: a contiguous range of keys.
2. Runs with equal masks at evenly spaced places are one strip over strided views: nothing is copied.
3. The rest (short runs, tiles with few live keys) is gathered, key by key, into one strip a tile.
4. Tiles with few live queries (global tokens) are apart: their strips take those queries only.
"""

from __future__ import annotations

import itertools
import weakref
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np

from attndsl.backends.cells import FULL, BoolArray, Cells, Extents, cells_of
from attndsl.backends.places import Index, IntArray, Places, ShortArray, Span
from attndsl.schedule import MaskTable, Schedule, TokenOrder

ByteArray: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]

LONG_RUN = 256  # keys; a shorter run is gathered, unless it is most of its row
SEGMENT = 2048  # keys; a longer run is cut, which bounds masks and gives causal rows common parts
GRAIN = 16  # keys; runs are trimmed to multiples of it, which the kernels multiply fastest
LONE_KEYS = 512  # of a run whose mask no other has, up to which calls cost more than its pairs
LONE_PAIRS = 1 << 22  # of such runs in one strip: their masks as numbers take 16 MB
FEWEST_FLAT = 4  # flat tiles in a row, below which setting them apart does not pay


@dataclass(frozen=True, slots=True, eq=False)
class BlockBatch:
    """Item i: all of ``queries`` i against all of ``keys`` i, but for pairs that the mask drops.

    In a causal one row r of an item's queries sees its keys up to row r, and there is no mask.
    """

    queries: Places
    keys: Places
    # bits [items or 1, queries, keys / 8], or [items, heads, queries, keys / 8]; None: no pair is dropped
    mask: ByteArray | None
    first_writer: bool = False  # no strip before this one touches its queries
    is_causal: bool = False

    def cut(self, first: int, last: int) -> BlockBatch:
        """The items first <= i < last."""
        if last - first == self.queries.items:
            return self
        mask = self.mask
        if mask is not None and len(mask) > 1:
            mask = mask[first:last]
        queries, keys = self.queries.cut(first, last), self.keys.cut(first, last)
        return replace(self, queries=queries, keys=keys, mask=mask)


class Ordered(Protocol):
    """A plan, as far as strips go: the orders of tokens in which they lie."""

    @property
    def q_order(self) -> TokenOrder | None: ...

    @property
    def k_order(self) -> TokenOrder | None: ...


class InStrips(Protocol):
    """Strips that are no tiles of a schedule, and stand in the place of one."""

    @property
    def q_len(self) -> int: ...

    @property
    def k_len(self) -> int: ...

    @property
    def plans(self) -> tuple[Ordered, ...]: ...

    @property
    def plan_of(self) -> ShortArray: ...

    @property
    def nbytes(self) -> int: ...

    @property
    def batches(self) -> tuple[tuple[BlockBatch, ...], ...]: ...

    def live_keys(self) -> IntArray: ...


_KNOWN: weakref.WeakKeyDictionary[Schedule, tuple[tuple[BlockBatch, ...], ...]] = (
    weakref.WeakKeyDictionary()
)


def batches_of(schedule: Schedule | InStrips) -> tuple[tuple[BlockBatch, ...], ...]:
    """The strips of each plan, remembered with the schedule."""
    if not isinstance(schedule, Schedule):
        return schedule.batches
    known = _KNOWN.get(schedule)
    if known is None:
        known = _KNOWN[schedule] = block_batches(schedule)
    return known


def block_batches(schedule: Schedule) -> tuple[tuple[BlockBatch, ...], ...]:
    """The strips of each plan, in the order to run them."""
    extents = Extents(schedule.masks)
    return tuple(_block_batches(schedule, cells_of(plan), extents) for plan in schedule.plans)


def _block_batches(schedule: Schedule, cells: Cells, extents: Extents) -> tuple[BlockBatch, ...]:
    flat = extents.is_flat[cells.ids]
    flat &= cells.per_row(flat) >= FEWEST_FLAT
    whole = cells.take(~flat)
    viewed = _worth_a_view(whole, extents.is_thin[whole.ids], schedule.tile[1])
    parts = [
        *_run_batches(schedule, whole.take(viewed), extents, flat=False),
        *_gathered_batches(schedule, whole.take(~viewed)),
        *_run_batches(schedule, cells.take(flat), extents, flat=True),
    ]
    return tuple(with_first_writers(parts, schedule.q_len))


def _worth_a_view(cells: Cells, thin: BoolArray, tile_keys: int) -> BoolArray:
    """The cells of long runs. A thin cell beside a thick one is of its run: trimmed, it is cheap."""
    follows = cells.follows()
    stays = ~thin
    stays[1:] |= follows[1:] & ~thin[:-1]
    stays[:-1] |= follows[1:] & ~thin[1:]
    joined = follows & stays
    joined[1:] &= stays[:-1]
    run = np.cumsum(~joined) - 1
    length = np.bincount(run)[run] if len(run) else run
    most = 2 * length >= cells.per_row(stays)
    return stays & (most | (length * tile_keys >= LONG_RUN))


# ---------------------------------------------------------------------------- runs


def _run_batches(
    schedule: Schedule, cells: Cells, extents: Extents, *, flat: bool
) -> Iterator[BlockBatch]:
    """Equal runs at evenly spaced places, one strip each; of flat cells the live queries only."""
    (bq, bk), groups = schedule.tile, defaultdict[Any, list[tuple[int, int]]](list)
    reach = _reach(cells, extents if flat else None, schedule)
    lefts, rights = (x[cells.ids].tolist() for x in (extents.first_key, extents.stop_key))
    rows, columns = cells.rows.tolist(), cells.columns.tolist()
    for ordinal, first, last in _segments(cells, SEGMENT // bk):
        row, column = rows[first], columns[first]
        keys = min((last - first) * bk, schedule.k_len - column * bk)
        left = lefts[first] // GRAIN * GRAIN
        right = min(keys, -(-((last - first - 1) * bk + rights[last - 1]) // GRAIN) * GRAIN)
        shape = (ordinal, *reach[row], left, right)
        groups[*shape, cells.ids[first:last].tobytes()].append((row, column))
    made = list[tuple[int, BlockBatch]]()
    lone = defaultdict[Any, list[tuple[IntArray, ByteArray]]](list)
    for (ordinal, low, high, left, right, ids), places in groups.items():
        mask = _bits(schedule.masks, np.frombuffer(ids, np.int64), (low, high), (left, right))
        starts = np.array(places, dtype=np.int64) * (bq, bk) + (low, left)
        lengths = high - low, right - left
        if mask is not None and len(places) == 1 and right - left <= LONE_KEYS:
            lone[ordinal, lengths].append((starts, mask))
        else:
            made += [(ordinal, _windows(x, lengths, mask)) for x in _progressions(starts)]
    for (ordinal, lengths), runs in lone.items():
        made += [(ordinal, each) for each in _of_own_masks(runs, lengths)]
    yield from (each for _, each in sorted(made, key=lambda item: item[0]))


def _windows(starts: IntArray, lengths: tuple[int, int], mask: ByteArray | None) -> BlockBatch:
    """Blocks at evenly spaced starts [items, 2]."""
    return BlockBatch(_span(starts[:, 0], lengths[0]), _span(starts[:, 1], lengths[1]), mask)


def _of_own_masks(
    runs: list[tuple[IntArray, ByteArray]], lengths: tuple[int, int]
) -> Iterator[BlockBatch]:
    """Runs of equal lengths at evenly spaced places, one strip with a mask for each."""
    first, most = 0, max(1, LONE_PAIRS // (lengths[0] * lengths[1]))
    for part in _progressions(np.concatenate([starts for starts, _ in runs])):
        for low in range(0, len(part), most):
            some = part[low : low + most]
            masks = [mask for _, mask in runs[first + low : first + low + len(some)]]
            yield _windows(some, lengths, np.concatenate(masks))
        first += len(part)


def _bits(
    masks: MaskTable, ids: IntArray, queries: tuple[int, int], keys: tuple[int, int]
) -> ByteArray | None:
    """Some queries and keys of tiles side by side, as `packed` would give them."""
    (bq, bk), (low, high), (left, right) = masks.tile, queries, keys
    is_full = ids == FULL
    if is_full.all():
        return None
    if bk % 8 or left % 8:
        return packed(_pairs(masks, ids)[None, low:high, left:right])
    rows = masks.packed[ids].reshape(-1, bq, bk // 8)[:, low:high]
    rows[is_full] = 255
    found = rows.transpose(1, 0, 2).reshape(high - low, -1)[:, left // 8 : -(-right // 8)]
    if right % 8:
        found[:, -1] &= 256 - (1 << (8 - right % 8))
    if found.min(initial=255) == 255:
        return None
    return found[None]


def _reach(cells: Cells, flat: Extents | None, schedule: Schedule) -> dict[int, tuple[int, int]]:
    """The queries of each row of tiles that are live in its cells: first, one past the last."""
    bq = schedule.tile[0]
    n_rows = schedule.grid[0]
    low, high = np.zeros(n_rows, np.int64), np.full(n_rows, bq)
    if flat is not None:
        low[:], high[:] = bq, 0
        np.minimum.at(low, cells.rows, flat.first_query[cells.ids])
        np.maximum.at(high, cells.rows, flat.stop_query[cells.ids])
    high = np.minimum(high, schedule.q_len - np.arange(n_rows) * bq)
    return {row: (int(low[row]), int(high[row])) for row in set(cells.rows.tolist())}


def _segments(cells: Cells, longest: int) -> Iterator[tuple[int, int, int]]:
    """(number within its row, first cell, one past the last) of each piece of each run.

    The last piece takes the remainder, up to half as much again.
    """
    bounds = [*np.flatnonzero(~cells.follows()).tolist(), len(cells.rows)]
    row, ordinal = -1, 0
    for first, last in itertools.pairwise(bounds):
        ordinal = ordinal if cells.rows[first] == row else 0
        row = cells.rows[first]
        pieces = max(1, round((last - first) / longest))
        cuts = [*range(first, first + pieces * longest, longest)][:pieces]
        for low, high in zip(cuts, [*cuts[1:], last], strict=True):
            yield ordinal, low, high
            ordinal += 1


def _progressions(starts: IntArray) -> Iterator[IntArray]:
    """Cut places [n, 2] into stretches of even, not negative steps."""
    if len(starts) == 1:
        yield starts
        return
    steps = np.diff(starts, axis=0)
    low = 0
    while low < len(starts):
        high = low + 1
        if high < len(starts) and steps[low, 1] >= 0:
            changes = np.flatnonzero((steps[low:] != steps[low]).any(1))
            high = low + int(changes[0]) + 1 if len(changes) else len(starts)
        yield starts[low:high]
        low = high


# ---------------------------------------------------------------------------- gathering


def _gathered_batches(schedule: Schedule, cells: Cells) -> Iterator[BlockBatch]:
    """Gathers the live keys of each row of tiles; rows with equally many keys share a batch."""
    bq = schedule.tile[0]
    alike = defaultdict[Any, list[int]](list)  # rows of equal tiles and masks
    bounds = np.flatnonzero(np.diff(cells.rows, prepend=-1, append=-1)).tolist()
    for first, last in itertools.pairwise(bounds):
        row = int(cells.rows[first])
        queries = min(bq, schedule.q_len - row * bq)
        what = cells.columns[first:last].tobytes(), cells.ids[first:last].tobytes()
        alike[queries, *what].append(row)
    stacks = defaultdict[Any, list[tuple[int, IntArray, BoolArray]]](list)
    for (queries, columns, ids), rows in alike.items():
        keys, pairs = _live_keys(
            schedule, queries, np.frombuffer(columns, np.int64), np.frombuffer(ids, np.int64)
        )
        starts = np.array(rows, dtype=np.int64) * bq
        if len(rows) > 1 or _is_range(keys):
            yield BlockBatch(
                _places(starts, queries), _common(keys, len(rows)), packed(pairs[None])
            )
        else:
            stacks[queries, len(keys)].append((rows[0] * bq, keys, pairs))
    for (queries, _), items in stacks.items():
        starts = np.array([start for start, _, _ in items], dtype=np.int64)
        index = Index(np.stack([keys for _, keys, _ in items]), len(items))
        mask = packed(np.stack([pairs for _, _, pairs in items]))
        yield BlockBatch(_places(starts, queries), index, mask)


def _live_keys(
    schedule: Schedule, queries: int, columns: IntArray, ids: IntArray
) -> tuple[IntArray, BoolArray]:
    """The keys that some query of a row of tiles sees, and its pairs [queries, keys]."""
    bk = schedule.tile[1]
    keys = (columns[:, None] * bk + np.arange(bk)).reshape(-1)
    pairs = _pairs(schedule.masks, ids)[:queries]
    live = np.flatnonzero(pairs.any(0) & (keys < schedule.k_len))
    return keys[live], pairs.take(live, axis=1)


def _common(keys: IntArray, items: int) -> Places:
    """The same keys for every item."""
    if _is_range(keys):
        return Span(int(keys[0]), 0, items, len(keys))
    return Index(keys[None], items)


def _is_range(keys: IntArray) -> bool:
    return int(keys[-1] - keys[0]) == len(keys) - 1


# ---------------------------------------------------------------------------- parts


def _pairs(masks: MaskTable, ids: IntArray) -> BoolArray:
    """Tiles side by side, bool [bq, len(ids) * bk]."""
    bq, bk = masks.tile
    masked = ids != FULL
    if masked.all():
        pairs = masks.unpack(ids)
    else:
        pairs = np.ones((len(ids), bq, bk), dtype=bool)
        pairs[masked] = masks.unpack(ids[masked])
    return pairs.transpose(1, 0, 2).reshape(bq, -1)


def packed(pairs: BoolArray) -> ByteArray | None:
    """Bits, [..., keys / 8]; at once: row by row takes NumPy five times as long."""
    if pairs.all():
        return None
    *outer, keys = pairs.shape
    whole = np.zeros((*outer, -(-keys // 8) * 8), dtype=bool)
    whole[..., :keys] = pairs
    return np.packbits(whole.reshape(-1)).reshape(*outer, -1)


def _span(starts: IntArray, length: int) -> Span:
    step = int(starts[1] - starts[0]) if len(starts) > 1 else length
    return Span(int(starts[0]), step, len(starts), length)


def _places(starts: IntArray, length: int) -> Places:
    """Windows at increasing starts: a span where they are evenly spaced."""
    steps = np.diff(starts)
    if (steps == steps[:1]).all():
        return _span(starts, length)
    return Index(starts[:, None] + np.arange(length), len(starts))


def with_first_writers(parts: list[BlockBatch], q_len: int) -> Iterator[BlockBatch]:
    """The strips, marked where no earlier one has their queries."""
    touched = np.zeros(q_len, dtype=bool)
    for part in parts:
        rows = _where(part.queries)
        yield replace(part, first_writer=not touched[rows].any())
        touched[rows] = True


def _where(places: Places) -> slice | IntArray:
    """The rows of all items, as an index."""
    if isinstance(places, Span) and places.items == 1:
        return slice(places.start, places.start + places.length)
    return places.rows()
