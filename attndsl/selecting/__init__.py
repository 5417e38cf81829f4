"""Floor 5: selections made from tensors: q and k in, tables of chosen units out.

`produce` makes the table of one selection in passes over strips of queries, so that no matrix of all queries and units
is ever in memory. Scores are float32, rounded once from float64 arithmetic, so that any order of summing gives the same
scores but for one in millions, equal keys tie, and a step of decoding chooses what the last row of a prefill does.
"""

from .producing import Activations, produce
from .scoring import scores
from .summaries import KeySummaries

__all__ = ["Activations", "KeySummaries", "produce", "scores"]
