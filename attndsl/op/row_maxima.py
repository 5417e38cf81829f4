"""Row maxima, the largest score of each query, by log-sum-exps of scores that are drawn apart.

    L <- lse(s)                     max s <= L <= max s + log n
    L <- L + lse(b * (s - L)) / b   max s <= L <= max s + log(n) / b,  b = 2**10, 2**20, ...

No back end needs a pass of its own, and nothing as large as the square is made. The distance from the maximum is below
the rounding of the scores.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from attndsl import ir
from attndsl.op.attention import autocast
from attndsl.op.checks import check_plain
from attndsl.op.dense_scores import attend_densely
from attndsl.op.dispatching import eager_only
from attndsl.op.scored_part import Part, ScoredCall
from attndsl.op.scores import TermProgram, check_lse, parts_of, restored
from attndsl.positions import BOUNDS
from attndsl.source import AttnDslError, Diagnostic

reals = ir.reals

# By how much a step draws scores apart: those near the maximum keep digits enough for it.
_FACTORS: Final = {torch.float32: 2.0**10, torch.float64: 2.0**14}
_STEPS: Final = {torch.float32: 3, torch.float64: 4}


@eager_only
@torch.no_grad()
def row_maxima(
    terms: Sequence[TermProgram], q: Tensor, k: Tensor, v: Tensor, call: ScoredCall
) -> Tensor:
    """Computes the largest score of each query, [B, H, Q]; -inf where it sees no key. ``v`` is read by nothing.

    Raises:
        AttnDslError: A502, of a sum of several softmaxes, or of packed sequences; else as a call.
    """
    check_lse(terms, with_lse=True)
    if call.positions and BOUNDS[0] in call.positions:
        raise AttnDslError(Diagnostic("A502", "packed sequences do not give row maxima"))
    check_plain(terms[0].parts[0].program, q, k, v)
    q, k, v = autocast(q, k, v)
    parts = parts_of(terms, q, k, v, call)
    of_part = _of_dense if call.backend == "reference" else _of_part
    found = functools.reduce(torch.maximum, map(of_part, parts[0]))
    return restored(parts, found[..., None], found)[1]


def _of_part(part: Part) -> Tensor:
    own = part.scored.part
    plain = replace(own, form=ir.Form.SOFTMAX, weight=None, factor=None)
    part = replace(part, scored=replace(part.scored, part=plain))
    level = part.run(None)[1]
    factor = _FACTORS[level.dtype]
    for step in range(1, 1 + _STEPS[level.dtype]):
        apart = reals.times(reals.Number(factor**step), reals.minus(own.score, part.level()))
        is_number = level.isfinite()
        more = part.run(None, level=level.masked_fill(~is_number, 0.0), score=apart)[1]
        level = torch.where(is_number, level + more / factor**step, level)
    return level


def _of_dense(part: Part) -> Tensor:
    """By the weights of a softmax themselves."""
    plain = replace(part.scored.part, form=ir.Form.SOFTMAX, weight=None, factor=None)
    found = []
    for each, tables in part.dense():
        unit = torch.eye(each.k.shape[2], dtype=each.v.dtype).expand(*each.k.shape[:2], -1, -1)
        alone = replace(
            each, part=replace(each.part, form=plain.form, weight=None, factor=None), v=unit
        )
        weights, lse = attend_densely(ir.Term((plain,)), [[(alone, tables)]], part.scale)
        found.append(lse + weights.amax(-1).log() if weights.shape[-1] else lse)
    return torch.cat(found)
