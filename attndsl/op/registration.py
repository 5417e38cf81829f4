"""Attention and its derivatives as two operators of torch, closed under every transform.

    attention(q, k, v, tables, call...)                      -> (out, lse, stamp)
    attention_derivative(xs, out, lse, stamp, tables, rule, call...) -> tensors

Both are differentiated, in reverse and in forward mode, by the second; vmap folds the mapped dim into the batch. All
is registered with the dispatcher, where ``torch.func``, ``torch.compile`` and ``torch.export`` look for it.
``stamp`` tells a derivative the contents of the tables at the time of the forward, uint8 [16], [0] without tables.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.forward_ad import _set_fwd_grad_enabled

import attndsl.operators  # noqa: F401 - declared, if nobody did so before
from attndsl.backends import Executable, Pages, Request, lse_dtype, out_dtype
from attndsl.op.contents import STAMP, stamp_on_device
from attndsl.op.counting import flops, live_pairs
from attndsl.op.dispatching import eager_only
from attndsl.op.folding import Fold, entry_of
from attndsl.op.legacy_vmap import one_by_one
from attndsl.op.operator_call import Call, Kernels, Known, flat
from attndsl.op.planning import REWRITTEN
from attndsl.op.rules import FORWARD, Jvp, Rule, Tensors, Vjp, read


def attention(qkv: Sequence[Tensor], tables: Sequence[Tensor], call: Call) -> Known:
    """The first operator, called."""
    return Known._make(torch.ops.attndsl.attention(*qkv, list(tables), *flat(call)))


def derivative(
    rule: Rule, xs: Sequence[Tensor], known: Known, tables: Sequence[Tensor], call: Call
) -> Tensors:
    """The second operator, called: what a rule, not FORWARD, gives of its inputs."""
    made = torch.ops.attndsl.attention_derivative(
        list(xs), *known, list(tables), rule.text, *flat(call)
    )
    return tuple(made)


# ---------------------------------------------------------------------------- computing


@eager_only
def _attention(q: Tensor, k: Tensor, v: Tensor, tables: list[Tensor], *call: Any) -> Known:
    asked = Call.of(*call)
    options = asked.options
    found = asked.planner.executable(Request.of(q, k, v, gradient=False), tables, options)
    stamp = stamp_tensor(found, tables, q.device)
    out, lse = outputs(found, q, k, v, options.scale)
    return Known(out.contiguous(), lse.contiguous(), stamp)


def stamp_tensor(found: Executable, tables: Sequence[Tensor], device: torch.device) -> Tensor:
    """The stamp of a call that ran; where its tables were not read, made of them on their device."""
    if tables and not found.stamp:
        return stamp_on_device(tables)
    return torch.tensor(list(found.stamp), dtype=torch.uint8, device=device)


@eager_only
def _derivative(
    xs: list[Tensor],
    out: Tensor,
    lse: Tensor,
    stamp: Tensor,
    tables: list[Tensor],
    rule: str,
    *call: Any,
) -> list[Tensor]:
    asked = Call.of(*call)
    options = asked.options
    q, k, v, *cotangents = xs
    planner, request = asked.planner, Request.of(q, k, v, gradient=True)
    if planner.is_open(request, tables, options):
        held, same = None, (stamp == stamp_on_device(tables)).all()
        torch._assert_async(same, "attndsl: " + REWRITTEN)
    else:
        held = bytes(stamp.tolist()) if len(stamp) else None
    match read(rule):
        case Vjp(rule=inner, given=(has_dout, has_dlse)) if inner is FORWARD:
            dout = cotangents[0] if has_dout else torch.zeros_like(out)
            dlse = cotangents[-1] if has_dlse else None
            found = planner.executable(request, tables, options, held)
            grads = gradients(found, q, k, v, out, lse, dout, dlse, options.scale)
            return [grad.contiguous() for grad in grads]
        case other:
            composed = planner.composed(request, tables, options, held, lse)
            with afresh():
                return list(other.of(composed)(*xs))


@functools.cache
def _untouched() -> list[Any]:
    """The dispatch keys that a thread begins with: included, excluded."""
    found: list[Any] = []
    sets = torch._C._dispatch_tls_local_include_set, torch._C._dispatch_tls_local_exclude_set
    thread = threading.Thread(target=lambda: found.extend(get() for get in sets))
    thread.start()
    thread.join()
    return found


@contextlib.contextmanager
def afresh() -> Iterator[None]:
    """Dispatch as outside all operators: within one, autograd is passed by, and under a mode transforms are, too."""
    keys = torch._C._ForceDispatchKeyGuard(*_untouched())
    with keys, torch.no_grad(), _set_fwd_grad_enabled(False):
        yield


def outputs(
    found: Executable, q: Tensor, k: Tensor, v: Tensor, scale: float, pages: Pages | None = None
) -> tuple[Tensor, Tensor]:
    """(out, lse); a kernel may give them with heads last but one, as torch does."""
    if pages is None:
        return found.forward(q, k, v, scale=scale)
    return found.forward(q, k, v, scale=scale, pages=pages)


@eager_only
def gradients(
    found: Executable,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    dout: Tensor,
    dlse: Tensor | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """(dq, dk, dv)."""
    return found.backward(q, k, v, out, lse, dout, dlse, scale=scale)


def _attention_fake(q: Tensor, k: Tensor, v: Tensor, tables: list[Tensor], *call: Any) -> Known:
    del k, call
    out = q.new_empty((*q.shape[:3], v.shape[3]), dtype=out_dtype(q.dtype))
    lse = q.new_empty(q.shape[:3], dtype=lse_dtype(q.dtype))
    return Known(out, lse, q.new_empty(STAMP if tables else 0, dtype=torch.uint8))


def _derivative_fake(
    xs: list[Tensor],
    out: Tensor,
    lse: Tensor,
    stamp: Tensor,
    tables: list[Tensor],
    rule: str,
    *call: Any,
) -> list[Tensor]:
    del stamp, tables, call
    return [x.new_empty(x.shape) for x in read(rule).like(xs, (out, lse))]


# ---------------------------------------------------------------------------- derivatives


class _Level(torch.autograd.function._SingleLevelFunction):
    """A rule at one level of derivatives: of its inputs, what is known where it is a derivative, and tables."""

    @staticmethod
    def forward(keys: Any, rule: Rule, call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        # the function of a level turns both modes off, which are those of outer levels, too
        with (
            torch._C._AutoDispatchBelowAutograd(),
            torch.enable_grad(),
            _set_fwd_grad_enabled(True),
        ):
            return _below(keys, rule, call, tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _keys, rule, call, *tensors = inputs
        n = rule.inputs
        if rule is FORWARD:
            ctx.mark_non_differentiable(output[2])
            known, tables = list(output), tensors[n:]
        else:
            known, tables = tensors[n : n + 3], tensors[n + 3 :]
        ctx.set_materialize_grads(False)
        ctx.rule, ctx.call, ctx.count = rule, call, len(tensors)
        ctx.tables = tables  # not saved: what is written to them later is told by the stamp
        ctx.save_for_backward(*tensors[:n], *known)
        ctx.save_for_forward(*tensors[:n], *known)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        rule, saved = ctx.rule, ctx.saved_tensors
        cotangents = cotangents[:2] if rule is FORWARD else cotangents
        given = [x for x in cotangents if x is not None]
        if not given:
            return tuple([None] * (3 + ctx.count))
        pull = Vjp(rule, tuple(x is not None for x in cotangents))
        xs = *saved[: rule.inputs], *given
        grads = derivative(pull, xs, Known._make(saved[-3:]), ctx.tables, ctx.call)
        return None, None, None, *grads, *(None,) * (ctx.count - rule.inputs)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        rule: Rule = ctx.rule
        saved: Tensors = ctx.saved_tensors
        xs = saved[: rule.inputs]
        pairs = zip(xs, tangents[3 : 3 + rule.inputs], strict=True)
        moved = (torch.zeros_like(x) if t is None else t for x, t in pairs)
        made = derivative(Jvp(rule), (*xs, *moved), Known._make(saved[-3:]), ctx.tables, ctx.call)
        return (*made, None) if rule is FORWARD else made


def _below(keys: Any, rule: Rule, call: Call, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The operator without this level of derivatives."""
    keys, n = keys & torch._C._after_autograd_keyset, rule.inputs
    xs, others = list(tensors[:n]), tensors[n:]
    if rule is FORWARD:
        operator: Any = torch.ops.attndsl.attention.default
        return Known._make(operator.redispatch(keys, *xs, list(others), *flat(call)))
    operator, known = torch.ops.attndsl.attention_derivative.default, others[:3]
    tables, text = list(others[3:]), rule.text
    made: list[Tensor] = operator.redispatch(keys, xs, *known, tables, text, *flat(call))
    return tuple(made)


def _differentiated(keys: Any, rule: Rule, call: Call, tensors: Sequence[Tensor]) -> Tensors:
    """The operator at one level of derivatives."""
    allowed = torch._C._functorch.get_single_level_autograd_function_allowed()
    torch._C._functorch.set_single_level_autograd_function_allowed(True)
    try:
        made: Tensors = _Level.apply(keys, rule, call, *tensors)  # type: ignore[attr-defined]
    finally:
        torch._C._functorch.set_single_level_autograd_function_allowed(allowed)
    return made


def _attention_autograd(
    keys: Any, q: Tensor, k: Tensor, v: Tensor, tables: list[Tensor], *call: Any
) -> Tensors:
    return _differentiated(keys, FORWARD, Call.of(*call), (q, k, v, *tables))


def _derivative_autograd(
    keys: Any,
    xs: list[Tensor],
    out: Tensor,
    lse: Tensor,
    stamp: Tensor,
    tables: list[Tensor],
    rule: str,
    *call: Any,
) -> list[Tensor]:
    tensors = *xs, out, lse, stamp, *tables
    return list(_differentiated(keys, read(rule), Call.of(*call), tensors))


# ---------------------------------------------------------------------------- vmap


def _attention_vmap(
    info: Any,
    in_dims: Any,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    tables: list[Tensor],
    *call: Any,
) -> tuple[Tensors, tuple[int | None, ...]]:
    asked = Call.of(*call)
    count, dims, table_dims = info.batch_size, in_dims[:3], in_dims[3]
    fold = Fold.find(asked, count, (q, k, v), dims, table_dims)
    if fold is None:
        parts = (
            (entry_of(i, (q, k, v), dims), entry_of(i, tables, table_dims)) for i in range(count)
        )
        each = [attention(xs, own, asked) for xs, own in parts]
        return tuple(map(torch.stack, zip(*each, strict=True))), (0, 0, 0)
    known = attention(fold.of((q, k, v), dims), fold.of_tables(tables, table_dims), asked)
    return (*map(fold.undone, known[:2]), known.stamp), (0, 0, None)


def _derivative_vmap(
    info: Any,
    in_dims: Any,
    xs: list[Tensor],
    out: Tensor,
    lse: Tensor,
    stamp: Tensor,
    tables: list[Tensor],
    rule: str,
    *call: Any,
) -> tuple[list[Tensor], list[int]]:
    asked, wanted, known = Call.of(*call), read(rule), (out, lse, stamp)
    count, dims, known_dims, table_dims = info.batch_size, in_dims[0], in_dims[1:4], in_dims[4]
    fold = Fold.find(asked, count, xs, dims, table_dims)
    if fold is None:
        each = [
            derivative(
                *(wanted, entry_of(i, xs, dims), Known._make(entry_of(i, known, known_dims))),
                *(entry_of(i, tables, table_dims), asked),
            )
            for i in range(count)
        ]
        made = list(map(torch.stack, zip(*each, strict=True)))
    else:
        # a stamp tells of the tables as they were: when these are folded, others are
        told = stamp.new_empty(0) if any(fold.batched) else stamp
        outer = Known._make((*fold.of((out, lse), known_dims[:2]), told))
        folded = fold.of(xs, dims), outer, fold.of_tables(tables, table_dims)
        made = list(map(fold.undone, derivative(wanted, *folded, asked)))
    return made, [0] * len(made)


# ---------------------------------------------------------------------------- counting


def _attention_flops(
    q: Tensor, k: Tensor, v: Tensor, tables: list[Tensor], *call: Any, out_val: Any = None
) -> int:
    del out_val
    return _flops(FORWARD, (q, k, v), tables, Call.of(*call))


def _derivative_flops(
    xs: list[Tensor],
    out: Tensor,
    lse: Tensor,
    stamp: Tensor,
    tables: list[Tensor],
    rule: str,
    *call: Any,
    out_val: Any = None,
) -> int:
    del out, lse, stamp, out_val
    return _flops(read(rule), xs, tables, Call.of(*call))


@eager_only
def _flops(rule: Rule, xs: Sequence[Tensor], tables: Sequence[Tensor], call: Call) -> int:
    (q, k, v), options = xs[:3], call.options
    planner = None if _is_symbolic(call.name.digest) else call.planner
    extents = dict(zip(options.axes, options.extents, strict=True))
    pairs = live_pairs(planner, q, k, tables, options.names, extents)
    return flops(rule, pairs, q.shape[3], v.shape[3])


def _is_symbolic(number: object) -> bool:
    return isinstance(number, torch.SymInt)


# ---------------------------------------------------------------------------- registration


def _attention_legacy_vmap(*args: Any) -> Any:
    return one_by_one(torch.ops.attndsl.attention, *args)


def _derivative_legacy_vmap(*args: Any) -> Any:
    return one_by_one(torch.ops.attndsl.attention_derivative, *args)


KERNELS: Final = {
    "attention": Kernels(
        compute=_attention,
        fake=_attention_fake,
        autograd=_attention_autograd,
        vmap=_attention_vmap,
        legacy_vmap=_attention_legacy_vmap,
        flops=_attention_flops,
    ),
    "attention_derivative": Kernels(
        compute=_derivative,
        fake=_derivative_fake,
        autograd=_derivative_autograd,
        vmap=_derivative_vmap,
        legacy_vmap=_derivative_legacy_vmap,
        flops=_derivative_flops,
    ),
}


def operators() -> tuple[Any, Any]:
    """The registered operators (attention, attention_derivative), for ``torch.library.opcheck``."""
    return torch.ops.attndsl.attention.default, torch.ops.attndsl.attention_derivative.default
