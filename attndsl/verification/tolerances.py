"""How far from the truth a result may be: a bound for each entry, derived and not tuned.

The truth is attention in float64 on the very same (rounded) inputs. A sound computation in a lower
precision errs by rounding, and what rounding does is known of every step (Higham 2002, chapter 3; sums of
n terms with their statistical constant, root n instead of n, Higham and Mary 2019). With

    u   a unit in the last place of the dtype (of TF32, where torch is told that it may be used): scores,
        weights, their gradients and results may each be rounded to it once
    a   the same of the accumulator: float32 for half precision, the dtype itself otherwise

a score errs by (a sqrt(D) + u) scale |q| |k|, summed over channels, and so does the exponent of its
weight; what is weighted, and gradients, err as their own sums of absolute values say. Nothing in the
bound of a row comes from other rows: where one pair is wrong, what it changes is held against the size
of its own row.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from attndsl.backends import lse_dtype
from attndsl.verification.cases import Tensors

_TENSOR_FLOAT = 2.0**-10  # a unit in the last place of TF32
_EXPONENTIAL = 4  # units by which an exponential, or a quotient, may err


def allowances(
    mask: Tensor, tensors: Tensors, scale: float, exact: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The largest error that rounding explains, for each entry of each result, float64.

    Twice what one computation may err by: the oracle and the kernel take different ways.

    Args:
        mask: The pairs, bool [B or 1, H or 1, Q, K].
        tensors: Inputs and arriving gradients, in the dtype that is judged.
        scale: Of the scores.
        exact: out, lse and, if wanted, dq, dk, dv in float64.
    """
    steps = _Steps(mask, tensors, scale, exact)
    found = {"out": steps.out_error, "lse": steps.lse_error}
    if "dq" in exact:
        found |= steps.gradient_errors()
    return {name: 2 * error for name, error in found.items()}


def _may_be_tensor_float(x: Tensor) -> bool:
    """Whether torch is told that products of float32 may be TF32 on this device."""
    is_allowed = x.is_cuda and torch.backends.cuda.matmul.fp32_precision == "tf32"
    return is_allowed and x.dtype == torch.float32


class _Steps:
    """The steps of attention in float64, and how far each may be off."""

    def __init__(
        self, mask: Tensor, tensors: Tensors, scale: float, exact: Mapping[str, Tensor]
    ) -> None:
        dtype = tensors.q.dtype
        info = torch.finfo(dtype)
        self._unit = max(float(info.eps), _TENSOR_FLOAT if _may_be_tensor_float(tensors.q) else 0.0)
        self._sum_unit = float(torch.finfo(lse_dtype(dtype)).eps)
        self._floor = float(info.tiny) * self._unit  # nothing smaller can be told from 0
        self._scale = abs(scale)
        self._exact = {name: x.nan_to_num(0.0, 0.0, 0.0) for name, x in exact.items()}
        self._group = tensors.q.shape[1] // max(1, tensors.k.shape[1])
        wide = (x.double().nan_to_num(0.0) for x in (tensors.k, tensors.v))
        self._k, self._v = (x.repeat_interleave(self._group, 1) for x in wide)
        self._q, self._dout = tensors.q.double(), tensors.dout.double()
        self._dlse = tensors.dlse.double()
        self._sees_nothing = (exact["lse"] == -torch.inf)[..., None]
        self._live = mask.expand(*tensors.q.shape[:3], tensors.k.shape[2])
        self._weigh(scale)

    def _weigh(self, scale: float) -> None:
        live, lse, (_, keys) = self._live, self._exact["lse"][..., None], self._q.shape[2:]
        sums, unit = self._sum_unit, self._unit
        scores = (self._q @ self._k.mT * scale).masked_fill(~live, -torch.inf)
        self._weights = torch.exp(scores - lse).masked_fill(~live, 0.0)
        sizes = (self._q.abs() @ self._k.abs().mT * self._scale).masked_fill(~live, 0.0)
        largest = sizes.amax(-1, keepdim=True) if sizes.shape[-1] else torch.zeros_like(lse)
        score_error = (sums * keys**0.5 + unit) * largest
        self._of_row = live.sum(-1, keepdim=True).double().sqrt()
        rest = sums * (self._of_row + _EXPONENTIAL + lse.abs()) + unit
        relative = 2 * score_error + rest
        self._weight_error = (self._weights * relative + self._floor).masked_fill(~live, 0.0)
        self.lse_error = (score_error + rest).masked_fill(self._sees_nothing, 0.0)[..., 0]
        sizes = self._weights @ self._v.abs()
        self.out_error = (
            self._weight_error @ self._v.abs()
            + sums * self._of_row * sizes
            + unit * self._exact["out"].abs()
        )

    def gradient_errors(self) -> dict[str, Tensor]:
        """Allowed errors of dq, dk and dv."""
        sums, unit, dout = self._sum_unit, self._unit, self._dout
        width = self._v.shape[-1] ** 0.5
        out = self._exact["out"]
        delta = (dout * out).sum(-1, keepdim=True) - self._dlse[..., None]
        delta_error = (dout.abs() * self.out_error).sum(-1, keepdim=True)
        delta_error += sums * (
            width * (dout * out).abs().sum(-1, keepdim=True) + self._dlse.abs()[..., None]
        )
        apart = (dout @ self._v.mT - delta).abs()
        apart_error = (sums * width + unit) * (dout.abs() @ self._v.abs().mT) + delta_error
        dscores = self._weights * apart
        error = self._weight_error * apart + self._weights * apart_error + unit * dscores
        error = (error + self._floor).masked_fill(~self._live, 0.0)
        of_column = self._live.sum(-2)[..., None].double().sqrt() * self._group**0.5
        dq = error @ self._k.abs() + sums * self._of_row * (dscores @ self._k.abs())
        dk = error.mT @ self._q.abs() + sums * of_column * (dscores.mT @ self._q.abs())
        dv = self._weight_error.mT @ dout.abs() + sums * of_column * (self._weights.mT @ dout.abs())
        found = {
            "dq": self._scale * dq,
            "dk": self._grouped(self._scale * dk),
            "dv": self._grouped(dv),
        }
        return {name: x + unit * self._exact[name].abs() for name, x in found.items()}

    def _grouped(self, x: Tensor) -> Tensor:
        """Summed over the query heads of each key head."""
        batch, heads, *rest = x.shape
        return x.reshape(batch, heads // self._group, self._group, *rest).sum(2)
