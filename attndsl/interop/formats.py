"""Schedules in the formats of other kernels: each read off the pairs of a call, or refused where it cannot say them.

A format is told per row or column, so pairs are looked at in strips of one tile: memory follows the length, never its
square.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import numpy as np

from attndsl.schedule import Plan, Schedule
from attndsl.source import AttnDslError, Diagnostic

BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
ShortArray: TypeAlias = np.ndarray[Any, np.dtype[np.int32]]


def refuse(format_: str, reason: str, instead: str) -> NoReturn:
    """Raises that a format cannot say a pattern, why, and what does."""
    title = f"these pairs cannot be said as {format_}: {reason}"
    raise AttnDslError(Diagnostic("A414", title, helps=(instead,)))


def only_plan(schedule: Schedule, format_: str) -> Plan:
    """The plan that all batch elements and heads share.

    Raises:
        AttnDslError: A414, they differ.
    """
    if len(schedule.plans) != 1:
        refuse(
            format_,
            "batch elements or heads differ",
            "export each: heads=1, or inputs of one element",
        )
    return schedule.plans[0]


def _strips(schedule: Schedule, plan: Plan, *, by_key: bool = False) -> Iterator[BoolArray]:
    """The pairs of one tile of queries with all keys after the other, [queries, k_len]; or of keys, [keys, q_len]."""
    walked, tile, lengths = plan, schedule.tile, (schedule.q_len, schedule.k_len)
    if by_key:
        walked, tile, lengths = plan.transpose, (tile[1], tile[0]), (lengths[1], lengths[0])
    for row in range(len(walked.full.indptr) - 1):
        first = row * tile[0]
        strip = np.zeros((tile[0], walked.n_columns, tile[1]), dtype=bool)
        strip[:, walked.full.row(row)] = True
        start, stop = walked.partial.indptr[row : row + 2]
        masks = schedule.masks.unpack(walked.mask_ids[start:stop])
        masks = masks.transpose(0, 2, 1) if by_key else masks
        strip[:, walked.partial.indices[start:stop]] = masks.transpose(1, 0, 2)
        yield strip.reshape(tile[0], -1)[: lengths[0] - first, : lengths[1]]


@dataclass(frozen=True, slots=True)
class Spans:
    """The keys of each query as one span, [start, stop), and how many there are."""

    start: IntArray  # [q_len], 0 for none
    stop: IntArray  # [q_len]


def spans(schedule: Schedule, format_: str) -> Spans:
    """The span of keys of each query.

    Raises:
        AttnDslError: A414, a query's keys are not neighbours, or heads differ.
    """
    starts, stops, query = [], [], 0
    for strip in _strips(schedule, only_plan(schedule, format_)):
        count, start = (
            strip.sum(axis=1),
            strip.argmax(axis=1) if strip.shape[1] else np.zeros(len(strip), dtype=int),
        )
        stop = strip.shape[1] - strip[:, ::-1].argmax(axis=1) if strip.shape[1] else start
        stop = np.where(count > 0, stop, 0)
        apart = np.flatnonzero(count != stop - np.where(count > 0, start, 0))
        if len(apart):
            reason = f"the keys of query {query + int(apart[0])} are not neighbours"
            refuse(format_, reason, 'format="block_mask" and format="bsr" say every pattern')
        starts.append(np.where(count > 0, start, 0))
        stops.append(stop)
        query += len(strip)
    none = [np.zeros(0, dtype=np.int64)]
    return Spans(np.concatenate(starts or none), np.concatenate(stops or none))


def bsr(schedule: Schedule) -> dict[str, Any]:
    """Block-sparse rows, as FlashInfer: ``indptr``, ``indices`` int32, and ``mask`` bool [blocks, queries, keys].

    ``mask`` is None where all blocks are full; pairs behind the ends are false in it.
    """
    plan = only_plan(schedule, "block-sparse rows")
    both = (plan.full, plan.partial)
    rows, columns = (
        np.concatenate([getattr(tiles, name) for tiles in both]).astype(np.int64)
        for name in ("rows", "indices")
    )
    order = np.argsort(rows * max(1, plan.n_columns) + columns)
    n_rows = len(plan.full.indptr) - 1
    indptr = np.zeros(n_rows + 1, dtype=np.int32)
    np.cumsum(np.bincount(rows, minlength=n_rows), out=indptr[1:])
    found = {"indptr": indptr, "indices": columns[order].astype(np.int32), "mask": None}
    (q_len, k_len), (bq, bk) = (schedule.q_len, schedule.k_len), schedule.tile
    if plan.partial.nnz or q_len % bq or k_len % bk:
        masks = np.concatenate(
            [np.ones((plan.full.nnz, bq, bk), dtype=bool), schedule.masks.unpack(plan.mask_ids)]
        )[order]
        ends = rows[order] * bq, columns[order] * bk
        masks &= (ends[0][:, None] + np.arange(bq) < q_len)[:, :, None]
        masks &= (ends[1][:, None] + np.arange(bk) < k_len)[:, None, :]
        found["mask"] = masks
    return found


def cu_seqlens(schedule: Schedule) -> dict[str, Any]:
    """Packed documents: ``cu_seqlens`` int32 [documents + 1], ``max_seqlen``, whether each is ``causal``.

    For the varlen calls of FlashAttention and torch.
    """
    name = "cu_seqlens"
    if schedule.q_len != schedule.k_len:
        refuse(
            name, "there are more or fewer queries than keys", "export it where both are as many"
        )
    at, length = spans(schedule, name), schedule.q_len
    firsts = np.flatnonzero(at.start == np.arange(length))
    ends = np.append(firsts, length)
    document = np.searchsorted(firsts, np.arange(length), side="right") - 1
    is_start = length == 0 or (firsts[:1].tolist() == [0] and (at.start == firsts[document]).all())
    whole, causal = ends[document + 1], np.arange(1, length + 1)
    for is_causal, stop in ((False, whole), (True, causal)):
        if is_start and np.array_equal(at.stop, stop):
            sizes = np.diff(ends)
            return {
                "cu_seqlens": ends.astype(np.int32) if length else np.zeros(1, dtype=np.int32),
                "max_seqlen": int(sizes.max(initial=0)),
                "causal": is_causal,
            }
    return refuse(name, "queries see neither all of a document nor all of it up to themselves",
                  'format="magi" says a span of keys for each query')  # fmt: skip


def flashmask(schedule: Schedule) -> dict[str, Any]:
    """Column bounds of FlashMask: ``startend_row_indices`` int32 [1, 1, keys, 1, 2 or 4], and ``causal``.

    In column j the rows from LTS up to LTE below the diagonal, i >= j, are not seen, and those from UTS up to UTE above
    it; with ``causal`` none above it is. Columns hold LTS; LTS and LTE; LTS and UTE; or all four.
    """
    name = "column bounds"
    if schedule.q_len != schedule.k_len:
        refuse(
            name, "there are more or fewer queries than keys", "export it where both are as many"
        )
    length, bounds, key = schedule.q_len, list[IntArray](), 0
    queries = np.arange(length)
    for strip in _strips(schedule, only_plan(schedule, name), by_key=True):
        below = queries >= key + np.arange(len(strip))[:, None]
        sides = (_hidden(~strip & part, key, name) for part in (below, ~below))
        bounds.append(np.concatenate(list(sides), axis=1))
        key += len(strip)
    found = np.concatenate(bounds) if bounds else np.zeros((0, 4), dtype=np.int64)
    lts, lte, uts, ute = found.T
    columns = np.arange(length)
    none_below, none_above = lts == lte, uts == ute
    lts, lte = (np.where(none_below, length, x) for x in (lts, lte))
    uts, ute = (np.where(none_above, 0, x) for x in (uts, ute))
    causal = bool(((uts == 0) & (ute == columns)).all())
    reaches_end, from_start = bool((lte == length).all()), bool((uts == 0).all())
    if causal:
        kept = [lts] if reaches_end else [lts, lte]
    else:
        kept = [lts, ute] if reaches_end and from_start else [lts, lte, uts, ute]
    indices = np.stack(kept, axis=1).astype(np.int32)[None, None]
    return {"startend_row_indices": indices, "causal": causal}


def _hidden(hidden: BoolArray, key: int, name: str) -> IntArray:
    """First and behind the last of the rows that are hidden, [keys, 2]; equal for none."""
    count = hidden.sum(axis=1)
    first = hidden.argmax(axis=1)
    stop = np.where(count > 0, hidden.shape[1] - hidden[:, ::-1].argmax(axis=1), first)
    apart = np.flatnonzero(count != stop - first)
    if len(apart):
        reason = f"the queries that do not see key {key + int(apart[0])} are not one run on each side of it"
        refuse(name, reason, 'format="block_mask" and format="bsr" say every pattern')
    return np.stack([first, stop], axis=1)


FULL, CAUSAL, INVERSE, BOTH = range(4)  # the types of slices of MagiAttention


def magi(schedule: Schedule) -> dict[str, Any]:
    """Slices of MagiAttention: ``q_ranges``, ``k_ranges`` int32 [slices, 2], ``attn_type_map`` int32 [slices].

    0 is all pairs of a slice, 1 those under the diagonal through its lower right corner, 2 those above the one through
    its upper left corner, 3 those between both.
    """
    at = spans(schedule, "slices")
    seen = at.stop > at.start
    step = np.diff(at.start), np.diff(at.stop)
    rows: list[tuple[int, int, int, int, int]] = []
    query, length = 0, schedule.q_len
    while query < length:
        last, kind = query, FULL
        if seen[query]:
            moves = None
            while last + 1 < length and seen[last + 1]:
                move = int(step[0][last]), int(step[1][last])
                if move not in ((0, 0), (0, 1), (1, 0), (1, 1)) or moves not in (None, move):
                    break
                moves, last = move, last + 1
            kind = 0 if moves is None else 2 * moves[0] + moves[1]
            rows.append((query, last + 1, int(at.start[query]), int(at.stop[last]), kind))
        query = last + 1
    table = np.array(rows, dtype=np.int32).reshape(-1, 5)
    return {"q_ranges": table[:, :2], "k_ranges": table[:, 2:4], "attn_type_map": table[:, 4]}


FORMATS = {"bsr": bsr, "cu_seqlens": cu_seqlens, "flashmask": flashmask, "magi": magi}
