"""Abstract interpretation of patterns on boxes of pairs, with intervals and congruences."""

from attndsl.analysis.boxes import Interpreter, parts_of, split_sum
from attndsl.analysis.facts import (
    Fact,
    facts,
    holds_always,
    is_translation_invariant,
    reaches_all,
    separators,
)
from attndsl.analysis.proving import FAR, impossible, variable
from attndsl.analysis.ranges import Range, Truths
from attndsl.analysis.reach import Distance, Far, Reach, reach

__all__ = [
    "Distance", "FAR", "Fact", "Far", "Interpreter", "Range", "Reach", "Truths", "facts",
    "holds_always", "impossible", "is_translation_invariant", "parts_of", "reach", "reaches_all",
    "separators", "split_sum", "variable",
]  # fmt: skip
