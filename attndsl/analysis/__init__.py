"""What a pattern is on boxes of pairs: abstract interpretation with intervals and congruences."""

from attndsl.analysis.boxes import Interpreter, parts_of, split_sum
from attndsl.analysis.ranges import Range, Truths

__all__ = ["Interpreter", "Range", "Truths", "parts_of", "split_sum"]
