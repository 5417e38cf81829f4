"""Counts of tiles in blocks of tiles: what a shrunk picture is made of."""

from __future__ import annotations

from math import ceil
from typing import Any, TypeAlias

import numpy as np

from attndsl.schedule import Runs, Tiles

CountArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


def tiles_in_blocks(tiles: Tiles, rows: range, columns: range, step: int) -> CountArray:
    """How many of the tiles lie in each block; of a run only its ends are looked at."""
    height, width = ceil(len(rows) / step), len(columns)
    if isinstance(tiles.held, Runs):
        run = tiles.held
        some = slice(*np.searchsorted(run.rows, [rows.start, rows.stop]))
        row, first, stop = (x[some].astype(np.int64) for x in run.arrays)
    else:
        some = slice(int(tiles.indptr[rows.start]), int(tiles.indptr[rows.stop]))
        first = tiles.held[some].astype(np.int64)
        row = np.repeat(
            np.arange(rows.start, rows.stop), np.diff(tiles.indptr[rows.start : rows.stop + 1])
        )
        stop = first + 1
    first, stop = (np.clip(x - columns.start, 0, width) for x in (first, stop))
    at = (row - rows.start) // step * (width + 1)
    size = height * (width + 1)
    change = np.bincount(at + first, minlength=size) - np.bincount(at + stop, minlength=size)
    held = np.cumsum(change.reshape(height, width + 1), axis=1)[:, :-1]
    found: CountArray = np.add.reduceat(held, np.arange(0, width, step), axis=1)
    return found
