"""The log-sum-exp of each key over the queries that see it, in float32: sums of columns about a level of their own.

    sum of exp(s - c) over the queries of a key    is in reach for c near the result C:    C = c + log(sum)

All begin at the largest log-sum-exp of a query of their head, which no score is above. Where a sum is too small to have
digits, the level goes down, by twice as much each time; where that was too far, to the middle of both.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

from attndsl import ir, passes
from attndsl.op.scored_part import Part

reals = ir.reals

_LEAST: Final = 1e-20  # of a sum; terms that are lost, below e^-87, are no digits of it
_MOST: Final = 1e22  # of a sum: some term of it may have been held down
_STEP: Final = 80.0  # a sum that is below 1e-20 is below 1e16 so much further down
_ROUNDS: Final = 64  # enough for scores of 1e8


@torch.no_grad()
def column_levels(part: Part) -> Tensor:
    """Computes them, [B, H, K]; 0 for keys that no query sees."""
    lse = part.run(None)[1]
    top = lse.masked_fill(lse == -math.inf, torch.finfo(lse.dtype).min).amax(-1, keepdim=True)
    shape = *lse.shape[:2], part.k.shape[2]
    weight = passes.column_weight()
    is_seen = _sums(part, reals.UNITY, None) > 0
    level = top.expand(shape).masked_fill(~is_seen, 0.0)
    low, step = torch.full_like(level, -math.inf), torch.full_like(level, _STEP)
    high = level
    sums = _sums(part, weight, level)
    for _ in range(_ROUNDS):
        is_small, is_large = is_seen & (sums < _LEAST), sums > _MOST
        if not (is_small | is_large).any():
            break
        high, low = torch.where(is_small, level, high), torch.where(is_large, level, low)
        down = torch.where(low == -math.inf, high - step, (high + low) / 2)
        step = torch.where(is_small, 2 * step, step)
        level = torch.where(is_small | is_large, down, level)
        sums = _sums(part, weight, level)
    return (level + sums.log()).masked_fill(~is_seen, 0.0)


def _sums(part: Part, weight: ir.Node, column: Tensor | None) -> Tensor:
    """The sums of a weight over the queries of each key, which are the gradient of values for results of ones."""
    ones = part.v.new_ones((*part.k.shape[:3], 1))
    found, tables = part.executable(weight, ones, column=column, gradient=True)
    out, lse = found.forward(part.q, part.k, ones, tables, scale=part.scale)
    gain = torch.ones_like(out)
    given = part.q, part.k, ones, tables, out, lse, gain, None
    return found.backward(*given, scale=part.scale)[2][..., 0].to(lse.dtype)
