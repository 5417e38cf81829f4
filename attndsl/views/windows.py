"""Windows on a mask of any size, read off its schedule: pairs, densities, kinds of tiles; and single rows and columns.

The work follows the tiles in the window, so a million tokens are looked at as fast as a thousand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any, Final, TypeAlias

import numpy as np

from attndsl.schedule import Plan, Schedule

from .blocks import CountArray, tiles_in_blocks
from .costs import BIT_COUNT
from .pictures import (
    BLOCK_INKS,
    MASK_INKS,
    SHADES,
    TILE_INKS,
    BoolArray,
    Picture,
    shade_inks,
)

FloatArray: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

_MASKS_AT_ONCE: Final = 512  # masks of PARTIAL tiles unpacked together: 8 MB of 128 x 128


@dataclass(frozen=True, slots=True)
class Window:
    """Rows and columns ``[start, stop)`` of tokens, and how many tokens a side one cell stands for."""

    rows: range
    columns: range
    step: int = 1

    @staticmethod
    def around(schedule: Schedule, rows: range, columns: range, most: int, least: int) -> Window:
        """The window that holds the given one in at most ``most`` cells a side of ``least`` tokens or more.

        Steps are powers of two times ``least``, and the window starts at a multiple of its step.
        """
        rows = range(max(0, rows.start), min(schedule.q_len, max(rows.stop, rows.start + 1)))
        columns = range(
            max(0, columns.start), min(schedule.k_len, max(columns.stop, columns.start + 1))
        )
        step = least
        while max(len(rows), len(columns)) > step * (most - 1):
            step *= 2
        starts = rows.start // step * step, columns.start // step * step
        return Window(range(starts[0], rows.stop), range(starts[1], columns.stop), step)

    @property
    def shape(self) -> tuple[int, int]:
        """Cells: rows, columns."""
        return ceil(len(self.rows) / self.step), ceil(len(self.columns) / self.step)


def picture_pairs(
    schedule: Schedule,
    rows: range,
    columns: range,
    batch: int = 0,
    head: int = 0,
    *,
    most: int = 512,
) -> tuple[Picture, Window]:
    """The pairs of a window; where they do not fit, the density of blocks of them.

    Args:
        schedule: In natural order, its tiles square, their side a power of two.
        rows: Queries.
        columns: Keys.
        batch: Which batch element.
        head: Which head.
        most: Cells a side.

    Returns:
        The picture, without rulers, and the window that it shows. A cell is empty only if no pair of it is in the
        pattern, and full only if all are.
    """
    window, plan = Window.around(schedule, rows, columns, most, 1), schedule.plan(batch, head)
    side = schedule.tile[0]
    if window.step < side:
        share = _shares_within_tiles(schedule, plan, window)
    else:
        tiles = _in_tiles(schedule, window)
        size = _sizes(tiles, window.step // side)
        full = tiles_in_blocks(plan.full, *tiles, window.step // side)
        partial = _weighed(plan, _densities(schedule), *tiles, window.step // side)
        live = full + tiles_in_blocks(plan.partial, *tiles, window.step // side)
        share = np.where(
            full == size, 1.0, np.where(live == 0, 0.0, 1e-9 + (full + partial) / size)
        )
        share = np.where((share >= 1) & (full < size), 1 - 1e-9, share)
    if window.step == 1:
        return Picture((share > 0).astype(np.uint8), MASK_INKS, None, None, ""), window
    between = 1 + np.minimum(share * SHADES, SHADES - 1).astype(np.uint8)
    cells = np.where(share == 0, 0, np.where(share == 1, SHADES + 1, between)).astype(np.uint8)
    return Picture(cells, shade_inks(SHADES), None, None, ""), window


def picture_kinds(
    schedule: Schedule,
    rows: range,
    columns: range,
    batch: int = 0,
    head: int = 0,
    *,
    most: int = 512,
) -> tuple[Picture, Window]:
    """The kinds of tiles in a window, in the order of the schedule; where they do not fit, of blocks of tiles."""
    side = schedule.tile[0]
    window, plan = Window.around(schedule, rows, columns, most, side), schedule.plan(batch, head)
    tiles, step = _in_tiles(schedule, window), window.step // side
    full = tiles_in_blocks(plan.full, *tiles, step)
    live = full + tiles_in_blocks(plan.partial, *tiles, step)
    cells = np.where(full == _sizes(tiles, step), 1, np.where(live > 0, 2, 0)).astype(np.uint8)
    return Picture(cells, TILE_INKS if step == 1 else BLOCK_INKS, None, None, ""), window


def keys_seen(schedule: Schedule, query: int, batch: int = 0, head: int = 0) -> BoolArray:
    """The keys that one query sees, bool [k_len]; the schedule is in natural order."""
    return _line(schedule, schedule.plan(batch, head), query, schedule.k_len, by_key=False)


def queries_seeing(schedule: Schedule, key: int, batch: int = 0, head: int = 0) -> BoolArray:
    """The queries that see one key, bool [q_len]; the schedule is in natural order."""
    plan = schedule.plan(batch, head).transpose
    return _line(schedule, plan, key, schedule.q_len, by_key=True)


def _line(schedule: Schedule, plan: Plan, at: int, length: int, *, by_key: bool) -> BoolArray:
    side = schedule.tile[0]
    row, inside = divmod(at, side)
    found = np.zeros((ceil(length / side), side), dtype=bool)
    found[plan.full.row(row)] = True
    ids = plan.mask_ids[plan.partial.indptr[row] : plan.partial.indptr[row + 1]]
    columns = plan.partial.row(row)
    for start in range(0, len(ids), _MASKS_AT_ONCE):
        some = slice(start, start + _MASKS_AT_ONCE)
        masks = schedule.masks.unpack(ids[some])
        found[columns[some]] = masks[:, :, inside] if by_key else masks[:, inside]
    return found.reshape(-1)[:length]


def _in_tiles(schedule: Schedule, window: Window) -> tuple[range, range]:
    """The rows and columns of tiles that a window touches."""
    side = schedule.tile[0]
    rows, columns = window.rows, window.columns
    return (
        range(rows.start // side, ceil(rows.stop / side)),
        range(columns.start // side, ceil(columns.stop / side)),
    )


def _sizes(tiles: tuple[range, range], step: int) -> CountArray:
    """How many tiles each block of step x step tiles has; the last ones may have fewer."""
    down, across = (
        np.minimum(step, len(side) - np.arange(0, len(side), step, dtype=np.int64))
        for side in tiles
    )
    return down[:, None] * across[None, :]


def _densities(schedule: Schedule) -> FloatArray:
    """The share of pairs in each mask of a PARTIAL tile."""
    bits = BIT_COUNT[schedule.masks.packed].sum(axis=-1)
    return np.asarray(bits / (schedule.tile[0] * schedule.tile[1]))


def _weighed(plan: Plan, weights: FloatArray, rows: range, columns: range, step: int) -> FloatArray:
    """The sum over PARTIAL tiles of each block of the weights of their masks."""
    shape = ceil(len(rows) / step), ceil(len(columns) / step)
    row, column, ids = _partial(plan, rows, columns)
    at = row // step * shape[1] + column // step
    size = shape[0] * shape[1]
    found: FloatArray = np.bincount(at, weights=weights[ids], minlength=size).astype(np.float64)
    return found.reshape(shape)


def _partial(plan: Plan, rows: range, columns: range) -> tuple[CountArray, CountArray, CountArray]:
    """PARTIAL tiles in a window: row and column within it, and mask."""
    indptr = plan.partial.indptr
    some = slice(int(indptr[rows.start]), int(indptr[rows.stop]))
    column = plan.partial.indices[some].astype(np.int64)
    row = np.repeat(np.arange(len(rows)), np.diff(indptr[rows.start : rows.stop + 1]))
    inside = (column >= columns.start) & (column < columns.stop)
    return row[inside], column[inside] - columns.start, plan.mask_ids[some][inside].astype(np.int64)


def _shares_within_tiles(schedule: Schedule, plan: Plan, window: Window) -> FloatArray:
    """The share of each cell that is in the pattern, for cells smaller than a tile."""
    rows, columns = _in_tiles(schedule, window)
    side, step = schedule.tile[0], window.step
    cells = side // step
    full = tiles_in_blocks(plan.full, rows, columns, 1)
    found = np.zeros((len(rows), cells, len(columns), cells))
    found += full[:, None, :, None]
    row, column, ids = _partial(plan, rows, columns)
    known, which = np.unique(ids, return_inverse=True)
    for start, masks in _unpacked(schedule, known):
        share = masks.reshape(-1, cells, step, cells, step).mean(axis=(2, 4))
        here = (which >= start) & (which < start + len(masks))
        found[row[here], :, column[here], :] = share[which[here] - start]
    joined = found.reshape(len(rows) * cells, len(columns) * cells)
    top = (window.rows.start - rows.start * side) // step
    left = (window.columns.start - columns.start * side) // step
    height, width = window.shape
    return _filled_at_the_ends(schedule, window, joined[top : top + height, left : left + width])


def _unpacked(schedule: Schedule, ids: CountArray) -> Iterator[tuple[int, BoolArray]]:
    for start in range(0, len(ids), _MASKS_AT_ONCE):
        yield start, schedule.masks.unpack(ids[start : start + _MASKS_AT_ONCE])


def _filled_at_the_ends(schedule: Schedule, window: Window, share: FloatArray) -> FloatArray:
    """Shares of the last row and column of cells, in proportion to the tokens that there are."""
    step = window.step
    down, across = (
        np.clip(length - (side.start + np.arange(count) * step), 1, step)
        for length, side, count in zip(
            (schedule.q_len, schedule.k_len),
            (window.rows, window.columns),
            share.shape,
            strict=True,
        )
    )
    filled: FloatArray = share * (step * step) / (down[:, None] * across[None, :])
    return np.minimum(filled, 1.0)
