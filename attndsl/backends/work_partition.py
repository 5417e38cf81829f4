"""From a schedule to the lists that kernels walk: entries tile by tile, dealt out in items of bounded length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from attndsl.schedule import Plan, Schedule, Tiles, TokenOrder, compress

IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
ShortArray: TypeAlias = np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True, slots=True, eq=False)
class WorkPartition:
    """Work of one pass: which tiles meet which, for each distinct class of heads.

    ``full`` and ``partial`` end in one entry that is never used: kernels read one ahead.
    """

    items: ShortArray  # [n, 6]: tile, first and last FULL entry, first and last PARTIAL entry, slot
    first_items: ShortArray  # [classes + 1]; the items of a class are in order, longest first
    class_of: ShortArray  # [1 or batch, 1 or heads]
    full: ShortArray
    partial: ShortArray
    mask_ids: ShortArray
    splits: ShortArray  # [m, 3]: tile, first and last slot
    first_splits: ShortArray  # [classes + 1]
    q_order: ShortArray | None  # [classes, whole tiles]: the row of each query in storage order
    k_order: ShortArray | None  # likewise of keys

    @property
    def width(self) -> int:
        """The most items of any class."""
        return int(np.diff(self.first_items).max(initial=0))

    @property
    def slots(self) -> int:
        """The most slots of any class."""
        return int(self.splits[:, 2].max(initial=0))

    @property
    def most_splits(self) -> int:
        """The most split tiles of any class."""
        return int(np.diff(self.first_splits).max(initial=0))


def by_query(schedule: Schedule, longest: int) -> WorkPartition:
    """Key tiles of each query tile, in items of at most ``longest`` tiles."""
    ragged = schedule.k_len % schedule.tile[1] != 0
    plans = [_bounded(plan, schedule.grid[1] - 1, _edges(schedule)[0]) for plan in schedule.plans]
    plans = plans if ragged else list(schedule.plans)
    orders = _orders(schedule, [(i,) for i in range(len(plans))])
    return _work_list(plans, schedule.plan_of, longest, orders)


def by_key(schedule: Schedule, group: int, longest: int) -> WorkPartition:
    """Query tiles of each key tile, for all ``group`` query heads of a key head together.

    An entry is query tile * group + head within the group.
    """
    last, edge = schedule.grid[0] - 1, _edges(schedule)[1]
    ragged = schedule.q_len % schedule.tile[0] != 0
    plans = [plan.transpose for plan in schedule.plans]
    plans = [_bounded(plan, last, edge) for plan in plans] if ragged else plans
    classes, class_of = head_classes(schedule.plan_of, group)
    joined = [_joined([plans[i] for i in one]) for one in classes]
    return _work_list(joined, class_of, longest, _orders(schedule, classes))


def head_classes(plan_of: ShortArray, group: int) -> tuple[list[tuple[int, ...]], ShortArray]:
    """The distinct plans of the query heads of a key head, and which of them each key head has."""
    if plan_of.shape[1] == 1:
        plan_of = np.repeat(plan_of, group, axis=1)
    members = plan_of.reshape(len(plan_of), -1, group)
    classes: dict[tuple[int, ...], int] = {}
    class_of = np.zeros(members.shape[:2], dtype=np.int32)
    for place in np.ndindex(*members.shape[:2]):
        class_of[place] = classes.setdefault(tuple(members[place].tolist()), len(classes))
    return list(classes), class_of


def orders_agree(schedule: Schedule, group: int) -> bool:
    """Whether the query heads of each key head take their tokens in one order, so that they can be joined."""
    classes, _ = head_classes(schedule.plan_of, group)
    orders = [
        {(schedule.plans[i].q_order, schedule.plans[i].k_order) for i in one} for one in classes
    ]
    return all(len(found) == 1 for found in orders)


def device_masks(schedule: Schedule) -> ShortArray:
    """The bank as kernels read it, int32 [n + 2, BK / 32, BQ], a bit a key, lowest first.

    The last two stand for tiles that are FULL up to the end of the keys, and of the queries.
    """
    masks, (bq, bk) = schedule.masks, schedule.tile
    packed = np.empty((len(masks) + 2, bk // 32, bq), dtype=np.int32)
    step = max(1, (1 << 24) // (bq * bk))
    for low in range(0, len(masks), step):
        part = slice(low, min(low + step, len(masks)))
        packed[part] = _words(masks.unpack(part))
    inside = np.ones((2, bq, bk), dtype=bool)
    inside[0, :, (schedule.k_len - 1) % bk + 1 :] = False
    inside[1, (schedule.q_len - 1) % bq + 1 :] = False
    packed[len(masks) :] = _words(inside)
    return packed


def _words(pairs: np.ndarray[Any, np.dtype[np.bool_]]) -> ShortArray:
    octets = np.packbits(pairs, axis=-1, bitorder="little")
    return np.ascontiguousarray(octets).view("<i4").transpose(0, 2, 1).astype(np.int32)


def _orders(
    schedule: Schedule, classes: Sequence[tuple[int, ...]]
) -> tuple[ShortArray | None, ShortArray | None]:
    """The rows of each class in storage order, if any class has an order of its own."""

    def of_side(orders: list[TokenOrder | None], length: int, tile: int) -> ShortArray | None:
        if not any(orders):
            return None
        table = np.zeros((len(orders), -(-length // tile) * tile), dtype=np.int32)
        for row, order in zip(table, orders, strict=True):
            row[:length] = np.arange(length) if order is None else order.rows
        return table

    plans = [schedule.plans[one[0]] for one in classes]
    return (
        of_side([plan.q_order for plan in plans], schedule.q_len, schedule.tile[0]),
        of_side([plan.k_order for plan in plans], schedule.k_len, schedule.tile[1]),
    )


def _edges(schedule: Schedule) -> tuple[int, int]:
    return len(schedule.masks), len(schedule.masks) + 1


def _bounded(plan: Plan, last: int, edge: int) -> Plan:
    """FULL tiles of the last, ragged column become PARTIAL: the unmasked loop then needs no bounds."""
    rows, columns = plan.full.rows, plan.full.indices
    kept = columns != last
    n_rows = len(plan.full.indptr) - 1
    full = _compressed(rows[kept], columns[kept], n_rows)[0]
    more_rows = np.concatenate([plan.partial.rows, rows[~kept]])
    more_columns = np.concatenate([plan.partial.indices, columns[~kept]])
    ids = np.concatenate([plan.mask_ids, np.full(int((~kept).sum()), edge, dtype=np.int32)])
    partial, order = _compressed(more_rows, more_columns, n_rows)
    return Plan(full, partial, ids[order], plan.n_columns)


def _joined(plans: Sequence[Plan]) -> Plan:
    """The plans of the heads of a group as one: entries are column * group + head."""
    if len(plans) == 1:
        return plans[0]
    group, n_rows = len(plans), len(plans[0].full.indptr) - 1

    def entries(tiles: Sequence[Tiles]) -> tuple[ShortArray, ShortArray]:
        columns = [part.indices * group + head for head, part in enumerate(tiles)]
        return np.concatenate([part.rows for part in tiles]), np.concatenate(columns)

    full = _compressed(*entries([plan.full for plan in plans]), n_rows)[0]
    partial, order = _compressed(*entries([plan.partial for plan in plans]), n_rows)
    ids = np.concatenate([plan.mask_ids for plan in plans])[order]
    return Plan(full, partial, ids, plans[0].n_columns)


def _compressed(rows: ShortArray, columns: ShortArray, n_rows: int) -> tuple[Tiles, IntArray]:
    return compress(rows.astype(np.int64), columns.astype(np.int64), n_rows)


def _work_list(
    plans: Sequence[Plan],
    class_of: ShortArray,
    longest: int,
    orders: tuple[ShortArray | None, ShortArray | None],
) -> WorkPartition:
    items, splits = [], []
    full_start = partial_start = 0
    for plan in plans:
        made, split = _items(plan, longest)
        made[:, 1:3] += full_start
        made[:, 3:5] += partial_start
        items.append(made)
        splits.append(split)
        full_start += plan.full.nnz
        partial_start += plan.partial.nnz
    return WorkPartition(
        _stacked(items, 6),
        _offsets(items),
        class_of.astype(np.int32),
        _padded([plan.full.indices for plan in plans]),
        _padded([plan.partial.indices for plan in plans]),
        _padded([plan.mask_ids for plan in plans]),
        _stacked(splits, 3),
        _offsets(splits),
        *orders,
    )


def _items(plan: Plan, longest: int) -> tuple[IntArray, IntArray]:
    """The items of a plan, longest first, and its split tiles. FULL entries come before PARTIAL ones."""
    n_full, n_partial = np.diff(plan.full.indptr), np.diff(plan.partial.indptr)
    total = n_full + n_partial
    pieces = np.maximum(1, -(-total // longest))
    tile = np.repeat(np.arange(len(total)), pieces)
    piece = np.arange(len(tile)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    # even pieces: no straggler of one tile after others of the full length
    low = total[tile] * piece // pieces[tile]
    high = total[tile] * (piece + 1) // pieces[tile]
    is_split = pieces[tile] > 1
    slot = np.where(is_split, np.cumsum(is_split) - 1, -1)
    bounds = [
        plan.full.indptr[tile] + np.minimum(low, n_full[tile]),
        plan.full.indptr[tile] + np.minimum(high, n_full[tile]),
        plan.partial.indptr[tile] + np.maximum(low - n_full[tile], 0),
        plan.partial.indptr[tile] + np.maximum(high - n_full[tile], 0),
    ]
    made = np.stack([tile, *bounds, slot], axis=1)
    split = np.flatnonzero(pieces > 1)
    ends = np.cumsum(pieces[split])
    return made[np.argsort(low - high, kind="stable")], np.stack(
        [split, ends - pieces[split], ends], axis=1
    )


def _stacked(parts: Sequence[IntArray], columns: int) -> ShortArray:
    return np.concatenate([np.zeros((0, columns), np.int64), *parts]).astype(np.int32)


def _offsets(parts: Sequence[IntArray]) -> ShortArray:
    return np.cumsum([0, *map(len, parts)]).astype(np.int32)


def _padded(parts: Sequence[ShortArray]) -> ShortArray:
    return np.concatenate([*parts, np.zeros(1, np.int32)]).astype(np.int32)
