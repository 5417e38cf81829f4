"""Attentions as two operators of torch, so that ``torch.compile`` and ``torch.export`` keep them in one graph.

    scored([q, k, v, inputs...], attention, call...)                            -> (out, lse)
    scored_derivative(xs, known, cotangents, given, wanted, attention, call...) -> gradients of the wanted xs

All terms are one operator, which holds the attention as text. ``known`` are out and lse where these are results of a
primitive; else [], and the derivative computes the forward anew.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

import attndsl.operators  # noqa: F401 - declared, if nobody did so before
from attndsl import ir
from attndsl.backends import lse_dtype
from attndsl.op import scores
from attndsl.op.attention import autocast, packed
from attndsl.op.checks import check_plain
from attndsl.op.dispatching import eager_only
from attndsl.op.operator_call import split_names
from attndsl.op.registration import afresh
from attndsl.op.scaling import number
from attndsl.op.scored_part import ScoredCall
from attndsl.op.scores import TermProgram
from attndsl.passes import drop_weights

_REMEMBERED: Final = 64  # attentions that came as text, and those with a probability of dropout
_SEEDS: Final = 2  # calls with dropout that are remembered: each has a seed of its own
_SCALE: Final = "<scale>"  # no input is spelled so


class Whole(NamedTuple):
    """An attention, ready for calls, and its text as saved, which names it in a graph."""

    text: str
    layer: int
    terms: tuple[TermProgram, ...]


def attend(
    whole: Whole,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    call: ScoredCall,
    *,
    dropout: float = 0.0,
    with_lse: bool = False,
) -> tuple[Tensor, Tensor]:
    """Same as ``scores.attend``, by the operator where torch traces.

    ``dropout``: the probability with which each weight is dropped, of calls that are given a seed among their inputs.
    Calls with positions or keys from elsewhere are not traced, nor what stands below a transform of ``torch.func``.
    """
    text, layer, terms = whole
    stays = call.positions or call.keys or not torch.compiler.is_compiling()
    if stays or torch._C._are_functorch_transforms_active():
        if dropout:
            terms = _dropping(text, layer, dropout)
        return scores.attend(terms, q, k, v, call, with_lse=with_lse)
    scores.check_lse(terms, with_lse=with_lse)
    program = terms[0].parts[0].program
    check_plain(program, q, k, v)
    q, k, v = autocast(q, k, v)
    given, factor = dict(call.inputs or {}), call.scale
    if isinstance(factor, Tensor):
        given[_SCALE], factor = factor, None
    plain = 1.0 / math.sqrt(max(1, q.shape[-1])) if factor is None else number(program, factor)
    tables, options = packed(q, given, call.extents, call.layout, call.backend, plain)
    names, axes, extents, *rest = options
    written = ",".join(names), ",".join(axes), list(extents), *rest
    out, lse = torch.ops.attndsl.scored([q, k, v, *tables], text, layer, dropout, *written)
    return out, lse


@functools.lru_cache(_REMEMBERED)
def _restored(text: str, layer: int, dropout: float) -> tuple[TermProgram, ...]:
    made = ir.load_attention(text)
    if dropout:
        made = drop_weights(made, dropout)
    terms = tuple(TermProgram.of(term, made.tables, layer) for term in made.terms)
    return tuple(term.alone(_SEEDS) for term in terms) if dropout else terms


_dropping = eager_only(_restored)


def _run(
    xs: Sequence[Tensor], call: Sequence[Any], known: Sequence[Tensor] = ()
) -> tuple[Tensor, Tensor]:
    """The call that the arguments of an operator are; its tensors have the dtype that autocast asked for."""
    text, layer, dropout, names, axes, extents, layout, backend, factor = call
    q, k, v, *tables = xs
    given = dict(zip(split_names(names), tables, strict=True))
    scale = given.pop(_SCALE, factor)
    sizes = dict(zip(split_names(axes), extents, strict=True))
    held = (known[0], known[1]) if known else None
    asked = ScoredCall(scale, backend, layout or None, sizes or None, given, known=held)
    with torch.autocast(q.device.type, enabled=False):
        return scores.attend(_restored(text, layer, dropout), q, k, v, asked)


@eager_only
def _scored(xs: list[Tensor], *call: Any) -> tuple[Tensor, Tensor]:
    with afresh():
        out, lse = _run(xs, call)
    return out.contiguous(), lse.contiguous()


@eager_only
def _derivative(
    xs: list[Tensor],
    known: list[Tensor],
    cotangents: list[Tensor],
    given: list[bool],
    wanted: list[bool],
    *call: Any,
) -> list[Tensor]:
    with afresh(), torch.enable_grad():
        leaves = [x.detach().requires_grad_(want) for x, want in zip(xs, wanted, strict=True)]
        outs = [x for x, has in zip(_run(leaves, call, known), given, strict=True) if has]
        pairs = [p for p in zip(outs, cotangents, strict=True) if p[0].requires_grad]
        asked = [x for x in leaves if x.requires_grad]
        reached: Sequence[Tensor | None] = [None] * len(asked)
        if pairs:
            differentiated, told = zip(*pairs, strict=True)
            reached = torch.autograd.grad(differentiated, asked, told, allow_unused=True)
    return [
        x.new_zeros(x.shape) if g is None else g.contiguous()
        for x, g in zip(asked, reached, strict=True)
    ]


def _scored_fake(xs: list[Tensor], *call: Any) -> tuple[Tensor, Tensor]:
    del call
    q, v = xs[0], xs[2]
    return v.new_empty((*q.shape[:3], v.shape[3])), q.new_empty(
        q.shape[:3], dtype=lse_dtype(q.dtype)
    )


def _derivative_fake(
    xs: list[Tensor],
    known: list[Tensor],
    cotangents: list[Tensor],
    given: list[bool],
    wanted: list[bool],
    *call: Any,
) -> list[Tensor]:
    del known, cotangents, given, call
    return [x.new_empty(x.shape) for x, want in zip(xs, wanted, strict=True) if want]


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    xs, *program = inputs[:4]
    known = output if scores.is_one_primitive(_restored(*program)) else ()
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*xs, *known)  # ints, too: torch refuses what was written to since
    ctx.call, ctx.count = inputs[1:], len(xs)


def _backward(ctx: Any, *cotangents: Any) -> tuple[Any, ...]:
    rest: list[list[None] | None] = [[] if x == [] else None for x in ctx.call]
    given = [isinstance(x, Tensor) for x in cotangents]
    wanted = list(ctx.needs_input_grad[0])
    if not any(given):
        return [None] * len(wanted), *rest
    told = [x for x in cotangents if isinstance(x, Tensor)]
    xs, known = list(ctx.saved_tensors[: ctx.count]), list(ctx.saved_tensors[ctx.count :])
    made = torch.ops.attndsl.scored_derivative(xs, known, told, given, wanted, *ctx.call)
    grads = iter(made)
    return [next(grads) if want else None for want in wanted], *rest


def _second_setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    del ctx, inputs, output


def _second(ctx: Any, *cotangents: Any) -> tuple[Any, ...]:
    raise RuntimeError(
        "a compiled attention has no second derivatives: call it without torch.compile"
    )


class ScoredKernels(NamedTuple):
    """Functions behind an operator, as ``attndsl.operators`` registers them."""

    compute: Callable[..., Any]
    fake: Callable[..., Any]
    setup: Callable[..., None]
    backward: Callable[..., Any]


SCORED_KERNELS: Final = {
    "scored": ScoredKernels(_scored, _scored_fake, _setup, _backward),
    "scored_derivative": ScoredKernels(_derivative, _derivative_fake, _second_setup, _second),
}
