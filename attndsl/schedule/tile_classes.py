"""Equivalence classes of undecided tiles that hold the same bits, found without evaluating pairs.

The values a pattern takes on a tile are a function of a few *units*: per-query terms, per-key terms and
their sums. Two tiles whose units have the same shapes and offsets hold the same bits. A comparison that
the analysis decides on the tile counts by its verdict alone. Translation-invariant patterns so have a
handful of kinds of tiles at any length.

In a sorted order there are tiles in which one residue class ends and the next begins, and in them the
offset would tell any two apart. Such a tile falls in two pieces: what a comparison is on pairs of pieces
counts, and the offset only if that is open somewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from attndsl import ir
from attndsl.analysis import Interpreter, Range, split_sum
from attndsl.schedule.model import BoolArray, IntArray
from attndsl.schedule.refine import Classified, split_comparison
from attndsl.schedule.summaries import TileAxis

LOGIC = (ir.And, ir.Or, ir.Not)
MANY = 512  # classes; below this many, evaluating them is faster than refining the key
FEWEST_ALIKE = 16  # tiles of one shape, on average, for a key by pieces to pay


def classes_of_tiles(
    root: ir.Node, queries: TileAxis, keys: TileAxis, found: Classified
) -> tuple[IntArray, IntArray]:
    """One tile of each class, [classes], and the class of each tile, [n]; tiles of a class hold equal bits."""
    code = canonical_key(root, queries, keys, found)
    _, first, which = np.unique(code, return_index=True, return_inverse=True)
    count = len(first)
    if count > MANY and any(_pieced(x, queries, keys, count) for x in comparisons(root)):
        code = _canonical_key(root, queries, keys, found, first, _units_by_pieces)
        _, some, kind = np.unique(code, return_index=True, return_inverse=True)
        first, which = first[some], kind.reshape(-1)[which]
    return first, which.reshape(-1)


def canonical_key(root: ir.Node, queries: TileAxis, keys: TileAxis, found: Classified) -> IntArray:
    """One number per undecided tile; tiles with equal numbers hold equal bits."""
    return _canonical_key(root, queries, keys, found, slice(None), _units)


@dataclass(frozen=True, slots=True, eq=False)
class _Tiles:
    """Some tiles: both sides, and the coordinates."""

    queries: TileAxis
    keys: TileAxis
    rows: IntArray
    columns: IntArray


def _canonical_key(
    root: ir.Node,
    queries: TileAxis,
    keys: TileAxis,
    found: Classified,
    some: IntArray | slice,
    units: Callable[[ir.Node, _Tiles], list[IntArray]],
) -> IntArray:
    """Computes the key of some tiles from the given units of the comparisons that are undecided on them."""
    tiles = _Tiles(queries, keys, found.rows[some], found.columns[some])
    code = np.zeros(len(tiles.rows), dtype=np.int64)
    for axis, index in ((queries, tiles.rows), (keys, tiles.columns)):
        if axis.length % axis.tile:
            code = _append(code, index == axis.n_tiles - 1)
    for node in comparisons(root):
        verdict = found.truths(node)
        may_hold = verdict.may_hold[some]
        open_here = may_hold & verdict.may_fail[some]
        code = _append(code, may_hold.astype(np.int64) + open_here)
        for column in units(node, tiles) if open_here.any() else ():
            code = _append(code, column * open_here)
    return code


def _append(code: IntArray, column: IntArray | BoolArray) -> IntArray:
    """Combine two columns into one number per distinct pair, renumbered when they would overflow."""
    column = column.astype(np.int64)
    low, high = int(column.min(initial=0)), int(column.max(initial=0))
    width = high - low + 1
    if int(code.max(initial=0)) + 1 > (1 << 62) // width:
        code = np.unique(code, return_inverse=True)[1].reshape(-1)
        column = np.unique(column, return_inverse=True)[1].reshape(-1)
        low, width = 0, int(column.max(initial=0)) + 1
    return code * width + (column - low)


def comparisons(root: ir.Node) -> list[ir.Node]:
    """The outermost truth values that are not And, Or, Not of pairs."""
    found: dict[ir.Node, None] = {}
    seen: set[ir.Node] = set()  # parts may be shared: there can be many more paths than nodes
    stack = [root]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.is_pair and isinstance(node, LOGIC):
            stack.extend(node.parts)
        else:
            found[node] = None
    return list(found)


def _units(root: ir.Node, tiles: _Tiles) -> list[IntArray]:
    """Returns the columns of the key that ``root`` needs on tiles where it is undecided."""
    parts: list[IntArray] = []
    seen: set[ir.Node] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, ir.Sum) and node.is_pair:
            parts.extend(_joint([part for part, _ in split_sum(node) if not part.is_pair], tiles))
            stack.extend(part for part, _ in split_sum(node) if part.is_pair)
        elif node.is_pair:
            stack.extend(node.parts)
        elif tiles.queries.owns(node) or tiles.keys.owns(node):
            parts.extend(_joint([node], tiles))
    return parts


def _joint(sides: list[ir.Node], tiles: _Tiles) -> list[IntArray]:
    """Shapes of the summands, and the one offset of their sum."""
    total = np.zeros(len(tiles.rows), dtype=np.int64)
    shapes: list[IntArray] = []
    for node in sides:
        of_queries = tiles.queries.owns(node)
        axis, index = (tiles.queries, tiles.rows) if of_queries else (tiles.keys, tiles.columns)
        if not axis.owns(node):
            continue  # a constant
        classes, offsets = axis.shapes(node)
        if classes is not None:
            shapes.append(classes[index])
        total = total + offsets[index]
    return [*shapes, total]


def _pieced(
    node: ir.Node, queries: TileAxis, keys: TileAxis, count: int
) -> tuple[ir.Node, ir.Node] | None:
    """Returns the two compared terms, if a key by pieces pays among so many tiles."""
    sides = split_comparison(node)
    if sides is None:
        return None
    mine, theirs, _ = sides
    if count < FEWEST_ALIKE * max(queries.n_shapes(mine), keys.n_shapes(theirs)):
        return None
    in_pieces = queries.pieces(mine).low.shape[1] + keys.pieces(theirs).low.shape[1] > 2
    return (mine, theirs) if in_pieces else None


def _units_by_pieces(node: ir.Node, tiles: _Tiles) -> list[IntArray]:
    """Like ``_units``, with an offset only where the comparison is undecided on some pair of pieces."""
    sides = _pieced(node, tiles.queries, tiles.keys, len(tiles.rows))
    if sides is None:
        return _units(node, tiles)
    *shapes, offset = _joint(list(sides), tiles)
    mine, theirs = tiles.queries.pieces(sides[0]), tiles.keys.pieces(sides[1])
    ranges: dict[ir.Node, Range] = {
        sides[0]: Range(mine.low[tiles.rows, :, None], mine.high[tiles.rows, :, None]),
        sides[1]: Range(theirs.low[tiles.columns, None, :], theirs.high[tiles.columns, None, :]),
    }
    verdict = Interpreter(ranges.get, offset[:, None, None]).truths(node)
    is_open = verdict.may_hold & verdict.may_fail
    told = (verdict.may_hold + is_open.astype(np.int64)).reshape(len(offset), -1)
    return [*shapes, told @ 3 ** np.arange(told.shape[1]), offset * is_open.any(axis=(1, 2))]
