"""Backward in two passes that write each gradient once: no atomics, equal bits on every run.

With P = exp(S - lse), dP = dOut Vᵀ and delta = rowsum(dOut * Out) - dLse:

    dV = Pᵀ dOut,   dS = P * (dP - delta),   dQ = scale dS K,   dK = scale dSᵀ Q

``backward_queries`` walks the key tiles of a query tile, ``backward_keys`` the query tiles of a key tile,
over all query heads that share the key head. Both recompute P (Dao et al. 2022).

With scores t of their own, P = exp(t - lse) and dT = P * (dP - delta); or, where t is the weight itself, P = t and
dT = dP. DERIVATIVES gives t, its derivative by the scaled product s, dS = dT * dt/ds, and by leaves x: what a column of
the query or the key gains is the sum of dT * dt/dx over its row; ``backward_pairs`` gives sums over tiles for others.
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
    dq, dx, q, dout, level, delta, K, V, first, ks, kd, vs, vd, order, inside, keep, scale, scored,
    D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr,
    BK: tl.constexpr, ORDERED: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
    OF_KEY: tl.constexpr, DERIVATIVES: tl.constexpr, WEIGHS: tl.constexpr, GAINS: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """dq, but for the scale, and dx, plus what one key tile contributes to them."""
    d, dv, keys = tl.arange(0, BD)[:, None], tl.arange(0, BDV)[:, None], tl.arange(0, BK)[None, :]
    EDGED: tl.constexpr = inside is not None
    if EDGED:
        inside = inside[None, :]
    k = fetch(addresses(K, first, keys, ks, d, kd, order, ORDERED), inside, d, D, BD, EDGED)
    v = fetch(addresses(V, first, keys, vs, dv, vd, order, ORDERED), inside, dv, DV, BDV, EDGED)
    scores = tl.dot(q, k, input_precision=PRECISION)
    if DERIVATIVES is not None:
        numbers, x, of_key, of_distance, reals, both, k_len = scored
        looked_at = positions(first, keys, order, ORDERED)
        y = OF_KEY(of_key, numbers, both, looked_at, k_len)
        found = DERIVATIVES(scores * scale, x, y, of_distance, reals, numbers, both)
        scores, scale = found[0], 1.4426950408889634
    if not WEIGHS:
        distance = scores * scale - level[:, None]
        if MASKED:
            distance = tl.where(keep, distance, float("-inf"))
        weights = tl.exp2(distance)
    dscores = tl.dot(dout, v, input_precision=PRECISION)
    if not WEIGHS:
        dscores = weights * (dscores - delta[:, None])
    if DERIVATIVES is not None:
        lanes = tl.arange(0, WIDE)[None, :]
        for i in tl.static_range(GAINS):
            share = tl.sum(_live(dscores * found[2 + i], keep, MASKED), 1)
            dx += tl.where(lanes == i, share[:, None], 0.0)
        dscores = _live(dscores * found[1], keep, MASKED)
    dq = tl.dot(dscores.to(k.dtype), tl.trans(k), dq, input_precision=PRECISION)
    return dq, dx


@triton.jit
def _bounded(at, inside, other):
    """A vector, with another number for what is not ``inside``, if anything is not."""
    if inside is not None:
        return tl.load(at, mask=inside, other=other)
    else:
        return tl.load(at)


@triton.jit
def _live(gain, keep, MASKED: tl.constexpr):
    """The gain with 0 for pairs that are not live, where a derivative may be no number."""
    if MASKED:
        return tl.where(keep, gain, 0.0)
    else:
        return gain


@triton.jit(do_not_specialize=["q_len", "k_len", "at_once", "width", "slots"])
def backward_queries(
    Q, K, V, GradOut, Level, Delta, GradQ, PartQ, OfQuery, OfKey, OfDistance, Reals,
    Numbers, GradX, PartX, scale,
    qb, qh, qs, qd, kb, kh, ks, kd, vb, vh, vs, vd, gb, gh, gs, gd,
    items, first_items, plan_of, plan_batch, plan_head, full, partial, mask_ids, masks,
    constants, n_constants, tables, q_order, k_order,
    q_len, k_len, heads, at_once, width, slots,
    GROUP: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr,
    CONSTANTS: tl.constexpr, QUERY_TERMS: tl.constexpr, KEY_TERMS: tl.constexpr, KEEP: tl.constexpr,
    Q_ORDERED: tl.constexpr, K_ORDERED: tl.constexpr, NUMBERS: tl.constexpr, OF_QUERY: tl.constexpr,
    OF_KEY: tl.constexpr, DERIVATIVES: tl.constexpr, WEIGHS: tl.constexpr, GAINS: tl.constexpr,
    WIDE: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """GradQ [B, H, Q, D], contiguous, or its shares where the work of a query tile is split.

    GradX [B, H, Q, GAINS] is written likewise, of the first columns of the queries; WIDE is a power of two. EVEN: the
    keys fill their tiles.
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
    inside = tile * BQ + queries < q_len
    heads_before = b * heads + h
    at = addresses(heads_before * q_len, tile * BQ, queries, 1, 0, 0, q_order, Q_ORDERED)
    level = tl.load(Level + at, mask=inside, other=float("inf"))
    delta = tl.load(Delta + at, mask=inside, other=0.0)
    rows = queries[:, None]
    at = addresses(Q + b * qb + h * qh, tile * BQ, rows, qs, d, qd, q_order, Q_ORDERED)
    q = fetch(at, inside[:, None], d, D, BD, True)
    at = addresses(GradOut + b * gb + h * gh, tile * BQ, rows, gs, dv, gd, q_order, Q_ORDERED)
    dout = fetch(at, (level != float("inf"))[:, None], dv, DV, BDV, True)
    factor, scored = scale * 1.4426950408889634, None
    if DERIVATIVES is not None:
        factor, score_terms = scale, NUMBERS(Numbers)
        at = positions(tile * BQ, queries[:, None], q_order, Q_ORDERED)
        x = OF_QUERY(OfQuery, score_terms, heads_before, at, q_len)
        scored = score_terms, x, OfKey, OfDistance, Reals, heads_before, k_len
    K += b * kb + kv_head * kh
    V += b * vb + kv_head * vh

    dq = tl.zeros([BQ, BD], tl.float32)
    dx = tl.zeros([BQ, WIDE], tl.float32)  # always: loops of older Triton carry no None
    following = tl.load(full + full_first)
    for entry in range(full_first, full_last):
        column = following
        following = tl.load(full + entry + 1)
        dq, dx = _query_share(
            dq, dx, q=q, dout=dout, level=level, delta=delta, K=K, V=V, first=column * BK, ks=ks, kd=kd,
            vs=vs, vd=vd, order=k_order, inside=None, keep=None, scale=factor, scored=scored, D=D, DV=DV, BD=BD,
            BDV=BDV, BK=BK, ORDERED=K_ORDERED, MASKED=False, PRECISION=PRECISION, OF_KEY=OF_KEY,
            DERIVATIVES=DERIVATIVES, WEIGHS=WEIGHS, GAINS=GAINS, WIDE=WIDE,
        )  # fmt: skip

    if KEEP is not None:
        numbers = CONSTANTS(constants + plan * n_constants)
        seen_from = positions(tile * BQ, queries[:, None], q_order, Q_ORDERED)
        q_terms = QUERY_TERMS(numbers, tables, seen_from)
    following = tl.load(partial + part_first)
    for entry in range(part_first, part_last):
        column = following
        following = tl.load(partial + entry + 1)
        k_inside = None if EVEN else column * BK + keys < k_len
        if KEEP is None:
            mask = tl.load(mask_ids + entry)
            keep = unpack(masks, mask, queries[:, None], keys[None, :], BQ, BK)
        else:
            looked_at = positions(column * BK, keys[None, :], k_order, K_ORDERED)
            k_terms = KEY_TERMS(numbers, tables, looked_at)
            keep = KEEP(numbers, q_terms, k_terms)
            if not EVEN:
                keep = keep & k_inside[None, :]
        dq, dx = _query_share(
            dq, dx, q=q, dout=dout, level=level, delta=delta, K=K, V=V, first=column * BK, ks=ks, kd=kd,
            vs=vs, vd=vd, order=k_order, inside=k_inside, keep=keep, scale=factor, scored=scored, D=D, DV=DV, BD=BD,
            BDV=BDV, BK=BK, ORDERED=K_ORDERED, MASKED=True, PRECISION=PRECISION, OF_KEY=OF_KEY,
            DERIVATIVES=DERIVATIVES, WEIGHS=WEIGHS, GAINS=GAINS, WIDE=WIDE,
        )  # fmt: skip

    dq *= scale
    if SPLIT:
        slot = tl.load(items + item * ITEM + 5)
        if slot >= 0:
            share = (heads_before * slots + slot) * BQ + rows
            tl.store(PartQ + share * D + d, dq, mask=d < D)
            if GAINS > 0:
                lanes = tl.arange(0, WIDE)[None, :]
                tl.store(PartX + share * GAINS + lanes, dx, mask=lanes < GAINS)
            return
    at = addresses(GradQ + heads_before * q_len * D, tile * BQ, rows, D, d, 1, q_order, Q_ORDERED)
    tl.store(at, dq, mask=inside[:, None] & (d < D))
    if GAINS > 0:
        lanes = tl.arange(0, WIDE)[None, :]
        before = heads_before * q_len * GAINS
        at = addresses(GradX + before, tile * BQ, rows, GAINS, lanes, 1, q_order, Q_ORDERED)
        tl.store(at, dx, mask=inside[:, None] & (lanes < GAINS))


@triton.jit
def _key_share(
    dk, dv, dx, k, v, Q, GradOut, Level, Delta, first, qs, qd, gs, gd, order, inside, keep, scale, scored, both,
    D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr,
    BQ: tl.constexpr, ORDERED: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
    OF_QUERY: tl.constexpr, OF_KEY: tl.constexpr, DERIVATIVES: tl.constexpr, WEIGHS: tl.constexpr,
    GAINS: tl.constexpr, WIDE: tl.constexpr, BEFORE: tl.constexpr,
):  # fmt: skip
    """dk, but for the scale, dv and dx, plus what one query tile contributes to them. Scores lie transposed.

    Level and Delta are read where they are used: a vector along the second axis takes many registers.
    """
    tall, wide, queries = tl.arange(0, BD)[:, None], tl.arange(0, BDV)[None, :], tl.arange(0, BQ)
    place = addresses(0, first, queries, 1, 0, 0, order, ORDERED)
    tall_sees, sees = None, None
    if MASKED:
        # whatever a query without a key holds, and the gradient that reaches it, go no further
        level = _bounded(Level + place, inside, float("inf"))
        tall_sees, sees = (level != float("inf"))[None, :], (level != float("inf"))[:, None]
    at = addresses(Q, first, queries[None, :], qs, tall, qd, order, ORDERED)
    q = fetch(at, tall_sees, tall, D, BD, MASKED)
    at = addresses(GradOut, first, queries[:, None], gs, wide, gd, order, ORDERED)
    dout = fetch(at, sees, wide, DV, BDV, MASKED)
    scores = tl.dot(k, q, input_precision=PRECISION)
    if not MASKED:
        level = tl.load(Level + place)
    if DERIVATIVES is not None:
        numbers, OfQuery, OfKey, of_distance, reals, q_len, k_len, k_at = scored
        y = OF_KEY(OfKey, numbers, both, k_at, k_len)
        seen_from = positions(first, queries[None, :], order, ORDERED)
        x = OF_QUERY(OfQuery, numbers, both, seen_from, q_len)
        found = DERIVATIVES(scores * scale, x, y, of_distance, reals, numbers, both)
        scores, scale = found[0], 1.4426950408889634
    if WEIGHS:
        weights = _live(scores, keep, MASKED)
    else:
        distance = scores * scale - level[None, :]
        if MASKED:
            distance = tl.where(keep, distance, float("-inf"))
        weights = tl.exp2(distance)
    dv = tl.dot(weights.to(dout.dtype), dout, dv, input_precision=PRECISION)
    dscores = tl.dot(v, tl.trans(dout), input_precision=PRECISION)
    if not WEIGHS:
        delta = _bounded(Delta + place, inside, 0.0)
        dscores = weights * (dscores - delta[None, :])
    if DERIVATIVES is not None:
        lanes = tl.arange(0, WIDE)[None, :]
        for i in tl.static_range(GAINS):
            share = tl.sum(_live(dscores * found[2 + BEFORE + i], keep, MASKED), 1)
            dx += tl.where(lanes == i, share[:, None], 0.0)
        dscores = _live(dscores * found[1], keep, MASKED)
    dk = tl.dot(dscores.to(q.dtype), tl.trans(q), dk, input_precision=PRECISION)
    return dk, dv, dx


@triton.jit(do_not_specialize=["q_len", "k_len", "at_once", "width", "slots"])
def backward_keys(
    Q, K, V, GradOut, Level, Delta, GradK, GradV, PartK, PartV, OfQuery, OfKey, OfDistance,
    Reals, Numbers, GradX, PartX, scale,
    qb, qh, qs, qd, kb, kh, ks, kd, vb, vh, vs, vd, gb, gh, gs, gd,
    items, first_items, plan_of, plan_batch, plan_head, full, partial, mask_ids, masks,
    constants, n_constants, tables, q_order, k_order,
    q_len, k_len, kv_heads, at_once, width, slots,
    GROUP: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr,
    CONSTANTS: tl.constexpr, QUERY_TERMS: tl.constexpr, KEY_TERMS: tl.constexpr, KEEP: tl.constexpr,
    Q_ORDERED: tl.constexpr, K_ORDERED: tl.constexpr, NUMBERS: tl.constexpr, OF_QUERY: tl.constexpr,
    OF_KEY: tl.constexpr, DERIVATIVES: tl.constexpr, WEIGHS: tl.constexpr, GAINS: tl.constexpr,
    WIDE: tl.constexpr, BEFORE: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """GradK [B, Hkv, K, D] and GradV [B, Hkv, K, DV], contiguous, or their shares.

    GradX [B, Hkv, K, GAINS] is written likewise, of the first columns of the keys, with GROUP 1; the derivatives by
    BEFORE columns come before those by these.

    An entry of ``full`` and ``partial`` is query tile * GROUP + query head within the group. EVEN: the queries fill
    their tiles.
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
    tile, full_first, full_last, part_first, part_last = stretches(items, item)

    queries, keys = tl.arange(0, BQ), tl.arange(0, BK)
    d, wide = tl.arange(0, BD)[None, :], tl.arange(0, BDV)[None, :]
    b, h = batch.to(tl.int64), kv_head.to(tl.int64)
    inside = tile * BK + keys < k_len
    rows = keys[:, None]
    at = addresses(K + b * kb + h * kh, tile * BK, rows, ks, d, kd, k_order, K_ORDERED)
    k = fetch(at, inside[:, None], d, D, BD, True)
    at = addresses(V + b * vb + h * vh, tile * BK, rows, vs, wide, vd, k_order, K_ORDERED)
    v = fetch(at, inside[:, None], wide, DV, BDV, True)
    factor, scored = scale * 1.4426950408889634, None
    if DERIVATIVES is not None:
        factor, k_at = scale, positions(tile * BK, keys[:, None], k_order, K_ORDERED)
        scored = NUMBERS(Numbers), OfQuery, OfKey, OfDistance, Reals, q_len, k_len, k_at
    Q += b * qb + h * GROUP * qh
    GradOut += b * gb + h * GROUP * gh
    before = (b * kv_heads + h) * GROUP
    vectors = before * q_len

    dk = tl.zeros([BK, BD], tl.float32)
    dv = tl.zeros([BK, BDV], tl.float32)
    dx = tl.zeros([BK, WIDE], tl.float32)  # always: loops of older Triton carry no None
    following = tl.load(full + full_first)
    for entry in range(full_first, full_last):
        row, member = following // GROUP * BQ, (following % GROUP).to(tl.int64)
        following = tl.load(full + entry + 1)
        vector = vectors + member * q_len
        dk, dv, dx = _key_share(
            dk, dv, dx, k=k, v=v, Q=Q + member * qh, GradOut=GradOut + member * gh, Level=Level + vector,
            Delta=Delta + vector, first=row, qs=qs, qd=qd, gs=gs, gd=gd, order=q_order,
            inside=None, keep=None, scale=factor, scored=scored, both=before + member, D=D, DV=DV,
            BD=BD, BDV=BDV, BQ=BQ, ORDERED=Q_ORDERED, MASKED=False, PRECISION=PRECISION,
            OF_QUERY=OF_QUERY, OF_KEY=OF_KEY, DERIVATIVES=DERIVATIVES, WEIGHS=WEIGHS, GAINS=GAINS,
            WIDE=WIDE, BEFORE=BEFORE,
        )  # fmt: skip

    if KEEP is not None:
        numbers = CONSTANTS(constants + plan * n_constants)
        looked_at = positions(tile * BK, keys[:, None], k_order, K_ORDERED)
        k_terms = KEY_TERMS(numbers, tables, looked_at)
    following = tl.load(partial + part_first)
    for entry in range(part_first, part_last):
        row, member = following // GROUP * BQ, (following % GROUP).to(tl.int64)
        following = tl.load(partial + entry + 1)
        q_inside = None if EVEN else row + queries < q_len
        if KEEP is None:
            mask = tl.load(mask_ids + entry)
            keep = unpack(masks, mask, queries[None, :], keys[:, None], BQ, BK)
        else:
            seen_from = positions(row, queries[None, :], q_order, Q_ORDERED)
            q_terms = QUERY_TERMS(numbers, tables, seen_from)
            keep = KEEP(numbers, q_terms, k_terms)
            if not EVEN:
                keep = keep & q_inside[None, :]
        vector = vectors + member * q_len
        dk, dv, dx = _key_share(
            dk, dv, dx, k=k, v=v, Q=Q + member * qh, GradOut=GradOut + member * gh, Level=Level + vector,
            Delta=Delta + vector, first=row, qs=qs, qd=qd, gs=gs, gd=gd, order=q_order,
            inside=q_inside, keep=keep, scale=factor, scored=scored, both=before + member, D=D, DV=DV,
            BD=BD, BDV=BDV, BQ=BQ, ORDERED=Q_ORDERED, MASKED=True, PRECISION=PRECISION,
            OF_QUERY=OF_QUERY, OF_KEY=OF_KEY, DERIVATIVES=DERIVATIVES, WEIGHS=WEIGHS, GAINS=GAINS,
            WIDE=WIDE, BEFORE=BEFORE,
        )  # fmt: skip

    dk *= scale
    if SPLIT:
        slot = tl.load(items + item * ITEM + 5)
        if slot >= 0:
            share = ((b * kv_heads + h) * slots + slot) * BK + rows
            tl.store(PartK + share * D + d, dk, mask=d < D)
            tl.store(PartV + share * DV + wide, dv, mask=wide < DV)
            if GAINS > 0:
                lanes = tl.arange(0, WIDE)[None, :]
                tl.store(PartX + share * GAINS + lanes, dx, mask=lanes < GAINS)
            return
    before = (b * kv_heads + h) * k_len
    at = addresses(GradK + before * D, tile * BK, rows, D, d, 1, k_order, K_ORDERED)
    tl.store(at, dk, mask=inside[:, None] & (d < D))
    at = addresses(GradV + before * DV, tile * BK, rows, DV, wide, 1, k_order, K_ORDERED)
    tl.store(at, dv, mask=inside[:, None] & (wide < DV))
    if GAINS > 0:
        lanes = tl.arange(0, WIDE)[None, :]
        at = addresses(GradX + before * GAINS, tile * BK, rows, GAINS, lanes, 1, k_order, K_ORDERED)
        tl.store(at, dx, mask=inside[:, None] & (lanes < GAINS))
