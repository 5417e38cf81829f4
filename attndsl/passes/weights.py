"""Weights of an attention as expressions in `Score`, and zero keys as mass in its denominators.

    softmax, given the log-sum-exp L of a query    exp(s - L) * factor
    zeros n                                        mass n: n keys of score 0 and value 0

Law: where the numbers of queries and keys are what they say, both sides weigh every pair alike.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from attndsl import ir
from attndsl.source import AttnDslError, Diagnostic

reals = ir.reals

# Real tables of our own, by names that no program can spell: a number of each query, and of each key.
LEVEL: Final = ir.Table("<level>", ir.Sort.REAL, ("batch", "head", "q"))
COLUMN: Final = ir.Table("<column>", ir.Sort.REAL, ("batch", "head", "k"))
# Logarithm of the largest weight by columns: products with it are far from infinity.
_TOP: Final = 60.0


def level(mask: ir.Mask) -> ir.Node:
    """The number in `LEVEL` of the query of a pair."""
    row = ir.sub(ir.Pos(ir.Side.QUERY), ir.first_query(mask.align))
    return ir.Load(LEVEL.name, ir.Sort.REAL, (row,), LEVEL.ambient)


def column() -> ir.Node:
    """The number in `COLUMN` of the key of a pair."""
    return ir.Load(COLUMN.name, ir.Sort.REAL, (ir.Pos(ir.Side.KEY),), COLUMN.ambient)


def softmax_weight(part: ir.Scored) -> ir.Node:
    """The weight of a score by the log-sum-exp of its query, the level that it reads, times the factor."""
    return with_factor(part, reals.apply("exp", reals.minus(reals.SCORE, level(part.mask))))


def with_factor(part: ir.Scored, weight: ir.Node) -> ir.Node:
    """The weight times the factor, in which the score is that of the pair."""
    return weight if part.factor is None else reals.times(weight, part.factor)


def entmax_rest(mask: ir.Mask) -> ir.Node:
    """Half of a score beyond the threshold of its query, the level that it reads, or 0: its square is the weight."""
    return reals.apply("relu", reals.minus(reals.times(reals.HALF, reals.SCORE), level(mask)))


def column_weight() -> ir.Node:
    """The weight of a score by the level of its key; pairs that are not live do not overflow."""
    return reals.apply("exp", reals.least(reals.minus(reals.SCORE, column()), reals.Number(_TOP)))


def with_zero_keys(term: ir.Term) -> ir.Term:
    """The term, zero keys of its patterns in its mass: each weighs e^0, and its value is 0.

    Raises:
        AttnDslError: A217, zero keys beside weights that they are no part of.
    """
    parts = [part for part in term.parts if part.mask.zeros is not ir.ZERO]
    if not parts or parts[0].form is ir.Form.POINTWISE:
        return term
    if parts[0].form is not ir.Form.SOFTMAX:
        title = f"zero keys have no weight by `{parts[0].form.value}`"
        helps = ("use a pattern without them: `zeros 0` behind its body",)
        raise AttnDslError(Diagnostic("A217", title, helps=helps))
    mass = [reals.as_real(part.mask.zeros) for part in parts]
    if term.log_mass is not None:
        mass.insert(0, reals.apply("exp", term.log_mass))
    return replace(term, log_mass=reals.apply("log", reals.plus(*mass)))
