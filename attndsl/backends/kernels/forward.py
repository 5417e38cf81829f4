"""Forward: one query tile against its live key tiles, by online softmax.

Milakov and Gimelshein 2018 for the running maximum and sum, Dao 2023 (FlashAttention-2) for the order of
the loops. Scores are kept in units of log 2, because the hardware's exponential is 2**x.
"""

import triton
import triton.language as tl

from attndsl.backends.kernels.tiles import (
    ITEM,
    addresses,
    deal,
    fetch,
    positions,
    stretches,
    unpack,
)


@triton.jit
def _absorb(
    acc, top, total, q, K, V, first, ks, kd, vs, vd, order, inside, keep, terms, scale,
    D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr,
    BK: tl.constexpr, ORDERED: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
    KEEP: tl.constexpr,
):  # fmt: skip
    """Add the keys of one tile to a running softmax: weighted sum, maximum, sum of weights.

    KEEP judges pairs after the product: so many truths take registers that the product needs.
    """
    wide, tall, keys = tl.arange(0, BDV)[None, :], tl.arange(0, BD)[:, None], tl.arange(0, BK)
    k_inside, v_inside = None, None
    if MASKED:
        k_inside, v_inside = inside[None, :], inside[:, None]
    at = addresses(K, first, keys[None, :], ks, tall, kd, order, ORDERED)
    k = fetch(at, k_inside, tall, D, BD, MASKED)
    scores = tl.dot(q, k, input_precision=PRECISION)
    if MASKED:
        if KEEP is not None:
            keep = KEEP(terms[0], terms[1], terms[2]) & k_inside
        scores = tl.where(keep, scores * scale, float("-inf"))
        new = tl.maximum(top, tl.max(scores, 1))
        # nothing seen yet: any finite level will do
        level = tl.where(new == float("-inf"), 0.0, new)
        weights = tl.exp2(scores - level[:, None])
    else:
        new = tl.maximum(top, tl.max(scores, 1) * scale)
        level = new
        weights = tl.exp2(scores * scale - level[:, None])
    decay = tl.exp2(top - level)
    total = total * decay + tl.sum(weights, 1)
    at = addresses(V, first, keys[:, None], vs, wide, vd, order, ORDERED)
    v = fetch(at, v_inside, wide, DV, BDV, MASKED)
    if v.dtype.is_fp8():
        v = v.to(tl.float16)  # exact; weights deserve more than three bits
    acc = tl.dot(weights.to(v.dtype), v, acc * decay[:, None], input_precision=PRECISION)
    return acc, new, total


@triton.jit(do_not_specialize=["q_len", "k_len", "at_once", "width", "slots"])
def forward(
    Q, K, V, Out, Lse, PartOut, PartLse, scale,
    qb, qh, qs, qd, kb, kh, ks, kd, vb, vh, vs, vd, ob, oh, os, od,
    items, first_items, plan_of, plan_batch, plan_head, full, partial, mask_ids, masks,
    constants, n_constants, tables, q_order, k_order,
    q_len, k_len, heads, at_once, width, slots,
    GROUP: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr,
    CONSTANTS: tl.constexpr, QUERY_TERMS: tl.constexpr, KEY_TERMS: tl.constexpr, KEEP: tl.constexpr,
    Q_ORDERED: tl.constexpr, K_ORDERED: tl.constexpr,
):  # fmt: skip
    """Out [B, H, Q, DV] and Lse [B, H, Q], or their shares in PartOut and PartLse where work is split.

    KEEP None: PARTIAL tiles read their masks from the bank; else they evaluate the predicate.
    """
    batch, head, plan, item, exists = deal(
        first_items, plan_of, plan_batch, plan_head, at_once, width, heads
    )
    if not exists:
        return
    if Q_ORDERED:
        q_order += plan * (tl.cdiv(q_len, BQ) * BQ)
    if K_ORDERED:
        k_order += plan * (tl.cdiv(k_len, BK) * BK)
    tile, full_first, full_last, part_first, part_last = stretches(items, item)

    queries, keys = tl.arange(0, BQ), tl.arange(0, BK)
    d, dv = tl.arange(0, BD)[None, :], tl.arange(0, BDV)[None, :]
    b, h, kv_head = batch.to(tl.int64), head.to(tl.int64), (head // GROUP).to(tl.int64)
    q_inside = tile * BQ + queries < q_len
    at = addresses(Q + b * qb + h * qh, tile * BQ, queries[:, None], qs, d, qd, q_order, Q_ORDERED)
    q = fetch(at, q_inside[:, None], d, D, BD, True)
    if q.dtype.is_fp8():  # has no arithmetic
        flipped = (-q.to(tl.float16)).to(q.dtype)
    else:
        flipped = -q
    q = tl.where(scale < 0, flipped, q)  # so that the factor on the scores is never negative
    factor = tl.abs(scale) * 1.4426950408889634
    K += b * kb + kv_head * kh
    V += b * vb + kv_head * vh

    acc = tl.zeros([BQ, BDV], tl.float32)
    top = tl.full([BQ], float("-inf"), tl.float32)
    total = tl.zeros([BQ], tl.float32)

    following = tl.load(full + full_first)  # each index is read one tile ahead of its use
    for entry in range(full_first, full_last):
        column = following
        following = tl.load(full + entry + 1)
        acc, top, total = _absorb(
            acc, top, total, q=q, K=K, V=V, first=column * BK, ks=ks, kd=kd, vs=vs, vd=vd,
            order=k_order, inside=None, keep=None, terms=None, scale=factor, D=D, DV=DV, BD=BD,
            BDV=BDV, BK=BK, ORDERED=K_ORDERED, MASKED=False, PRECISION=PRECISION, KEEP=None,
        )  # fmt: skip

    if KEEP is not None:
        numbers = CONSTANTS(constants + plan * n_constants)
        seen_from = positions(tile * BQ, queries[:, None], q_order, Q_ORDERED)
        q_terms = QUERY_TERMS(numbers, tables, seen_from)
    following = tl.load(partial + part_first)
    for entry in range(part_first, part_last):
        column = following
        following = tl.load(partial + entry + 1)
        inside = column * BK + keys < k_len
        if KEEP is None:
            mask = tl.load(mask_ids + entry)
            keep, terms = unpack(masks, mask, queries[:, None], keys[None, :], BQ, BK), None
        else:
            looked_at = positions(column * BK, keys[None, :], k_order, K_ORDERED)
            keep, terms = None, (numbers, q_terms, KEY_TERMS(numbers, tables, looked_at))
        acc, top, total = _absorb(
            acc, top, total, q=q, K=K, V=V, first=column * BK, ks=ks, kd=kd, vs=vs, vd=vd,
            order=k_order, inside=inside, keep=keep, terms=terms, scale=factor, D=D, DV=DV, BD=BD,
            BDV=BDV, BK=BK, ORDERED=K_ORDERED, MASKED=True, PRECISION=PRECISION, KEEP=KEEP,
        )  # fmt: skip

    seen = total != 0.0  # also when it is not a number
    total = tl.where(seen, total, 1.0)
    acc = acc / total[:, None]
    lse = tl.where(seen, (top + tl.log2(total)) * 0.6931471805599453, float("-inf"))
    if SPLIT:
        slot = tl.load(items + item * ITEM + 5)
        if slot >= 0:
            share = ((b * heads + h) * slots + slot) * BQ + queries
            tl.store(PartOut + share[:, None] * DV + dv, acc, mask=dv < DV)
            tl.store(PartLse + share, lse)
            return
    at = addresses(
        Out + b * ob + h * oh, tile * BQ, queries[:, None], os, dv, od, q_order, Q_ORDERED
    )
    tl.store(at, acc, mask=q_inside[:, None] & (dv < DV))
    at = addresses(Lse + (b * heads + h) * q_len, tile * BQ, queries, 1, 0, 0, q_order, Q_ORDERED)
    tl.store(at, lse, mask=q_inside)
