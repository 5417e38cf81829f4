"""What an order of tokens costs, by a sample of the rows of tiles.

A look classifies the tiles of these rows as far as that goes without looking at pairs; what it leaves undecided
is taken for PARTIAL, or drawn from and evaluated. From how much the rows differ follows by how much the estimate
may err.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from attndsl import ir
from attndsl.schedule.boundary_tiles import Survey, survey
from attndsl.schedule.building import TiledRelation
from attndsl.schedule.model import IntArray, Schedule, once_each
from attndsl.schedule.refine import Classified, refine
from attndsl.schedule.summaries import TileAxis

FIRST_ROWS, ROWS = 8, 64  # rows of tiles looked at: to sort out, to decide
LEAVES = 48  # distinct tiles evaluated to decide, for at most ROWS rows

CostModel: TypeAlias = Callable[[Sequence[Schedule]], float]


@dataclass(frozen=True, slots=True)
class TileCosts:
    """What work costs, in FULL tiles."""

    partial: float = 1.25  # a PARTIAL tile: the mask on top
    moved: float = 0.25  # one tile's rows of one side, gathered and scattered
    merged: float = 0.5  # one tile's queries, merged from two softmaxes
    gathers: bool = False  # a PARTIAL tile costs the share of its keys that some query sees
    cost_model: CostModel | None = (
        None  # what disjoint parts take, in any unit: he has the last word
    )
    name: str = ""  # of the judge, in every process; without one, his searches are not kept


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tiles of a frame, by those that were looked at."""

    full: float
    partial: float
    pairs: float
    keys: float
    exact: bool = True
    error: float = 0.0  # the standard error of their number, as a share of it

    @property
    def live(self) -> float:
        """Tiles that are visited."""
        return self.full + self.partial

    def cost(self, tile_costs: TileCosts) -> float:
        """In FULL tiles."""
        return self.full + tile_costs.partial * (self.keys if tile_costs.gathers else self.partial)


@dataclass(frozen=True, slots=True, eq=False)
class RowSample:
    """Some rows of tiles of a frame, classified as far as that goes without looking at pairs."""

    root: ir.Node
    queries: TileAxis  # of these rows
    keys: TileAxis
    found: Classified
    rows: int  # that were asked for
    n_tiles: int  # of the queries, in all

    def estimate(self, leaves: int = LEAVES) -> Estimate:
        """Tiles of the frame; of those left undecided, at most ``leaves`` in ``ROWS`` rows are evaluated."""
        seen, sure = self.queries.n_tiles, self.found.full.count
        limit = leaves * self.rows // ROWS
        keys, found = self._undecided() if limit else (self.keys, self.found)
        rest = survey(self.root, self.queries, keys, found, limit)
        scale = self.n_tiles / max(1, seen)
        area = self.queries.tile * self.keys.tile
        return Estimate(
            scale * (sure + rest.full),
            scale * rest.partial,
            scale * ((sure + rest.full) * area + rest.pairs),
            scale * rest.keys,
            seen == self.n_tiles and rest.exact,
            self._error(rest, limit),
        )

    def _undecided(self) -> tuple[TileAxis, Classified]:
        """The tiles of keys that have undecided ones, alone: not all are then classified in an order tried once."""
        if self.keys.order is None:  # whose terms have closed forms
            return self.keys, self.found
        tiles = once_each(self.found.columns)
        columns = np.searchsorted(tiles, self.found.columns)
        return self.keys.sampled(tiles), replace(self.found, columns=columns)

    def _error(self, rest: Survey, evaluated: int) -> float:
        """Of the mean of the rows, and of the share of the tiles evaluated that are not EMPTY."""
        rows, runs, undecided = self.queries.n_tiles, self.found.full, len(self.found.rows)
        if self.n_tiles == rows or rows < 2:
            of_rows = 0.0
        else:
            live = np.bincount(self.found.rows, minlength=rows)
            live = live + np.bincount(runs.rows, runs.lengths, minlength=rows)
            of_rows = float(live.std(ddof=1)) / max(1e-9, float(live.mean()) * math.sqrt(rows))
        if rest.exact or evaluated == 0:
            return of_rows
        share = max(0.5 / evaluated, min(1.0, (rest.full + rest.partial) / undecided))
        return math.hypot(of_rows, math.sqrt((1 - share) / share / min(evaluated, undecided)))


def sample_rows(relation: TiledRelation, rows: int) -> RowSample:
    """At most ``rows`` rows of tiles, one drawn from each of as many equal stretches."""
    queries, keys = relation.queries, relation.keys
    n_tiles, chosen = queries.n_tiles, _drawn(queries.n_tiles, rows)
    if len(chosen) < n_tiles:
        queries = queries.sampled(chosen)
    found = refine(relation.root, queries, keys, apart=len(chosen) < n_tiles)
    return RowSample(relation.root, queries, keys, found, rows, n_tiles)


@functools.lru_cache(maxsize=64)
def _drawn(count: int, wanted: int) -> IntArray:
    if count <= wanted:
        return np.arange(count, dtype=np.int64)
    edges = np.linspace(0, count, wanted + 1).astype(np.int64)
    return np.random.default_rng(0).integers(edges[:-1], edges[1:])
