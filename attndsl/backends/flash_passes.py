"""Attention on CPUs by torch's flash kernels: what the passes over strips and over lists share."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from attndsl.backends.dtypes import EIGHT_BITS, lse_dtype, out_dtype
from attndsl.backends.pages import Pages
from attndsl.backends.places import is_finite, with_finite, with_width
from attndsl.backends.undifferentiated import undifferentiated

BUDGET = 1 << 24  # elements of temporaries in one kernel call: few calls, bounded memory
SIXTEEN_BITS = (torch.bfloat16, torch.float16)
# With AVX2 alone products of 16 bits are emulated: a backward takes several times what it does in float32.
EMULATED = torch.backends.cpu.get_cpu_capability() == "AVX2"
# Tokens; up to so many a backward in 16 bits takes 1.3 to 7 times what it does in float32, with AMX, too.
LONGEST_WIDENED = 256

flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default

# The biases of eight scores for each byte of a mask, [256, 8]: first the highest bit.
_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
LEVELS = np.where(_BITS > 0, np.float32(0), np.float32(-np.inf))


class Square(Protocol):
    """A call or a few of a kernel that do all of an attention, if its tensors are finite."""

    @property
    def masks(self) -> bool:
        """Whether the kernel reads pairs that are not live, and what is not finite there may reach others."""

    @property
    def longest(self) -> int:
        """Tokens of the longest side that a kernel is given."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, scale: float
    ) -> tuple[Tensor, Tensor] | None:
        """(out, lse); None where something that is seen is not finite.

        A value shows in the output; a key may make a weight 0 instead, and is looked at.
        """

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
        """(dq, dk, dv)."""


class FlashPasses(abc.ABC):
    """The part that all passes on CPUs share: types, widths, and that what is not finite reaches those that see it."""

    __slots__ = ()
    square: Square | None  # where one call of a kernel does it

    @abc.abstractmethod
    def reaches_all(self) -> bool:
        """Whether every query is written to."""

    @abc.abstractmethod
    def merges(self) -> bool:
        """Whether the output of a query is merged from several in place, and needs the precision of sums."""

    @abc.abstractmethod
    def attend(self, rows: Sequence[Tensor], columns: Sequence[Tensor], scale: float) -> None:
        """Writes out and lse: the rows are q, out and lse, the columns k and v, of one width and finite."""

    @abc.abstractmethod
    def differentiate(
        self, rows: Sequence[Tensor], columns: Sequence[Tensor], scale: float
    ) -> None:
        """Adds to gradients: the rows are q, out, dout, lse and dq, the columns k, v, dk and dv."""

    def side(self, q_len: int, k_len: int) -> int:
        """Tokens that the kernels are given at once, on whose number the time of a backward in 16 bits hangs."""
        return max(q_len, k_len) if self.square is None else self.square.longest

    def rows_in(self, pages: Pages, count: int) -> tuple[Tensor, Tensor]:
        """The first so many keys and values, copied from their pages."""
        return pages.rows(count)

    @undifferentiated
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, pages: Pages | None = None
    ) -> tuple[Tensor, Tensor]:
        """(out [B, H, Q, Dv], lse [B, H, Q])."""
        if pages is not None:
            k, v = self.rows_in(pages, k.shape[2])
        if q.dtype in EIGHT_BITS:
            out, lse = self.forward(q.float(), k.float(), v.float(), scale=scale)
            return out.to(out_dtype(q.dtype)), lse
        if self.square is not None and q.numel() and v.numel():
            made = self.square.forward(q, k, v, scale)
            if made is not None:
                return made
        finite = with_finite(k), with_finite(v)
        dtype, shape = q.dtype, (*q.shape[:3], v.shape[3])
        merges = self.merges()
        out = q.new_empty(shape, dtype=lse_dtype(dtype) if merges else dtype)
        lse = q.new_empty(shape[:3], dtype=lse_dtype(dtype))
        if not self.reaches_all():
            out.zero_()
            lse.fill_(-math.inf)
        width = max(1, q.shape[3], v.shape[3])
        given = with_width(q, width), with_width(finite[0], width), with_width(finite[1], width)
        self.attend([given[0], out, lse], given[1:], scale)
        if finite[0] is not k or finite[1] is not v:
            self._spread_nan(q, k, v, out, lse)
        return out.to(dtype), lse

    @undifferentiated
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
        """(dq, dk, dv), each in the dtype of its input."""
        is_slow = EMULATED or self.side(q.shape[2], k.shape[2]) <= LONGEST_WIDENED
        if q.dtype in SIXTEEN_BITS and is_slow:
            grads = self.backward(
                *(q.float(), k.float(), v.float(), out.float(), lse, dout.float(), dlse),
                scale=scale,
            )
            return grads[0].to(q.dtype), grads[1].to(k.dtype), grads[2].to(v.dtype)
        if self.square is not None and dlse is None and all(x.numel() for x in (q, k, v)):
            grads = self.square.backward(q, k, v, out, lse, dout, scale)
            # else what is not finite may have reached what does not see it
            if not self.square.masks or all(map(is_finite, grads)):
                return grads
        width = max(1, q.shape[3], v.shape[3] + (dlse is not None))
        sums = [x.new_zeros(x.shape, dtype=lse_dtype(x.dtype)) for x in (q, k, v)]
        rows = [with_width(x.to(q.dtype), width) for x in (q, out, dout)]
        columns = [with_width(with_finite(x), width) for x in (k, v)]
        if dlse is not None:  # lse is one more output: dP + dlse = [dout, dlse] [v, 1]ᵀ
            columns[1][..., v.shape[3]] = 1.0
            rows[2][..., v.shape[3]] = dlse
        self.differentiate([*rows, lse, sums[0]], [*columns, sums[1], sums[2]], scale)
        return sums[0].to(q.dtype), sums[1].to(k.dtype), sums[2].to(v.dtype)

    def _spread_nan(self, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor) -> None:
        """NaN for what sees a key or value that is not finite: the marked share of plain means."""
        marks = torch.cat([~v.isfinite(), ~k.isfinite().all(-1, keepdim=True)], -1)
        q, k = (torch.zeros_like(x, dtype=torch.float32) for x in (q, k))
        shares, _ = self.forward(q, k, marks.float(), scale=1.0)
        sees_value, sees_key = shares[..., :-1] > 0, shares[..., -1] > 0
        out.masked_fill_(sees_value | sees_key[..., None], math.nan)
        lse.masked_fill_(sees_key, math.nan)
