"""Calls through kernels that others maintain, where the pairs of a call are proved to be of their family.

``sdpa``, all pairs or a triangle, and ``varlen``, windows in packed documents, are torch's; ``flash_attn`` and
``natten`` are libraries of those names. The proof is the exact schedule of the call.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import torch
from torch import Tensor

from attndsl import ir
from attndsl.families import TILE, Documents, NotInFamily, documents, is_causal_square
from attndsl.inputs import digest_of
from attndsl.neighbourhoods import Neighbourhood, neighbourhood
from attndsl.op.dispatching import eager_only
from attndsl.op.planning import Planner
from attndsl.positions import BOUNDS, hidden
from attndsl.schedule import Call, read_layouts
from attndsl.source import AttnDslError, Diagnostic

T = TypeVar("T")

_HALVES: Final = (torch.float16, torch.bfloat16)
_WIDEST: Final = 256  # channels of a head that the flash kernels take
_WHERE: Final = {"flash_attn": ("flash_attn", "flash_attn_varlen_func"), "natten": ("natten", "na1d"),
                 "varlen": ("torch.nn.attention.varlen", "varlen_attn")}  # fmt: skip


def refusal(backend: str, reason: str, *helps: str) -> AttnDslError:
    """The error of a back end that does not run a call, with the reason."""
    notes = (f"{backend}: {reason}",)
    return AttnDslError(
        Diagnostic("A520", "no backend can run these tensors", notes=notes, helps=helps)
    )


def check_layout(backend: str, layout: str | None) -> None:
    """Refuses an order of tokens that a back end without tiles would ignore.

    The oracle takes any that there is: it changes no result.

    Raises:
        AttnDslError: A410, there is no such layout; A520, the kernel takes tokens in an order of its own.
    """
    if layout in (None, "", "auto", "natural"):
        return
    read_layouts(str(layout))
    if backend != "reference":
        raise refusal(
            backend, f"layout={layout!r} orders tokens for tiles of ours", "leave `layout` out"
        )


def call_of(
    backend: str,
    planner: Planner,
    q: Tensor,
    k: Tensor,
    extents: Mapping[str, int] | None,
    inputs: Mapping[str, Any],
) -> tuple[Call, tuple[Any, ...]]:
    """A call of plain attention, and what tells it from others of the pattern, contents of inputs included.

    Raises:
        AttnDslError: A4xx for lengths; A520, tokens have positions.
    """
    if hidden(BOUNDS[0]) in inputs:
        helps = ("the documents as a pattern: `documents`, `documents_causal`",)
        raise refusal(backend, "bounds of packed sequences are not given to it", *helps)
    shape = q.shape[2], k.shape[2], q.shape[0], q.shape[1]
    call = planner.program.call(*shape, extents, inputs)
    if call.positions is not None:
        raise refusal(backend, "positions of tokens are not given to it")
    contents = tuple((name, digest_of(x)) for name, x in sorted(call.tables.items()))
    held = call.head_start, call.model_heads
    return call, (shape, held, tuple(sorted(call.sizes.items())), contents)


@eager_only
def is_causal(
    planner: Planner,
    q: Tensor,
    k: Tensor,
    extents: Mapping[str, int] | None,
    inputs: Mapping[str, Any],
) -> bool:
    """Whether the call is one triangle; false: all pairs.

    Raises:
        AttnDslError: A520, it is neither.
    """

    def prove(call: Call) -> bool:
        return is_causal_square(planner.program.schedule(call, TILE))

    return _proved("sdpa", planner, q, k, extents, inputs, prove)


@eager_only
def attend_with_others(
    backend: str,
    planner: Planner,
    qkv: tuple[Tensor, Tensor, Tensor],
    scale: float,
    extents: Mapping[str, int] | None,
    inputs: Mapping[str, Any],
) -> tuple[Tensor, Tensor]:
    """(out, lse) of a call through the kernel of a back end that is named.

    The kernel differentiates its output by itself. A gradient that arrives through the log-sum-exp is refused.

    Raises:
        AttnDslError: A4xx for lengths, A520: the pairs are not of the family, or the kernel does not run these tensors.
    """
    q, k, v = qkv
    kernel = _kernel(backend, q, v)
    run = _arranged(backend, planner, q, k, extents, inputs)
    try:
        out, lse = run(kernel, qkv, scale)
    except torch.OutOfMemoryError:
        raise
    except (NotImplementedError, ValueError, RuntimeError) as error:
        raise refusal(backend, str(error).partition("\n")[0]) from error
    return out, _Level.apply(lse, out, backend) if out.requires_grad else lse  # type: ignore[no-untyped-call]


def _arranged(
    backend: str,
    planner: Planner,
    q: Tensor,
    k: Tensor,
    extents: Mapping[str, int] | None,
    inputs: Mapping[str, Any],
) -> Callable[..., tuple[Tensor, Tensor]]:
    """How a back end is called, with (kernel, (q, k, v), scale), for what the call is proved to be.

    Raises:
        AttnDslError: A520, it is not of the family.
    """
    told = planner, q, k, extents, inputs
    if backend == "sdpa":
        return functools.partial(_in_a_square, is_causal(*told))
    if backend == "natten":
        near = _proved(backend, *told, functools.partial(neighbourhood, planner.program))
        return functools.partial(on_a_grid, near)

    def prove(call: Call) -> Documents:
        return documents(planner.program.schedule(call, TILE), call.batch)

    attend = with_torch if backend == "varlen" else with_flash
    return functools.partial(in_documents, attend, _proved(backend, *told, prove))


def _proved(
    backend: str,
    planner: Planner,
    q: Tensor,
    k: Tensor,
    extents: Mapping[str, int] | None,
    inputs: Mapping[str, Any],
    prove: Callable[[Call], T],
) -> T:
    """Finds what the call is proved to be, remembered while its inputs hold the same.

    Raises:
        AttnDslError: A520, it is not of the family.
    """
    if planner.program.mask.zeros is not ir.ZERO:
        raise refusal(backend, "the pattern has zero keys, which are no pairs")
    call, key = call_of(backend, planner, q, k, extents, inputs)

    def make() -> T | NotInFamily:
        try:
            return prove(call)
        except NotInFamily as error:
            return error

    found = planner.memo((backend, *key), make)
    if isinstance(found, NotInFamily):
        raise refusal(backend, found.reason, 'backend="auto" runs every pattern')
    return found


class _Level(torch.autograd.Function):
    """The log-sum-exp of a kernel that does not differentiate it."""

    @staticmethod
    def forward(ctx: Any, lse: Tensor, out: Tensor, backend: str) -> Tensor:
        ctx.backend = backend
        return lse.clone()

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Any:
        helps = ('backend="auto" has one', "`lse.detach()`")
        raise refusal(ctx.backend, "its log-sum-exp has no gradient", *helps)


# ---------------------------------------------------------------------------- kernels


def why_not(backend: str, device: str, dtype: torch.dtype, width: int) -> str | None:
    """Why a back end does not run such tensors here; None where it may. ``width``: channels of the widest head."""
    if backend == "flex" or (backend == "sdpa" and device == "cpu"):
        return None
    if device != "cuda":
        return f"its kernels run on GPUs, and these tensors are on {device}"
    if dtype not in _HALVES and not (dtype == torch.float32 and backend in ("sdpa", "natten")):
        return f"its kernels do not take {str(dtype).removeprefix('torch.')}"
    if width > _WIDEST:
        return f"its kernels take heads of up to {_WIDEST} channels"
    if backend in _WHERE and (error := _missing(backend)):
        return error
    return None


@functools.cache
def _missing(backend: str) -> str | None:
    name, function = _WHERE[backend]
    try:
        getattr(importlib.import_module(name), function)
    except ImportError as error:
        return f"it is not installed ({error.name or error})"
    except AttributeError:
        return f"this version of {name} has no {function}"
    return None


def _kernel(backend: str, q: Tensor, v: Tensor) -> Any:
    """The function of a back end that runs such tensors; the module of NATTEN.

    Raises:
        AttnDslError: A520, there is none here.
    """
    reason = why_not(backend, q.device.type, q.dtype, max(q.shape[3], v.shape[3]))
    if reason is not None:
        raise refusal(backend, reason)
    if backend == "sdpa":
        return torch.ops.aten
    name, function = _WHERE[backend]
    module = importlib.import_module(name)
    return module if backend == "natten" else getattr(module, function)


def _in_a_square(
    causal: bool, kernels: Any, qkv: tuple[Tensor, Tensor, Tensor], scale: float
) -> tuple[Tensor, Tensor]:
    """One of the kernels below ``scaled_dot_product_attention``, which return the log-sum-exp, too."""
    length, width = qkv[0].shape[2], qkv[2].shape[3]
    q, k, v = _widened(*qkv)
    k, v = (_repeated(x, q.shape[1], 1) for x in (k, v))
    if q.dtype == torch.float32:
        efficient = kernels._scaled_dot_product_efficient_attention
        out, lse, *_ = efficient(q, k, v, None, True, 0.0, causal, scale=scale)
    else:
        flash = kernels._scaled_dot_product_flash_attention
        out, lse, *_ = flash(q, k, v, 0.0, causal, False, scale=scale)
    return out[..., :width], lse[..., :length]


def _repeated(x: Tensor, heads: int, dim: int) -> Tensor:
    """Keys or values with a head for each of the query heads."""
    group = heads // x.shape[dim]
    return x if group == 1 else x.repeat_interleave(group, dim)


def _widened(*tensors: Tensor) -> list[Tensor]:
    """The tensors with zeros behind their channels, as many as the widest has, and a multiple of 8."""
    most = -(-max(x.shape[-1] for x in tensors) // 8) * 8
    return [torch.nn.functional.pad(x, (0, most - x.shape[-1])) for x in tensors]


def in_documents(
    attend: Callable[..., tuple[Tensor, Tensor]],
    packed: Documents,
    kernel: Callable[..., Any],
    qkv: tuple[Tensor, Tensor, Tensor],
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Runs ``attend(kernel, q, k, v, cu_q, cu_k, longest, (left, right), scale)`` on all batch elements, packed.

    Rows are [tokens, heads, dim]; ``cu_q`` and ``cu_k`` int32 [documents + 1]. It returns out like q and the
    log-sum-exp [heads, tokens].
    """
    batch, heads, length, _ = qkv[0].shape
    width = qkv[2].shape[3]
    rows = [x.transpose(1, 2).flatten(0, 1) for x in _widened(*qkv)]
    bounds = [
        torch.as_tensor(ends, dtype=torch.int32, device=rows[0].device)
        for ends in (packed.q_ends, packed.k_ends)
    ]
    out, lse = attend(kernel, *rows, *bounds, packed.longest, (packed.left, packed.right), scale)
    if lse.shape != (heads, batch * length):
        raise ValueError(f"a log-sum-exp of {list(lse.shape)} is not one of [heads, tokens]")
    out = out.reshape(batch, length, heads, -1).transpose(1, 2)[..., :width]
    return out, lse.reshape(heads, batch, length).transpose(0, 1)


def with_torch(
    kernel: Callable[..., Any],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    longest: tuple[int, int],
    window: tuple[int, int],
    scale: float,
) -> tuple[Tensor, Tensor]:
    """One call of ``torch.nn.attention.varlen.varlen_attn``."""
    taken = inspect.signature(kernel).parameters
    aux: Any = importlib.import_module("torch.nn.attention.varlen").AuxRequest
    options: dict[str, Any] = {"return_aux": aux(lse=True), "scale": scale}
    if "scale" not in taken:  # an older torch: 1 / sqrt(dim) alone
        q = q * (scale * q.shape[2] ** 0.5)
        del options["scale"]
    if "window_size" in taken:
        options["window_size"] = window
    elif window in ((-1, -1), (-1, 0)):
        options["is_causal"] = window == (-1, 0)
    else:
        raise ValueError("varlen_attn of this torch takes no windows")
    if q.shape[1] != k.shape[1]:
        if "enable_gqa" in taken:
            options["enable_gqa"] = True
        else:
            k, v = (_repeated(x, q.shape[1], 1) for x in (k, v))
    made: tuple[Tensor, Tensor] = kernel(q, k, v, cu_q, cu_k, *longest, **options)
    return made


def with_flash(
    kernel: Callable[..., Any],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    longest: tuple[int, int],
    window: tuple[int, int],
    scale: float,
) -> tuple[Tensor, Tensor]:
    """One call of ``flash_attn.flash_attn_varlen_func``, which aligns the ends of queries and keys."""
    is_causal = window == (-1, 0)
    out, lse, *_ = kernel(
        *(q, k, v, cu_q, cu_k, *longest),
        softmax_scale=scale,
        causal=is_causal,
        window_size=(-1, -1) if is_causal else window,
        return_attn_probs=True,
    )
    return out, lse


def on_a_grid(
    near: Neighbourhood, natten: Any, qkv: tuple[Tensor, Tensor, Tensor], scale: float
) -> tuple[Tensor, Tensor]:
    """One call of ``natten.na1d``, ``na2d`` or ``na3d``, on [batch, *tokens of each axis, heads, dim]."""
    kernel = getattr(natten, f"na{len(near.shape)}d")
    if "return_lse" not in inspect.signature(kernel).parameters:
        raise ValueError("this version of natten returns no log-sum-exp; 0.21 does")
    width, last = qkv[2].shape[3], len(near.shape)
    q, k, v = (
        x.transpose(1, 2).reshape(x.shape[0], *near.shape, x.shape[1], x.shape[3])
        for x in _widened(*qkv)
    )
    out, lse = kernel(
        *(q, k, v),
        kernel_size=near.kernel_size,
        stride=near.stride,
        dilation=near.dilation,
        is_causal=near.is_causal,
        scale=scale,
        return_lse=True,
    )
    out = out.flatten(1, last).transpose(1, 2)[..., :width]
    return out, lse.flatten(1, last).transpose(1, 2)
