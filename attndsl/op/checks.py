"""Tensors are checked before anything runs; a complaint shows all three shapes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attndsl.backends import EIGHT_BITS, WHOLE
from attndsl.compiler import Program
from attndsl.op.dispatching import needs_dispatcher
from attndsl.source import AttnDslError, Diagnostic


def check_plain(program: Program, *tensors: object) -> None:
    """Each is a tensor, neither sparse nor nested.

    Raises:
        AttnDslError: A503.
    """
    for label, x in zip("qkv", tensors, strict=True):
        if not isinstance(x, Tensor):
            title = f"{label} must be a tensor, not a {type(x).__name__}"
            raise AttnDslError(Diagnostic("A503", title, notes=in_the_call(program)))
        if x.layout != torch.strided or x.is_nested:
            title = f"{label} must be a plain tensor"
            raise AttnDslError(Diagnostic("A503", title, notes=in_the_call(program)))


def check_tensors(program: Program, q: Tensor, k: Tensor, v: Tensor) -> None:
    """Ranks, agreement of shapes, dtypes and devices.

    Raises:
        AttnDslError: A502 shapes, A503 dtypes and devices.
    """
    problem = _shape_problem(q, k, v)
    if problem is not None:
        raise _make_error("A502", problem, program, q, k, v)
    if not q.dtype == k.dtype == v.dtype or not q.dtype.is_floating_point:
        title = "q, k and v must have one floating dtype"
        raise _make_error("A503", title, program, q, k, v, *_of_autocast(q, k, v))
    if q.dtype in EIGHT_BITS and wants_gradient(q, k, v):
        raise _make_error("A503", "attention over 8-bit tensors has no gradient", program, q, k, v)
    if not q.device == k.device == v.device:
        raise _make_error("A503", "q, k and v must be on one device", program, q, k, v)


def wants_gradient(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether the call will be differentiated, as far as can be known."""
    return torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad)


def is_forward(backend: str, *beside: Any) -> bool:
    """Whether a call with these tensors, and whatever else, is a forward of kernels, followed by nothing.

    Not under what follows operators, nor where a gradient is wanted.
    """
    tensors = [x for x in beside if isinstance(x, Tensor)]
    if backend in WHOLE or needs_dispatcher(*tensors):
        return False
    return not (torch.is_grad_enabled() and any(x.requires_grad for x in tensors))


def _shape_problem(q: Tensor, k: Tensor, v: Tensor) -> str | None:
    if not q.dim() == k.dim() == v.dim() == 4:
        return "q, k and v must have four dims: [batch, heads, length, head_dim]"
    if not q.shape[0] == k.shape[0] == v.shape[0]:
        return "q, k and v must have the same batch size"
    if k.shape[1] != v.shape[1] or k.shape[2] != v.shape[2]:
        return "k and v must have the same heads and length"
    if q.shape[3] != k.shape[3]:
        return "q and k must have the same head_dim"
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        return "the number of key heads must divide the number of query heads"
    return None


def in_the_call(program: Program) -> tuple[str, ...]:
    """A note that names the pattern."""
    name = program.mask.name
    return (f"in the call of pattern {name!r}",) if name else ()


def _of_autocast(*tensors: Tensor) -> tuple[str, ...]:
    kind, wide = tensors[0].device.type, any(x.dtype == torch.float64 for x in tensors)
    if not wide or kind == "meta" or not torch.is_autocast_enabled(kind):
        return ()
    return ("autocast leaves float64 as it is, and casts other dtypes",)


def _make_error(
    code: str, title: str, program: Program, q: Tensor, k: Tensor, v: Tensor, *notes: str
) -> AttnDslError:
    shapes = [
        f"{label}: {str(x.dtype).removeprefix('torch.')}{list(x.shape)} on {x.device}"
        for label, x in zip("qkv", (q, k, v), strict=True)
    ]
    return AttnDslError(Diagnostic(code, title, notes=(*in_the_call(program), *shapes, *notes)))
