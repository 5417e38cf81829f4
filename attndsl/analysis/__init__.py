"""What a pattern is on boxes of pairs: abstract interpretation with intervals and congruences."""

from attndsl.analysis.boxes import Interpreter, parts_of, split_sum
from attndsl.analysis.facts import Fact, facts
from attndsl.analysis.ranges import Range, Truths

__all__ = ["Fact", "facts", "Interpreter", "Range", "Truths", "parts_of", "split_sum"]
