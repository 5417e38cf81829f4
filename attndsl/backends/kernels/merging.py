"""Merging: the shares of tiles whose work was split, always in the order of their slots."""

import triton
import triton.language as tl

from attndsl.backends.kernels.tiles import addresses

SHARED = tl.constexpr(3)  # a split tile is three int32: tile, first slot, last slot


@triton.jit
def _split_tile(splits, first_splits, plan_of, plan_batch, plan_head, heads):
    """(batch, head, plan, tile, first slot, last slot, whether there is one) of this program."""
    both = tl.program_id(1)
    batch, head = both // heads, both % heads
    plan = tl.load(plan_of + batch * plan_batch + head * plan_head)
    at = tl.load(first_splits + plan) + tl.program_id(0)
    exists = at < tl.load(first_splits + plan + 1)
    tile = tl.load(splits + at * SHARED, mask=exists, other=0)
    first = tl.load(splits + at * SHARED + 1, mask=exists, other=0)
    last = tl.load(splits + at * SHARED + 2, mask=exists, other=0)
    return batch.to(tl.int64), head.to(tl.int64), plan, tile, first, last, exists


@triton.jit(do_not_specialize=["q_len", "slots"])
def merge_outputs(
    PartOut, PartLse, Out, Lse, ob, oh, os, od,
    splits, first_splits, plan_of, plan_batch, plan_head, q_order, q_len, heads, slots,
    DV: tl.constexpr, BDV: tl.constexpr, BQ: tl.constexpr, Q_ORDERED: tl.constexpr,
):  # fmt: skip
    """Softmaxes over disjoint keys as one: shares weighted by exp(lse - total)."""
    b, h, plan, tile, first, last, exists = _split_tile(
        splits, first_splits, plan_of, plan_batch, plan_head, heads
    )
    if not exists:
        return
    if Q_ORDERED:
        q_order += plan * (tl.cdiv(q_len, BQ) * BQ)
    queries, dv = tl.arange(0, BQ), tl.arange(0, BDV)[None, :]
    acc = tl.zeros([BQ, BDV], tl.float32)
    top = tl.full([BQ], float("-inf"), tl.float32)
    total = tl.zeros([BQ], tl.float32)
    for slot in range(first, last):
        place = ((b * heads + h) * slots + slot) * BQ + queries
        lse = tl.load(PartLse + place)
        share = tl.load(PartOut + place[:, None] * DV + dv, mask=dv < DV, other=0.0)
        new = tl.maximum(top, lse)
        level = tl.where(new == float("-inf"), 0.0, new)
        decay, weight = tl.exp(top - level), tl.exp(lse - level)
        acc = acc * decay[:, None] + share * weight[:, None]
        total = total * decay + weight
        top = new
    seen = total != 0.0
    total = tl.where(seen, total, 1.0)
    acc = acc / total[:, None]
    lse = tl.where(seen, top + tl.log(total), float("-inf"))
    inside = tile * BQ + queries < q_len
    at = addresses(
        Out + b * ob + h * oh, tile * BQ, queries[:, None], os, dv, od, q_order, Q_ORDERED
    )
    tl.store(at, acc, mask=inside[:, None] & (dv < DV))
    at = addresses(Lse + (b * heads + h) * q_len, tile * BQ, queries, 1, 0, 0, q_order, Q_ORDERED)
    tl.store(at, lse, mask=inside)


@triton.jit(do_not_specialize=["length", "slots"])
def sum_chunks(
    Part, Out,
    splits, first_splits, plan_of, plan_batch, plan_head, order, length, heads, slots,
    D: tl.constexpr, BD: tl.constexpr, BLOCK: tl.constexpr, ORDERED: tl.constexpr,
):  # fmt: skip
    """Out [B, heads, length, D], contiguous: the sum of the shares of each split tile."""
    b, h, plan, tile, first, last, exists = _split_tile(
        splits, first_splits, plan_of, plan_batch, plan_head, heads
    )
    if not exists:
        return
    if ORDERED:
        order += plan * (tl.cdiv(length, BLOCK) * BLOCK)
    rows, d = tl.arange(0, BLOCK)[:, None], tl.arange(0, BD)[None, :]
    acc = tl.zeros([BLOCK, BD], tl.float32)
    for slot in range(first, last):
        place = ((b * heads + h) * slots + slot) * BLOCK + rows
        acc += tl.load(Part + place * D + d, mask=d < D, other=0.0)
    at = addresses(Out + (b * heads + h) * length * D, tile * BLOCK, rows, D, d, 1, order, ORDERED)
    tl.store(at, acc, mask=(tile * BLOCK + rows < length) & (d < D))
