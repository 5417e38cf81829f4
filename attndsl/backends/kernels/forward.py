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
    paged,
    positions,
    stretches,
    unpack,
)


@triton.jit
def _absorb(
    acc, top, total, q, K, V, first, kb, ks, kd, vb, vs, vd, order, inside, keep, terms, scale,
    column_pages, n_pages, scored,
    D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr,
    BK: tl.constexpr, ORDERED: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
    KEEP: tl.constexpr, PAGE: tl.constexpr, CLEARS: tl.constexpr,
    OF_KEY: tl.constexpr, SCORE: tl.constexpr, WEIGHS: tl.constexpr,
):  # fmt: skip
    """Add the keys of one tile to a running softmax: weighted sum, maximum, sum of weights.

    With SCORE the scaled product becomes a score first; with WEIGHS that is the weight itself, ``total`` 1 once there
    is a key.

    KEEP judges pairs after the product: so many truths take registers that the product needs. ``inside`` None: all keys
    are there. With PAGE, a key in a page that is not there is none, in FULL tiles too.
    """
    BOUNDED: tl.constexpr = MASKED or PAGE > 0
    EDGED: tl.constexpr = PAGE > 0 or inside is not None
    wide, tall, keys = tl.arange(0, BDV)[None, :], tl.arange(0, BD)[:, None], tl.arange(0, BK)
    k_inside, v_inside = None, None
    if PAGE > 0:
        if inside is None:
            inside = keys >= 0
        k_page, v_page, place, inside = paged(
            K, V, first, keys, kb, vb, order, inside, column_pages, n_pages, ORDERED, PAGE, BK
        )
        if ORDERED or PAGE % BK != 0:
            k_page, v_page = k_page[None, :], v_page[:, None]
        k_at = k_page + (place[None, :] * ks + tall * kd)
        v_at = v_page + (place[:, None] * vs + wide * vd)
    else:
        k_at = addresses(K, first, keys[None, :], ks, tall, kd, order, ORDERED)
        v_at = addresses(V, first, keys[:, None], vs, wide, vd, order, ORDERED)
    if EDGED:
        k_inside, v_inside = inside[None, :], inside[:, None]
    k = fetch(k_at, k_inside, tall, D, BD, EDGED)
    scores = tl.dot(q, k, input_precision=PRECISION)
    if SCORE is not None:
        numbers, x, of_key, of_distance, reals, both, k_len = scored
        looked_at = positions(first, keys[None, :], order, ORDERED)
        y = OF_KEY(of_key, numbers, both, looked_at, k_len)
        scores = SCORE(scores * scale, x, y, of_distance, reals, numbers, both)
        scale = 1.4426950408889634
    if BOUNDED:
        if not MASKED:
            keep = k_inside
        elif KEEP is not None:
            keep = KEEP(terms[0], terms[1], terms[2])
            if EDGED:
                keep = keep & k_inside
        elif PAGE > 0:
            keep = keep & k_inside
        if CLEARS and MASKED:  # 0 times what is no number is none
            v_inside = v_inside & (tl.max(keep.to(tl.int32), 0) > 0)[:, None]
    if WEIGHS:
        weights, new = scores, tl.zeros_like(top)
        if BOUNDED:
            weights = tl.where(keep, scores, 0.0)
            some = tl.where(
                scores <= 0.0, 1.0, 2.0
            )  # read off the scores, or truths are held beside the product
            seen = tl.max(tl.where(keep, some, 0.0), 1) > 0.0
            new = tl.where(seen, 0.0, top)
            total = tl.where(seen, 1.0, total)
        else:
            total = tl.zeros_like(total) + 1.0
        decay = tl.zeros_like(total) + 1.0
    else:
        if BOUNDED:
            scores = tl.where(keep, scores, float("-inf"))
        new = tl.maximum(top, tl.max(scores, 1) * scale)
        level = new
        if BOUNDED or SCORE is not None:  # nothing seen yet: any finite level will do
            level = tl.where(new == float("-inf"), 0.0, new)
        weights = tl.exp2(scores * scale - level[:, None])
        decay = tl.exp2(top - level)
        total = total * decay + tl.sum(weights, 1)
    v = fetch(v_at, v_inside, wide, DV, BDV, EDGED)
    if v.dtype.is_fp8():
        v = v.to(tl.float16)  # exact; weights deserve more than three bits
    acc = tl.dot(weights.to(v.dtype), v, acc * decay[:, None], input_precision=PRECISION)
    return acc, new, total


@triton.jit(
    do_not_specialize=[
        "q_len", "k_len", "at_once", "width", "slots", "n_columns", "n_pages", "period",
    ]
)  # fmt: skip
def forward(
    Q, K, V, Out, Lse, PartOut, PartLse, PageTable, OfQuery, OfKey, OfDistance, Reals,
    Numbers, scale,
    qb, qh, qs, qd, kb, kh, ks, kd, vb, vh, vs, vd, ob, oh, os, od,
    items, first_items, plan_of, plan_batch, plan_head, full, partial, mask_ids, masks,
    constants, n_constants, tables, q_order, k_order,
    q_len, k_len, heads, at_once, width, slots, n_columns, n_pages, period,
    GROUP: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr, SPLIT: tl.constexpr, PRECISION: tl.constexpr,
    CONSTANTS: tl.constexpr, QUERY_TERMS: tl.constexpr, KEY_TERMS: tl.constexpr, KEEP: tl.constexpr,
    Q_ORDERED: tl.constexpr, K_ORDERED: tl.constexpr, PAGE: tl.constexpr, CLEARS: tl.constexpr,
    FOLDED: tl.constexpr, NUMBERS: tl.constexpr, OF_QUERY: tl.constexpr, OF_KEY: tl.constexpr,
    SCORE: tl.constexpr, WEIGHS: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """Out [B, H, Q, DV] and Lse [B, H, Q], or their shares in PartOut and PartLse where work is split.

    KEEP None: PARTIAL tiles read their masks from the bank; else they evaluate the predicate.
    PAGE: keys and values are [pages, heads, PAGE, width], and PageTable, int32 [B, n_columns], has the page of each
    PAGE rows; 0 where rows lie in a row. CLEARS: a key that no query of a PARTIAL tile sees may hold anything.
    SCORE: what becomes of the scaled product, from what OF_QUERY and OF_KEY read; WEIGHS: it is the weight.
    FOLDED: ``q`` has the queries of all heads of a group, ``period`` of each, in one tile of masks FOLDED high.
    EVEN: the keys fill their tiles.
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

    rows, keys = tl.arange(0, BQ), tl.arange(0, BK)
    queries = rows % period if FOLDED > 0 else rows
    TALL: tl.constexpr = FOLDED if FOLDED > 0 else BQ
    d, dv = tl.arange(0, BD)[None, :], tl.arange(0, BDV)[None, :]
    b, h, kv_head = batch.to(tl.int64), head.to(tl.int64), (head // GROUP).to(tl.int64)
    q_inside = tile * BQ + rows < q_len
    at = addresses(Q + b * qb + h * qh, tile * BQ, rows[:, None], qs, d, qd, q_order, Q_ORDERED)
    q = fetch(at, q_inside[:, None], d, D, BD, True)
    scored = None
    if SCORE is None:  # never 0, which would make a number of the -inf of a pair that is not there
        factor = tl.maximum(scale * 1.4426950408889634, 1e-30)
    else:
        factor = scale
        score_terms = NUMBERS(Numbers)
        at = positions(tile * BQ, queries[:, None], q_order, Q_ORDERED)
        x = OF_QUERY(OfQuery, score_terms, b * heads + h, at, q_len)
        scored = score_terms, x, OfKey, OfDistance, Reals, b * heads + h, k_len
    K += kv_head * kh
    V += kv_head * vh
    if PAGE == 0:
        K += b * kb
        V += b * vb
    column_pages = PageTable + b * n_columns if PAGE > 0 else None

    acc = tl.zeros([BQ, BDV], tl.float32)
    top = tl.full([BQ], float("-inf"), tl.float32)
    total = tl.zeros([BQ], tl.float32)

    following = tl.load(full + full_first)  # each index is read one tile ahead of its use
    for entry in range(full_first, full_last):
        column = following
        following = tl.load(full + entry + 1)
        acc, top, total = _absorb(
            acc, top, total, q=q, K=K, V=V, first=column * BK, kb=kb, ks=ks, kd=kd, vb=vb, vs=vs,
            vd=vd, order=k_order, inside=None, keep=None, terms=None, scale=factor,
            column_pages=column_pages, n_pages=n_pages, scored=scored, D=D, DV=DV, BD=BD, BDV=BDV, BK=BK,
            ORDERED=K_ORDERED, MASKED=False, PRECISION=PRECISION, KEEP=None, PAGE=PAGE, CLEARS=CLEARS,
            OF_KEY=OF_KEY, SCORE=SCORE, WEIGHS=WEIGHS,
        )  # fmt: skip

    if KEEP is not None:
        numbers = CONSTANTS(constants + plan * n_constants)
        seen_from = positions(tile * BQ, queries[:, None], q_order, Q_ORDERED)
        q_terms = QUERY_TERMS(numbers, tables, seen_from)
    following = tl.load(partial + part_first)
    for entry in range(part_first, part_last):
        column = following
        following = tl.load(partial + entry + 1)
        inside = None if EVEN else column * BK + keys < k_len
        if KEEP is None:
            mask = tl.load(mask_ids + entry)
            keep, terms = unpack(masks, mask, queries[:, None], keys[None, :], TALL, BK), None
        else:
            looked_at = positions(column * BK, keys[None, :], k_order, K_ORDERED)
            keep, terms = None, (numbers, q_terms, KEY_TERMS(numbers, tables, looked_at))
        acc, top, total = _absorb(
            acc, top, total, q=q, K=K, V=V, first=column * BK, kb=kb, ks=ks, kd=kd, vb=vb, vs=vs,
            vd=vd, order=k_order, inside=inside, keep=keep, terms=terms, scale=factor,
            column_pages=column_pages, n_pages=n_pages, scored=scored, D=D, DV=DV, BD=BD, BDV=BDV, BK=BK,
            ORDERED=K_ORDERED, MASKED=True, PRECISION=PRECISION, KEEP=KEEP, PAGE=PAGE, CLEARS=CLEARS,
            OF_KEY=OF_KEY, SCORE=SCORE, WEIGHS=WEIGHS,
        )  # fmt: skip

    seen = total != 0.0  # also when it is not a number
    total = tl.where(seen, total, 1.0)
    acc = acc / total[:, None]
    lse = tl.where(seen, (top + tl.log2(total)) * 0.6931471805599453, float("-inf"))
    if SPLIT:
        slot = tl.load(items + item * ITEM + 5)
        if slot >= 0:
            share = ((b * heads + h) * slots + slot) * BQ + rows
            tl.store(PartOut + share[:, None] * DV + dv, acc, mask=dv < DV)
            tl.store(PartLse + share, lse)
            return
    at = addresses(Out + b * ob + h * oh, tile * BQ, rows[:, None], os, dv, od, q_order, Q_ORDERED)
    tl.store(at, acc, mask=q_inside[:, None] & (dv < DV))
    at = addresses(Lse + (b * heads + h) * q_len, tile * BQ, rows, 1, 0, 0, q_order, Q_ORDERED)
    tl.store(at, lse, mask=q_inside)
