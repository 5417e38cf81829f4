"""Floor 7: attention over a compiled pattern as a PyTorch operator."""

from attndsl.op.attention import attention, tune
from attndsl.op.binding import BoundCall
from attndsl.op.bound_scores import BoundAttention
from attndsl.op.choices import CHOICE_KERNELS, TableMaker, keep_maker
from attndsl.op.dispatching import eager_only
from attndsl.op.foreign import why_not
from attndsl.op.merging import merge
from attndsl.op.planning import Planner, planner_of
from attndsl.op.registration import KERNELS, operators
from attndsl.op.row_maxima import row_maxima
from attndsl.op.scored_part import ScoredCall
from attndsl.op.scored_registration import SCORED_KERNELS, Whole, attend
from attndsl.op.scores import TermProgram, device_functions, has_lse

__all__ = [
    "CHOICE_KERNELS",
    "KERNELS",
    "BoundAttention",
    "BoundCall",
    "SCORED_KERNELS",
    "Planner",
    "ScoredCall",
    "TableMaker",
    "TermProgram",
    "Whole",
    "attend",
    "attention",
    "device_functions",
    "has_lse",
    "keep_maker",
    "eager_only",
    "merge",
    "operators",
    "planner_of",
    "row_maxima",
    "tune",
    "why_not",
]
