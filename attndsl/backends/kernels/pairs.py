"""Gains of what scores read at pairs: sums over tiles, a block [BQ, BK] each, with nothing else between them."""

import triton
import triton.language as tl

from attndsl.backends.kernels.tiles import addresses, fetch, positions, unpack

TILE = tl.constexpr(3)  # a tile is three int32: of queries, of keys, its mask, -1 if it is FULL


@triton.jit(do_not_specialize=["q_len", "k_len", "most", "batches", "blocks"])
def backward_pairs(
    Q, K, V, GradOut, Level, Delta, OfQuery, OfKey, OfDistance, Reals, Numbers, Blocks, scale,
    qb, qh, qs, qd, kb, kh, ks, kd, vb, vh, vs, vd, gb, gh, gs, gd,
    tiles, stretches, plan_of, plan_batch, plan_head, masks, q_order, k_order,
    q_len, k_len, heads, most, batches, blocks,
    GROUP: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr, Q_ORDERED: tl.constexpr,
    K_ORDERED: tl.constexpr, NUMBERS: tl.constexpr, OF_QUERY: tl.constexpr, OF_KEY: tl.constexpr,
    DERIVATIVES: tl.constexpr, WEIGHS: tl.constexpr, GAINS: tl.constexpr, BEFORE: tl.constexpr,
):  # fmt: skip
    """Blocks [GAINS, batch elements, H, blocks, BQ, BK]: of each derivative the gains of a stretch of tiles, added up.

    ``stretches`` [plans, most, 2] are first and last tile of each block. Program (block, head, batch element) adds up
    the tiles of one, in order. BEFORE derivatives come before these.
    """
    block, h, b = tl.program_id(0), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    plan = tl.load(plan_of + b * plan_batch + h * plan_head)
    if Q_ORDERED:
        q_order += plan * (tl.cdiv(q_len, BQ) * BQ)
    if K_ORDERED:
        k_order += plan * (tl.cdiv(k_len, BK) * BK)
    both, kv_head = b * heads + h, h // GROUP
    numbers, factor = NUMBERS(Numbers), 1.4426950408889634
    queries, keys = tl.arange(0, BQ), tl.arange(0, BK)
    rows, columns = queries[:, None], keys[None, :]
    d, dv = tl.arange(0, BD), tl.arange(0, BDV)
    first = tl.load(stretches + (plan * most + block) * 2)
    last = tl.load(stretches + (plan * most + block) * 2 + 1)
    for i in tl.static_range(GAINS):
        total = tl.zeros([BQ, BK], tl.float32)
        for entry in range(first, last):
            row, column = tl.load(tiles + entry * TILE) * BQ, tl.load(tiles + entry * TILE + 1) * BK
            mask = tl.load(tiles + entry * TILE + 2)
            q_inside, k_inside = row + queries < q_len, column + keys < k_len
            at = addresses(both * q_len, row, queries, 1, 0, 0, q_order, Q_ORDERED)
            level = tl.load(Level + at, mask=q_inside, other=float("inf"))
            delta = tl.load(Delta + at, mask=q_inside, other=0.0)
            sees = (level != float("inf"))[:, None]
            at = addresses(Q + b * qb + h * qh, row, rows, qs, d[None, :], qd, q_order, Q_ORDERED)
            q = fetch(at, sees, d[None, :], D, BD, True)
            at = addresses(
                GradOut + b * gb + h * gh, row, rows, gs, dv[None, :], gd, q_order, Q_ORDERED
            )
            dout = fetch(at, sees, dv[None, :], DV, BDV, True)
            at = addresses(
                K + b * kb + kv_head * kh, column, columns, ks, d[:, None], kd, k_order, K_ORDERED
            )
            k = fetch(at, k_inside[None, :], d[:, None], D, BD, True)
            at = addresses(
                V + b * vb + kv_head * vh, column, columns, vs, dv[:, None], vd, k_order, K_ORDERED
            )
            v = fetch(at, k_inside[None, :], dv[:, None], DV, BDV, True)
            x = OF_QUERY(OfQuery, numbers, both, positions(row, rows, q_order, Q_ORDERED), q_len)
            y = OF_KEY(OfKey, numbers, both, positions(column, columns, k_order, K_ORDERED), k_len)
            scores = tl.dot(q, k, input_precision=PRECISION) * scale
            found = DERIVATIVES(scores, x, y, OfDistance, Reals, numbers, both)
            keep = (mask < 0) | unpack(masks, tl.maximum(mask, 0), rows, columns, BQ, BK)
            gain = tl.dot(dout, v, input_precision=PRECISION)
            if not WEIGHS:
                distance = tl.where(keep, found[0] * factor - level[:, None], float("-inf"))
                gain = tl.exp2(distance) * (gain - delta[:, None])
            total += tl.where(keep, gain * found[2 + BEFORE + i], 0.0)
        place = ((i * batches + b) * heads + h) * blocks + block
        tl.store(Blocks + place * (BQ * BK) + rows * BK + columns, total)
