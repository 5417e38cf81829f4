"""Device functions as text: which pairs of a PARTIAL tile a mask keeps, and what scores become."""

from attndsl.codegen.hoisting import PER_SCALE, Column, NoKernel, Product
from attndsl.codegen.magnitudes import Leaves, Magnitudes
from attndsl.codegen.predicates import (
    OpenPredicate,
    Predicate,
    choice,
    open_predicate,
    predicate,
)
from attndsl.codegen.scores import EXACT, ScoreFunctions, score_functions
from attndsl.codegen.writing import WIDEST_TILE, OverBudget

__all__ = [
    "EXACT", "PER_SCALE", "WIDEST_TILE", "Column", "Leaves", "Magnitudes", "NoKernel", "OpenPredicate", "OverBudget",
    "Predicate", "Product", "ScoreFunctions", "choice", "open_predicate", "predicate", "score_functions",
]  # fmt: skip
