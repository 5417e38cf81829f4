"""Dtypes of results, by those of the inputs."""

from __future__ import annotations

import torch
from torch import Tensor

# Inputs of these are for the forward alone: products are exact, and the output is bfloat16.
EIGHT_BITS = (torch.float8_e4m3fn, torch.float8_e5m2)


def out_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the output for inputs of that dtype."""
    return torch.bfloat16 if dtype in EIGHT_BITS else dtype


def lse_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of the log-sum-exp for inputs of that dtype."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def negated(x: Tensor) -> Tensor:
    """The tensor with the other sign, exactly; torch has no arithmetic for 8 bits."""
    return (-x.to(torch.float16)).to(x.dtype) if x.dtype in EIGHT_BITS else -x
