"""A call with everything decided but the numbers in its tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attndsl.backends.dtypes import lse_dtype, out_dtype
from attndsl.backends.merging import merged, with_zero_keys
from attndsl.backends.pages import Pages
from attndsl.backends.protocol import ForwardKernels, Kernels
from attndsl.cache import bytes_of


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Executable:
    """The kernels of a call, over disjoint sets of pairs that together are those of the pattern.

    Softmaxes of the parts are merged by log-sum-exp. The backward hands each part the *global* output and
    log-sum-exp: what comes back is that part's share of every gradient. The order of parts is fixed, so equal inputs
    give equal bits. ``stamp`` tells apart the contents of the tables that it was made of; it is empty without tables.
    """

    parts: tuple[ForwardKernels, ...]
    zeros: Tensor | None = None  # how many zero keys each query sees, int [B or 1, H or 1, Q]
    keyless: Tensor | None = None  # bool likewise: which see no other key; None: not known
    stamp: bytes = b""

    @property
    def nbytes(self) -> int:
        """Bytes of what it holds."""
        return bytes_of((self.zeros, self.keyless, *self.parts))

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, pages: Pages | None = None
    ) -> tuple[Tensor, Tensor]:
        """(out [B, H, Q, Dv], lse [B, H, Q]) over the union of the parts, and zero keys."""
        first, *rest = self.parts
        options: dict[str, Any] = {} if pages is None else {"pages": pages}
        out, lse = first.forward(q, k, v, scale=scale, **options)
        if not rest and self.zeros is None:
            return out, lse
        with torch.no_grad():
            for part in rest:
                more, more_lse = part.forward(q, k, v, scale=scale, **options)
                out, lse = merged(out.to(lse.dtype), lse, more.to(lse.dtype), more_lse)
            if self.zeros is not None:
                out, lse = with_zero_keys(out, lse, self.zeros)
            return out.to(out_dtype(q.dtype)), lse

    def _keyless(self, out: Tensor, lse: Tensor, zeros: Tensor) -> Tensor:
        """True for each query that sees zero keys alone, bool [B or 1, H or 1, Q].

        Where the schedule does not say so, those whose other keys add nothing to output and log-sum-exp.
        """
        if self.keyless is not None:
            return self.keyless
        return (lse == zeros.to(lse.dtype).log()) & (out == 0).all(-1)

    def backward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        dout: Tensor,
        dlse: Tensor | None,
        *,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dq, dk, dv), from what ``forward`` returned and the gradients that reached it."""
        if self.zeros is not None:  # kernels know no zero keys: of queries that have no other
            lse = lse.masked_fill(self._keyless(out, lse, self.zeros), -math.inf)
        first, *rest = (part for part in self.parts if isinstance(part, Kernels))
        assert len(rest) + 1 == len(self.parts), "lowered for the gradient"
        grads = first.backward(q, k, v, out, lse, dout, dlse, scale=scale)
        if not rest:
            return grads
        with torch.no_grad():
            sums = [grad.to(lse_dtype(grad.dtype)) for grad in grads]
            for part in rest:
                shares = part.backward(q, k, v, out, lse, dout, dlse, scale=scale)
                sums = [total + share for total, share in zip(sums, shares, strict=True)]
            dq, dk, dv = (total.to(x.dtype) for total, x in zip(sums, (q, k, v), strict=True))
        return dq, dk, dv
