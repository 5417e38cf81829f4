"""Exact evaluation of the tiles that refinement left undecided, one tile of each class pair by pair."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from attndsl import ir
from attndsl.schedule.distinct import Distinct, row_classes
from attndsl.schedule.model import BoolArray, ByteArray, IntArray, ShortArray, once_each
from attndsl.schedule.pair_truths import inner_parts, truths_of
from attndsl.schedule.refine import Classified
from attndsl.schedule.summaries import TileAxis
from attndsl.schedule.tile_classes import canonical_key, classes_of_tiles, comparisons

PAIRS_AT_ONCE = 1 << 19  # pairs evaluated at a time: their truth values stay in a core's cache
TILES_AT_ONCE = 256  # tiles compared at a time, to bound temporaries
SAMPLED = 8  # places of a side, both ends among them, that a first look at a tile takes
# Tiles with one set of decided comparisons, on average, for dropping those to pay.
_FEWEST_ALIKE = 16


@dataclass(frozen=True, slots=True, eq=False)
class BoundaryTiles:
    """The verdict on each undecided tile, by its class, and the distinct masks."""

    which: IntArray  # [n] index into classes
    is_empty: BoolArray  # [kinds]
    is_full: BoolArray  # [kinds], within the lengths
    mask_of: IntArray  # [kinds] index into masks
    masks: ByteArray  # [distinct, bq * bk / 8] of the PARTIAL ones, in bits, 0 outside the lengths


def evaluate_tiles(
    root: ir.Node, queries: TileAxis, keys: TileAxis, found: Classified
) -> BoundaryTiles:
    """Evaluates one undecided tile of each class pair by pair."""
    first, which = classes_of_tiles(root, queries, keys, found)
    cells = _Cells.of(root, queries, keys, found.rows[first], found.columns[first])
    is_empty, is_full = (np.empty(len(first), dtype=bool) for _ in range(2))
    mask_of = np.zeros(len(first), dtype=np.int64)
    distinct = Distinct(len(first), cells.words)
    for part, tiles in _narrowed(root, queries, keys, found, first):
        for some, held, valid in cells.evaluated(part, tiles):
            bits = cells.pack(held)
            is_empty[some] = ~bits.any(axis=1)
            is_full[some] = (bits == cells.pack(valid)).all(axis=1)
            partial = ~is_empty[some] & ~is_full[some]
            mask_of[some[partial]] = distinct.add(bits[partial])
    return BoundaryTiles(which, is_empty, is_full, mask_of, cells.masks(distinct.rows))


def whole_tiles(
    root: ir.Node, queries: TileAxis, keys: TileAxis, rows: IntArray, columns: IntArray
) -> tuple[BoolArray, BoolArray]:
    """Whether some pair of each tile is in the relation, and whether some is not; each tile is evaluated."""
    holds, fails = (np.empty(len(rows), dtype=bool) for _ in range(2))
    cells = _Cells.of(root, queries, keys, rows, columns)
    for some, held, valid in cells.evaluated(root, np.arange(len(rows))):
        holds[some], fails[some] = held.any(axis=(1, 2)), (held != valid).any(axis=(1, 2))
    return holds, fails


def sampled(
    root: ir.Node, queries: TileAxis, keys: TileAxis, rows: IntArray, columns: IntArray
) -> tuple[BoolArray, BoolArray]:
    """Like `whole_tiles`, of few pairs of each tile: what is true is so, what is false may not be."""
    holds, fails = (np.empty(len(rows), dtype=bool) for _ in range(2))
    offsets = [_offsets(x.tile) for x in (queries, keys)]
    at_once = PAIRS_AT_ONCE // SAMPLED**2
    for start in range(0, len(rows), at_once):
        some = slice(start, start + at_once)
        places = [
            np.minimum(n[some, None] * axis.tile + at, axis.length - 1)
            for n, axis, at in zip((rows, columns), (queries, keys), offsets, strict=True)
        ]
        held = truths_of(root, queries, keys, places[0][:, :, None], places[1][:, None, :])
        held = np.broadcast_to(held, (len(places[0]), *map(len, offsets)))
        holds[some], fails[some] = held.any(axis=(1, 2)), ~held.all(axis=(1, 2))
    return holds, fails


@functools.lru_cache(maxsize=64)
def _offsets(tile: int) -> IntArray:
    """The places of a side that a first look at a tile takes."""
    return once_each(np.linspace(0, tile - 1, SAMPLED).astype(np.int64))


@dataclass(frozen=True, slots=True)
class Survey:
    """Numbers of FULL and PARTIAL tiles, and of pairs in the PARTIAL ones.

    ``keys``: the PARTIAL tiles by the share of their keys that some query sees.
    """

    full: float
    partial: float
    pairs: float
    keys: float
    exact: bool = True


def survey(
    root: ir.Node, queries: TileAxis, keys: TileAxis, found: Classified, limit: int
) -> Survey:
    """Estimates the numbers from at most ``limit`` of the distinct tiles, evenly drawn.

    With a limit of 0 all undecided tiles count as PARTIAL.
    """
    count = float(len(found.rows))
    if count == 0 or limit == 0:
        return Survey(0.0, count, 0.0, count, exact=count == 0)
    code = canonical_key(root, queries, keys, found)
    _, first, counts = np.unique(code, return_index=True, return_counts=True)
    some = np.linspace(0, len(first) - 1, min(limit, len(first))).astype(np.int64)
    full, partial, pairs, seen = np.zeros((4, len(some)))
    drawn = first[some]
    cells = _Cells.of(root, queries, keys, found.rows[drawn], found.columns[drawn])
    for these, held, valid in cells.evaluated(root, np.arange(len(some))):
        full[these] = (held == valid).all(axis=(1, 2))
        partial[these] = held.any(axis=(1, 2)) & (full[these] == 0)
        pairs[these] = np.einsum("nij,i,j->n", held, cells.of_queries.runs, cells.of_keys.runs)
        seen[these] = held.any(axis=1) @ cells.of_keys.runs / keys.tile
    weight = counts[some] * (counts.sum() / counts[some].sum())
    return Survey(
        float(weight @ full),
        float(weight @ partial),
        float((weight * partial) @ pairs),
        float((weight * partial) @ seen),
        len(some) == len(first),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Offsets:
    """One side of some tiles, in runs of offsets that are alike on all of them."""

    axis: TileAxis
    tiles: IntArray  # [n]
    starts: IntArray  # [runs]

    @property
    def runs(self) -> IntArray:
        """How long each run is, [runs]."""
        return np.diff(self.starts, append=self.axis.tile)

    def places(self, some: IntArray) -> IntArray:
        """Where the runs of those tiles begin in storage, [len(some), runs]."""
        return self.tiles[some, None] * self.axis.tile + self.starts


@dataclass(frozen=True, slots=True, eq=False)
class _Cells:
    """Tiles cut into cells, a run of queries by a run of keys; one pair stands for all of a cell."""

    of_queries: _Offsets
    of_keys: _Offsets

    @staticmethod
    def of(
        root: ir.Node, queries: TileAxis, keys: TileAxis, rows: IntArray, columns: IntArray
    ) -> _Cells:
        """The cells of those tiles."""
        sides = ((queries, rows), (keys, columns))
        return _Cells(*(_Offsets(axis, n, _starts(root, axis, n)) for axis, n in sides))

    @property
    def shape(self) -> tuple[int, int]:
        """Runs of queries and of keys in a tile."""
        return len(self.of_queries.starts), len(self.of_keys.starts)

    @property
    def words(self) -> int:
        """Number of 32-bit words: the product of a 64-bit word would lose its top bit, making hashes collide."""
        return -(-math.prod(self.shape) // 32)

    def evaluated(
        self, root: ir.Node, tiles: IntArray
    ) -> Iterator[tuple[IntArray, BoolArray, BoolArray]]:
        """Yields some tiles at a time: their numbers, their cells, and which cells lie inside the lengths.

        Where all cells do, the last array is that of one tile, [1, runs of queries, runs of keys].
        """
        queries, keys = self.of_queries.axis, self.of_keys.axis
        at_once = max(1, PAIRS_AT_ONCE // math.prod(self.shape))
        for start in range(0, len(tiles), at_once):
            some = tiles[start : start + at_once]
            rows = self.of_queries.places(some)[:, :, None]
            columns = self.of_keys.places(some)[:, None, :]
            inside = rows < queries.length, columns < keys.length
            if all(side.all() for side in inside):
                valid = np.ones((1, *self.shape), dtype=bool)
            else:
                valid = inside[0] & inside[1]
                rows = np.minimum(rows, queries.length - 1)
                columns = np.minimum(columns, keys.length - 1)
            held = truths_of(
                root, queries, keys, rows, columns
            )  # of one side, or of neither, maybe
            yield some, np.broadcast_to(held, (len(some), *self.shape)) & valid, valid

    def pack(self, held: BoolArray) -> ShortArray:
        """Packs cells as bits, [n, words]."""
        bits = np.packbits(held.reshape(len(held), -1), axis=1)
        if bits.shape[1] < 4 * self.words:
            packed = np.zeros((len(held), 4 * self.words), dtype=np.uint8)
            packed[:, : bits.shape[1]] = bits
            bits = packed
        return bits.view(np.int32)

    def masks(self, packed: ShortArray) -> ByteArray:
        """Expands cells to all pairs of the tiles, as bits, row-major: [n, bq * bk / 8]."""
        tile = self.of_queries.axis.tile, self.of_keys.axis.tile
        size = -(-math.prod(tile) // 8)
        if self.shape == tile:
            return packed.view(np.uint8)[:, :size]
        found = np.empty((len(packed), size), dtype=np.uint8)
        at_once = max(1, PAIRS_AT_ONCE // math.prod(tile))
        for start in range(0, len(packed), at_once):
            some = slice(start, start + at_once)
            bits = np.unpackbits(packed[some].view(np.uint8), axis=1, count=math.prod(self.shape))
            cells = np.repeat(bits.reshape(-1, *self.shape), self.of_queries.runs, axis=1)
            wide = np.repeat(cells, self.of_keys.runs, axis=2)
            found[some] = np.packbits(wide.reshape(len(wide), -1), axis=1)
        return found


def _narrowed(
    root: ir.Node, queries: TileAxis, keys: TileAxis, found: Classified, tiles: IntArray
) -> Iterator[tuple[ir.Node, IntArray]]:
    """Splits the tiles by which comparisons are decided on them, and drops those from the root, where that pays."""
    if len(tiles) < _FEWEST_ALIKE:
        yield root, np.arange(len(tiles))
        return
    nodes = comparisons(root)
    truths = [found.truths(node) for node in nodes]
    verdicts = np.stack([2 * x.may_hold[tiles] - x.may_fail[tiles] for x in truths], axis=1)
    _settle(root, nodes, verdicts)
    kinds, kind_of = row_classes(verdicts)
    if len(kinds) * _FEWEST_ALIKE > len(tiles):
        yield root, np.arange(len(tiles))
        return
    decided = {2: ir.TRUE, -1: ir.FALSE}
    for number, kind in enumerate(verdicts[kinds].tolist()):
        known: dict[ir.Node, ir.Node] = {
            node: decided[x] for node, x in zip(nodes, kind, strict=True) if x in decided
        }
        yield _rest(root, known), np.flatnonzero(kind_of == number)


def _rest(node: ir.Node, known: dict[ir.Node, ir.Node]) -> ir.Node:
    """The root of which some parts are known; those that are found out are noted there, too."""
    if node in known or not inner_parts(node):
        return known.get(node, node)
    if isinstance(node, ir.Not):
        made = ir.negate(_rest(node.item, known))
    else:
        is_any = isinstance(node, ir.Or)
        settles, skipped = (ir.TRUE, ir.FALSE) if is_any else (ir.FALSE, ir.TRUE)
        parts = [
            part for part in (_rest(each, known) for each in node.parts) if part is not skipped
        ]
        made = settles if settles in parts else (ir.disj if is_any else ir.conj)(*parts)
    known[node] = made
    return made


def _settle(root: ir.Node, nodes: Sequence[ir.Node], verdicts: IntArray) -> None:
    """Where one comparison of an alternative fails, the others may as well: fewer kinds of tiles are told apart."""
    place = {node: number for number, node in enumerate(nodes)}
    uses = Counter(part for node in ir.postorder(root) for part in inner_parts(node))
    for part in root.items if isinstance(root, ir.Or) else ():
        own = part.items if isinstance(part, ir.And) else ()
        if own and all(item in place and uses[item] == 1 for item in own):
            columns = [place[item] for item in own]
            fails = np.flatnonzero((verdicts[:, columns] == -1).any(axis=1))
            verdicts[fails[:, None], columns] = -1


def _starts(root: ir.Node, axis: TileAxis, tiles: IntArray) -> IntArray:
    """The offsets that differ, on some of these tiles, from the one before in some term of the side."""
    found: dict[ir.Node, None] = {}
    seen: set[ir.Node] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if axis.owns(node):
            found[node] = None
        elif node not in seen:
            stack.extend(node.parts)
        seen.add(node)
    if any(map(axis.slope, found)):
        return np.arange(axis.tile, dtype=np.int64)
    differs = np.zeros(axis.tile, dtype=bool)
    differs[[0, axis.length % axis.tile]] = True  # a last tile may be cut there
    distinct = once_each(tiles)
    for start in range(0, len(distinct), TILES_AT_ONCE):
        for node in found:
            differs[1:] |= axis.changes(node, distinct[start : start + TILES_AT_ONCE])
            if differs.all():
                return np.flatnonzero(differs)
    return np.flatnonzero(differs)
