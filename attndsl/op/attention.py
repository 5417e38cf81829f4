"""Attention as a PyTorch custom operator: eager, autograd, torch.compile and autocast."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends import (
    Backend,
    Request,
    Tunable,
    Tuned,
    Work,
    attend,
    backward_parts,
    best_tile,
    choose,
    forward_parts,
    lse_dtype,
    out_dtype,
    price_of,
)
from attndsl.compiler import NOTHING, Given, Program, read_inputs
from attndsl.op.checks import check_plain, check_tensors
from attndsl.schedule import Call, Price
from attndsl.source import AttnDslError, Diagnostic

_REMEMBERED = 64  # calls of a program


@dataclass(frozen=True, slots=True)
class Plan:
    """How calls are run that differ in numbers alone."""

    backend: Backend[Work]
    works: tuple[Work, ...]  # which pairs to compute: disjoint parts
    zeros: Tensor | None  # how many zero keys each query sees


# By ticket, what plans the calls of a program: what crosses into the dispatcher is a string.
_PLANNERS: dict[str, Callable[..., Plan]] = {}


def register(program: Program) -> Program:
    """Make the program known to the operator, before any call: a traced call cannot do so itself."""
    remembering = functools.lru_cache(_REMEMBERED)
    _PLANNERS.setdefault(program.ticket, remembering(functools.partial(_plan, program)))
    return program  # itself, not its equal: comments and claims are no part of the ticket


def attention(
    program: Program,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float | None = None,
    backend: str = "auto",
    layout: str = "natural",
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
            cheapest that the pattern suggests, or a layout of ``schedule``.
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
        return attend(mask, q, k, v, factor, _counts(program, call, q.device))
    tables, spec = _packed(q, given, extents, layout)
    out, lse = _forward(q, k, v, tables, program.ticket, spec, factor, backend)
    return out, lse


def tune(
    program: Program,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    backend: str = "auto",
    layout: str = "natural",
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
    plan = _planned(q, k, v, tables, program.ticket, spec, backend)
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
    q: Tensor, inputs: Mapping[str, Any], extents: Mapping[str, int] | None, layout: str
) -> tuple[list[Tensor], str]:
    """What crosses into the operator of all that is given by name: tensors, and a string about them."""
    names = sorted(inputs)
    return [_as_table(name, inputs[name], q) for name in names], _spec(names, extents, layout)


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


def _spec(names: list[str], extents: Mapping[str, int] | None, layout: str) -> str:
    """Input names, extents and layout as one plain string, which torch.compile can make and guard on."""
    sizes = ",".join(f"{name}={size}" for name, size in ir.named_extents(extents).items())
    return f"{','.join(names)};{sizes};{layout}"


def _names(spec: str) -> list[str]:
    return [name for name in spec.partition(";")[0].split(",") if name]


def _read_spec(spec: str) -> tuple[dict[str, int], str]:
    _, extents, layout = spec.split(";", 2)
    pairs = [item.partition("=") for item in extents.split(",") if item]
    for name, _, size in pairs:
        if not size.isdecimal():
            title = f"extent of {name!r} must be a positive integer, got {size}"
            raise AttnDslError(Diagnostic("A401", title))
    return {name: int(size) for name, _, size in pairs}, layout


def _planned(
    q: Tensor, k: Tensor, v: Tensor, tables: list[Tensor], ticket: str, spec: str, backend: str
) -> Plan:
    """Remembered for equal calls. Equal means equal contents of the inputs."""
    given = read_inputs(dict(zip(_names(spec), tables, strict=True))) if tables else NOTHING
    lengths = q.shape, k.shape[2], v.shape[3]
    return _PLANNERS[ticket](*lengths, q.dtype, q.device, spec, backend, given)


def _plan(
    program: Program,
    shape: torch.Size,
    k_len: int,
    value_dim: int,
    dtype: torch.dtype,
    device: torch.device,
    spec: str,
    backend: str,
    given: Given,
) -> Plan:
    batch, heads, q_len, head_dim = shape
    extents, layout = _read_spec(spec)
    call = program.call(q_len, k_len, batch, heads, extents, given.arrays)
    tile, price = searched_by(device.type, call, head_dim)
    parts = program.parts(call, layout, tile, price)
    works = (
        Work(part.schedule, part, f"{program.key}/{layout}/{index}")
        for index, part in enumerate(parts)
    )
    runner = choose(Request(device.type, dtype, head_dim, value_dim), backend)
    return Plan(runner, tuple(works), _counts(program, call, device))


def _counts(program: Program, call: Call, device: torch.device) -> Tensor | None:
    """How many zero keys each query sees, where the pattern has any: int64 [B or 1, H or 1, Q]."""
    counts = program.zero_keys(call)
    return None if counts is None else torch.from_numpy(counts).to(device)


def searched_by(device: str, call: Call, head_dim: int) -> tuple[tuple[int, int], Price]:
    """What layout="auto" counts in and by there: tiles as the backend asks for, and what they cost."""
    if device != "cpu":
        return (128, 128), Price()
    return best_tile(call.q_len, call.k_len), price_of(call.heads, head_dim)


def _operator(name: str) -> Callable[[Callable[..., Any]], Any]:
    """Make a function an operator, ``torch.ops.attndsl.<name>``.

    ``torch.library.custom_op`` would do, but that its first call imports all of torch._dynamo: two seconds.
    """

    def register_it(function: Callable[..., Any]) -> Any:
        schema = torch.library.infer_schema(function, mutates_args=())
        full_name = f"attndsl::{name}"
        torch.library.define(full_name, schema, tags=(torch.Tag.pt2_compliant_tag,))
        torch.library.impl(full_name, "default", _untraced(function))
        return getattr(torch.ops.attndsl, name).default

    return register_it


def _untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with dynamo, where somebody has loaded it, told to look away."""

    @functools.cache
    def quiet(dynamo: Any) -> Callable[..., Any]:
        return dynamo.disable(function)  # type: ignore[no-any-return]

    def run(*args: Any) -> Any:
        dynamo = sys.modules.get("torch._dynamo")
        return function(*args) if dynamo is None else quiet(dynamo)(*args)

    return run


@_operator("attention")
def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tables: list[Tensor],
    program: str,
    spec: str,
    scale: float,
    backend: str,
) -> tuple[Tensor, Tensor]:
    plan = _planned(q, k, v, tables, program, spec, backend)
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


@_operator("attention_backward")
def _backward(
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
    plan = _planned(q, k, v, tables, program, spec, backend)
    runner, parts = plan.backend, plan.works
    grads = backward_parts(runner, parts, q, k, v, out, lse, dout, dlse, scale=scale)
    dq, dk, dv = (grad.to(x.dtype).contiguous() for grad, x in zip(grads, (q, k, v), strict=True))
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


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, tables, *rest = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(q, k, v, *output, *tables)
    ctx.rest = rest


def _differentiate(ctx: Any, dout: Tensor | None, dlse: Tensor | None) -> tuple[Any, ...]:
    q, k, v, out, lse, *tables = ctx.saved_tensors
    nothing = [None] * len(tables)
    if dout is None and dlse is None:
        return (None, None, None, nothing, None, None, None, None)
    dout = torch.zeros_like(out) if dout is None else dout
    grads = _backward(q, k, v, tables, out, lse, dout, dlse, *ctx.rest)
    return (*grads, nothing, None, None, None, None)


torch.library.register_fake(_forward, _forward_fake)
torch.library.register_fake(_backward, _backward_fake)
torch.library.register_autograd(_forward, _differentiate, setup_context=_setup)


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
