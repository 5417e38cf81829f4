"""Device functions from masks, as text: what kernels ask about the pairs of a PARTIAL tile."""

from attndsl.codegen.magnitudes import Leaves, Magnitudes
from attndsl.codegen.predicates import Predicate, choice, predicate
from attndsl.codegen.writing import OverBudget

__all__ = ["Leaves", "Magnitudes", "Predicate", "OverBudget", "choice", "predicate"]
