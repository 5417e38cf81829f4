"""Works of disjoint pairs as one: softmaxes are merged by log-sum-exp, gradients added.

Backward hands each part the *global* output and log-sum-exp: what comes back is that part's share of
every gradient. The order of parts is fixed: equal inputs give equal bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attndsl.backends.protocol import Backend, lse_dtype, out_dtype
from attndsl.backends.work import Work


def merged(old: Tensor, old_level: Tensor, new: Tensor, new_level: Tensor) -> tuple[Tensor, Tensor]:
    """Two softmaxes over disjoint keys as one: weights e^(level - total)."""
    total = torch.logaddexp(old_level, new_level)
    base = total.masked_fill(total == -torch.inf, 0.0)
    old_share, new_share = (old_level - base).exp_(), (new_level - base).exp_()
    return old * old_share[..., None] + new * new_share[..., None], total


def with_zero_keys(out: Tensor, level: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """The softmax over ``count`` keys more, of score 0 and value 0: they weigh e^0 each.

    Backward needs no such thing: handed this output and log-sum-exp, it gives the gradients of both.
    """
    total = torch.logaddexp(level, count.to(level.dtype).log())
    base = total.masked_fill(total == -torch.inf, 0.0)
    return out * (level - base).exp_()[..., None], total


def forward_parts(
    runner: Backend[Work],
    parts: Sequence[Work],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float,
    zeros: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``runner.forward`` over the union of disjoint parts, and zero keys: int [B or 1, H or 1, Q]."""
    first, *rest = parts
    out, lse = runner.forward(first, q, k, v, scale=scale)
    if not rest and zeros is None:
        return out, lse
    with torch.no_grad():
        for part in rest:
            more, more_lse = runner.forward(part, q, k, v, scale=scale)
            out, lse = merged(out.to(lse.dtype), lse, more.to(lse.dtype), more_lse)
        if zeros is not None:
            out, lse = with_zero_keys(out, lse, zeros)
        return out.to(out_dtype(q.dtype)), lse


def backward_parts(
    runner: Backend[Work],
    parts: Sequence[Work],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    dout: Tensor,
    dlse: Tensor | None,
    *,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """``runner.backward`` over the union of disjoint parts."""
    first, *rest = parts
    grads = runner.backward(first, q, k, v, out, lse, dout, dlse, scale=scale)
    if not rest:
        return grads
    with torch.no_grad():
        sums = [grad.to(lse_dtype(grad.dtype)) for grad in grads]
        for part in rest:
            shares = runner.backward(part, q, k, v, out, lse, dout, dlse, scale=scale)
            sums = [total + share for total, share in zip(sums, shares, strict=True)]
        dq, dk, dv = (total.to(x.dtype) for total, x in zip(sums, (q, k, v), strict=True))
    return dq, dk, dv
