"""Attention as a PyTorch custom operator: eager, autograd, torch.compile and autocast."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from attndsl.backends import (
    Tunable,
    Tuned,
    attend,
    backward_parts,
    forward_parts,
    lse_dtype,
    out_dtype,
)
from attndsl.compiler import Program
from attndsl.op.checks import check_plain, check_tensors, wants_gradient
from attndsl.op.dispatching import eager_only, needs_dispatcher, operator
from attndsl.op.planning import Plan, counts_of, planned, spec_of
from attndsl.source import AttnDslError, Diagnostic


def attention(
    program: Program,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float | None = None,
    backend: str = "auto",
    layout: str | None = None,
    extents: Mapping[str, int] | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> tuple[Tensor, Tensor]:
    """softmax(scale q kᵀ restricted to the pattern) v, and its log-sum-exp.

    Args:
        program: The compiled pattern, registered.
        q: Queries [B, H, Q, D].
        k: Keys [B, Hkv, K, D]; Hkv divides H (grouped-query attention).
        v: Values [B, Hkv, K, Dv].
        scale: Of the scores; 1/sqrt(D) by default.
        backend: "auto", or the name of one.
        layout: In which order tokens are taken into tiles; "natural", "auto" for the
            cheapest that the pattern suggests, or a layout of ``schedule``. By default that of
            ``default_layout``.
        extents: Sizes of grid axes that lengths do not determine.
        inputs: Run-time tables by name.

    Returns:
        out [B, H, Q, Dv] in the dtype of v, and lse [B, H, Q], natural logarithm, float32 (float64 for
        float64 inputs). A query that sees no key has out 0, lse -inf and no gradient; one that sees n zero
        keys only has out 0 and lse log(n). Both are differentiable. Inputs of 8 bits
        (float8_e4m3fn, float8_e5m2) give out in bfloat16, and no gradient.

    Raises:
        AttnDslError: A4xx for lengths, A5xx for tensors, inputs and backends. In a second backward: A504.
    """
    check_plain(program.mask.name, q, k, v)
    q, k, v = _autocast(q, k, v)
    check_tensors(program.mask.name, q, k, v)
    given = dict(inputs or {})
    factor = 1.0 / math.sqrt(max(1, q.shape[-1])) if scale is None else _number(scale)
    if backend == "reference":  # differentiated by autograd itself, sharing nothing with the rest
        call = program.call(q.shape[2], k.shape[2], q.shape[0], q.shape[1], extents, given)
        mask = torch.from_numpy(program.dense(call)).to(q.device)
        return attend(mask, q, k, v, factor, counts_of(program, call, q.device))
    tables, spec = _packed(q, given, extents, layout)
    args = q, k, v, tables, program.ticket, spec, factor, backend
    if needs_dispatcher(q, k, v, *tables):
        out, lse = _forward(*args)
    else:
        out, lse = _directly(*args)
    return out, lse


def tune(
    program: Program,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    backend: str = "auto",
    layout: str | None = None,
    extents: Mapping[str, int] | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> tuple[Tuned, ...]:
    """Measure how such calls run fastest, and remember it for them; of ``attention``, with its arguments.

    Empty where the back end has nothing to choose. The backward is measured if a tensor requires a gradient.

    Raises:
        AttnDslError: as ``attention``.
    """
    check_plain(program.mask.name, q, k, v)
    q, k, v = _autocast(q, k, v)
    check_tensors(program.mask.name, q, k, v)
    if backend == "reference":
        return ()
    tables, spec = _packed(q, dict(inputs or {}), extents, layout)
    plan = planned(q, k, v, tables, program.ticket, spec, backend)
    runner = plan.backend
    if not isinstance(runner, Tunable):
        return ()
    scale = 1.0 / math.sqrt(max(1, q.shape[-1]))
    return tuple(found for work in plan.works for found in runner.tune(work, q, k, v, scale=scale))


def _number(scale: object) -> float:
    if isinstance(scale, int | float) or hasattr(scale, "__float__"):
        return float(scale)
    raise AttnDslError(Diagnostic("A502", f"scale is a number, not {scale!r:.40}"))


def _packed(
    q: Tensor, inputs: Mapping[str, Any], extents: Mapping[str, int] | None, layout: str | None
) -> tuple[list[Tensor], str]:
    """Packs everything given by name for the operator."""
    names = sorted(inputs)
    return [_as_table(name, inputs[name], q) for name in names], spec_of(
        names, extents, layout or ""
    )


def _as_table(name: str, value: object, q: Tensor) -> Tensor:
    reason = "a meta tensor holds no data"
    try:
        made = torch.as_tensor(value)
        if q.is_meta or not made.is_meta:
            return made
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
    raise AttnDslError(Diagnostic("A501", f"input {name!r} cannot be read", notes=(reason,)))


def _autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    kind = tensors[0].device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(x if x.dtype == torch.float64 else x.to(dtype) for x in tensors)


@eager_only
def _directly(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tables: list[Tensor],
    program: str,
    spec: str,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Runs the call like the operator, past the dispatcher."""
    plan = planned(q, k, v, tables, program, spec, backend)
    if not wants_gradient(q, k, v):
        return _outputs(plan, q, k, v, scale)
    inputs = q, k, v, tables, program, spec, scale, backend
    out, lse = Attention.apply(plan, *inputs)  # type: ignore[no-untyped-call]
    return out, lse


@eager_only
def _forward_now(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tables: list[Tensor],
    program: str,
    spec: str,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    return _outputs(planned(q, k, v, tables, program, spec, backend), q, k, v, scale)


def _outputs(plan: Plan, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    out, lse = forward_parts(plan.backend, plan.works, q, k, v, scale=scale, zeros=plan.zeros)
    return out.contiguous(), lse.contiguous()


def _forward_fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tables: list[Tensor],
    program: str,
    spec: str,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    shape = (*q.shape[:3], v.shape[3])
    out = q.new_empty(shape, dtype=out_dtype(q.dtype))
    return out, q.new_empty(q.shape[:3], dtype=lse_dtype(q.dtype))


@eager_only
def _backward_now(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tables: list[Tensor],
    out: Tensor,
    lse: Tensor,
    dout: Tensor,
    dlse: Tensor | None,
    program: str,
    spec: str,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    plan = planned(q, k, v, tables, program, spec, backend)
    return _gradients(plan, q, k, v, out, lse, dout, dlse, scale)


@eager_only
def _gradients(
    plan: Plan,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    dout: Tensor,
    dlse: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    runner, parts = plan.backend, plan.works
    grads = backward_parts(runner, parts, q, k, v, out, lse, dout, dlse, scale=scale)
    dq, dk, dv = (grad.contiguous() for grad in grads)
    return dq, dk, dv


def _backward_fake(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tables: list[Tensor],
    out: Tensor,
    lse: Tensor,
    dout: Tensor,
    dlse: Tensor | None,
    program: str,
    spec: str,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


_forward = operator("attention", _forward_now)
_backward = operator("attention_backward", _backward_now)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, tables, *rest = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, *output, *tables)
    ctx.rest, ctx.plan = rest, None


def _differentiate(ctx: Any, dout: Tensor | None, dlse: Tensor | None) -> tuple[Any, ...]:
    q, k, v, out, lse, *tables = ctx.saved_tensors
    nothing = [None] * len(tables)
    if dout is None and dlse is None:
        return (None, None, None, nothing, None, None, None, None)
    dout = torch.zeros_like(out) if dout is None else dout
    # one that is itself differentiated goes where that is refused
    if ctx.plan is None or torch.is_grad_enabled() or needs_dispatcher(q, k, v, dout, *tables):
        grads = _backward(q, k, v, tables, out, lse, dout, dlse, *ctx.rest)
    else:
        _, _, scale, _ = ctx.rest
        grads = _gradients(ctx.plan, q, k, v, out, lse, dout, dlse, scale)
    return (*grads, nothing, None, None, None, None)


torch.library.register_fake(_forward, _forward_fake)
torch.library.register_fake(_backward, _backward_fake)
torch.library.register_autograd(_forward, _differentiate, setup_context=_setup)


class Attention(torch.autograd.Function):
    """The operator and its derivative, where nothing follows operators."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, *inputs: Any) -> tuple[Tensor, Tensor]:
        q, k, v, _tables, _program, _spec, scale, _backend = inputs
        output = _outputs(plan, q, k, v, scale)
        _setup(ctx, inputs, output)
        ctx.plan = plan
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:
        dq, dk, dv, *_ = _differentiate(ctx, *gradients)
        return None, dq, dk, dv, *(None,) * 5


def _refuse(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
    """Without this, autograd would take the gradients for constants."""
    del ctx, gradients
    title = "this back end has no second derivatives"
    helps = ('pass backend="reference", which is differentiated by autograd itself',)
    raise AttnDslError(Diagnostic("A504", title, helps=helps))


torch.library.register_autograd(_backward, _refuse)


@functools.cache
def operators() -> tuple[Any, Any]:
    """The registered operators (forward, backward), for ``torch.library.opcheck``."""
    return _forward, _backward
