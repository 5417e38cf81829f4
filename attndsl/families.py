"""Families of pairs that other libraries have kernels for: what a call is proved to be by its exact schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from attndsl.schedule import Plan, Schedule

BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

TILE: Final = (128, 128)  # queries and keys of the tiles by which families are families_told
# PARTIAL tiles whose masks are looked at together: 4 MiB of truth values.
TILES_AT_ONCE: Final = 256
_INSTEAD: Final = 'format="bsr" says every pattern'


class NotInFamily(Exception):
    """The pairs of a call are not those of a family: ``reason`` says why, ``instead`` what says them."""

    def __init__(self, reason: str, instead: str = _INSTEAD) -> None:
        super().__init__(reason)
        self.reason, self.instead = reason, instead


def only_plan(schedule: Schedule) -> Plan:
    """The plan that all batch elements and heads share.

    Raises:
        NotInFamily: they differ.
    """
    if len(schedule.plans) != 1:
        raise NotInFamily(
            "batch elements or heads differ", "export each: heads=1, or inputs of one element"
        )
    return schedule.plans[0]


# ---------------------------------------------------------------------------- spans of keys


@dataclass(frozen=True, slots=True)
class Spans:
    """The keys of each query as one span, [start, stop); both are 0 where it sees none."""

    start: IntArray  # [q_len]
    stop: IntArray  # [q_len]


def spans(schedule: Schedule, plan: Plan) -> Spans:
    """The span of keys of each query, in time and memory of the live tiles.

    Raises:
        NotInFamily: the keys of a query are not neighbours.
    """
    n_rows, (height, width) = schedule.grid[0], schedule.tile
    start = np.full((n_rows, height), schedule.k_len, dtype=np.int64)
    stop, count = (np.zeros((n_rows, height), dtype=np.int64) for _ in range(2))
    full, partial = plan.full, plan.partial
    if full.nnz:
        live = np.flatnonzero(np.diff(full.indptr))
        begins = full.indptr[live]
        firsts = full.indices.astype(np.int64) * width
        ends = np.minimum(firsts + width, schedule.k_len)
        start[live] = np.minimum.reduceat(firsts, begins)[:, None]
        stop[live] = np.maximum.reduceat(ends, begins)[:, None]
        count[live] = np.add.reduceat(ends - firsts, begins)[:, None]
    rows, firsts = partial.rows, partial.indices.astype(np.int64)[:, None] * width
    for first in range(0, partial.nnz, TILES_AT_ONCE):
        some = slice(first, first + TILES_AT_ONCE)
        masks = schedule.masks.unpack(plan.mask_ids[some])
        held = masks.sum(axis=2)
        low = np.where(held > 0, firsts[some] + masks.argmax(axis=2), schedule.k_len)
        high = np.where(held > 0, firsts[some] + width - masks[:, :, ::-1].argmax(axis=2), 0)
        np.minimum.at(start, rows[some], low)
        np.maximum.at(stop, rows[some], high)
        np.add.at(count, rows[some], held)
    flat = (x.reshape(-1)[: schedule.q_len] for x in (start, stop, count))
    start, stop, count = flat
    start = np.where(count > 0, start, 0)
    apart = np.flatnonzero(count != stop - start)
    if len(apart):
        raise NotInFamily(f"the keys of query {int(apart[0])} are not neighbours")
    return Spans(start, stop)


# ---------------------------------------------------------------------------- one square


def is_causal_square(schedule: Schedule) -> bool:
    """Whether all batch elements and heads see the triangle k <= q of a square; false: they see every pair.

    Raises:
        NotInFamily: they see other pairs.
    """
    shapes = {_shape(schedule, plan) for plan in schedule.plans}
    if len(shapes) > 1:
        raise NotInFamily("some batch elements or heads see all pairs, others do not")
    return "causal" in shapes


def _shape(schedule: Schedule, plan: Plan) -> str:
    at, q_len, k_len = spans(schedule, plan), schedule.q_len, schedule.k_len
    if not at.start.any():
        if (at.stop == k_len).all():
            return "full"
        if q_len == k_len and np.array_equal(at.stop, np.arange(1, q_len + 1)):
            return "causal"
    raise NotInFamily("it is neither all pairs nor, of as many queries as keys, those with k <= q")


# ---------------------------------------------------------------------------- windows in documents


@dataclass(frozen=True, slots=True)
class Documents:
    """Documents in which each query sees ``left`` keys before it and ``right`` behind; -1 stands for all there are.

    Batch elements are packed one behind the other. Where there are more keys than queries, each batch element is one
    document, and the queries are its last tokens.
    """

    q_ends: IntArray  # [documents + 1], from 0
    k_ends: IntArray  # [documents + 1]
    left: int
    right: int

    def __str__(self) -> str:
        count = len(self.q_ends) - 1
        window = f", window {(self.left, self.right)}"
        return (
            f"{count:,} document{'s' * (count != 1)} of up to {self.longest[0]:,} queries{window}"
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return int(self.q_ends.nbytes + self.k_ends.nbytes)

    @property
    def longest(self) -> tuple[int, int]:
        """The most queries, and keys, of a document."""
        sizes = (np.diff(ends).max(initial=0) for ends in (self.q_ends, self.k_ends))
        most_queries, most_keys = map(int, sizes)
        return most_queries, most_keys


def documents(schedule: Schedule, batch: int = 1) -> Documents:
    """The documents of a call, and what queries see of them.

    Raises:
        NotInFamily: there are none, or a query sees other keys of them.
    """
    if schedule.plan_of.shape[1] > 1:
        raise NotInFamily("heads differ")
    each = [spans(schedule, plan) for plan in schedule.plans]
    order = np.broadcast_to(schedule.plan_of[:, 0], (batch,)).tolist()
    length, k_len = schedule.q_len, schedule.k_len
    if length != k_len:
        start = np.concatenate([each[n].start for n in order])
        stop = np.concatenate([each[n].stop for n in order])
        return _one_each(start, stop, (length, k_len), len(order))
    start = np.concatenate([each[n].start + b * length for b, n in enumerate(order)])
    stop = np.concatenate([each[n].stop + b * length for b, n in enumerate(order)])
    place = np.arange(len(start))
    back, ahead = place - start, stop - 1 - place
    unseen = np.flatnonzero((back < 0) | (ahead < 0))
    if len(unseen):
        raise NotInFamily(f"query {int(unseen[0]) % length} does not see itself")
    # a document begins where a query sees nothing before itself, and the one before it nothing behind itself
    begins = np.ones(len(start), dtype=bool)
    if back.any():
        begins &= back == 0
    if ahead.any():
        begins[1:] &= ahead[:-1] == 0
    ends = np.append(np.flatnonzero(begins), len(start))
    own = np.cumsum(begins) - 1
    left, right = int(back.max(initial=0)), int(ahead.max(initial=0))
    fits = (start == np.maximum(ends[own], place - left)) & (
        stop == np.minimum(ends[own + 1], place + right + 1)
    )
    _check_windows(fits, length)
    longest = int(np.diff(ends).max(initial=0))
    left, right = (-1 if x >= longest - 1 else x for x in (left, right))
    return Documents(ends, ends, left, right)


def _one_each(start: IntArray, stop: IntArray, lengths: tuple[int, int], batch: int) -> Documents:
    """The window of the last queries of more keys, of each batch element."""
    q_len, k_len = lengths
    place = np.tile(np.arange(q_len) + k_len - q_len, batch)
    back, ahead = place - start, stop - 1 - place
    empty = np.flatnonzero(stop == start)
    if len(empty):
        raise NotInFamily(f"query {int(empty[0]) % q_len} sees no key")
    left, right = int(back.max(initial=0)), int(ahead.max(initial=0))
    if min(left, right) < 0:
        raise NotInFamily("queries do not see the keys at their own places")
    fits = (start == np.maximum(0, place - left)) & (stop == np.minimum(k_len, place + right + 1))
    _check_windows(fits, q_len)
    left, right = -1 if not start.any() else left, -1 if (stop == k_len).all() else right
    q_ends, k_ends = (np.arange(batch + 1, dtype=np.int64) * n for n in lengths)
    return Documents(q_ends, k_ends, left, right)


def _check_windows(fits: BoolArray, length: int) -> None:
    if not fits.all():
        query = int(np.argmin(fits)) % length
        raise NotInFamily(
            f"query {query} sees neither its document nor a window of it that all have"
        )
