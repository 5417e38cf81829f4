"""Properties of rows read off a schedule without its pairs: FULL tiles by their corners, distinct masks once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from attndsl.schedule import Plan, Schedule

IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
ShortArray: TypeAlias = np.ndarray[Any, np.dtype[np.int32]]
BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

_AT_ONCE = 1 << 23  # bits of masks unpacked together


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Some rows: indices of queries in increasing order, [n]."""

    indices: IntArray
    q_len: int

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """The rows as half-open runs."""
        breaks = np.flatnonzero(np.diff(self.indices) != 1) + 1
        runs = np.split(self.indices, breaks) if len(self.indices) else []
        return tuple((int(run[0]), int(run[-1]) + 1) for run in runs)

    def __str__(self) -> str:
        if not len(self):
            return "none"
        runs = [f"{a}" if b == a + 1 else f"{a}..{b}" for a, b in self.ranges[:4]]
        more = ", ..." if len(self.ranges) > 4 else ""
        return f"{len(self):,} of {self.q_len:,}: {', '.join(runs)}{more}"


def rows_without_keys(schedule: Schedule) -> Rows:
    """Queries that see no key in some head of some batch element; their output is 0."""
    found = without_keys(schedule).any((0, 1))
    return Rows(np.flatnonzero(found), schedule.q_len)


def without_keys(schedule: Schedule) -> BoolArray:
    """True for each query that sees no key, bool [batch or 1, heads or 1, q_len]."""
    found = np.ones((len(schedule.plans), schedule.q_len), dtype=bool)
    for plan, rows in zip(schedule.plans, found, strict=True):
        stored = ~_seen(plan, schedule)[: schedule.q_len]
        rows[slice(None) if plan.q_order is None else plan.q_order.rows] = stored
    return found[schedule.plan_of]


def _seen(plan: Plan, schedule: Schedule) -> BoolArray:
    """True for each row with a key, [n_rows * bq]."""
    rows = np.zeros((len(plan.full.indptr) - 1, schedule.tile[0]), dtype=bool)
    rows[np.diff(plan.full.indptr) > 0] = True
    any_key = np.zeros((len(schedule.masks), schedule.tile[0]), dtype=bool)
    for some, masks in unpacked(schedule):
        any_key[some] = masks.any(axis=2)
    live = np.flatnonzero(np.diff(plan.partial.indptr))
    if len(live):
        starts = plan.partial.indptr[live]
        rows[live] |= np.logical_or.reduceat(any_key[plan.mask_ids], starts, axis=0)
    return rows.reshape(-1)


def unpacked(schedule: Schedule) -> Iterator[tuple[slice, BoolArray]]:
    """All distinct masks, bool [some, bq, bk], as many at a time as memory should hold."""
    size = schedule.tile[0] * schedule.tile[1]
    step = max(1, _AT_ONCE // size)
    for start in range(0, len(schedule.masks), step):
        some = slice(start, min(start + step, len(schedule.masks)))
        yield some, schedule.masks.unpack(some)


def distances(schedule: Schedule, shift: int) -> tuple[int, int] | None:
    """The least and the greatest q - k over all pairs, positions shifted by ``shift``; None without pairs."""
    bq, bk = schedule.tile
    low = np.full(len(schedule.masks), bq, dtype=np.int64)
    high = np.full(len(schedule.masks), -bk, dtype=np.int64)
    apart = np.arange(bq)[:, None] - np.arange(bk)
    for some, masks in unpacked(schedule):
        low[some] = np.where(masks, apart, bq).min(axis=(1, 2))
        high[some] = np.where(masks, apart, -bk).max(axis=(1, 2))
    ends: list[tuple[int, int]] = []
    for plan in schedule.plans:
        if plan.partial.nnz:
            offset = (
                plan.partial.rows.astype(np.int64) * bq - plan.partial.indices.astype(np.int64) * bk
            )
            ends.append(
                (
                    int((offset + low[plan.mask_ids]).min()),
                    int((offset + high[plan.mask_ids]).max()),
                )
            )
        if plan.full.nnz:
            rows, columns = plan.full.rows.astype(np.int64), plan.full.indices.astype(np.int64)
            last_row = np.minimum((rows + 1) * bq, schedule.q_len) - 1
            last_column = np.minimum((columns + 1) * bk, schedule.k_len) - 1
            ends.append(
                (int((rows * bq - last_column).min()), int((last_row - columns * bk).max()))
            )
    if not ends:
        return None
    return min(a for a, _ in ends) + shift, max(b for _, b in ends) + shift


def is_symmetric(schedule: Schedule) -> bool:
    """Whether each plan equals its transpose; needs square tiles."""
    return schedule.q_len == schedule.k_len and all(
        _is_symmetric(p, schedule) for p in schedule.plans
    )


def _is_symmetric(plan: Plan, schedule: Schedule) -> bool:
    back = plan.transpose
    same = np.array_equal(plan.full.pairs(), back.full.pairs())
    if not same or not np.array_equal(plan.partial.pairs(), back.partial.pairs()):
        return False
    both = np.unique(np.stack([plan.mask_ids, back.mask_ids], axis=1), axis=0)
    return all(
        np.array_equal(masks, mirrored.transpose(0, 2, 1))
        for start in range(0, len(both), 256)
        for masks, mirrored in [
            (
                schedule.masks.unpack(both[start : start + 256, 0]),
                schedule.masks.unpack(both[start : start + 256, 1]),
            )
        ]
    )


def diagonal_is_seen(schedule: Schedule) -> bool:
    """Whether every query sees the key of its own index; needs square tiles and as many keys."""
    tile = schedule.tile[0]
    on_diagonal = np.zeros((len(schedule.masks), tile), dtype=bool)
    for some, masks in unpacked(schedule):
        on_diagonal[some] = masks.diagonal(axis1=1, axis2=2)
    return all(
        _diagonal(plan, on_diagonal, tile)[: schedule.q_len].all() for plan in schedule.plans
    )


def _diagonal(plan: Plan, on_diagonal: BoolArray, tile: int) -> BoolArray:
    seen = np.zeros((len(plan.full.indptr) - 1, tile), dtype=bool)
    seen[plan.full.rows[plan.full.rows == plan.full.indices]] = True
    here = plan.partial.rows == plan.partial.indices
    seen[plan.partial.rows[here]] = on_diagonal[plan.mask_ids[here]]
    return seen.reshape(-1)
