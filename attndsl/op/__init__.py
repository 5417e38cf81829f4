"""Floor 7: attention over a compiled pattern as a PyTorch operator."""

from attndsl.op.attention import attention, tune
from attndsl.op.merging import merge
from attndsl.op.planning import default_layout, planner_of, searched_by
from attndsl.op.registration import operators

__all__ = ["attention", "default_layout", "merge", "operators", "planner_of", "searched_by", "tune"]
