"""Device functions from masks, as text: what kernels ask about the pairs of a PARTIAL tile."""

from attndsl.codegen.magnitudes import Leaves, Magnitudes
from attndsl.codegen.predicates import (
    OpenPredicate,
    Predicate,
    choice,
    open_predicate,
    predicate,
)
from attndsl.codegen.writing import WIDEST_TILE, OverBudget

__all__ = [
    "WIDEST_TILE", "Leaves", "Magnitudes", "OpenPredicate", "OverBudget", "Predicate", "choice", "open_predicate",
    "predicate",
]  # fmt: skip
