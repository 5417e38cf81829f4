"""The protocol of back ends: a forward and a backward over the same tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

W = TypeVar("W", contravariant=True)  # what says which pairs to compute


@dataclass(frozen=True, slots=True)
class Request:
    """Facts of a call by which a back end says whether it can run it."""

    device: str  # "cpu", "cuda", ...
    dtype: torch.dtype
    head_dim: int
    value_dim: int


class Backend(Protocol[W]):
    """Attention over the pairs that ``work`` names: a ``Work``, or a dense mask for the oracle.

    Shapes: q [B, H, Q, D], k [B, Hkv, K, D], v [B, Hkv, K, Dv] with Hkv dividing H; any strides.
    out [B, H, Q, Dv] in the input dtype, bfloat16 for 8 bits. lse [B, H, Q]: natural logarithm, float64 for float64
    inputs, else float32. A query without a key has out 0, lse -inf and no gradient. Results are not
    differentiable, whatever went in.
    """

    @property
    def name(self) -> str:
        """The word users write in ``backend=``."""

    def supports(self, request: Request) -> str | None:
        """None when it can run the request, else the reason why not."""

    def forward(
        self, work: W, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(out, lse) of softmax(scale q kᵀ) v over the live pairs."""

    def backward(
        self,
        work: W,
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
        """(dq, dk, dv), from what ``forward`` returned and the gradients that reached it."""


# Inputs of these are for the forward alone: products are exact, and the output is bfloat16.
EIGHT_BITS = (torch.float8_e4m3fn, torch.float8_e5m2)


def out_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the output for inputs of that dtype."""
    return torch.bfloat16 if dtype in EIGHT_BITS else dtype


def lse_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the log-sum-exp for inputs of that dtype."""
    return torch.float64 if dtype == torch.float64 else torch.float32
