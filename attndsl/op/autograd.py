"""Attention as torch differentiates it, where no operator of torch's is needed."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from attndsl.backends import (
    Executable,
    Pages,
    Request,
)
from attndsl.op.checks import wants_gradient
from attndsl.op.dispatching import eager_only, needs_dispatcher
from attndsl.op.operator_call import Call, Known
from attndsl.op.planning import Options, Planner, rewritten
from attndsl.op.registration import derivative, gradients, outputs, stamp_tensor
from attndsl.op.rules import FORWARD, Vjp


@eager_only
def directly(
    planner: Planner,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tables: list[Tensor],
    options: Options,
    stamp: bytes | None,
    pages: Pages | None,
    kind: object = None,
) -> tuple[Tensor, Tensor]:
    """Runs the call like the operator, past the dispatcher. Calls of one ``kind``, if any, run alike."""
    gradient = wants_gradient(q, k, v)
    found = planner.executable(Request.of(q, k, v, gradient=gradient), tables, options, stamp)
    if kind is not None:
        planner.keep_ready(kind, found, options)
    return run(planner, found, q, k, v, tables, options, pages)


def run(
    planner: Planner,
    found: Executable,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tables: list[Tensor],
    options: Options,
    pages: Pages | None = None,
) -> tuple[Tensor, Tensor]:
    """(out, lse) of a call that is planned; differentiable."""
    if not wants_gradient(q, k, v):
        return outputs(found, q, k, v, options.scale, pages)
    out, lse = Attention.apply(q, k, v, tables, planner, found, options)  # type: ignore[no-untyped-call]
    return out, lse


class Attention(torch.autograd.Function):
    """The operator and its derivative, where nothing follows operators."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        tables: list[Tensor],
        planner: Planner,
        found: Executable,
        options: Options,
    ) -> tuple[Tensor, Tensor]:
        out, lse = outputs(found, q, k, v, options.scale)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.tables, ctx.planner, ctx.found, ctx.options = tables, planner, found, options
        ctx.versions = _versions(tables)
        return out, lse

    @staticmethod
    def backward(ctx: Any, dout: Tensor | None, dlse: Tensor | None) -> tuple[Any, ...]:
        q, k, v, out, lse = ctx.saved_tensors
        if dout is None and dlse is None:
            return (None,) * 7
        dense = torch.zeros_like(out) if dout is None else dout
        if not torch.is_grad_enabled() and not needs_dispatcher(q, k, v, dense, *ctx.tables):
            grads = gradients(ctx.found, q, k, v, out, lse, dense, dlse, ctx.options.scale)
            return *grads, None, None, None, None
        if not ctx.found.stamp and ctx.versions != _versions(ctx.tables):
            raise rewritten(ctx.planner.program.mask.name, ctx.options.names)
        stamp = stamp_tensor(ctx.found, ctx.tables, q.device)
        rule, sees_none = Vjp(FORWARD, (dout is not None, dlse is not None)), lse == -math.inf
        # whatever comes back to queries without keys, it reaches nothing
        reached = (dout, sees_none[..., None]), (dlse, sees_none)
        xs = q, k, v, *(x.masked_fill(none, 0.0) for x, none in reached if x is not None)
        call = Call(ctx.planner.name, ctx.options)
        made = derivative(rule, xs, Known(out, lse, stamp), ctx.tables, call)
        return *made, None, None, None, None


def _versions(tables: list[Tensor]) -> list[int]:
    """How often each input has been written to; nobody counts that of tensors made in inference mode."""
    return [-1 if x.is_inference() else x._version for x in tables]
