"""A call, to the scheduler: lengths, heads, extents, tables and positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from attndsl import ir

MOST_TOKENS = 1 << 28  # tokens of one side; every term by position takes eight bytes each


@dataclass(frozen=True, slots=True)
class Call:
    """Everything a schedule depends on beside the pattern; ``tables`` hold NumPy arrays of the declared dims."""

    q_len: int
    k_len: int
    batch: int = 1
    heads: int = 1
    layer: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)
    tables: Mapping[str, Any] = field(default_factory=dict)
    merge_heads: bool = True  # whether heads that turn out to see the same pairs share one plan
    head_start: int = 0  # the first of these heads among all of the model
    model_heads: int | None = None  # how many the model has, where it is not ``heads``
    positions: ir.Positions | None = None  # where the rows stand, if not as the pattern aligns them
    first: int | None = None  # the position of query 0 in a mask that has been given positions

    @property
    def nbytes(self) -> int:
        """Bytes of the tables."""
        return sum(array.nbytes for array in self.tables.values())
