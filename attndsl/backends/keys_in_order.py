"""Passes over keys that are taken in an order: rows of k and v before them, and of their gradients behind."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends.listed import ListKernels
from attndsl.backends.pages import Pages


@dataclass(frozen=True, slots=True, eq=False)
class KeysInOrder:
    """Lists whose keys are rows ``order`` of k and v, [K]; ``back`` is where each row stands in it."""

    inner: ListKernels
    order: Tensor
    back: Tensor

    @staticmethod
    def of(inner: ListKernels, order: ir.IntArray) -> KeysInOrder:
        """The passes in an order of the keys."""
        made = torch.from_numpy(order)
        return KeysInOrder(inner, made, made.argsort())

    @property
    def nbytes(self) -> int:
        """Bytes of the lists, and of the order."""
        return self.inner.nbytes + self.order.nbytes + self.back.nbytes

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, pages: Pages | None = None
    ) -> tuple[Tensor, Tensor]:
        """(out, lse), as of `Kernels`."""
        if pages is not None:
            k, v = self.inner.rows_in(pages, k.shape[2])
        return self.inner.forward(q, _rows(k, self.order), _rows(v, self.order), scale=scale)

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
        """(dq, dk, dv), as of `Kernels`."""
        k, v = _rows(k, self.order), _rows(v, self.order)
        dq, dk, dv = self.inner.backward(q, k, v, out, lse, dout, dlse, scale=scale)
        return dq, _rows(dk, self.back), _rows(dv, self.back)


def _rows(x: Tensor, order: Tensor) -> Tensor:
    """The rows of x [B, H, K, D] in an order."""
    if x.element_size() == 1:  # torch gathers no float8
        return x.view(torch.uint8)[:, :, order].view(x.dtype)
    return x[:, :, order]
