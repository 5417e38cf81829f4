"""Schedules whose pairs are the whole square, or its lower triangle: one block, whatever the pattern says."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from attndsl.backends.block_rows import Grid
from attndsl.backends.dense_blocks import DenseBlocks, DensePart, DensePlan
from attndsl.backends.places import IntArray
from attndsl.schedule import Runs, Schedule, Tiles

Shape: TypeAlias = Literal["full", "causal"]


def square_of(schedule: Schedule) -> DenseBlocks | None:
    """The one block that a schedule is; None where its pairs are others."""
    shape = shape_of(schedule)
    if shape is None:
        return None
    lengths = schedule.q_len, schedule.k_len
    queries, keys = map(Grid.all, lengths)
    block = DensePart.of(queries, keys, shape == "causal", lengths)
    plan = DensePlan((block,), has_queries=True, has_keys=True)
    return DenseBlocks((plan,), schedule.plan_of)


def shape_of(schedule: Schedule) -> Shape | None:
    """The shape of the pairs of a schedule; None where they are others, or taken in another order.

    The schedule is the proof: every tile is live and FULL; or those below the diagonal are, and the PARTIAL ones on
    it hold the pairs with k <= q.
    """
    if schedule.plan_of.size != 1 or not schedule.q_len or not schedule.k_len:
        return None
    plan, (rows, columns) = schedule.plans[0], schedule.grid
    if plan.q_order is not None or plan.k_order is not None:
        return None
    if plan.full.nnz == rows * columns:
        return "full"
    side, last = schedule.tile[0], schedule.q_len - schedule.tile[0] * (rows - 1)
    if schedule.q_len != schedule.k_len or schedule.tile[1] != side:
        return None
    cut = rows - (last == 1)  # a last tile of one pair is FULL
    stops = np.append(np.arange(rows - 1), rows - 1 + (last == 1))  # of the FULL tiles of each row
    on_diagonal = np.array_equal(plan.partial.rows, np.arange(cut))
    if not on_diagonal or not np.array_equal(plan.partial.indices, np.arange(cut)):
        return None
    if not _begins(plan.full, stops):
        return None
    whole, inside = np.tri(side, dtype=bool), np.arange(side)[:, None] < last
    ids, ragged = plan.mask_ids[: rows - 1], plan.mask_ids[rows - 1 :]
    alike = (schedule.masks.unpack(np.unique(ids)) == whole).all()
    ends = (schedule.masks.unpack(ragged) == whole & inside).all()
    return "causal" if alike and ends else None


def _begins(tiles: Tiles, stops: IntArray) -> bool:
    """Whether the tiles of each row are the first ones, so many."""
    if isinstance(tiles.held, Runs):
        live = np.flatnonzero(stops)
        runs = tiles.held
        return (
            np.array_equal(runs.rows, live)
            and np.array_equal(runs.stop, stops[live])
            and not runs.first.any()
        )
    are_as_many = np.array_equal(np.diff(tiles.indptr), stops)
    return are_as_many and bool((tiles.indices < stops[tiles.rows]).all())  # columns ascend
