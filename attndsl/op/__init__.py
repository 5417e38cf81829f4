"""Floor 7: attention over a compiled pattern as a PyTorch operator."""

from attndsl.op.attention import attention, operators, tune
from attndsl.op.planning import default_layout, register, searched_by

__all__ = ["attention", "default_layout", "operators", "register", "searched_by", "tune"]
