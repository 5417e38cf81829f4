"""A plain causal flash kernel to compare ours with: no schedule, no choice of keys, nothing but the arithmetic.

Dao 2023 (FlashAttention-2): key tiles before the diagonal without a mask, then those on it with one. Lengths are
multiples of the tile, rows are contiguous, keys and queries are equally many.
"""

import triton
import triton.language as tl


@triton.jit
def _step(
    acc, top, total, q, k_at, v_at, rows, columns, scale,
    MASKED: tl.constexpr,
):  # fmt: skip
    k = tl.load(k_at)
    scores = tl.dot(q, k)
    if MASKED:
        scores = tl.where(rows[:, None] >= columns[None, :], scores, float("-inf"))
    new = tl.maximum(top, tl.max(scores, 1) * scale)
    weights = tl.exp2(scores * scale - new[:, None])
    decay = tl.exp2(top - new)
    total = total * decay + tl.sum(weights, 1)
    v = tl.load(v_at)
    acc = tl.dot(weights.to(v.dtype), v, acc * decay[:, None])
    return acc, new, total


@triton.jit
def flash(
    Q, K, V, Out, Lse, scale, qh, qs, kh, ks, vh, vs, oh, os, length,
    D: tl.constexpr, BQ: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Out [H, N, D] and Lse [H, N]; scale includes the logarithm of 2, and is not negative."""
    tile, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    rows, keys, d = tile * BQ + tl.arange(0, BQ), tl.arange(0, BK), tl.arange(0, D)
    q = tl.load(Q + head * qh + rows[:, None] * qs + d[None, :])
    k_at = K + head * kh + keys[None, :] * ks + d[:, None]
    v_at = V + head * vh + keys[:, None] * vs + d[None, :]
    acc = tl.zeros([BQ, D], tl.float32)
    top = tl.full([BQ], float("-inf"), tl.float32)
    total = tl.zeros([BQ], tl.float32)
    for first in range(0, tile * BQ, BK):
        acc, top, total = _step(
            acc, top, total, q, k_at + first * ks, v_at + first * vs, rows, first + keys, scale, MASKED=False
        )  # fmt: skip
    for first in range(tile * BQ, tl.minimum((tile + 1) * BQ, length), BK):
        acc, top, total = _step(
            acc, top, total, q, k_at + first * ks, v_at + first * vs, rows, first + keys, scale, MASKED=True
        )  # fmt: skip
    out_at = Out + head * oh + rows[:, None] * os + d[None, :]
    tl.store(out_at, (acc / total[:, None]).to(Out.dtype.element_ty))
    tl.store(Lse + head * length + rows, (top + tl.log2(total)) * 0.6931471805599453)
