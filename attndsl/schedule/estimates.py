"""Estimates of what a token order costs, from a sample of the rows of tiles.

A sample classifies the tiles of its rows without evaluating pairs. Undecided tiles are counted as PARTIAL, or some of
them are drawn and evaluated. The spread between rows gives the standard error of the estimate.
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
from attndsl.schedule.model import IntArray, Schedule, once_each
from attndsl.schedule.refine import Classified, refine
from attndsl.schedule.relations import TiledRelation
from attndsl.schedule.summaries import TileAxis

FIRST_ROWS, ROWS = 8, 64  # rows of tiles sampled: first to discard candidates, then to decide
LEAVES = 48  # distinct boundary tiles evaluated for a sample of ROWS rows

CostModel: TypeAlias = Callable[[Sequence[Schedule]], float]


@dataclass(frozen=True, slots=True)
class TileCosts:
    """Costs of work, in units of one FULL tile."""

    partial: float = 1.25  # a PARTIAL tile, with its mask
    moved: float = 0.25  # one tile's rows of one side, gathered and scattered
    merged: float = 0.5  # one tile's queries, merged from two softmaxes
    gathers: bool = False  # a PARTIAL tile costs the share of its keys that some query sees
    # Cost model of whole schedules, in any unit: it ranks the shortlist anew.
    cost_model: CostModel | None = None
    # Name of the cost model in every process; searches with an unnamed one are not stored.
    name: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Estimated numbers of tiles and pairs of a relation."""

    full: float
    partial: float
    pairs: float
    keys: float
    exact: bool = True
    error: float = 0.0  # relative standard error of the number of tiles

    @property
    def live(self) -> float:
        """Tiles that are visited."""
        return self.full + self.partial

    def cost(self, tile_costs: TileCosts) -> float:
        """The cost, in FULL tiles."""
        return self.full + tile_costs.partial * (self.keys if tile_costs.gathers else self.partial)


@dataclass(frozen=True, slots=True, eq=False)
class RowSample:
    """A sample of rows of tiles, classified without evaluating pairs."""

    root: ir.Node
    queries: TileAxis  # of these rows
    keys: TileAxis
    found: Classified
    rows: int  # that were asked for
    n_tiles: int  # of the queries, in all

    def estimate(self, leaves: int = LEAVES) -> Estimate:
        """Extrapolates to the whole relation; at most ``leaves`` undecided tiles per ``ROWS`` rows are evaluated."""
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
        """Restricts the keys to tiles with undecided ones, so that fewer are classified in an order tried once."""
        if self.keys.order is None:  # whose terms have closed forms
            return self.keys, self.found
        tiles = once_each(self.found.columns)
        columns = np.searchsorted(tiles, self.found.columns)
        return self.keys.sampled(tiles), replace(self.found, columns=columns)

    def _error(self, rest: Survey, evaluated: int) -> float:
        """Relative standard error: between-row variance plus the binomial error of the sampled boundary tiles."""
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
    """Samples at most ``rows`` rows of tiles, one from each of as many equal stretches."""
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
