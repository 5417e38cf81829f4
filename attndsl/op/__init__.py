"""Floor 7: attention over a compiled pattern as a PyTorch operator."""

from attndsl.op.attention import (
    attention,
    default_layout,
    operators,
    register,
    searched_by,
    tune,
)

__all__ = ["attention", "default_layout", "operators", "register", "searched_by", "tune"]
