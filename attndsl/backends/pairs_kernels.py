"""Kernels of the CPU back end that take one head and batch element after the other, where sets differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from attndsl.backends.block_batches import BlockBatch, packed
from attndsl.backends.cells import BoolArray
from attndsl.backends.flash_passes import flash, flash_backward
from attndsl.backends.places import Elements, is_finite, with_width
from attndsl.backends.strip_passes import HeadGroup, StripPasses, clear


@dataclass(frozen=True, slots=True, eq=False)
class PairsKernels(StripPasses):
    """Few pairs of each batch element, which a mask holds: all elements at once."""

    pairs: BoolArray  # [batch, heads or 1, queries or 1, keys]
    q_len: int
    square: PairsSquare

    @staticmethod
    def of(pairs: BoolArray, q_len: int) -> PairsKernels:
        """From the pairs of each element and head, which may be those of all queries."""
        dead = ~pairs.any(-1)
        square = PairsSquare(
            torch.from_numpy(pairs), torch.from_numpy(dead) if dead.any() else None, q_len
        )
        return PairsKernels(pairs, q_len, square)

    @property
    def batches(self) -> tuple[tuple[BlockBatch, ...], ...]:
        """One strip, whose queries and keys are batch elements."""
        batch, heads, _, k_len = self.pairs.shape
        whole = np.broadcast_to(self.pairs, (batch, heads, self.q_len, k_len))
        mask = packed(whole[:, 0] if heads == 1 else whole)
        rows, columns = Elements(0, batch, self.q_len), Elements(0, batch, k_len)
        return ((BlockBatch(rows, columns, mask, first_writer=True),),)

    @property
    def nbytes(self) -> int:
        """Bytes of the mask, and of a bias in float32."""
        return 5 * int(self.pairs.nbytes)

    def reaches_all(self) -> bool:
        """True where there are pairs."""
        return bool(self.pairs.shape[-1])

    def head_groups(
        self, of_queries: Sequence[Tensor], of_keys: Sequence[Tensor], results: tuple[int, int]
    ) -> Iterator[HeadGroup]:
        """All at once."""
        if all(x.numel() for x in (of_queries[0], of_keys[0])):
            yield HeadGroup(self.batches[0], list(of_queries), list(of_keys))


@dataclass(frozen=True, slots=True, eq=False)
class PairsSquare:
    """The same where all tensors are finite: one call of a kernel, whose results are those of the pass."""

    masks: ClassVar[bool] = True
    pairs: Tensor  # bool [B, H or 1, Q or 1, K]
    dead: Tensor | None  # queries without a key, bool [B, H or 1, Q or 1]; None: there is none
    q_len: int
    biases: dict[torch.dtype, Tensor] = field(default_factory=dict)  # made once

    @property
    def longest(self) -> int:
        """Tokens of the longer side."""
        return max(self.q_len, self.pairs.shape[-1])

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, scale: float
    ) -> tuple[Tensor, Tensor] | None:
        """(out, lse), of q [B, H, Q, D], k [B, Hkv, K, D], v [B, Hkv, K, Dv]; None as of ``Square``."""
        if not is_finite(k):
            return None
        width, widest = v.shape[3], max(q.shape[3], v.shape[3])
        given = (with_width(x, widest) for x in (q, k, v))
        bias, dead = self._bias(q), self.dead
        out, lse = flash(*given, 0.0, False, attn_mask=bias, scale=scale)
        if dead is not None:
            clear(out, dead)
            lse = lse.masked_fill_(dead, -math.inf)
        return (out[..., :width], lse) if is_finite(out) else None

    def backward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        dout: Tensor,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dq, dk, dv), of the results of ``forward``; none reached the log-sum-exp."""
        widths = q.shape[3], k.shape[3], v.shape[3]
        q, k, v, out, dout = (with_width(x, max(widths)) for x in (q, k, v, out, dout))
        bias, dead = self._bias(q), self.dead
        if dead is not None:  # a level that makes every weight zero: NaN would take the longer way
            lse = lse.masked_fill(dead, math.inf)
        grads = flash_backward(*(dout, q, k, v, out, lse, 0.0, False), attn_mask=bias, scale=scale)
        dq, dk, dv = (x[..., :width] for x, width in zip(grads, widths, strict=True))
        return dq, dk, dv

    def _bias(self, q: Tensor) -> Tensor:
        """0 or -inf by pair, [B, H or 1, Q, K]."""
        bias = self.biases.get(q.dtype)
        if bias is None:
            bias = q.new_zeros(self.pairs.shape).masked_fill_(~self.pairs, -math.inf)
            self.biases[q.dtype] = bias
        return bias.expand(-1, -1, q.shape[2], -1)
