"""Schedules in the formats of other kernels: each read off the pairs of a call, or refused where it cannot say them.

A format is told per row or column, so pairs are looked at in strips of one tile: memory follows the length, never its
square.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final, NoReturn, TypeAlias

import numpy as np

from attndsl import ir
from attndsl.compiler import Program
from attndsl.families import NotInFamily, documents, only_plan, spans
from attndsl.neighbourhoods import neighbourhood
from attndsl.schedule import Call, Plan, Schedule
from attndsl.source import AttnDslError, Diagnostic

BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

_ITS_BLOCKS: Final = (128, 128)  # queries and keys of the blocks of Block-Sparse-Attention


def refuse(format_: str, reason: str, instead: str) -> NoReturn:
    """Raises that a format cannot say a pattern, why, and what does."""
    title = f"these pairs cannot be said as {format_}: {reason}"
    raise AttnDslError(Diagnostic("A414", title, helps=(instead,)))


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


def bsr(schedule: Schedule) -> dict[str, Any]:
    """Block-sparse rows, as FlashInfer: ``indptr``, ``indices`` int32, and ``mask`` bool [blocks, queries, keys].

    ``mask`` is None where all blocks are full; pairs behind the ends are false in it.
    """
    plan = only_plan(schedule)
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


def csr(schedule: Schedule) -> dict[str, Any]:
    """The keys of each query: ``indptr`` int64 [queries + 1], ``indices`` int32 [pairs], rising."""
    each = [np.nonzero(strip) for strip in _strips(schedule, only_plan(schedule))]
    none = np.zeros(0, dtype=np.int64)
    counts = [
        np.bincount(rows, minlength=min(schedule.tile[0], schedule.q_len - number * schedule.tile[0]))
        for number, (rows, _) in enumerate(each)
    ]  # fmt: skip
    indptr = np.concatenate([[0], np.cumsum(np.concatenate([none, *counts]))])
    indices = np.concatenate([none, *(columns for _, columns in each)])
    return {"indptr": indptr.astype(np.int64), "indices": indices.astype(np.int32)}


def cu_seqlens(schedule: Schedule) -> dict[str, Any]:
    """Packed documents: ``cu_seqlens`` int32 [documents + 1], ``max_seqlen``, whether each is ``causal``.

    For the varlen calls of FlashAttention and torch.
    """
    if schedule.q_len != schedule.k_len:
        raise NotInFamily("there are more or fewer queries than keys", 'format="varlen" says both')
    only_plan(schedule)
    packed = documents(schedule)
    if packed.left != -1 or packed.right not in (-1, 0):
        raise NotInFamily("queries see a window of their documents", 'format="varlen" says it')
    return {
        "cu_seqlens": packed.q_ends.astype(np.int32),
        "max_seqlen": packed.longest[0],
        "causal": packed.right == 0,
    }


def varlen(schedule: Schedule) -> dict[str, Any]:
    """Arguments of ``flash_attn_varlen_func``, and of ``varlen_attn`` of torch under names of its own.

    ``cu_seqlens_q``, ``cu_seqlens_k`` int32 [documents + 1], ``max_seqlen_q``, ``max_seqlen_k``, and ``window_size``,
    how many keys before and behind itself a query sees, -1 for all; queries are the last tokens of their document.
    """
    only_plan(schedule)
    packed = documents(schedule)
    bounds = (ends.astype(np.int32) for ends in (packed.q_ends, packed.k_ends))
    made: dict[str, Any] = dict(zip(("cu_seqlens_q", "cu_seqlens_k"), bounds, strict=True))
    made |= dict(zip(("max_seqlen_q", "max_seqlen_k"), packed.longest, strict=True))
    return made | {"window_size": (packed.left, packed.right)}


def block_sparse(schedule: Schedule) -> dict[str, Any]:
    """Arguments of Block-Sparse-Attention: ``base_blockmask``, ``head_mask_type`` and ``is_causal``.

    ``base_blockmask`` bool [batch or 1, heads or 1, rows, columns] of blocks of 128 x 128, all pairs of which are seen;
    with ``is_causal`` those with k <= q. ``head_mask_type`` int32 [heads or 1] is 1, for a mask of blocks.
    """
    if schedule.tile != _ITS_BLOCKS:
        raise NotInFamily("its blocks are 128 x 128", "block_size=128")
    seen = np.zeros((len(schedule.plans), *schedule.grid), dtype=bool)
    cut = [_add_blocks(schedule, plan, own) for plan, own in zip(schedule.plans, seen, strict=True)]
    is_causal = any(cut)
    above = np.triu(np.ones(schedule.grid, dtype=bool), 1)
    if is_causal and (schedule.q_len != schedule.k_len or bool((seen & above).any())):
        raise NotInFamily("some blocks are cut along the diagonal, and others lie above it")
    for own, has_cuts in zip(seen, cut, strict=True):
        if is_causal and not has_cuts and bool(np.diagonal(own).any()):
            raise NotInFamily("some heads see all of a block on the diagonal, others a part")
    heads = schedule.plan_of.shape[1]
    return {
        "base_blockmask": seen[schedule.plan_of],
        "head_mask_type": np.ones(heads, dtype=np.int32),
        "is_causal": is_causal,
    }


def _add_blocks(schedule: Schedule, plan: Plan, seen: BoolArray) -> bool:
    """Notes the live blocks of a plan; whether those on the diagonal are cut along it.

    Raises:
        NotInFamily: a block is cut otherwise.
    """
    seen[plan.full.rows, plan.full.indices] = True
    seen[plan.partial.rows, plan.partial.indices] = True
    off = np.flatnonzero(plan.partial.rows != plan.partial.indices)
    if len(off):
        block = int(plan.partial.rows[off[0]]), int(plan.partial.indices[off[0]])
        raise NotInFamily(f"block {block} is seen in part", 'format="bsr" says every pattern')
    for number, row in enumerate(plan.partial.rows.tolist()):
        (mask,) = schedule.masks.unpack(plan.mask_ids[number : number + 1])
        inside = np.arange(schedule.tile[0]) + row * schedule.tile[0] < schedule.q_len
        if not np.array_equal(mask, np.tri(len(mask), dtype=bool) & inside[:, None]):
            raise NotInFamily(
                f"block {(row, row)} is seen in part", 'format="bsr" says every pattern'
            )
    cut = len(plan.partial.rows)
    last_is_one = schedule.q_len % schedule.tile[0] == 1  # such a block is its one pair
    whole = int(np.diagonal(seen).sum()) - cut
    if cut and whole > last_is_one:
        raise NotInFamily("some blocks on the diagonal are seen in part, others whole")
    return cut > 0


def flashmask(schedule: Schedule) -> dict[str, Any]:
    """Column bounds of FlashMask: ``startend_row_indices`` int32 [1, 1, keys, 1, 2 or 4], and ``causal``.

    In column j the rows from LTS up to LTE below the diagonal, i >= j, are not seen, and those from UTS up to UTE above
    it; with ``causal`` none above it is. Columns hold LTS; LTS and LTE; LTS and UTE; or all four.
    """
    if schedule.q_len != schedule.k_len:
        raise NotInFamily(
            "there are more or fewer queries than keys", "export it where both are as many"
        )
    length, bounds, key = schedule.q_len, list[IntArray](), 0
    queries = np.arange(length)
    for strip in _strips(schedule, only_plan(schedule), by_key=True):
        below = queries >= key + np.arange(len(strip))[:, None]
        sides = (_hidden(~strip & part, key) for part in (below, ~below))
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


def _hidden(hidden: BoolArray, key: int) -> IntArray:
    """First and behind the last of the rows that are hidden, [keys, 2]; equal for none."""
    count = hidden.sum(axis=1)
    first = hidden.argmax(axis=1)
    stop = np.where(count > 0, hidden.shape[1] - hidden[:, ::-1].argmax(axis=1), first)
    apart = np.flatnonzero(count != stop - first)
    if len(apart):
        reason = f"the queries that do not see key {key + int(apart[0])} are not one run on each side of it"
        raise NotInFamily(reason, 'format="bsr" says every pattern')
    return np.stack([first, stop], axis=1)


FULL, CAUSAL, INVERSE, BOTH = range(4)  # the types of slices of MagiAttention


def magi(schedule: Schedule) -> dict[str, Any]:
    """Slices of MagiAttention: ``q_ranges``, ``k_ranges`` int32 [slices, 2], ``attn_type_map`` int32 [slices].

    0 is all pairs of a slice, 1 those under the diagonal through its lower right corner, 2 those above the one through
    its upper left corner, 3 those between both.
    """
    at = spans(schedule, only_plan(schedule))
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


def natten(program: Program, call: Call) -> dict[str, Any]:
    """Arguments of ``na1d``, ``na2d`` or ``na3d`` of NATTEN.

    A number for each axis: ``kernel_size``, ``stride``, ``dilation``, ``is_causal``, and ``shape``, its tokens.
    """
    return asdict(neighbourhood(program, call))


OF_SCHEDULES: Final = {
    "bsr": bsr, "csr": csr, "cu_seqlens": cu_seqlens, "varlen": varlen, "flashmask": flashmask, "magi": magi,
    "block_sparse": block_sparse,
}  # fmt: skip
NAMES: Final = (*OF_SCHEDULES, "natten", "bias")


def written(name: str, program: Program, call: Call, tile: tuple[int, int]) -> dict[str, Any]:
    """The pairs of a call in a format.

    Raises:
        AttnDslError: A414, the format cannot say them.
    """
    if program.mask.zeros is not ir.ZERO:
        refuse(name, "the pattern has zero keys, which are no pairs", "use attndsl's own kernels")
    if name == "bias":
        return {"bias": np.where(program.dense(call), np.float32(0.0), np.float32(-np.inf))}
    try:
        if name == "natten":
            return natten(program, call)
        return OF_SCHEDULES[name](program.schedule(call, tile))
    except NotInFamily as error:
        refuse(name, error.reason, error.instead)
