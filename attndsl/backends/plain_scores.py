"""Scores that stay as they are: the kernels of the pattern, for an attention that has more in its denominators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attndsl.backends.executable import Executable


@dataclass(frozen=True, slots=True, eq=False)
class PlainScores:
    """The softmax of a pattern without its zero keys, which an attention counts as mass; no table is read."""

    pattern: Executable

    @property
    def nbytes(self) -> int:
        """Bytes of what it holds."""
        return self.pattern.nbytes

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, tables: Sequence[Tensor], *, scale: float
    ) -> tuple[Tensor, Tensor]:
        """(out [B, H, Q, Dv], lse [B, H, Q])."""
        return self.pattern.forward(q, k, v, scale=scale)

    def backward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        tables: Sequence[Tensor],
        out: Tensor,
        lse: Tensor,
        dout: Tensor,
        dlse: Tensor | None,
        *,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """(dq, dk, dv, zeros of the tables)."""
        grads = self.pattern.backward(q, k, v, out, lse, dout, dlse, scale=scale)
        return *grads, [torch.zeros_like(x) for x in tables]
