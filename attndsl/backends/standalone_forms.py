"""Forms of attention that are composed of passes over the pairs of a part.

    factor c      exp(t - L) c                 L is the log-sum-exp of the whole softmax
    l1            sum w v / sum w
    entmax        max(t / 2 - tau, 0)^2        tau solves sum = 1, and is differentiated implicitly
    columns       exp(t - C)                   C is the log-sum-exp of a key over its queries

Files that ``emit`` writes for attentions hold this text, so it asks for little else of the package. Autograd
differentiates the compositions.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from attndsl.backends.standalone_scores import Functions, Part

STEPS = 24  # Newton steps for a threshold; float32 is exact after some six
TINY = 1e-20  # of a sum over a column; terms that are lost, below e^-87, are no digits of it
HUGE = 1e22  # of a sum over a column: some term of it may have been held down
STEP = 80.0  # a sum that is below 1e-20 is below 1e16 so much further down
ROUNDS = 64  # enough for scores of 1e8


def weighed(parts: Sequence[tuple[Part, Functions]], level: Tensor) -> Tensor:
    """The weights of a softmax with this log-sum-exp, times factors, with the values."""
    outs = [part.run(weight, level=level)[0] for part, weight in parts]
    return torch.stack(outs).sum(0) if len(outs) > 1 else outs[0]


def ones_of(part: Part) -> Tensor:
    """Values of 1, [B, Hkv, K, 1]."""
    return torch.ones_like(part.v[..., :1])


def l1(
    part: Part, weight: Functions, factored: Functions | None, mass: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Weights over their sums; ``factored`` are those with a factor, ``mass`` is a logarithm."""
    if factored is None:
        both, lse = part.run(weight, torch.cat((part.v, ones_of(part)), -1))
        out, whole = both[..., :-1], both[..., -1]
    else:
        whole = part.run(weight, ones_of(part))[0][..., 0]
        out, lse = part.run(factored)
    if mass is not None:
        whole = whole + mass.exp()
    is_nothing = whole.abs() < torch.finfo(whole.dtype).tiny
    return out / whole.masked_fill(is_nothing, math.inf)[..., None], lse


def entmax(
    part: Part,
    half: Functions,
    one: Functions,
    above: Functions,
    square: Functions,
    last: Functions,
) -> tuple[Tensor, Tensor]:
    """1.5-entmax: half scores, weights of 1, of r = max(t / 2 - tau, 0), of r^2, and r^2 with the factor."""
    tau: Tensor = Threshold.apply(  # type: ignore[no-untyped-call]
        part, (half, one, above, square), *inputs(part)
    )
    return part.run(last, level=tau)


class Threshold(torch.autograd.Function):
    """The tau of each query at which the squares of r sum to one; its gradient is that of their sum over 2 sum(r)."""

    @staticmethod
    def forward(ctx: Any, part: Part, weights: tuple[Functions, ...], *inputs: Tensor) -> Tensor:
        """Newton's method on the square root of the sum of squares, which is convex, from below."""
        half, one, above, square = weights
        ones = ones_of(part)
        count = part.run(one, ones)[0][..., 0].clamp(min=1.0)
        lse = part.run(half)[1]
        keyless = lse == -math.inf
        tau = (lse - count.log() - 1.0).masked_fill(keyless, 0.0)
        for _ in range(STEPS):
            root = part.run(square, ones, level=tau)[0][..., 0].sqrt()
            slope = part.run(above, ones, level=tau)[0][..., 0]
            step = (root - 1) * root / slope.masked_fill(slope == 0, 1.0)
            step = step.masked_fill(keyless, 0.0)
            tau = tau + step
            if not tau.numel() or float(step.abs().amax()) <= torch.finfo(tau.dtype).eps:
                break
        ctx.given = part, above, square
        ctx.save_for_backward(tau)
        return tau

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dtau: Tensor) -> tuple[Any, ...]:
        """The gradients of q, k and the real inputs."""
        (part, above, square), (tau,) = ctx.given, ctx.saved_tensors
        apart, leaves = detached(part)
        ones = ones_of(part)
        whole = part.run(above, ones, level=tau)[0][..., 0]
        share = dtau / (2 * whole).masked_fill(whole == 0, 1.0)
        with torch.enable_grad():
            squares, _ = apart.run(square, ones, level=tau)
        return None, None, *gradients(squares, leaves, share[..., None])


def columns(
    part: Part, scores: Functions, one: Functions, weight: Functions, last: Functions
) -> tuple[Tensor, Tensor]:
    """Weights by the log-sum-exp of each key over its queries; ``last`` are those with the factor."""
    group = part.q.shape[1] // part.k.shape[1]  # a key has a sum for each query head
    k, v = (x.float().repeat_interleave(group, 1) for x in (part.k, part.v))
    part = replace(part, q=part.q.float(), k=k, v=v)
    level: Tensor = Columns.apply(  # type: ignore[no-untyped-call]
        part, (scores, one, weight), *inputs(part)
    )
    return part.run(last, column=level)


class Columns(torch.autograd.Function):
    """The log-sum-exp of each key over the queries that see it, [B, H, K], and its derivative, the weights.

    Sums are taken about levels of their own: where one is too small to have digits, its level goes down, by twice as
    much each time; where that was too far, to the middle of both.
    """

    @staticmethod
    def forward(ctx: Any, part: Part, weights: tuple[Functions, ...], *inputs: Tensor) -> Tensor:
        """Finds the levels; 0 for keys that no query sees."""
        scores, one, weight = weights
        lse = part.run(scores)[1]
        top = lse.masked_fill(lse == -math.inf, torch.finfo(lse.dtype).min).amax(-1, keepdim=True)
        level = top.expand(part.shape(1))
        is_seen = sums(part, one, level) > 0
        level = level.masked_fill(~is_seen, 0.0)
        low, step = torch.full_like(level, -math.inf), torch.full_like(level, STEP)
        high, found = level, sums(part, weight, level)
        for _ in range(ROUNDS):
            is_small, is_large = is_seen & (found < TINY), found > HUGE
            if not (is_small | is_large).any():
                break
            high, low = torch.where(is_small, level, high), torch.where(is_large, level, low)
            down = torch.where(low == -math.inf, high - step, (high + low) / 2)
            step = torch.where(is_small, 2 * step, step)
            level = torch.where(is_small | is_large, down, level)
            found = sums(part, weight, level)
        column = (level + found.log()).masked_fill(~is_seen, 0.0)
        ctx.given = part, weight
        ctx.save_for_backward(column)
        return column

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dcolumn: Tensor) -> tuple[Any, ...]:
        """The gradients of q, k and the real inputs."""
        (part, weight), (column,) = ctx.given, ctx.saved_tensors
        apart, leaves = detached(part)
        with torch.enable_grad():
            out, _ = apart.run(weight, dcolumn.to(part.v.dtype)[..., None], column=column)
            total = out.sum()
        return None, None, *gradients(total, leaves, None)


def sums(part: Part, weight: Functions, column: Tensor) -> Tensor:
    """The sums of a weight over the queries of each key: the gradient of values for results of ones."""
    v = torch.zeros_like(part.k[..., :1]).requires_grad_()
    apart, _ = detached(part)
    with torch.enable_grad():
        out, _ = apart.run(weight, v, column=column)
        (found,) = torch.autograd.grad(out.sum(), v)
    return found[..., 0].float()


def detached(part: Part) -> tuple[Part, list[Tensor]]:
    """The part over leaves of its own, and those: q, k and the real inputs."""
    leaves = [x.detach().requires_grad_() for x in inputs(part)]
    own = dict(zip(part.reals, leaves[2:], strict=True))
    return replace(part, q=leaves[0], k=leaves[1], reals=own), leaves


def inputs(part: Part) -> list[Tensor]:
    """Lists q, k and the real inputs."""
    return [part.q, part.k, *part.reals.values()]


def gradients(result: Tensor, leaves: Sequence[Tensor], gain: Tensor | None) -> list[Tensor | None]:
    """The gradients of leaves, None of those that nothing depends on."""
    return list(torch.autograd.grad(result, list(leaves), gain, allow_unused=True))
