"""Attentions composed of two primitives, the softmax of scores and weights without a normaliser.

    softmax, factor c      exp(t - L) c                 L is the log-sum-exp of a softmax with all mass in it
    l1                     sum w v / sum w
    entmax                 max(t / 2 - tau, 0)^2        tau solves sum = 1, and is differentiated implicitly
    columns                exp(t - C)                   C is the log-sum-exp of a key over its queries
    a ++ b                 merged by log-sum-exp
    mass m                 one more part of value 0 and log-sum-exp log(m)
    c a + d b              as it stands

Autograd differentiates the composition; the primitives have backwards of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import torch
from torch import Tensor

from attndsl import ir, passes
from attndsl.backends import joined, lse_dtype, with_mass
from attndsl.op.column_levels import column_levels
from attndsl.op.once import once
from attndsl.op.scored_part import Part
from attndsl.positions import KEYS, hidden
from attndsl.scored import ScoredProgram
from attndsl.source import AttnDslError, Diagnostic

reals = ir.reals

_STEPS: Final = 24  # Newton steps for a threshold; float64 is exact after some six


def _softmax(term: ir.Term, parts: Sequence[Part]) -> tuple[Tensor, Tensor]:
    at_once = all(part.takes_factor for part in parts)
    found = (part.run(None, factor=part.scored.part.factor if at_once else None) for part in parts)
    outs, lses = map(list, zip(*found, strict=True))
    out, lse = joined(outs, lses) if len(outs) > 1 else (outs[0], lses[0])
    if term.log_mass is not None:
        out, lse = with_mass(out, lse, parts[0].of_queries(term.log_mass))
    if not at_once:
        out = _weighed(term, parts, lse)
    return out, lse


def _weighed(term: ir.Term, parts: Sequence[Part], lse: Tensor) -> Tensor:
    """The weights of a softmax times factors, with the values."""
    total: Tensor | None = None
    for scored, part in zip(term.parts, parts, strict=True):
        out, _ = part.run(passes.softmax_weight(scored), level=lse)
        total = out if total is None else total + out
    assert total is not None, "a term has parts"
    return total


def _pointwise(term: ir.Term, parts: Sequence[Part]) -> tuple[Tensor, Tensor]:
    (scored,), (part,) = term.parts, parts
    assert scored.weight is not None, "the front end demands it"
    return part.run(passes.with_factor(scored, scored.weight))


def _l1(term: ir.Term, parts: Sequence[Part]) -> tuple[Tensor, Tensor]:
    (scored,), (part,) = term.parts, parts
    assert scored.weight is not None, "the front end demands it"
    ones = part.v.new_ones((*part.v.shape[:3], 1))
    if scored.factor is None:
        both, lse = part.run(scored.weight, torch.cat((part.v, ones), -1))
        out, whole = both[..., :-1], both[..., -1]
    else:
        whole = part.run(scored.weight, ones)[0][..., 0]
        out, lse = part.run(passes.with_factor(scored, scored.weight))
    if term.log_mass is not None:
        whole = whole + part.of_queries(term.log_mass).exp()
    is_nothing = whole.abs() < torch.finfo(whole.dtype).tiny
    return out / whole.masked_fill(is_nothing, math.inf)[..., None], lse


def _entmax(term: ir.Term, parts: Sequence[Part]) -> tuple[Tensor, Tensor]:
    (scored,), (part,) = term.parts, parts
    above = passes.entmax_rest(part.scored.program.mask)
    tau = _Threshold.apply(part, above, part.q, part.k, *part.reals.values())  # type: ignore[no-untyped-call]
    return part.run(passes.with_factor(scored, reals.times(above, above)), level=tau)


class _Threshold(torch.autograd.Function):
    """The tau of each query at which the squares of ``above`` sum to one, and its implicit derivative.

    By F(t, tau) = 1: d tau = sum(r dt / 2) / sum(r), r = max(t / 2 - tau, 0); so its gradient is that of the sum of
    squares, divided by 2 sum(r).
    """

    @staticmethod
    def forward(
        ctx: Any, part: Part, above: ir.Node, q: Tensor, k: Tensor, *tables: Tensor
    ) -> Tensor:
        ctx.part, ctx.above = part, above
        tau = _threshold(part, above)
        ctx.save_for_backward(tau)
        return tau

    @staticmethod
    def backward(ctx: Any, dtau: Tensor) -> tuple[Any, ...]:
        part = ctx.part
        given = part.q, part.k, *part.reals.values(), dtau
        return None, None, *once(lambda: _Threshold._gains(ctx, dtau), given)

    @staticmethod
    def _gains(ctx: Any, dtau: Tensor) -> tuple[Tensor, ...]:
        part, above, (tau,) = ctx.part, ctx.above, ctx.saved_tensors
        leaves = [x.detach().requires_grad_() for x in (part.q, part.k, *part.reals.values())]
        real = dict(zip(part.reals, leaves[2:], strict=True))
        apart = replace(part, q=leaves[0], k=leaves[1], reals=real)
        ones = part.v.new_ones((*part.v.shape[:3], 1))
        with torch.enable_grad():
            squares, _ = apart.run(reals.times(above, above), ones, level=tau)
        with torch.no_grad():
            whole = part.run(above, ones, level=tau)[0][..., 0]
            share = dtau / (2 * whole).masked_fill(whole == 0, 1.0)
        return _gradients(squares, leaves, share[..., None])


def _gradients(result: Tensor, leaves: Sequence[Tensor], gain: Tensor | None) -> tuple[Tensor, ...]:
    """The gradients of leaves, 0 of those that nothing depends on."""
    found: Sequence[Tensor | None] = torch.autograd.grad(result, leaves, gain, allow_unused=True)
    return tuple(
        torch.zeros_like(leaf) if x is None else x for leaf, x in zip(leaves, found, strict=True)
    )


@torch.no_grad()
def _threshold(part: Part, above: ir.Node) -> Tensor:
    """Newton's method on the square root of the sum of squares, which is convex, from below."""
    half = replace(part, scored=_halved(part.scored))
    ones = part.v.new_ones((*part.v.shape[:3], 1))
    count = part.run(reals.UNITY, ones)[0][..., 0].clamp(min=1.0)
    lse = half.run(None)[1]
    keyless = lse == -math.inf
    tau = (lse - count.log() - 1.0).masked_fill(keyless, 0.0)
    square = reals.times(above, above)
    for _ in range(_STEPS):
        root = part.run(square, ones, level=tau)[0][..., 0].sqrt()
        slope = part.run(above, ones, level=tau)[0][..., 0]
        step = ((root - 1) * root / slope.masked_fill(slope == 0, 1.0)).masked_fill(keyless, 0.0)
        tau = tau + step
        if float(step.abs().amax() if step.numel() else 0.0) <= torch.finfo(tau.dtype).eps:
            break
    return tau


def _halved(scored: ScoredProgram) -> ScoredProgram:
    part = replace(scored.part, score=reals.times(reals.HALF, scored.part.score))
    return replace(scored, part=part)


def _columns(term: ir.Term, parts: Sequence[Part]) -> tuple[Tensor, Tensor]:
    (scored,), (part,) = term.parts, parts
    group = part.q.shape[1] // part.k.shape[1]
    k, v = (
        x.repeat_interleave(group, 1) for x in (part.k, part.v)
    )  # a key has a sum for each query head
    part = replace(part, k=k, v=v)
    weight = passes.column_weight()
    column = _Columns.apply(part, weight, part.q, k, *part.reals.values())  # type: ignore[no-untyped-call]
    return part.run(passes.with_factor(scored, weight), column=column)


class _Columns(torch.autograd.Function):
    """The log-sum-exp of each key over the queries that see it, [B, H, K], and its derivative, the weights."""

    @staticmethod
    def forward(
        ctx: Any, part: Part, weight: ir.Node, q: Tensor, k: Tensor, *tables: Tensor
    ) -> Tensor:
        ctx.part, ctx.weight = part, weight
        column = _column_levels(part)
        ctx.save_for_backward(column)
        return column

    @staticmethod
    def backward(ctx: Any, dcolumn: Tensor) -> tuple[Any, ...]:
        part = ctx.part
        given = part.q, part.k, *part.reals.values(), dcolumn
        return None, None, *once(lambda: _Columns._gains(ctx, dcolumn), given)

    @staticmethod
    def _gains(ctx: Any, dcolumn: Tensor) -> tuple[Tensor, ...]:
        part, (column,) = ctx.part, ctx.saved_tensors
        leaves = [x.detach().requires_grad_() for x in (part.q, part.k, *part.reals.values())]
        real = dict(zip(part.reals, leaves[2:], strict=True))
        apart = replace(part, q=leaves[0], k=leaves[1], reals=real)
        gains = dcolumn.to(part.v.dtype)[..., None]
        with torch.enable_grad():
            weighed, _ = apart.run(ctx.weight, gains, column=column)
            return _gradients(weighed.sum(), leaves, None)


@torch.no_grad()
def _column_levels(part: Part) -> Tensor:
    """The sums of columns: the gradient of values is such a sum. In float64, where exp reaches down to -700.

    Columns that lie further below the others of their head are searched for.
    """
    if part.q.device.type != "cpu" or part.options.backend == "triton":
        return column_levels(part)
    q, k = part.q.double(), part.k.double()
    real = {name: x.double() for name, x in part.reals.items()}
    wide = replace(part, q=q, k=k, v=k.new_ones((*k.shape[:3], 1)), reals=real)
    lse = wide.run(None)[1]
    top = lse.masked_fill(lse == -math.inf, -1e300).amax(-1, keepdim=True).expand(lse.shape)
    weight = reals.apply("exp", reals.minus(reals.SCORE, part.level()))
    found, tables = wide.executable(weight, wide.v, level=top, gradient=True)
    out, lse = found.forward(q, k, wide.v, tables, scale=part.scale)
    ones = torch.ones_like(out)
    sums = found.backward(q, k, wide.v, tables, out, lse, ones, None, scale=part.scale)[2][..., 0]
    is_far = bool((sums < torch.finfo(sums.dtype).tiny).any())
    levels = column_levels(wide) if is_far else top[..., :1] + sums.log()
    return levels.to(lse_dtype(part.q.dtype))


def _stick(term: ir.Term, parts: Sequence[Part]) -> tuple[Tensor, Tensor]:
    (scored,), (part,) = term.parts, parts
    if hidden(KEYS.outright) in part.options.names:
        title = (
            "no back end has kernels for the weights `stick` beside k_pos: keys are taken in order"
        )
        raise AttnDslError(Diagnostic("A520", title, helps=('backend="reference" has',)))
    if scored.factor is not None:
        title = "no back end has kernels for the weights `stick` with a factor yet"
        raise AttnDslError(Diagnostic("A520", title, helps=('backend="reference" has',)))
    return part.run(None)


FORMS: Final = {
    ir.Form.SOFTMAX: _softmax,
    ir.Form.POINTWISE: _pointwise,
    ir.Form.L1: _l1,
    ir.Form.ENTMAX: _entmax,
    ir.Form.STICK: _stick,
    ir.Form.COLUMNS: _columns,
}
