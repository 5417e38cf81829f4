"""Softmaxes over disjoint keys, merged by log-sum-exp."""

from __future__ import annotations

import torch
from torch import Tensor


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
