"""Live tiles without their masks: for kernels that evaluate the pattern themselves, pair by pair, in PARTIAL tiles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from attndsl import ir
from attndsl.schedule.boundary_tiles import evaluate_tiles, sampled, whole_tiles
from attndsl.schedule.building import arranged
from attndsl.schedule.calls import Call
from attndsl.schedule.model import BoolArray, Runs, ShortArray
from attndsl.schedule.refine import Classified, classified_at_once, refine, split_comparison
from attndsl.schedule.relations import tiled_relation
from attndsl.schedule.summaries import TileAxis

# Tiles that a sample leaves open, each evaluated on its own; more are put in classes first.
_MOST_LEFT: Final = 512
_AT_ONCE: Final = 1 << 14  # tiles of a square up to which each is looked at, and no boxes of them


def live_blocks(
    mask: ir.Mask, call: Call, tile: tuple[int, int]
) -> tuple[BoolArray, BoolArray, ShortArray]:
    """The FULL and the PARTIAL tiles of a normal mask in natural order, and which grid each (batch, head) has.

    Both bool [grids, rows, columns]. They are those of a `Schedule`, but that a tile that reaches over an end is
    PARTIAL, so that no kernel reads a pair there without asking.

    Raises:
        AttnDslError: as `plan`.
    """
    bound = arranged(mask, call)
    grids = [
        _grids(piece.root, bound.queries, bound.keys, tile, bound.tables) for piece in bound.pieces
    ]
    full, partial = (np.stack(each) for each in zip(*grids, strict=True))
    return full, partial, bound.piece_of


def _grids(
    root: ir.Node, q_at: range, k_at: range, tile: tuple[int, int], tables: Mapping[str, Any]
) -> tuple[BoolArray, BoolArray]:
    relation = tiled_relation(root, q_at, k_at, tile, tables)
    queries, keys = relation.queries, relation.keys
    if queries.n_tiles * keys.n_tiles <= _AT_ONCE:
        full, found = classified_at_once(root, queries, keys)
    else:
        found = refine(root, queries, keys)
        full = _written_out(found.full, (queries.n_tiles, keys.n_tiles))
    rows, columns = found.rows, found.columns
    holds, fails = _verdicts(root, queries, keys, found)
    full[rows[~fails], columns[~fails]] = True
    partial = np.zeros_like(full)
    partial[rows, columns] = holds & fails
    for cut, here in (
        (queries.length % tile[0], np.s_[-1:, :]),
        (keys.length % tile[1], np.s_[:, -1:]),
    ):
        if cut:
            partial[here] |= full[here]
            full[here] = False
    return full, partial


def _written_out(runs: Runs, shape: tuple[int, int]) -> BoolArray:
    """The tiles of runs as a grid."""
    edges = np.zeros((shape[0], shape[1] + 1), dtype=np.int8)
    edges[runs.rows, runs.first] = 1
    edges[runs.rows, runs.stop] = -1  # no run begins where another of its row ends
    return np.cumsum(edges, axis=1, dtype=np.int8)[:, :-1].view(bool)


def _verdicts(
    root: ir.Node, queries: TileAxis, keys: TileAxis, found: Classified
) -> tuple[BoolArray, BoolArray]:
    """Whether some pair of each undecided tile is in the relation, and whether some is not."""
    rows, columns = found.rows, found.columns
    if _are_mixed(root, found):
        return np.ones(len(rows), dtype=bool), np.ones(len(rows), dtype=bool)
    holds, fails = sampled(root, queries, keys, rows, columns)
    left = np.flatnonzero(~(holds & fails))
    if len(left) > _MOST_LEFT:
        leaves = evaluate_tiles(root, queries, keys, found)
        return ~leaves.is_empty[leaves.which], ~leaves.is_full[leaves.which]
    if len(left):
        holds[left], fails[left] = whole_tiles(root, queries, keys, rows[left], columns[left])
    return holds, fails


def _are_mixed(root: ir.Node, found: Classified) -> bool:
    """Whether ranges alone show that each undecided tile has pairs inside and outside.

    Terms of one side take their least and greatest values somewhere on a tile, so what they say of a comparison of both
    sides is exact; so it is of a conjunction where all others are known to hold.
    """
    items = root.items if isinstance(root, ir.And) else (root,)
    if not all(isinstance(x, ir.Le) and split_comparison(x) is not None for x in items):
        return False
    fails = [found.truths(item).may_fail for item in items] if len(items) > 1 else []
    return not fails or bool((np.sum(fails, axis=0) == 1).all())
