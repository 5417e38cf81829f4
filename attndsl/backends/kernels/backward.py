"""Backward in two passes that write each gradient once: no atomics, equal bits on every run.

With P = exp(S - lse), dP = dOut Vᵀ and delta = rowsum(dOut * Out) - dLse:

    dV = Pᵀ dOut,   dS = P * (dP - delta),   dQ = scale dS K,   dK = scale dSᵀ Q

``backward_queries`` walks the key tiles of a query tile, ``backward_keys`` the query tiles of a key tile,
over all query heads that share the key head. Both recompute P (Dao et al. 2022).
"""

import triton
import triton.language as tl

from attndsl.backends.kernels.tiles import ITEM, addresses, deal, fetch, unpack


@triton.jit(do_not_specialize=["q_len"])
def prepare_backward(
    Out, GradOut, Lse, GradLse, Level, Delta,
    ob, oh, os, od, gb, gh, gs, gd,
    q_len, heads,
    DV: tl.constexpr, BDV: tl.constexpr, BQ: tl.constexpr, THROUGH_LSE: tl.constexpr,
):  # fmt: skip
    """Level = lse in units of log 2 and Delta, both [B, H, Q]. A query without a key: level inf, so P = 0."""
    both = tl.program_id(1).to(tl.int64)
    batch, head = both // heads, both % heads
    row, dv = tl.program_id(0) * BQ + tl.arange(0, BQ), tl.arange(0, BDV)[None, :]
    inside, at = row < q_len, both * q_len + row
    lse = tl.load(Lse + at, mask=inside, other=float("-inf"))
    sees = lse != float("-inf")
    wanted, long = sees[:, None] & (dv < DV), row.to(tl.int64)[:, None]
    out = tl.load(Out + batch * ob + head * oh + long * os + dv * od, mask=wanted, other=0.0)
    dout = tl.load(GradOut + batch * gb + head * gh + long * gs + dv * gd, mask=wanted, other=0.0)
    delta = tl.sum(out.to(tl.float32) * dout.to(tl.float32), 1)
    if THROUGH_LSE:
        delta -= tl.load(GradLse + at, mask=sees, other=0.0)
    tl.store(Level + at, tl.where(sees, lse * 1.4426950408889634, float("inf")), mask=inside)
    tl.store(Delta + at, delta, mask=inside)


@triton.jit
def _query_share(
    dq, q, dout, level, delta, k_rows, v_rows, kd, vd, inside, keep, scale,
    D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr,
    MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq plus what one key tile contributes to it, but for the scale."""
    d, dv = tl.arange(0, BD)[:, None], tl.arange(0, BDV)[:, None]
    if MASKED:
        inside = inside[None, :]
    k = fetch(k_rows[None, :] + d * kd, inside, d, D, BD, MASKED)
    v = fetch(v_rows[None, :] + dv * vd, inside, dv, DV, BDV, MASKED)
    scores = tl.dot(q, k, input_precision=PRECISION)
    distance = scores * scale - level[:, None]
    if MASKED:
        distance = tl.where(keep, distance, float("-inf"))
    weights = tl.exp2(distance)
    dweights = tl.dot(dout, v, input_precision=PRECISION)
    dscores = weights * (dweights - delta[:, None])
    return tl.dot(dscores.to(k.dtype), tl.trans(k), dq, input_precision=PRECISION)


@triton.jit(do_not_specialize=["q_len", "k_len", "at_once", "width", "slots"])
def backward_queries(
    Q, K, V, GradOut, Level, Delta, GradQ, PartQ,
    qb, qh, qs, qd, kb, kh, ks, kd, vb, vh, vs, vd, gb, gh, gs, gd,
    items, first_items, plan_of, plan_batch, plan_head, full, partial, mask_ids, masks,
    constants, n_constants, tables, q_order, k_order,
    q_len, k_len, heads, at_once, width, slots, scale,
    GROUP: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr,
    QUERY_TERMS: tl.constexpr, KEY_TERMS: tl.constexpr, KEEP: tl.constexpr,
    Q_ORDERED: tl.constexpr, K_ORDERED: tl.constexpr,
):  # fmt: skip
    """GradQ [B, H, Q, D], contiguous, or its shares where the work of a query tile is split."""
    batch, head, plan, item, exists = deal(
        first_items, plan_of, plan_batch, plan_head, at_once, width, heads
    )
    if not exists:
        return
    if Q_ORDERED:
        q_order += plan * (tl.cdiv(q_len, BQ) * BQ)
    if K_ORDERED:
        k_order += plan * (tl.cdiv(k_len, BK) * BK)
    tile = tl.load(items + item * ITEM)
    full_first, full_last = tl.load(items + item * ITEM + 1), tl.load(items + item * ITEM + 2)
    part_first, part_last = tl.load(items + item * ITEM + 3), tl.load(items + item * ITEM + 4)

    queries, keys = tl.arange(0, BQ), tl.arange(0, BK)
    d, dv = tl.arange(0, BD)[None, :], tl.arange(0, BDV)[None, :]
    b, h, kv_head = batch.to(tl.int64), head.to(tl.int64), (head // GROUP).to(tl.int64)
    inside = tile * BQ + queries < q_len
    vector = addresses((b * heads + h) * q_len, tile * BQ, queries, 1, q_order, Q_ORDERED)
    level = tl.load(Level + vector, mask=inside, other=float("inf"))
    delta = tl.load(Delta + vector, mask=inside, other=0.0)
    q_rows = addresses(Q + b * qb + h * qh, tile * BQ, queries, qs, q_order, Q_ORDERED)
    g_rows = addresses(GradOut + b * gb + h * gh, tile * BQ, queries, gs, q_order, Q_ORDERED)
    q = fetch(q_rows[:, None] + d * qd, inside[:, None], d, D, BD, True)
    sees = level != float("inf")
    dout = fetch(g_rows[:, None] + dv * gd, sees[:, None], dv, DV, BDV, True)
    factor = scale * 1.4426950408889634
    K += b * kb + kv_head * kh
    V += b * vb + kv_head * vh
    if KEEP is not None:
        constants += plan * n_constants
        q_terms = QUERY_TERMS((tile * BQ + queries)[:, None], constants, tables)

    dq = tl.zeros([BQ, BD], tl.float32)
    following = tl.load(full + full_first)
    for entry in range(full_first, full_last):
        column = following
        following = tl.load(full + entry + 1)
        k_rows = addresses(K, column * BK, keys, ks, k_order, K_ORDERED)
        v_rows = addresses(V, column * BK, keys, vs, k_order, K_ORDERED)
        dq = _query_share(
            dq, q, dout, level, delta, k_rows, v_rows, kd, vd, None, None, factor,
            D, DV, BD, BDV, False, PRECISION,
        )  # fmt: skip

    following = tl.load(partial + part_first)
    for entry in range(part_first, part_last):
        column = following
        following = tl.load(partial + entry + 1)
        k_inside = column * BK + keys < k_len
        if KEEP is None:
            mask = tl.load(mask_ids + entry)
            keep = unpack(masks, mask, queries[:, None], keys[None, :], BQ, BK)
        else:
            k_terms = KEY_TERMS((column * BK + keys)[None, :], constants, tables)
            keep = KEEP(q_terms, k_terms) & k_inside[None, :]
        k_rows = addresses(K, column * BK, keys, ks, k_order, K_ORDERED)
        v_rows = addresses(V, column * BK, keys, vs, k_order, K_ORDERED)
        dq = _query_share(
            dq, q, dout, level, delta, k_rows, v_rows, kd, vd, k_inside, keep, factor,
            D, DV, BD, BDV, True, PRECISION,
        )  # fmt: skip

    dq *= scale
    if SPLIT:
        slot = tl.load(items + item * ITEM + 5)
        if slot >= 0:
            at = ((b * heads + h) * slots + slot) * BQ + queries
            tl.store(PartQ + at[:, None] * D + d, dq, mask=d < D)
            return
    tl.store(GradQ + vector[:, None] * D + d, dq, mask=inside[:, None] & (d < D))


@triton.jit
def _key_share(
    dk, dv, k, v, q_rows, g_rows, level, delta, qd, gd, inside, keep, scale,
    D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr,
    MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dk, but for the scale, and dv, plus what one query tile contributes to them. Scores lie transposed."""
    tall, wide = tl.arange(0, BD)[:, None], tl.arange(0, BDV)[None, :]
    sees = None
    if MASKED:  # a gradient that reaches a query without a key goes no further
        inside, sees = inside[None, :], (level != float("inf"))[:, None]
    q = fetch(q_rows[None, :] + tall * qd, inside, tall, D, BD, MASKED)
    dout = fetch(g_rows[:, None] + wide * gd, sees, wide, DV, BDV, MASKED)
    scores = tl.dot(k, q, input_precision=PRECISION)
    distance = scores * scale - level[None, :]
    if MASKED:
        distance = tl.where(keep, distance, float("-inf"))
    weights = tl.exp2(distance)
    dv = tl.dot(weights.to(dout.dtype), dout, dv, input_precision=PRECISION)
    dweights = tl.dot(v, tl.trans(dout), input_precision=PRECISION)
    dscores = weights * (dweights - delta[None, :])
    dk = tl.dot(dscores.to(q.dtype), tl.trans(q), dk, input_precision=PRECISION)
    return dk, dv


@triton.jit(do_not_specialize=["q_len", "k_len", "at_once", "width", "slots"])
def backward_keys(
    Q, K, V, GradOut, Level, Delta, GradK, GradV, PartK, PartV,
    qb, qh, qs, qd, kb, kh, ks, kd, vb, vh, vs, vd, gb, gh, gs, gd,
    items, first_items, plan_of, plan_batch, plan_head, full, partial, mask_ids, masks,
    constants, n_constants, tables, q_order, k_order,
    q_len, k_len, kv_heads, at_once, width, slots, scale,
    GROUP: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr,
    QUERY_TERMS: tl.constexpr, KEY_TERMS: tl.constexpr, KEEP: tl.constexpr,
    Q_ORDERED: tl.constexpr, K_ORDERED: tl.constexpr,
):  # fmt: skip
    """GradK [B, Hkv, K, D] and GradV [B, Hkv, K, DV], contiguous, or their shares.

    An entry of ``full`` and ``partial`` is query tile * GROUP + query head within the group.
    """
    batch, kv_head, plan, item, exists = deal(
        first_items, plan_of, plan_batch, plan_head, at_once, width, kv_heads
    )
    if not exists:
        return
    if Q_ORDERED:
        q_order += plan * (tl.cdiv(q_len, BQ) * BQ)
    if K_ORDERED:
        k_order += plan * (tl.cdiv(k_len, BK) * BK)
    tile = tl.load(items + item * ITEM)
    full_first, full_last = tl.load(items + item * ITEM + 1), tl.load(items + item * ITEM + 2)
    part_first, part_last = tl.load(items + item * ITEM + 3), tl.load(items + item * ITEM + 4)

    queries, keys = tl.arange(0, BQ), tl.arange(0, BK)
    d, wide = tl.arange(0, BD)[None, :], tl.arange(0, BDV)[None, :]
    b, h = batch.to(tl.int64), kv_head.to(tl.int64)
    inside = tile * BK + keys < k_len
    k_rows = addresses(K + b * kb + h * kh, tile * BK, keys, ks, k_order, K_ORDERED)
    v_rows = addresses(V + b * vb + h * vh, tile * BK, keys, vs, k_order, K_ORDERED)
    k = fetch(k_rows[:, None] + d * kd, inside[:, None], d, D, BD, True)
    v = fetch(v_rows[:, None] + wide * vd, inside[:, None], wide, DV, BDV, True)
    factor = scale * 1.4426950408889634
    Q += b * qb + h * GROUP * qh
    GradOut += b * gb + h * GROUP * gh
    vectors = (b * kv_heads + h) * GROUP * q_len
    if KEEP is not None:
        constants += plan * n_constants
        k_terms = KEY_TERMS((tile * BK + keys)[:, None], constants, tables)

    dk = tl.zeros([BK, BD], tl.float32)
    dv = tl.zeros([BK, BDV], tl.float32)
    following = tl.load(full + full_first)
    for entry in range(full_first, full_last):
        row, member = following // GROUP * BQ, (following % GROUP).to(tl.int64)
        following = tl.load(full + entry + 1)
        vector = addresses(vectors + member * q_len, row, queries, 1, q_order, Q_ORDERED)
        q_rows = addresses(Q + member * qh, row, queries, qs, q_order, Q_ORDERED)
        g_rows = addresses(GradOut + member * gh, row, queries, gs, q_order, Q_ORDERED)
        dk, dv = _key_share(
            dk, dv, k, v, q_rows, g_rows, tl.load(Level + vector), tl.load(Delta + vector),
            qd, gd, None, None, factor, D, DV, BD, BDV, False, PRECISION,
        )  # fmt: skip

    following = tl.load(partial + part_first)
    for entry in range(part_first, part_last):
        row, member = following // GROUP * BQ, (following % GROUP).to(tl.int64)
        following = tl.load(partial + entry + 1)
        q_inside = row + queries < q_len
        if KEEP is None:
            mask = tl.load(mask_ids + entry)
            keep = unpack(masks, mask, queries[None, :], keys[:, None], BQ, BK)
        else:
            q_terms = QUERY_TERMS((row + queries)[None, :], constants, tables)
            keep = KEEP(q_terms, k_terms) & q_inside[None, :]
        vector = addresses(vectors + member * q_len, row, queries, 1, q_order, Q_ORDERED)
        q_rows = addresses(Q + member * qh, row, queries, qs, q_order, Q_ORDERED)
        g_rows = addresses(GradOut + member * gh, row, queries, gs, q_order, Q_ORDERED)
        level = tl.load(Level + vector, mask=q_inside, other=float("inf"))
        delta = tl.load(Delta + vector, mask=q_inside, other=0.0)
        dk, dv = _key_share(
            dk, dv, k, v, q_rows, g_rows, level, delta,
            qd, gd, q_inside, keep, factor, D, DV, BD, BDV, True, PRECISION,
        )  # fmt: skip

    dk *= scale
    if SPLIT:
        slot = tl.load(items + item * ITEM + 5)
        if slot >= 0:
            at = ((b * kv_heads + h) * slots + slot) * BK + keys
            tl.store(PartK + at[:, None] * D + d, dk, mask=d < D)
            tl.store(PartV + at[:, None] * DV + wide, dv, mask=wide < DV)
            return
    at = addresses((b * kv_heads + h) * k_len, tile * BK, keys, 1, k_order, K_ORDERED)
    tl.store(GradK + at[:, None] * D + d, dk, mask=inside[:, None] & (d < D))
    tl.store(GradV + at[:, None] * DV + wide, dv, mask=inside[:, None] & (wide < DV))
