"""Which undecided tiles hold the same bits, told without a look at their pairs.

The values a pattern takes on a tile are a function of a few *units*: per-query terms, per-key terms and
their sums. Two tiles whose units have the same shapes and offsets hold the same bits. A comparison that
the analysis decides on the tile counts by its verdict alone; where a tile falls in two pieces, as it does
when one residue class ends in it and the next begins, by the verdicts on pairs of pieces, and its offset
counts only if one is open. So the kinds of tiles are a handful at any length where the pattern is
invariant to translation, in natural order or sorted.
"""

from __future__ import annotations

import numpy as np

from attndsl import ir
from attndsl.analysis import Interpreter, Range, split_sum
from attndsl.schedule.model import BoolArray, IntArray
from attndsl.schedule.refine import Found, parted
from attndsl.schedule.summaries import TileAxis

LOGIC = (ir.And, ir.Or, ir.Not)
_FEWEST_ALIKE = 16  # tiles of one shape, on average, for their pieces to be looked at


def signature(root: ir.Node, queries: TileAxis, keys: TileAxis, found: Found) -> IntArray:
    """One number per undecided tile; tiles with equal numbers hold equal bits."""
    rows, columns = found.rows, found.columns
    code = np.zeros(len(rows), dtype=np.int64)
    for axis, tiles in ((queries, rows), (keys, columns)):
        if axis.length % axis.tile:
            code = _append(code, tiles == axis.n_tiles - 1)
    for node in comparisons(root):
        verdict = found.truths(node)
        open_here = verdict.may_hold & verdict.may_fail
        code = _append(code, verdict.may_hold.astype(np.int64) + open_here)
        if open_here.any():
            for column in _units(node, queries, keys, rows, columns):
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
    stack = [root]
    while stack:
        node = stack.pop()
        if node.is_pair and isinstance(node, LOGIC):
            stack.extend(ir.children(node))
        else:
            found[node] = None
    return list(found)


def _units(
    root: ir.Node, queries: TileAxis, keys: TileAxis, rows: IntArray, columns: IntArray
) -> list[IntArray]:
    """The columns of the signature that ``root`` needs on tiles where it is undecided."""
    if isinstance(root, ir.AtMost | ir.Equals) and (two := parted(root, queries, keys)) is not None:
        *shapes, offset = _joint(list(two[:2]), queries, keys, rows, columns)
        verdicts, open_somewhere = _by_pieces(root, two[:2], queries, keys, rows, columns)
        return [*shapes, verdicts, offset * open_somewhere]
    parts: list[IntArray] = []
    seen: set[ir.Node] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, ir.Sum) and node.is_pair:
            sides = [part for part, _ in split_sum(node) if not part.is_pair]
            parts.extend(_joint(sides, queries, keys, rows, columns))
            stack.extend(part for part, _ in split_sum(node) if part.is_pair)
        elif node.is_pair:
            stack.extend(ir.children(node))
        elif queries.owns(node) or keys.owns(node):
            parts.extend(_joint([node], queries, keys, rows, columns))
    return parts


def _joint(
    sides: list[ir.Node],
    queries: TileAxis,
    keys: TileAxis,
    rows: IntArray,
    columns: IntArray,
) -> list[IntArray]:
    """Shapes of the summands, and the one offset of their sum."""
    total = np.zeros(len(rows), dtype=np.int64)
    shapes: list[IntArray] = []
    for node in sides:
        axis, index = (queries, rows) if queries.owns(node) else (keys, columns)
        if not axis.owns(node):
            continue  # a constant
        classes, offsets = axis.shapes(node)
        if classes is not None:
            shapes.append(classes[index])
        total = total + offsets[index]
    return [*shapes, total]


def _by_pieces(
    node: ir.Node,
    sides: tuple[ir.Node, ir.Node],
    queries: TileAxis,
    keys: TileAxis,
    rows: IntArray,
    columns: IntArray,
) -> tuple[IntArray, BoolArray]:
    """What the comparison is on each pair of pieces of those tiles, as one number; whether open on some."""
    shapes = queries.n_shapes(sides[0]), keys.n_shapes(sides[1])
    if len(rows) < _FEWEST_ALIKE * max(shapes):
        return rows * 0, rows >= 0
    mine, theirs = queries.pieces(sides[0]), keys.pieces(sides[1])
    if mine.low.shape[1] == theirs.low.shape[1] == 1:
        return rows * 0, rows >= 0
    ranges: dict[ir.Node, Range] = {
        sides[0]: Range(mine.low[rows, :, None], mine.high[rows, :, None]),
        sides[1]: Range(theirs.low[columns, None, :], theirs.high[columns, None, :]),
    }
    verdict = Interpreter(ranges.get, rows[:, None, None]).truths(node)
    is_open = verdict.may_hold & verdict.may_fail
    told = (verdict.may_hold + is_open.astype(np.int64)).reshape(len(rows), -1)
    return told @ 3 ** np.arange(told.shape[1]), np.asarray(is_open.any(axis=(1, 2)))
