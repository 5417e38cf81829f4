"""Floor 7: attention over a compiled pattern as a PyTorch operator."""

from attndsl.op.attention import attention, operators, register, searched_by, tune

__all__ = ["attention", "operators", "register", "searched_by", "tune"]
