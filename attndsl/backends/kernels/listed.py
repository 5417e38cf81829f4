"""Attention over lists: the queries that name a block of keys are gathered, and meet it together.

An *entry* is a query and a block of keys that it names, with a bit for each key; entries of a query follow each other.
An *item* is a stretch of the entries of one block, in three int32: block, first and last. ``lists_forward`` gives each
entry a softmax of its own, ``lists_merge`` makes one of those of a query. ``lists_backward`` gives each entry its share
of dQ and each item its share of dK and dV, which ``lists_sum_queries`` and ``lists_sum_keys`` add in a fixed order: no
atomics, equal bits on every run.
"""

import triton
import triton.language as tl

from attndsl.backends.kernels.tiles import addresses, fetch

BLOCK = tl.constexpr(64)  # keys
ITEM = tl.constexpr(3)


@triton.jit
def _item(items, plan_of, capacity, heads):
    """(batch, head, plan, number of the item, block, first entry, last) of this program."""
    both = tl.program_id(1)
    plan = tl.load(plan_of + both).to(tl.int64)
    number = tl.program_id(0)
    at = items + (plan * capacity + number) * ITEM
    return both // heads, both % heads, plan, number, tl.load(at), tl.load(at + 1), tl.load(at + 2)


@triton.jit
def _entries(order, words, first, last, ENTRIES: tl.constexpr, ROWS: tl.constexpr):
    """(numbers of the entries from the first on, which exist, their queries, both halves of their bits)."""
    at = first + tl.arange(0, ROWS)
    inside = at < last
    entry = tl.load(order + at, mask=inside, other=0)
    word = words + entry.to(tl.int64) * 2
    low = tl.load(word, mask=inside, other=0)
    high = tl.load(word + 1, mask=inside, other=0)
    return entry, inside, entry // ENTRIES, low, high


@triton.jit(do_not_specialize=["k_len", "n", "capacity"])
def lists_forward(
    Q, K, V, PartOut, PartLse, scale,
    qb, qh, qs, qd, kb, kh, ks, kd, vb, vh, vs, vd,
    items, plan_of, order, words, constants, n_constants, tables,
    k_len, heads, n, capacity,
    ENTRIES: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr,
    ROWS: tl.constexpr, PRECISION: tl.constexpr, CLEARS: tl.constexpr,
    CONSTANTS: tl.constexpr, QUERY_TERMS: tl.constexpr, KEY_TERMS: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """PartOut [B, H, n, DV] and PartLse [B, H, n], float32: the attention of each of the n entries of a head.

    CLEARS: a key that none of some queries sees may hold anything.
    """
    batch, head, plan, _, block, first, last = _item(items, plan_of, capacity, heads)
    if first >= last:
        return
    b, h, kv_head = batch.to(tl.int64), head.to(tl.int64), (head // GROUP).to(tl.int64)
    keys = tl.arange(0, BLOCK)
    d, tall, dv = tl.arange(0, BD)[None, :], tl.arange(0, BD)[:, None], tl.arange(0, BDV)[None, :]
    inside = block * BLOCK + keys < k_len
    begin = block * BLOCK
    at = addresses(K + b * kb + kv_head * kh, begin, keys[None, :], ks, tall, kd, None, False)
    k = fetch(at, inside[None, :], tall, D, BD, True)
    at = addresses(V + b * vb + kv_head * vh, begin, keys[:, None], vs, dv, vd, None, False)
    v = fetch(at, inside[:, None], dv, DV, BDV, True)
    if KEEP is not None:
        numbers = CONSTANTS(constants + plan * n_constants)
        k_terms = KEY_TERMS(numbers, tables, begin + keys[None, :])
    order += plan * n
    words += plan * n * 2
    before = (b * heads + h) * n
    Q += b * qb + h * qh
    for some in range(first, last, ROWS):
        entry, exists, query, low, high = _entries(order, words, some, last, ENTRIES, ROWS)
        rows = Q + query.to(tl.int64)[:, None] * qs + d * qd
        q = fetch(rows, exists[:, None], d, D, BD, True)
        scores = tl.dot(q, k, input_precision=PRECISION) * (scale * 1.4426950408889634)
        word = tl.where(keys[None, :] < 32, low[:, None], high[:, None])
        keep = ((word >> (keys[None, :] & 31)) & 1) != 0
        if KEEP is not None:
            keep = keep & KEEP(numbers, QUERY_TERMS(numbers, tables, query[:, None]), k_terms)
        scores = tl.where(keep, scores, float("-inf"))
        top = tl.max(scores, 1)
        level = tl.where(top == float("-inf"), 0.0, top)
        weights = tl.exp2(scores - level[:, None])
        total = tl.sum(weights, 1)
        seen = total != 0.0  # also when it is not a number
        total = tl.where(seen, total, 1.0)
        values = v
        if CLEARS:  # 0 times what is no number is none
            values = tl.where((tl.max(keep.to(tl.int32), 0) > 0)[:, None], v, 0.0)
        share = tl.dot(weights.to(v.dtype), values, input_precision=PRECISION) / total[:, None]
        lse = tl.where(seen, (level + tl.log2(total)) * 0.6931471805599453, float("-inf"))
        place = before + entry
        tl.store(PartOut + place[:, None] * DV + dv, share, mask=exists[:, None] & (dv < DV))
        tl.store(PartLse + place, lse, mask=exists)


@triton.jit
def _queries(blocks, plan_of, n, q_len, BQ: tl.constexpr):
    """(number of the head, its blocks, queries of this program, which exist)."""
    both = tl.program_id(1).to(tl.int64)
    query = tl.program_id(0) * BQ + tl.arange(0, BQ)
    plan = tl.load(plan_of + both).to(tl.int64)
    return both, blocks + plan * n, query, query < q_len


@triton.jit(do_not_specialize=["q_len", "n", "none"])
def lists_merge(
    PartOut, PartLse, Out, Lse, blocks, plan_of, q_len, n, none,
    ENTRIES: tl.constexpr, DV: tl.constexpr, BDV: tl.constexpr, BQ: tl.constexpr,
):  # fmt: skip
    """Out [B, H, Q, DV] and Lse [B, H, Q], contiguous: the softmaxes of the entries of a query as one."""
    both, blocks, query, inside = _queries(blocks, plan_of, n, q_len, BQ)
    dv = tl.arange(0, BDV)[None, :]
    acc = tl.zeros([BQ, BDV], tl.float32)
    top = tl.full([BQ], float("-inf"), tl.float32)
    total = tl.zeros([BQ], tl.float32)
    for slot in range(ENTRIES):
        entry = query * ENTRIES + slot
        named = tl.load(blocks + entry, mask=inside, other=none) < none
        place = both * n + entry
        lse = tl.load(PartLse + place, mask=named, other=float("-inf"))
        wanted = (lse != float("-inf"))[:, None] & (dv < DV)
        share = tl.load(PartOut + place[:, None] * DV + dv, mask=wanted, other=0.0)
        new = tl.maximum(top, lse)
        level = tl.where(new == float("-inf"), 0.0, new)
        decay, weight = tl.exp(top - level), tl.exp(lse - level)
        acc = acc * decay[:, None] + share * weight[:, None]
        total = total * decay + weight
        top = new
    seen = total != 0.0
    total = tl.where(seen, total, 1.0)
    lse = tl.where(seen, top + tl.log(total), float("-inf"))
    place = both * q_len + query
    tl.store(Out + place[:, None] * DV + dv, acc / total[:, None], mask=inside[:, None] & (dv < DV))
    tl.store(Lse + place, lse, mask=inside)


@triton.jit(do_not_specialize=["q_len", "k_len", "n", "capacity"])
def lists_backward(
    Q, K, V, GradOut, Level, Delta, PartQ, PartK, PartV, scale,
    qb, qh, qs, qd, kb, kh, ks, kd, vb, vh, vs, vd, gb, gh, gs, gd,
    items, plan_of, order, words, constants, n_constants, tables,
    q_len, k_len, heads, n, capacity,
    ENTRIES: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BD: tl.constexpr, BDV: tl.constexpr,
    ROWS: tl.constexpr, PRECISION: tl.constexpr,
    CONSTANTS: tl.constexpr, QUERY_TERMS: tl.constexpr, KEY_TERMS: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """PartQ [B, H, n, D] of entries, PartK [B, H, capacity, 64, D] and PartV of items, but for the scale of dQ and dK.

    Scores lie transposed: the sums over queries that stay are of rows.
    """
    batch, head, plan, number, block, first, last = _item(items, plan_of, capacity, heads)
    if first >= last:
        return
    b, h, kv_head = batch.to(tl.int64), head.to(tl.int64), (head // GROUP).to(tl.int64)
    keys = tl.arange(0, BLOCK)
    d, dv = tl.arange(0, BD)[None, :], tl.arange(0, BDV)[None, :]
    begin = block * BLOCK
    inside = (begin + keys < k_len)[:, None]
    at = addresses(K + b * kb + kv_head * kh, begin, keys[:, None], ks, d, kd, None, False)
    k = fetch(at, inside, d, D, BD, True)
    at = addresses(V + b * vb + kv_head * vh, begin, keys[:, None], vs, dv, vd, None, False)
    v = fetch(at, inside, dv, DV, BDV, True)
    if KEEP is not None:
        numbers = CONSTANTS(constants + plan * n_constants)
        k_terms = KEY_TERMS(numbers, tables, begin + keys[:, None])
    order += plan * n
    words += plan * n * 2
    both = b * heads + h
    Q += b * qb + h * qh
    GradOut += b * gb + h * gh
    grad_k = tl.zeros([BLOCK, BD], tl.float32)
    grad_v = tl.zeros([BLOCK, BDV], tl.float32)
    for some in range(first, last, ROWS):
        entry, exists, query, low, high = _entries(order, words, some, last, ENTRIES, ROWS)
        level = tl.load(Level + both * q_len + query, mask=exists, other=float("inf"))
        delta = tl.load(Delta + both * q_len + query, mask=exists, other=0.0)
        # whatever a query without a key holds, and the gradient that reaches it, go no further
        sees, row = (level != float("inf"))[:, None], query.to(tl.int64)[:, None]
        q = fetch(Q + row * qs + d * qd, sees, d, D, BD, True)
        dout = fetch(GradOut + row * gs + dv * gd, sees, dv, DV, BDV, True)
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION)
        word = tl.where(keys[:, None] < 32, low[None, :], high[None, :])
        keep = ((word >> (keys[:, None] & 31)) & 1) != 0
        if KEEP is not None:
            keep = keep & KEEP(numbers, QUERY_TERMS(numbers, tables, query[None, :]), k_terms)
        distance = scores * (scale * 1.4426950408889634) - level[None, :]
        weights = tl.exp2(tl.where(keep, distance, float("-inf")))
        grad_v = tl.dot(weights.to(dout.dtype), dout, grad_v, input_precision=PRECISION)
        dscores = tl.dot(v, tl.trans(dout), input_precision=PRECISION)
        dscores = (weights * (dscores - delta[None, :])).to(q.dtype)
        grad_k = tl.dot(dscores, q, grad_k, input_precision=PRECISION)
        grad_q = tl.dot(tl.trans(dscores), k, input_precision=PRECISION)
        place = (both * n + entry)[:, None] * D + d
        tl.store(PartQ + place, grad_q, mask=exists[:, None] & (d < D))
    place = (both * capacity + number) * BLOCK + keys[:, None]
    tl.store(PartK + place * D + d, grad_k, mask=d < D)
    tl.store(PartV + place * DV + dv, grad_v, mask=dv < DV)


@triton.jit(do_not_specialize=["q_len", "n", "none"])
def lists_sum_queries(
    PartQ, GradQ, scale, blocks, plan_of, q_len, n, none,
    ENTRIES: tl.constexpr, D: tl.constexpr, BD: tl.constexpr, BQ: tl.constexpr,
):  # fmt: skip
    """GradQ [B, H, Q, D], contiguous: the shares of the entries of each query."""
    both, blocks, query, inside = _queries(blocks, plan_of, n, q_len, BQ)
    d = tl.arange(0, BD)[None, :]
    acc = tl.zeros([BQ, BD], tl.float32)
    for slot in range(ENTRIES):
        entry = query * ENTRIES + slot
        named = tl.load(blocks + entry, mask=inside, other=none) < none
        place = (both * n + entry)[:, None] * D + d
        acc += tl.load(PartQ + place, mask=named[:, None] & (d < D), other=0.0)
    place = (both * q_len + query)[:, None] * D + d
    tl.store(GradQ + place, acc * scale, mask=inside[:, None] & (d < D))


@triton.jit(do_not_specialize=["k_len", "capacity", "blocks"])
def lists_sum_keys(
    Part, Grad, factor, plan_of, first_items, k_len, kv_heads, capacity, blocks,
    GROUP: tl.constexpr, D: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """Grad [B, Hkv, K, D], contiguous: the shares of the items of each block, of all query heads of a key head."""
    block, both = tl.program_id(0), tl.program_id(1).to(tl.int64)
    keys, d = tl.arange(0, BLOCK)[:, None], tl.arange(0, BD)[None, :]
    acc = tl.zeros([BLOCK, BD], tl.float32)
    for member in range(GROUP):
        head = both * GROUP + member
        at = first_items + tl.load(plan_of + head).to(tl.int64) * (blocks + 1) + block
        for item in range(tl.load(at), tl.load(at + 1)):
            place = (head * capacity + item) * BLOCK + keys
            acc += tl.load(Part + place * D + d, mask=d < D, other=0.0)
    key = block * BLOCK + keys
    place = (both * k_len + key) * D + d
    tl.store(Grad + place, acc * factor, mask=(key < k_len) & (d < D))
