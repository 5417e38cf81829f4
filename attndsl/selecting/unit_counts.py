"""How many units there are, and which of them overlap others."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from attndsl import ir

Units: TypeAlias = ir.selection.Groups | ir.selection.Numbers


def counted(units: Units, env: ir.Env) -> int:
    """How many units, or numbers, there are in a call."""
    if isinstance(units, ir.selection.Units):
        return units.count(env.sizes["k"])
    if isinstance(units, ir.selection.Tiles):
        return units.count(env.sizes)
    return max(0, int(ir.evaluate(units.stop, env)))


def overlaps(
    outer: ir.selection.Units, inner: ir.selection.Units, length: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The inner units that overlap each outer one, from the first on: numbers, and the share of each that lies within.

    The share is 0 where an outer unit has fewer of them than others.
    """
    many = inner.count(length)
    starts = np.arange(outer.count(length)) * outer.every
    ends = np.minimum(starts + outer.size, length)
    first = np.maximum(0, (starts - inner.size) // inner.every + 1)
    found = []
    while many and len(starts):
        here = np.minimum(first, many - 1)
        begin = here * inner.every
        end = np.minimum(begin + inner.size, length)
        common = np.minimum(end, ends) - np.maximum(begin, starts)
        share = np.where(first < many, np.maximum(common, 0) / (end - begin), 0.0)
        if not (share > 0).any():
            break
        found.append((here, share))
        first = first + 1
    return found
