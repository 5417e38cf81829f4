"""Softmaxes over disjoint keys as one, and more in their denominators: differentiable to any order.

Files that ``emit`` writes for attentions hold this text, so it asks for nothing else of the package.
"""

import functools
import math
from collections.abc import Sequence

import torch
from torch import Tensor


def joined(outs: Sequence[Tensor], lses: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Merges several softmaxes: out in the dtype of ``outs``, and lse, in float32 or wider.

    Outputs of queries that see nothing are not read.
    """
    kinds = (x.dtype for x in (*outs, *lses))
    wide = functools.reduce(torch.promote_types, kinds, torch.float32)
    levels = [lse.to(wide) for lse in lses]
    top = functools.reduce(torch.maximum, (level.detach() for level in levels))
    empty = top == -math.inf
    # any number does where all are -inf: a constant that cancels changes no derivative
    top = top.masked_fill(empty, 0.0)
    weights = [torch.exp(level - top) for level in levels]
    mass = functools.reduce(torch.add, weights).masked_fill(empty, 1.0)
    parts = (
        out.to(wide).masked_fill((level == -math.inf)[..., None], 0.0) * (weight / mass)[..., None]
        for out, level, weight in zip(outs, levels, weights, strict=True)
    )
    lse = (top + mass.log()).masked_fill(empty, -math.inf)
    return functools.reduce(torch.add, parts).to(outs[0].dtype), lse


def with_mass(out: Tensor, lse: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
    """A softmax with more in its denominators, given by logarithm: keys of value 0, in one product."""
    top = torch.maximum(lse, mass).detach()
    empty = top == -math.inf
    base = top.masked_fill(empty, 0.0)
    share, more = torch.exp(lse - base), torch.exp(mass - base)
    whole = (share + more).masked_fill(empty, 1.0)
    total = (base + whole.log()).masked_fill(empty, -math.inf)
    part = (share / whole)[..., None].to(out.dtype)
    in_place = not (torch.is_grad_enabled() and (out.requires_grad or part.requires_grad))
    return (out.mul_(part) if in_place else out * part), total
