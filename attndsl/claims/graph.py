"""Tokens as a graph: an edge where a query sees a key. Exact for tokens, at the cost of tiles.

Residual connections count: a token always keeps what it has. Heads act together: after a layer a token
knows what any head brought it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from attndsl.claims.rows import unpacked
from attndsl.schedule import Plan, Schedule

IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

_AT_ONCE = 1 << 24  # pairs of masks looked at together


@dataclass(frozen=True, slots=True, eq=False)
class Components:
    """Classes of tokens that no pair of the pattern joins. ``labels`` [length] counts from 0."""

    labels: IntArray

    def __len__(self) -> int:
        return int(self.labels.max(initial=-1)) + 1

    @property
    def sizes(self) -> IntArray:
        """Tokens in each class, [classes]."""
        return np.bincount(self.labels)

    @property
    def are_runs(self) -> bool:
        """Whether each class is one run of neighbours, so that the mask is blocks along its diagonal."""
        return int(np.count_nonzero(np.diff(self.labels))) == max(len(self) - 1, 0)

    def __str__(self) -> str:
        if len(self) < 2:
            return "one: all tokens are connected"
        least, most = int(self.sizes.min()), int(self.sizes.max())
        sizes = f"{most:,}" if least == most else f"{least:,} to {most:,}"
        return f"{len(self):,} {'runs' if self.are_runs else 'classes'} of {sizes} tokens"


class TokenGraph:
    """The graph of one batch element: its tokens are queries and keys at once."""

    def __init__(self, schedule: Schedule, batch: int = 0) -> None:
        """``schedule`` has as many queries as keys, square tiles and natural order."""
        assert schedule.q_len == schedule.k_len
        assert schedule.tile[0] == schedule.tile[1]
        self.schedule = schedule
        self.length = schedule.q_len
        self.tile = schedule.tile[0]
        self.n_tiles = schedule.grid[0]
        row = batch if schedule.plan_of.shape[0] > 1 else 0
        self.plans = [schedule.plans[int(i)] for i in np.unique(schedule.plan_of[row])]

    # ------------------------------------------------------------------ reach

    def seen_by(self, tokens: BoolArray) -> BoolArray:
        """Tokens known to these after one layer, bool [length]: themselves and the keys they see."""
        padded = np.zeros(self.n_tiles * self.tile, dtype=bool)
        padded[: self.length] = tokens
        active = padded.reshape(self.n_tiles, self.tile)
        found = active.copy()
        busy = np.asarray(active.any(axis=1))
        for plan in self.plans:
            found[plan.full.indices[busy[plan.full.rows]]] = True
            for rows, columns, masks in self._partial(plan, busy):
                hit = (active[rows][:, :, None] & masks).any(axis=1)
                np.logical_or.at(found, columns, hit)
        return found.reshape(-1)[: self.length]

    def _partial(
        self, plan: Plan, busy: BoolArray
    ) -> Iterator[tuple[IntArray, IntArray, BoolArray]]:
        """PARTIAL tiles whose row is busy, some at a time, with their masks."""
        wanted = np.flatnonzero(busy[plan.partial.rows])
        step = max(1, _AT_ONCE // self.tile**2)
        rows = plan.partial.rows.astype(np.int64)
        columns = plan.partial.indices.astype(np.int64)
        for start in range(0, len(wanted), step):
            some = wanted[start : start + step]
            yield rows[some], columns[some], self.schedule.masks.unpack(plan.mask_ids[some])

    def receptive_field(self, token: int, layers: int) -> BoolArray:
        """All tokens whose input the output of one token depends on after so many layers, bool [length]."""
        known = np.zeros(self.length, dtype=bool)
        known[token] = True
        for _ in range(layers):
            more = self.seen_by(known)
            if np.array_equal(more, known):
                break
            known = more
        return known

    # ------------------------------------------------------------------ components

    def components(self) -> Components:
        """Connected components, an edge taken both ways.

        Tokens of a tile that some tile joins are one node; what is left is a graph of a few nodes a tile.
        """
        import networkx as nx  # here, for it takes longer to load than most patterns to compile

        classes = _Classes(self)
        graph = nx.Graph()
        graph.add_nodes_from(range(classes.count))
        for edges in classes.edges():
            graph.add_edges_from(edges)
        component = np.empty(classes.count, dtype=np.int64)
        for number, nodes in enumerate(nx.connected_components(graph)):
            component[list(nodes)] = number
        labels = component[classes.nodes].reshape(-1)[: self.length]
        _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
        return Components(np.argsort(np.argsort(first))[inverse.reshape(-1)])


class _Classes:
    """The tokens of each tile, those joined within it taken together: ``nodes`` [n_tiles, tile]."""

    def __init__(self, graph: TokenGraph) -> None:
        self.graph = graph
        self.rows, self.columns = _joined(graph)
        kinds: list[set[tuple[int, int]]] = [set() for _ in range(graph.n_tiles)]
        whole = np.zeros(graph.n_tiles, dtype=bool)
        for plan in graph.plans:
            whole[plan.full.rows] = True
            whole[plan.full.indices] = True
            for row, column, mask in zip(
                plan.partial.rows, plan.partial.indices, plan.mask_ids, strict=True
            ):
                kinds[row].add((0, int(mask)))
                kinds[column].add((1, int(mask)))
        known: dict[frozenset[tuple[int, int]], IntArray] = {}
        local = np.zeros((graph.n_tiles, graph.tile), dtype=np.int64)
        for index in np.flatnonzero(~whole):
            key = frozenset(kinds[index])
            if key not in known:
                known[key] = self._merged(key)
            local[index] = known[key]
        counts = local.max(axis=1, initial=0) + 1
        self.count = int(counts.sum())
        self.nodes = local + (np.cumsum(counts) - counts)[:, None]

    def _merged(self, kinds: frozenset[tuple[int, int]]) -> IntArray:
        """The finest classes that all the masks agree on, numbered from 0."""
        tile = self.graph.tile
        same = np.eye(tile, dtype=np.float32)
        for side, mask in kinds:
            labels = (self.rows, self.columns)[side][mask]
            same += (labels[:, None] == labels) & (labels >= 0)
        return np.unique(_closure(same[None])[0].argmax(axis=1), return_inverse=True)[1].reshape(-1)

    def edges(self) -> Iterator[list[tuple[int, int]]]:
        """Pairs of nodes that the tiles of each plan join."""
        for plan in self.graph.plans:
            rows, columns = plan.full.rows, plan.full.indices
            yield _pairs(self.nodes[rows, 0], self.nodes[columns, 0], self.count)
            for start in range(0, plan.partial.nnz, 4096):
                some = slice(start, start + 4096)
                rows, columns = plan.partial.rows[some], plan.partial.indices[some]
                mine, theirs = self.rows[plan.mask_ids[some]], self.columns[plan.mask_ids[some]]
                # a key belongs to the first row of its component, and so do the other rows
                entry, key = np.nonzero(theirs >= 0)
                first = theirs[entry, key]
                yield _pairs(
                    self.nodes[rows[entry], first], self.nodes[columns[entry], key], self.count
                )
                entry, row = np.nonzero(mine >= 0)
                first = mine[entry, row]
                yield _pairs(
                    self.nodes[rows[entry], first], self.nodes[rows[entry], row], self.count
                )


def _pairs(ones: IntArray, others: IntArray, count: int) -> list[tuple[int, int]]:
    """The distinct pairs of unlike nodes, out of so many nodes."""
    differ = ones != others
    codes = np.unique(ones[differ] * count + others[differ])
    return list(zip((codes // count).tolist(), (codes % count).tolist(), strict=True))


def _joined(graph: TokenGraph) -> tuple[IntArray, IntArray]:
    """For each distinct mask, the component of each row and of each column: its first row, or -1."""
    count, tile = len(graph.schedule.masks), graph.tile
    rows = np.full((count, tile), -1, dtype=np.int64)
    columns = np.full((count, tile), -1, dtype=np.int64)
    for some, masks in unpacked(graph.schedule):
        edges = masks.astype(np.float32)
        same = _closure(edges @ edges.transpose(0, 2, 1))
        first = same.argmax(axis=2)
        rows[some] = np.where(masks.any(axis=2), first, -1)
        any_row = np.take_along_axis(first, masks.argmax(axis=1), axis=1)
        columns[some] = np.where(masks.any(axis=1), any_row, -1)
    return rows, columns


def _closure(related: np.ndarray[Any, np.dtype[np.float32]]) -> BoolArray:
    """The transitive closure of symmetric relations, [n, tile, tile], by repeated squaring."""
    known = related > 0
    while True:
        wide = known.astype(np.float32)
        more = wide @ wide > 0
        more |= known
        if np.array_equal(more, known):
            return known
        known = more
