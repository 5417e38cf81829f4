"""The factor on the scores: a number, or a tensor that multiplies the queries."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attndsl.backends import EIGHT_BITS
from attndsl.compiler import Program
from attndsl.op.checks import in_the_call
from attndsl.op.dispatching import needs_dispatcher
from attndsl.source import AttnDslError, Diagnostic


def scaled(
    program: Program, q: Tensor, k: Tensor, v: Tensor, scale: object
) -> tuple[tuple[Tensor, Tensor, Tensor], float]:
    """(q, k, v) and the number that their scores are multiplied by, 1/sqrt(D) where ``scale`` is None.

    A tensor is multiplied into q [B, H, Q, D], in float32 or better, so that autograd finds its derivative. The product
    is rounded to the dtype of q once: that changes a score as rounding a query does, and not at all where a scale is
    a power of two. Inputs of 8 bits are widened to bfloat16 for it, exactly.

    Raises:
        AttnDslError: A502 a scale that does not fit, A503 its dtype or device.
    """
    if scale is None:
        return (q, k, v), 1.0 / math.sqrt(max(1, q.shape[-1]))
    if not isinstance(scale, Tensor):
        return (q, k, v), number(program, scale)
    _check(program, q, scale)
    wants_gradient = torch.is_grad_enabled() and scale.requires_grad
    if not (scale.dim() or wants_gradient or scale.is_cuda or needs_dispatcher(q, scale)):
        return (q, k, v), float(scale)
    if q.dtype in EIGHT_BITS:
        if wants_gradient:
            raise _problem(program, "A503", "attention over 8-bit tensors has no gradient", scale)
        q, k, v = (x.to(torch.bfloat16) for x in (q, k, v))
    wide = torch.promote_types(q.dtype, torch.float32)
    factor = scale.view(1, -1, 1, 1) if scale.dim() == 1 else scale
    product, factor = q.to(wide), factor.to(wide)
    if (
        wants_gradient
    ):  # but for what is not finite: a query without keys gets no gradient, and 0 * NaN is NaN
        known = product.masked_fill(~product.isfinite(), 0.0)
        product = known * factor + (product - known)
    else:
        product = product * factor
    return (product.to(q.dtype), k, v), 1.0


def number(program: Program, scale: object) -> float:
    """A scale that is no tensor.

    Raises:
        AttnDslError: A502, it is no number.
    """
    if hasattr(scale, "__float__"):
        try:
            return float(scale)
        except (TypeError, ValueError):  # an array of several, say
            pass
    title = f"scale is a number or a tensor, not {scale!r:.40}"
    raise AttnDslError(Diagnostic("A502", title, notes=in_the_call(program)))


def _check(program: Program, q: Tensor, scale: Tensor) -> None:
    if scale.is_complex() or scale.dtype == torch.bool:
        raise _problem(program, "A503", "a scale is made of real numbers", scale)
    if scale.dim() and scale.device != q.device:
        raise _problem(program, "A503", "scale must be on the device of q, k and v", scale)
    heads, shape = q.shape[1], tuple(scale.shape)
    if len(shape) == 1:
        fits = shape[0] in (1, heads)
    else:
        most = (*q.shape[:3], 1)[4 - len(shape) :] if len(shape) <= 4 else ()
        fits = len(most) == len(shape) and all(
            size in (1, whole) for size, whole in zip(shape, most, strict=True)
        )
    if not fits:
        title = (
            "a tensor as scale is one number, [heads], or broadcasts to [batch, heads, queries, 1]"
        )
        raise _problem(program, "A502", title, scale, f"q: {list(q.shape)}")


def _problem(program: Program, code: str, title: str, scale: Tensor, *notes: str) -> AttnDslError:
    dtype = str(scale.dtype).removeprefix("torch.")
    found = f"scale: {dtype}{list(scale.shape)} on {scale.device}"
    return AttnDslError(Diagnostic(code, title, notes=(*in_the_call(program), found, *notes)))
