"""Summaries of units: the tokens of each as one vector."""

from __future__ import annotations

from torch import Tensor, maximum, minimum, where

from attndsl import ir

Pool, Units = ir.selection.Pool, ir.selection.Units


def pooled(x: Tensor, units: ir.selection.Units, how: ir.selection.Pool) -> Tensor:
    """The summaries [B, H, M, D] of vectors [B, H, N, D], float32 values as float64.

    The tokens of a unit are added from the first to the last, whichever units there are beside it; a unit that the
    end cuts is that of the tokens it has.
    """
    narrow, length = x.float(), x.shape[2]
    count = units.count(length)
    if not count:
        return narrow[:, :, :0].double()
    total = narrow[:, :, : (count - 1) * units.every + 1 : units.every].double()
    sizes = total.new_zeros(count)
    for offset in range(units.size):
        held = min(count, -(-(length - offset) // units.every))
        if held <= 0:
            break
        sizes[:held] += 1
        if offset:
            part = narrow[:, :, offset : offset + (held - 1) * units.every + 1 : units.every]
            into = total[:, :, :held]
            if how is Pool.MEAN:
                into += part
            else:
                into.copy_((maximum if how is Pool.MAX else minimum)(into, part.double()))
    found = total / sizes[:, None] if how is Pool.MEAN else total
    return found.float().double()


def normal(x: Tensor) -> Tensor:
    """Vectors divided by their lengths, float32 values as float64; zeros where that is 0."""
    length = x.square().sum(-1, keepdim=True).sqrt()
    return (x / where(length == 0, 1.0, length)).float().double()
