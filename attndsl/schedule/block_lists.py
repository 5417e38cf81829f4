"""Live tiles without their masks: for kernels that evaluate the pattern themselves, pair by pair, in PARTIAL tiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from attndsl import ir
from attndsl.schedule.boundary_tiles import evaluate_tiles, sampled, whole_tiles
from attndsl.schedule.building import Call, arranged, tiled_relation
from attndsl.schedule.model import IntArray, Plan, ShortArray, Tiles, compress
from attndsl.schedule.refine import refine

_MOST_LEFT: Final = (
    512  # tiles that a sample leaves open, each evaluated on its own; more are put in classes first
)


def live_blocks(
    mask: ir.Mask, call: Call, tile: tuple[int, int]
) -> tuple[tuple[Plan, ...], ShortArray]:
    """The live tiles of a normal mask in natural order, as plans, and the plan of each (batch, head).

    They are those of a `Schedule`, but for the masks: ``mask_ids`` are 0 and stand for none. A tile that reaches over
    an end is PARTIAL, so that no kernel reads a pair there without asking.

    Raises:
        AttnDslError: as `plan`.
    """
    bound = arranged(mask, call)
    plans = tuple(
        _plan(piece.root, bound.queries, bound.keys, tile, bound.tables) for piece in bound.pieces
    )
    return plans, bound.piece_of


def _plan(
    root: ir.Node, q_at: range, k_at: range, tile: tuple[int, int], tables: Mapping[str, Any]
) -> Plan:
    relation = tiled_relation(root, q_at, k_at, tile, tables)
    queries, keys = relation.queries, relation.keys
    found = refine(root, queries, keys)
    rows, columns = found.rows, found.columns
    holds, fails = sampled(root, queries, keys, rows, columns)
    left = np.flatnonzero(~(holds & fails))
    if len(left) > _MOST_LEFT:
        leaves = evaluate_tiles(root, queries, keys, found)
        holds, fails = ~leaves.is_empty[leaves.which], ~leaves.is_full[leaves.which]
    elif len(left):
        holds[left], fails[left] = whole_tiles(root, queries, keys, rows[left], columns[left])
    full = found.full.and_tiles(rows[~fails], columns[~fails])
    partial = holds & fails
    listed = Tiles.of(full, queries.n_tiles)
    inside, ragged = _ragged(listed, (queries.length, keys.length), tile)
    partial_rows = np.concatenate([rows[partial], ragged[0]])
    partial_columns = np.concatenate([columns[partial], ragged[1]])
    partial_tiles, _ = compress(partial_rows, partial_columns, queries.n_tiles)
    ids = np.zeros(partial_tiles.nnz, dtype=np.int32)
    return Plan(inside, partial_tiles, ids, keys.n_tiles)


def _ragged(
    full: Tiles, lengths: tuple[int, int], tile: tuple[int, int]
) -> tuple[Tiles, tuple[IntArray, IntArray]]:
    """FULL tiles inside the lengths, and (rows, columns) of those that reach over an end."""
    none = np.zeros(0, dtype=np.int64)
    if not (lengths[0] % tile[0] or lengths[1] % tile[1]):
        return full, (none, none)
    rows, columns = full.rows.astype(np.int64), full.indices.astype(np.int64)
    over = (rows == lengths[0] // tile[0]) | (columns == lengths[1] // tile[1])
    inside, _ = compress(rows[~over], columns[~over], len(full.indptr) - 1)
    return inside, (rows[over], columns[over])
