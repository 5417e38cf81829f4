"""The choice among candidates: scores in, numbers of units out, in ascending order, -1 behind them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from attndsl import ir

Take = ir.selection.Take

_NEVER = -(2**63)
_LOW = 2**32 - 1
_EMPTY = 2**31 - 1  # a slot without a unit, behind all that have one


def choose(
    scores: Tensor, candidates: Tensor, forced: Tensor, take: ir.selection.Take, amount: Tensor
) -> Tensor:
    """The units that are taken, int32 [B, H, rows, slots], lower numbers first, -1 behind them.

    Args:
        scores: float32 [B, H, rows, units]. Those of -inf and NaN are never taken, but where they are forced.
        candidates: bool, likewise: what may be taken.
        forced: bool, likewise: candidates that are taken whatever their score, first of all.
        take: Which are taken. The scores of a sample are random.
        amount: An int64 number, or float64 [B, H, rows, 1].
    """
    if take in (Take.TOP, Take.SAMPLE):
        return _top(scores, candidates, forced, int(amount))
    forced = forced & candidates
    live = candidates & (forced | ~(scores.isnan() | (scores == -math.inf)))
    if take is Take.ABOVE:
        return _listed(live & (forced | (scores.double() > amount)))
    keys = _keys(scores, live, forced)
    order = keys.sort(-1, descending=True)
    ranked = [x.gather(-1, order.indices) for x in (scores.double(), live, forced)]
    weights = ranked[0].masked_fill(~ranked[1] | ranked[0].isnan(), 0.0).clamp(min=0)
    through = weights.cumsum(-1)
    bound = amount * through[..., -1:] if through.shape[-1] else amount
    before = torch.nn.functional.pad(through[..., :-1], (1, 0))
    enough = before if take is Take.REACHING else through
    kept = enough < bound if take is Take.REACHING else enough <= bound
    taken = ranked[1] & (ranked[2] | kept)
    return _listed(torch.zeros_like(taken).scatter(-1, order.indices, taken))


def _top(scores: Tensor, candidates: Tensor, forced: Tensor, count: int) -> Tensor:
    """Chooses the units of the highest scores in each row.

    A `topk` does not say which of equal scores it takes. That matters to rows alone whose last unit taken has as
    great a score as the first one left: these are ranked again, by keys that differ.
    """
    units = scores.shape[-1]
    level = scores.masked_fill(~candidates, -math.inf)
    level.nan_to_num_(-math.inf, math.inf, -math.inf)
    if bool(forced.any()):
        level = level.masked_fill(forced & candidates, math.inf)
    elif count == 1 <= units:
        most = level.max(-1, keepdim=True)  # of equal ones the first
        return most.indices.masked_fill(most.values == -math.inf, -1).int()
    best = level.topk(min(count + 1, units))
    found = best.indices[..., :count].int()
    found = found.masked_fill(best.values[..., :count] == -math.inf, _EMPTY)
    if 0 < count < units:
        last, next_ = best.values[..., count - 1], best.values[..., count]
        again = (last == next_) & (last > -math.inf)
        if bool(again.any()):
            rows = [x.expand(scores.shape)[again] for x in (scores, candidates, forced)]
            live = rows[1] & (rows[2] | ~(rows[0].isnan() | (rows[0] == -math.inf)))
            ranked = _keys(rows[0].contiguous(), live, rows[2] & rows[1]).topk(count)
            found[again] = torch.where(ranked.values == _NEVER, _EMPTY, ranked.indices).int()
    found = found.sort(-1).values
    found = found.masked_fill(found == _EMPTY, -1)
    return torch.nn.functional.pad(found, (0, count - found.shape[-1]), value=-1)


def _keys(scores: Tensor, live: Tensor, forced: Tensor) -> Tensor:
    """int64 keys in the order of choice, no two of a row equal: a higher score first, then a lower number."""
    bits = (scores + 0.0).view(torch.int32)  # -0.0 is 0.0
    order = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    order = torch.where(forced, 2**31 - 1, order)
    number = torch.arange(scores.shape[-1], device=scores.device)
    return torch.where(live, order * 2**32 + (_LOW - number), _NEVER)


def _listed(taken: Tensor) -> Tensor:
    """The numbers of what is true in each row, as many slots as the fullest row needs, at least one."""
    slots = max(1, int(taken.sum(-1).max())) if taken.numel() else 1
    number = torch.arange(taken.shape[-1], device=taken.device)
    order = torch.where(taken, number, _EMPTY).sort(-1).values[..., :slots]
    found = torch.where(order == _EMPTY, -1, order).int()
    return torch.nn.functional.pad(found, (0, slots - found.shape[-1]), value=-1)


def drawn(seed: int, batch: Tensor, head: Tensor, query: Tensor, units: int) -> Tensor:
    """Random scores, float32 [B, H, rows, units], that follow from the seed and where they stand, and nothing else.

    Whole numbers below 2**24 by the finaliser of splitmix64 (Steele, Lea and Flood, 2014) over all four in turn.
    """
    number = torch.arange(units, device=query.device)
    state = _mixed(torch.full((1, 1, 1, 1), seed, device=query.device))
    for each in (
        batch[:, None, None, None],
        head[None, :, None, None],
        query[None, None, :, None],
        number[None, None, None],
    ):
        state = _mixed(state ^ each)
    found: Tensor = _shifted(state, 40).float()
    return found


def _mixed(x: Tensor) -> Tensor:
    x = x + (0x9E3779B97F4A7C15 - 2**64)
    x = (x ^ _shifted(x, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    x = (x ^ _shifted(x, 27)) * (0x94D049BB133111EB - 2**64)
    mixed: Tensor = x ^ _shifted(x, 31)
    return mixed


def _shifted(x: Tensor, by: int) -> Tensor:
    """x >> by, as of unsigned numbers."""
    shifted: Tensor = (x >> by) & (2 ** (64 - by) - 1)
    return shifted
