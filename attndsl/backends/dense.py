"""The oracle: masked softmax over all pairs, and its gradients by autograd.

It shares no code with schedules, passes or kernels, and does not try to be fast or small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from attndsl.backends.dtypes import EIGHT_BITS, lse_dtype, out_dtype


@dataclass(frozen=True, slots=True, eq=False)
class Dense:
    """Attention under a dense bool mask [B or 1, H or 1, Q, K], in the dtype of its inputs; of 8 bits, in float32."""

    mask: torch.Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of the mask."""
        return self.mask.nbytes

    @torch.no_grad()
    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(out, lse)."""
        return attend(self.mask, q, k, v, scale)

    def backward(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        out: torch.Tensor,
        lse: torch.Tensor,
        dout: torch.Tensor,
        dlse: torch.Tensor | None,
        *,
        scale: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(dq, dk, dv): the forward once more, differentiated. ``out`` and ``lse`` are not used."""
        with torch.enable_grad():
            leaves = [x.detach().requires_grad_() for x in (q, k, v)]
            results = attend(self.mask, leaves[0], leaves[1], leaves[2], scale)
        given = [dout, torch.zeros_like(lse) if dlse is None else dlse]
        dq, dk, dv = torch.autograd.grad(results, leaves, given, allow_unused=True)
        return _or_zero(dq, q), _or_zero(dk, k), _or_zero(dv, v)


def attend(
    mask: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    zeros: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """out = P v and lse, P = softmax over the live pairs; differentiable, also where a row is empty.

    A dead pair is replaced, not subtracted from, so that a key that is not seen cannot reach a row, even if it is NaN.
    The contents of a query without keys, and its gradient, go nowhere.
    ``zeros``, int [B or 1, H or 1, Q], counts the zero keys of each row: one more column of the softmax,
    log(count), since n scores of 0 weigh as much as one of log(n); its value is 0.
    """
    if q.dtype in EIGHT_BITS:
        out, lse = attend(mask, q.float(), k.float(), v.float(), scale, zeros)
        return out.to(out_dtype(q.dtype)), lse
    group = q.shape[1] // k.shape[1] if k.shape[1] else 1
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    keyless = ~mask.any(-1)[..., None]
    q = q.masked_fill(keyless, 0.0)
    scores = (q @ k.transpose(-1, -2) * scale).to(lse_dtype(q.dtype))
    scores = scores.masked_fill(~mask, -math.inf)
    empty = ~mask.any(-1).expand(scores.shape[:-1])
    levels = scores
    if zeros is not None:
        column = zeros.to(scores.dtype).log().expand(empty.shape)
        levels, empty = torch.cat((scores, column[..., None]), -1), empty & (zeros == 0)
    lse = torch.logsumexp(levels.masked_fill(empty[..., None], 0.0), -1)
    lse = lse.masked_fill(empty, -math.inf) if levels.shape[-1] else _nothing(scores)
    level = lse.masked_fill(empty, 0.0)  # exp(-inf - 0) is 0, where -inf - -inf is not a number
    weights = torch.exp(scores - level[..., None]).to(v.dtype)
    return _weigh(weights, mask, v).masked_fill(keyless, 0.0), lse


def _weigh(weights: torch.Tensor, mask: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Weights times values, where a dead pair has no part even in a value that is not finite."""
    finite = torch.isfinite(v)
    out = weights @ v.masked_fill(~finite, 0.0)
    strange = mask.to(v.dtype).expand(weights.shape) @ (~finite).to(v.dtype)
    return out.masked_fill(strange > 0, math.nan)


def _nothing(scores: torch.Tensor) -> torch.Tensor:
    return scores.new_full(scores.shape[:-1], -math.inf)


def _or_zero(gradient: torch.Tensor | None, x: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(x) if gradient is None else gradient
