"""Softmax attention under a mask, forward and backward, as the textbook has it."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def attention(
    q: Array, k: Array, v: Array, d_out: Array, mask: Array, zeros: Array
) -> tuple[Array, Array, Array, Array, Array]:
    """Output, log-sum-exp and the gradients of q, k and v, float64.

    Args:
        q: Queries [B, H, Q, D].
        k: Keys [B, H, K, D].
        v: Values [B, H, K, Dv].
        d_out: The gradient of the output [B, H, Q, Dv].
        mask: The pairs, bool [B, H, Q, K].
        zeros: Zero keys of each query, int [B, H, Q]: they stand in the denominator alone, with a weight of
            exp(0) each.
    """
    scale = 1 / np.sqrt(q.shape[3])
    weights = np.where(mask, np.exp(q @ k.swapaxes(2, 3) * scale), 0)
    total = weights.sum(axis=3, keepdims=True) + zeros[..., None]
    p = weights / np.where(total > 0, total, 1)  # a query without a key: out 0, lse -inf
    d_p = d_out @ v.swapaxes(2, 3)
    d_s = p * (d_p - (p * d_p).sum(axis=3, keepdims=True)) * scale
    with np.errstate(divide="ignore"):
        lse = np.log(total[..., 0])
    return p @ v, lse, d_s @ k, d_s.swapaxes(2, 3) @ q, p.swapaxes(2, 3) @ d_out
