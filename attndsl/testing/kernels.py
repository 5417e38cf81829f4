"""``assert_matches_dense``: anyone's attention kernel against the meaning of a pattern."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from attndsl import ir
from attndsl.compiled import Pattern
from attndsl.verification import Case, Kernel, dense, describe, judge


def assert_matches_dense(
    kernel: Kernel,
    p: Pattern,
    case: Case | None = None,
    *,
    q_len: int = 200,
    k_len: int | None = None,
    batch: int = 2,
    heads: int = 2,
    kv_heads: int | None = None,
    head_dim: int = 32,
    value_dim: int | None = None,
    dtype: torch.dtype = torch.float32,
    scale: float | None = None,
    extents: Mapping[str, int] | None = None,
    inputs: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "cpu",
    backward: bool = True,
    through_lse: bool = True,
) -> None:
    """A kernel computes attention within the pattern, and so do its gradients.

    It is run on normal random numbers; output, log-sum-exp and gradients are held against masked
    softmax in float64, within what rounding explains. What is not finite must be the same: a query
    without a key has out 0, lse -inf and no gradient.

    Args:
        kernel: ``kernel(q, k, v)`` with q [B, H, Q, D], k [B, Hkv, K, D], v [B, Hkv, K, Dv] gives out
            [B, H, Q, Dv], or (out, lse) with lse [B, H, Q] in natural logarithms.
        p: What it should compute.
        case: Everything about the call at once, from ``cases``; the rest of the arguments otherwise.
        q_len: Queries.
        k_len: Keys; as many as queries by default.
        batch: Batch elements.
        heads: Query heads.
        kv_heads: Key heads; as many as query heads by default.
        head_dim: Width of queries and keys.
        value_dim: Width of values; that of keys by default.
        dtype: Of the tensors.
        scale: What the kernel multiplies scores with; 1 / sqrt(head_dim) by default.
        extents: Of grid axes that the lengths do not determine.
        inputs: The pattern's run-time inputs.
        seed: Of the numbers.
        device: Where the tensors are.
        backward: Whether to differentiate.
        through_lse: Whether gradients also arrive through the log-sum-exp, where one is returned.

    Raises:
        AssertionError: Something is wrong. The text shows the first wrong entry with both values, which
            pairs the kernel sees wrongly, if it does, and which well-known mistake this looks like.
    """
    case = case or Case(
        q_len=q_len,
        k_len=q_len if k_len is None else k_len,
        batch=batch,
        heads=heads,
        kv_heads=heads if kv_heads is None else kv_heads,
        head_dim=head_dim,
        value_dim=head_dim if value_dim is None else value_dim,
        dtype=dtype,
        extents=dict(extents or {}),
        inputs=dict(inputs or {}),
        scale=scale,
        seed=seed,
    )
    mask = dense(p, case).to(device)
    fault = judge(kernel, mask, case, device, backward, through_lse)
    if fault is not None:
        text = describe(p.name, ir.show(p.ir.root), f"the kernel on {device}", case, fault)
        raise AssertionError(text)
