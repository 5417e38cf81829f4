"""Stick-breaking: keys are taken from the last one back, and what they leave of the stick is carried on.

With t the score of a pair and s = sigmoid(t), of the keys of a query in order,

    w_j = s_j * prod_{m > j} (1 - s_m)
    dt_m = w_m dw_m - s_m * sum_{j <= m} w_j dw_j          dw = dout vᵀ

(Tan et al., 2024). A tile needs two numbers of each query from the keys behind it: the logarithm of what is left, and
the sum of w dw, whose whole is rowsum(dout * out). ``stick_backward_queries`` writes both for each tile, and
``stick_backward_keys`` reads them. No atomics, and sums in a fixed order.

A tile is four int32: of queries, of keys, its mask, -1 if it is FULL, and its number. All tiles of the same queries
follow each other from the last key back; ``stretches`` [plans, blocks, 2] say which have the same queries, or keys.
"""

import triton
import triton.language as tl

from attndsl.backends.kernels.tiles import addresses, fetch, unpack

STICK_TILE = tl.constexpr(4)
# Logarithms that far down are 0, and those above are exact in float32 to a hundred thousandth.
SPENT = tl.constexpr(-200.0)


@triton.jit
def _stretch(stretches, plan_of, plan_batch, plan_head, count, block, h, b):
    """First and last tile of this block of this head."""
    plan = tl.load(plan_of + b * plan_batch + h * plan_head)
    at = stretches + (plan * count + block) * 2
    return tl.load(at), tl.load(at + 1)


@triton.jit
def _live(tiles, masks, entry, rows, columns, q_len, k_len, BQ: tl.constexpr, BK: tl.constexpr):
    """First query and first key of a tile, and which of its pairs there are."""
    row = tl.load(tiles + entry * STICK_TILE) * BQ
    column = tl.load(tiles + entry * STICK_TILE + 1) * BK
    mask = tl.load(tiles + entry * STICK_TILE + 2)
    keep = (mask < 0) | unpack(masks, tl.maximum(mask, 0), rows, columns, BQ, BK)
    return row, column, keep & (row + rows < q_len) & (column + columns < k_len)


@triton.jit
def _broken(scores, keep, rest):
    """Scores, weights, and what the keys of a tile leave of ``rest``, as logarithms of it."""
    scores = tl.where(keep, scores, 0.0)
    e = tl.exp(-tl.abs(scores))
    one = 1.0 + e
    bent = tl.where(one == 1.0, e, tl.log(one) * (e / tl.where(one == 1.0, 1.0, one - 1.0)))
    left = tl.where(keep, tl.maximum(-(tl.maximum(scores, 0.0) + bent), SPENT), 0.0)
    whole = tl.cumsum(left, 1, reverse=True)
    logs = tl.minimum(scores, 0.0) - bent + (whole - left) + rest[:, None]
    weights = tl.where(keep, tl.exp(logs), 0.0)
    return scores, weights, tl.maximum(rest + tl.sum(left, 1), SPENT)


@triton.jit
def _slopes(scores, weights, dw, whole, before):
    """The gains of scores, and the sum of w dw of the keys of this tile and those behind it."""
    gain = weights * dw
    behind = tl.cumsum(gain, 1, reverse=True) - gain
    upto = whole[:, None] - before[:, None] - behind
    return gain - upto / (1.0 + tl.exp(-scores)), before + tl.sum(gain, 1)


@triton.jit(do_not_specialize=["q_len", "k_len", "count"])
def stick_forward(
    Q, K, V, Out, Lse, OfQuery, OfKey, OfDistance, Reals, Numbers, scale,
    qb, qh, qs, qd, kb, kh, ks, kd, vb, vh, vs, vd,
    tiles, stretches, plan_of, plan_batch, plan_head, masks, q_len, k_len, heads, count,
    GROUP: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr, NUMBERS: tl.constexpr,
    OF_QUERY: tl.constexpr, OF_KEY: tl.constexpr, SCORE: tl.constexpr,
):  # fmt: skip
    """Out [B, H, Q, DV], and Lse [B, H, Q]: 0, and -inf for queries without keys."""
    block, h, b = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    both, kv_head = b * heads + h, h // GROUP
    queries, keys = tl.arange(0, BQ), tl.arange(0, BK)
    rows, columns = queries[:, None], keys[None, :]
    d, dv = tl.arange(0, BD), tl.arange(0, BDV)
    numbers, inside = NUMBERS(Numbers), block * BQ + queries < q_len
    at = addresses(Q + b * qb + h * qh, block * BQ, rows, qs, d[None, :], qd, None, False)
    q = fetch(at, inside[:, None], d[None, :], D, BD, True)
    x = OF_QUERY(OfQuery, numbers, both, block * BQ + rows, q_len)
    K += b * kb + kv_head * kh
    V += b * vb + kv_head * vh
    rest = tl.zeros([BQ], tl.float32)
    seen = tl.zeros([BQ], tl.float32)
    acc = tl.zeros([BQ, BDV], tl.float32)
    first, last = _stretch(stretches, plan_of, plan_batch, plan_head, count, block, h, b)
    for entry in range(first, last):
        _, column, keep = _live(tiles, masks, entry, rows, columns, q_len, k_len, BQ, BK)
        there = column + keys < k_len
        k = fetch(
            addresses(K, column, columns, ks, d[:, None], kd, None, False),
            there[None, :],
            d[:, None],
            D,
            BD,
            True,
        )
        y = OF_KEY(OfKey, numbers, both, column + columns, k_len)
        scores = tl.dot(q, k, input_precision=PRECISION) * scale
        scores = SCORE(scores, x, y, OfDistance, Reals, numbers, both)
        scores, weights, rest = _broken(scores, keep, rest)
        seen = tl.maximum(seen, tl.max(keep.to(tl.float32), 1))
        v = fetch(
            addresses(V, column, keys[:, None], vs, dv[None, :], vd, None, False),
            there[:, None],
            dv[None, :],
            DV,
            BDV,
            True,
        )
        acc = tl.dot(weights.to(v.dtype), v, acc, input_precision=PRECISION)
    place = both * q_len + block * BQ + queries
    tl.store(Lse + place, tl.where(seen > 0, 0.0, float("-inf")), mask=inside)
    at = Out + place[:, None] * DV + dv[None, :]
    tl.store(at, acc, mask=inside[:, None] & (dv < DV)[None, :])


@triton.jit(do_not_specialize=["q_len", "k_len", "count", "most"])
def stick_backward_queries(
    Q, K, V, GradOut, Whole, GradQ, GradX, Rest, Before, OfQuery, OfKey, OfDistance, Reals, Numbers, scale,
    qb, qh, qs, qd, kb, kh, ks, kd, vb, vh, vs, vd, gb, gh, gs, gd,
    tiles, stretches, plan_of, plan_batch, plan_head, masks, q_len, k_len, heads, count, most,
    GROUP: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr, NUMBERS: tl.constexpr,
    OF_QUERY: tl.constexpr, OF_KEY: tl.constexpr, DERIVATIVES: tl.constexpr, GAINS: tl.constexpr,
    WIDE: tl.constexpr,
):  # fmt: skip
    """GradQ [B, H, Q, D], GradX [B, H, Q, GAINS], and Rest and Before [B, H, most, BQ] of each tile by its number."""
    block, h, b = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    both, kv_head = b * heads + h, h // GROUP
    queries, keys = tl.arange(0, BQ), tl.arange(0, BK)
    rows, columns = queries[:, None], keys[None, :]
    d, dv, lanes = tl.arange(0, BD), tl.arange(0, BDV), tl.arange(0, WIDE)[None, :]
    numbers, inside = NUMBERS(Numbers), block * BQ + queries < q_len
    place = both * q_len + block * BQ + queries
    at = addresses(Q + b * qb + h * qh, block * BQ, rows, qs, d[None, :], qd, None, False)
    q = fetch(at, inside[:, None], d[None, :], D, BD, True)
    at = addresses(GradOut + b * gb + h * gh, block * BQ, rows, gs, dv[None, :], gd, None, False)
    dout = fetch(at, inside[:, None], dv[None, :], DV, BDV, True)
    x = OF_QUERY(OfQuery, numbers, both, block * BQ + rows, q_len)
    whole = tl.load(Whole + place, mask=inside, other=0.0)
    K += b * kb + kv_head * kh
    V += b * vb + kv_head * vh
    rest = tl.zeros([BQ], tl.float32)
    before = tl.zeros([BQ], tl.float32)
    dq = tl.zeros([BQ, BD], tl.float32)
    dx = tl.zeros([BQ, WIDE], tl.float32)
    first, last = _stretch(stretches, plan_of, plan_batch, plan_head, count, block, h, b)
    for entry in range(first, last):
        _, column, keep = _live(tiles, masks, entry, rows, columns, q_len, k_len, BQ, BK)
        number = tl.load(tiles + entry * STICK_TILE + 3)
        tl.store(Rest + (both * most + number) * BQ + queries, rest)
        tl.store(Before + (both * most + number) * BQ + queries, before)
        there = (column + keys < k_len)[None, :]
        k = fetch(
            addresses(K, column, columns, ks, d[:, None], kd, None, False),
            there,
            d[:, None],
            D,
            BD,
            True,
        )
        v = fetch(
            addresses(V, column, columns, vs, dv[:, None], vd, None, False),
            there,
            dv[:, None],
            DV,
            BDV,
            True,
        )
        y = OF_KEY(OfKey, numbers, both, column + columns, k_len)
        scores = tl.dot(q, k, input_precision=PRECISION) * scale
        found = DERIVATIVES(scores, x, y, OfDistance, Reals, numbers, both)
        scores, weights, rest = _broken(found[0], keep, rest)
        dw = tl.dot(dout, v, input_precision=PRECISION)
        slopes, before = _slopes(scores, weights, dw, whole, before)
        for i in tl.static_range(GAINS):
            share = tl.sum(tl.where(keep, slopes * found[2 + i], 0.0), 1)
            dx += tl.where(lanes == i, share[:, None], 0.0)
        slopes = tl.where(keep, slopes * found[1], 0.0)
        dq = tl.dot(slopes.to(k.dtype), tl.trans(k), dq, input_precision=PRECISION)
    at = GradQ + place[:, None] * D + d[None, :]
    tl.store(at, dq * scale, mask=inside[:, None] & (d < D)[None, :])
    if GAINS > 0:
        tl.store(GradX + place[:, None] * GAINS + lanes, dx, mask=inside[:, None] & (lanes < GAINS))


@triton.jit(do_not_specialize=["q_len", "k_len", "count", "most"])
def stick_backward_keys(
    Q, K, V, GradOut, Whole, GradK, GradV, GradX, Rest, Before, OfQuery, OfKey, OfDistance, Reals, Numbers, scale,
    qb, qh, qs, qd, kb, kh, ks, kd, vb, vh, vs, vd, gb, gh, gs, gd,
    tiles, stretches, plan_of, plan_batch, plan_head, masks, q_len, k_len, heads, count, most,
    GROUP: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr, NUMBERS: tl.constexpr,
    OF_QUERY: tl.constexpr, OF_KEY: tl.constexpr, DERIVATIVES: tl.constexpr, GAINS: tl.constexpr,
    WIDE: tl.constexpr, PRECEDING: tl.constexpr,
):  # fmt: skip
    """GradK [B, H, K, D], GradV [B, H, K, DV] and GradX [B, H, K, GAINS], after PRECEDING derivatives."""
    block, h, b = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    both, kv_head = b * heads + h, h // GROUP
    queries, keys = tl.arange(0, BQ), tl.arange(0, BK)
    rows, columns = queries[:, None], keys[None, :]
    d, dv, lanes = tl.arange(0, BD), tl.arange(0, BDV), tl.arange(0, WIDE)[None, :]
    numbers, there = NUMBERS(Numbers), block * BK + keys < k_len
    K += b * kb + kv_head * kh
    V += b * vb + kv_head * vh
    at = addresses(K, block * BK, columns, ks, d[:, None], kd, None, False)
    k = fetch(at, there[None, :], d[:, None], D, BD, True)
    at = addresses(V, block * BK, columns, vs, dv[:, None], vd, None, False)
    v = fetch(at, there[None, :], dv[:, None], DV, BDV, True)
    y = OF_KEY(OfKey, numbers, both, block * BK + columns, k_len)
    dk = tl.zeros([BK, BD], tl.float32)
    dvs = tl.zeros([BK, BDV], tl.float32)
    dx = tl.zeros([BK, WIDE], tl.float32)
    first, last = _stretch(stretches, plan_of, plan_batch, plan_head, count, block, h, b)
    for entry in range(first, last):
        row, _, keep = _live(tiles, masks, entry, rows, columns, q_len, k_len, BQ, BK)
        number, inside = tl.load(tiles + entry * STICK_TILE + 3), row + queries < q_len
        rest = tl.load(Rest + (both * most + number) * BQ + queries)
        before = tl.load(Before + (both * most + number) * BQ + queries)
        whole = tl.load(Whole + both * q_len + row + queries, mask=inside, other=0.0)
        q = fetch(
            addresses(Q + b * qb + h * qh, row, rows, qs, d[None, :], qd, None, False),
            inside[:, None],
            d[None, :],
            D,
            BD,
            True,
        )
        dout = fetch(
            addresses(GradOut + b * gb + h * gh, row, rows, gs, dv[None, :], gd, None, False),
            inside[:, None],
            dv[None, :],
            DV,
            BDV,
            True,
        )
        x = OF_QUERY(OfQuery, numbers, both, row + rows, q_len)
        scores = tl.dot(q, k, input_precision=PRECISION) * scale
        found = DERIVATIVES(scores, x, y, OfDistance, Reals, numbers, both)
        scores, weights, rest = _broken(found[0], keep, rest)
        dvs = tl.dot(tl.trans(weights).to(dout.dtype), dout, dvs, input_precision=PRECISION)
        dw = tl.dot(dout, v, input_precision=PRECISION)
        slopes, before = _slopes(scores, weights, dw, whole, before)
        for i in tl.static_range(GAINS):
            share = tl.sum(tl.where(keep, slopes * found[2 + PRECEDING + i], 0.0), 0)
            dx += tl.where(lanes == i, share[:, None], 0.0)
        slopes = tl.where(keep, slopes * found[1], 0.0)
        dk = tl.dot(tl.trans(slopes).to(q.dtype), q, dk, input_precision=PRECISION)
    place = (both * k_len + block * BK + keys)[:, None]
    tl.store(GradK + place * D + d[None, :], dk * scale, mask=there[:, None] & (d < D)[None, :])
    tl.store(GradV + place * DV + dv[None, :], dvs, mask=there[:, None] & (dv < DV)[None, :])
    if GAINS > 0:
        tl.store(GradX + place * GAINS + lanes, dx, mask=there[:, None] & (lanes < GAINS))
