"""Numbers drawn for pairs, as `ir.reals.Drawn` says, on CPUs: vectors of 32-bit ints, in few passes over memory."""

from __future__ import annotations

import torch
from torch import Tensor


def drawn(left: Tensor, right: Tensor, least: int, dtype: torch.dtype) -> Tensor:
    """1 where the number drawn for left + right, int32, is at least that, else 0; broadcast.

    Comparisons are not vectorised by torch; minima and maxima are.
    """
    x = (left + right).mul_(0x7FEB352D)
    x.bitwise_xor_(x >> 15).mul_(0x846CA68B - 2**32).bitwise_and_(2**31 - 1)
    return x.sub_(least - 1).clamp_(0, 1).to(dtype)
