"""The live tiles of a plan, and where their live pairs lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from attndsl.backends.places import IntArray
from attndsl.schedule import MaskTable, Plan

BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

FULL = -1
THIN = 4  # a tile is thin when at most 1 / THIN of its keys are live, flat when of its queries


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Live tiles, row by row. ``ids`` are masks, or FULL."""

    rows: IntArray
    columns: IntArray
    ids: IntArray

    def take(self, which: BoolArray) -> Cells:
        """Selects some of the cells."""
        return Cells(self.rows[which], self.columns[which], self.ids[which])

    def per_row(self, which: BoolArray) -> IntArray:
        """How many of those cells the row of each cell has."""
        return np.bincount(self.rows, weights=which).astype(np.int64)[self.rows]

    def follows(self) -> BoolArray:
        """Whether a cell lies right of the one before it, without a gap."""
        result = np.zeros(len(self.rows), dtype=bool)
        result[1:] = (np.diff(self.rows) == 0) & (np.diff(self.columns) == 1)
        return result


class Extents:
    """Where the live pairs of each mask lie. The last entry is that of FULL: id -1 reaches it."""

    def __init__(self, masks: MaskTable) -> None:
        bq, bk = masks.tile
        queries, keys = np.ones((len(masks) + 1, bq), bool), np.ones((len(masks) + 1, bk), bool)
        step = max(1, (1 << 24) // (bq * bk))
        for low in range(0, len(masks), step):
            part = slice(low, min(low + step, len(masks)))
            pairs = masks.unpack(part)
            queries[part], keys[part] = pairs.any(2), pairs.any(1)
        self.first_query = queries.argmax(1)
        self.stop_query = bq - queries[:, ::-1].argmax(1)
        self.first_key = keys.argmax(1)
        self.stop_key = bk - keys[:, ::-1].argmax(1)
        self.is_flat = (self.stop_query - self.first_query) * THIN <= bq
        self.is_thin = keys.sum(1) * THIN <= bk


def cells_of(plan: Plan) -> Cells:
    """The live tiles of a plan, with their masks."""
    rows = np.concatenate([plan.full.rows, plan.partial.rows]).astype(np.int64)
    columns = np.concatenate([plan.full.indices, plan.partial.indices]).astype(np.int64)
    ids = np.concatenate([np.full(plan.full.nnz, FULL), plan.mask_ids]).astype(np.int64)
    order = np.lexsort((columns, rows))
    return Cells(rows[order], columns[order], ids[order])
