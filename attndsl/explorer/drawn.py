"""Pictures as plain data for the page: cells in base64, their inks, and where they stand."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from math import ceil, prod
from typing import Any, Final

import numpy as np

from attndsl import ir, views

_MOST_CELLS: Final = 1 << 16  # of one grid; more are drawn as blocks
_MOST_RUNS: Final = 12  # of keys that are spelled out


def packed(picture: views.Picture, window: views.Window | None = None) -> dict[str, Any]:
    """A picture: shape, cells, inks; with a window also which tokens its cells stand for."""
    made: dict[str, Any] = {
        "shape": list(picture.cells.shape),
        "cells": _base64(picture.cells),
        "inks": [[ink.label, ink.colour] for ink in picture.inks],
    }
    if window is not None:
        made["rows"] = [window.rows.start, window.rows.stop]
        made["columns"] = [window.columns.start, window.columns.stop]
        made["step"] = window.step
    return made


def _base64(cells: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(cells, dtype=np.uint8).tobytes()).decode()


def grids(
    seen: views.BoolArray, space: ir.Space, sizes: Mapping[str, int], own: int | None
) -> Iterator[dict[str, Any]]:
    """The tokens of one line of the mask on the grids of their segments.

    Cells are 0 not seen, 255 seen; of a long sequence the share of the tokens in a cell that are seen, and 1 at the
    least where one is.
    """
    start = 0
    for name, shape in views.segment_shapes(space, sizes, len(seen)):
        size = prod(shape)
        here, step = seen[start : start + size], 1
        cells = here.astype(np.uint8) * 255
        if len(shape) == 1 or size > _MOST_CELLS:
            step = max(1, ceil(size / _MOST_CELLS)) if size > _MOST_CELLS else 1
            shape = (ceil(size / step),) if step > 1 else shape
            cells = _shares(here, step) if step > 1 else cells
        yield {
            "name": name,
            "shape": list(shape),
            "step": step,
            "start": start,
            "cells": _base64(cells),
            "own": own - start if own is not None and start <= own < start + size else None,
            "count": int(here.sum()),
        }
        start += size


def _shares(seen: views.BoolArray, step: int) -> np.ndarray[Any, Any]:
    counts = np.add.reduceat(seen.astype(np.int64), np.arange(0, len(seen), step))
    return np.where(counts == 0, 0, np.maximum(1, counts * 255 // step)).astype(np.uint8)


def runs(seen: views.BoolArray) -> str:
    """The positions in words, `0..3, 17, 20..22`: both ends included."""
    at = np.flatnonzero(seen)
    if len(at) == 0:
        return "none"
    parts = np.split(at, np.flatnonzero(np.diff(at) != 1) + 1)
    words = [f"{run[0]}..{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in parts[:_MOST_RUNS]]
    more = f", and {len(parts) - _MOST_RUNS} runs more" if len(parts) > _MOST_RUNS else ""
    return ", ".join(words) + more
