"""Breadth-first refinement: from the whole square down to tiles, keeping what is not EMPTY.

    classify boxes -> EMPTY: forget · FULL: keep as it is · undecided: split in four -> repeat

The cost follows the live tiles, never the square of the length. Tiles that are still undecided at the
last level are left to ``boundary_tiles``.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from attndsl import ir
from attndsl.analysis import Interpreter, Range, Truths, parts_of, split_sum
from attndsl.schedule.equi_joins import equi_join
from attndsl.schedule.model import BoolArray, IntArray, Runs
from attndsl.schedule.summaries import TileAxis, as_truths
from attndsl.source import AttnDslError, Diagnostic

MOST_TILES = 1 << 26  # FULL tiles: twice those of a causal mask of a million tokens in tiles of 128
MOST_OPEN = 1 << 24  # undecided boxes at once, because each takes a dozen array entries
# Boxes; levels with fewer are skipped, because a pass costs as much and decides little.
_FIRST_BOXES = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Classified:
    """Result of the classification: FULL tiles, undecided tiles, and the ranges known on those."""

    full: Runs
    rows: IntArray
    columns: IntArray
    _boxes: Interpreter
    _open: BoolArray  # [boxes] which are undecided

    def truths(self, node: ir.Node) -> Truths:
        """Possible truth values of a part of the root on the undecided tiles."""
        found = self._boxes.truths(node)
        shape = self._open.shape
        holds, fails = (np.broadcast_to(x, shape) for x in (found.may_hold, found.may_fail))
        return Truths(holds[self._open], fails[self._open])


def refine(root: ir.Node, queries: TileAxis, keys: TileAxis, *, apart: bool = False) -> Classified:
    """Classifies all tiles of the square that may be live.

    ``apart``: rows of tiles have nothing to do with each other, and are not joined in boxes.
    """
    level = 0
    while queries.count(0 if apart else level) * keys.count(level) > _FIRST_BOXES:
        level += 1
    levels = (0 if apart else level, level)
    # A grid of boxes at first, and a list of them from then on.
    rows = np.arange(queries.count(levels[0]), dtype=np.int64)[:, None]
    columns = np.arange(keys.count(level), dtype=np.int64)[None, :]
    full: list[tuple[IntArray, IntArray, IntArray]] = []
    while True:
        boxes = interpreter(root, queries, keys, levels, rows, columns)
        verdict = boxes.truths(root)
        sure = verdict.may_hold & ~verdict.may_fail
        unsure = verdict.may_hold & verdict.may_fail
        shape = np.broadcast_shapes(rows.shape, columns.shape)
        sure, unsure = np.broadcast_to(sure, shape), np.broadcast_to(unsure, shape)
        check_count(int(np.count_nonzero(sure)) << sum(levels), MOST_TILES)
        full.append(_runs(*_those(sure, rows, columns), levels, queries, keys))
        rows, columns = _those(unsure, rows, columns)
        if levels[1] == 0:
            runs = (np.concatenate(parts) for parts in zip(*full, strict=True))
            return Classified(Runs.joined(*runs), rows, columns, boxes, unsure)
        finer = _next_levels(levels, len(rows))
        check_count(len(rows) << sum(levels) - sum(finer), MOST_OPEN)
        rows, columns = _split(rows, columns, levels, finer, queries, keys)
        levels = finer


def classified_at_once(
    root: ir.Node, queries: TileAxis, keys: TileAxis
) -> tuple[BoolArray, Classified]:
    """Finds the FULL tiles, bool [rows, columns], and those that are undecided, by one look at each tile."""
    rows = np.arange(queries.n_tiles, dtype=np.int64)[:, None]
    columns = np.arange(keys.n_tiles, dtype=np.int64)[None, :]
    boxes = interpreter(root, queries, keys, (0, 0), rows, columns)
    verdict = boxes.truths(root)
    shape = (queries.n_tiles, keys.n_tiles)
    unsure = np.broadcast_to(verdict.may_hold & verdict.may_fail, shape)
    sure = np.array(np.broadcast_to(verdict.may_hold & ~verdict.may_fail, shape))
    none = np.zeros(0, dtype=np.int32)
    open_rows, open_columns = np.nonzero(unsure)
    return sure, Classified(Runs(none, none, none), open_rows, open_columns, boxes, unsure)


def _those(which: BoolArray, rows: IntArray, columns: IntArray) -> tuple[IntArray, IntArray]:
    """Lists the boxes of a grid or of a list for which ``which`` is true."""
    if which.ndim == 2:
        places = np.nonzero(which)
        return places[0], places[1]
    return rows[which], columns[which]


def interpreter(
    root: ir.Node,
    queries: TileAxis,
    keys: TileAxis,
    levels: tuple[int, int],
    rows: IntArray,
    columns: IntArray,
) -> Interpreter:
    """Evaluates a root on boxes of these levels, given the exact ranges of its leaves."""
    known = {node: leaf_range(node, queries, keys, levels, rows, columns) for node in leaves(root)}
    for node in equations(root):
        met = equi_join(node, queries, keys)
        if met is not None:
            ranged = known.get(node)
            if not isinstance(ranged, Truths):  # no comparison of one term of each side
                ranged = Interpreter(known.get, rows).truths(node)
            may_hold = ranged.may_hold & met.may_hold(levels, rows, columns)
            known[node] = Truths(may_hold, ranged.may_fail)
    return Interpreter(known.get, rows)


class Side(Protocol):
    """One side of the square, as far as the ranges of leaves need it: a ``TileAxis``, or one that is still open."""

    def owns(self, node: ir.Node) -> bool:
        """Whether the node depends on this side's position and not on the other's."""

    def summary(self, node: ir.Node, level: int) -> Range:
        """Least and greatest value in each box of the level; truth values as 0 and 1."""

    def table_bounds(self, name: str) -> tuple[int, int]:
        """Least and greatest value that a read of the table can give."""


def leaf_range(
    node: ir.Node,
    queries: Side,
    keys: Side,
    levels: tuple[int, int],
    rows: IntArray,
    columns: IntArray,
) -> Range | Truths:
    """The range of one of the ``leaves`` on boxes of these levels."""
    if isinstance(node, ir.Le | ir.Eq) and node.is_pair:
        return _compared(node, queries, keys, levels, rows, columns)
    if isinstance(node, ir.Load) and not _is_sided(node):
        low, high = queries.table_bounds(node.table)
        return Range(rows * 0 + low, rows * 0 + high)
    side = (queries, levels[0], rows) if queries.owns(node) else (keys, levels[1], columns)
    return _summarised(node, *side)


@functools.lru_cache(maxsize=1024)
def leaves(root: ir.Node) -> tuple[ir.Node, ...]:
    """The outermost sub-expressions of a root whose ranges on boxes are known without its other parts.

    Terms of one side; reads of integers at other places; comparisons of one term of each side.
    """
    found: dict[ir.Node, None] = {}
    seen: set[ir.Node] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if is_leaf(node):
            found[node] = None
        else:
            stack.extend(parts_of(node))
    return tuple(found)


def is_leaf(node: ir.Node) -> bool:
    """Whether ``leaf_range`` gives the range of the node, without those of its parts."""
    is_read = isinstance(node, ir.Load) and node.sort is ir.Sort.INT
    return _is_sided(node) or is_read or split_comparison(node) is not None


def _is_sided(node: ir.Node) -> bool:
    return node.deps & ir.Deps.PAIR in (ir.Deps.QUERY, ir.Deps.KEY)


@functools.lru_cache(maxsize=1024)
def equations(root: ir.Node) -> tuple[ir.Eq, ...]:
    """The equations between both sides in a root."""
    return tuple(node for node in ir.postorder(root) if isinstance(node, ir.Eq) and node.is_pair)


def _summarised(node: ir.Node, axis: Side, level: int, index: IntArray) -> Range | Truths:
    found = axis.summary(node, level)
    step = None if found.step is None else found.step[index]
    gathered = Range(found.low[index], found.high[index], step)
    return as_truths(gathered) if node.sort is ir.Sort.BOOL else gathered


def _compared(
    node: ir.Le | ir.Eq,
    queries: Side,
    keys: Side,
    levels: tuple[int, int],
    rows: IntArray,
    columns: IntArray,
) -> Truths:
    """Compares a + b with a bound as a with the bound less b: on a grid, ranges are those of its edges."""
    parts = split_comparison(node)
    assert parts is not None, "such comparisons are leaves"
    mine, theirs, bound = parts
    left, right = queries.summary(mine, levels[0]), keys.summary(theirs, levels[1])
    if isinstance(node, ir.Le):
        return Truths(
            left.low[rows] <= (bound - right.low)[columns],
            left.high[rows] > (bound - right.high)[columns],
        )
    # Steps would tell no more: those of two affine terms have no common factor, as coefficients have none.
    low, high = (bound - right.high)[columns], (bound - right.low)[columns]
    least, most = left.low[rows], left.high[rows]
    return Truths((least <= high) & (most >= low), (least < high) | (most > low))


def split_comparison(node: ir.Node) -> tuple[ir.Node, ir.Node, int] | None:
    """Returns (a, b, bound) if the node compares a + b with a bound, a of queries alone and b of keys alone."""
    if not isinstance(node, ir.Le | ir.Eq) or not node.is_pair:
        return None
    if not isinstance(node.item, ir.Sum):
        return None
    parts = [part for part, _ in split_sum(node.item)]
    sides = [part.deps & ir.Deps.PAIR for part in parts]
    if sides != [ir.Deps.QUERY, ir.Deps.KEY]:
        return None
    return parts[0], parts[1], node.bound - node.item.constant


def check_count(tiles: int, most: int) -> None:
    """Refuses a schedule that would not fit into memory.

    Raises:
        AttnDslError: A407, it does not.
    """
    if tiles > most:
        title = "the schedule would not fit into memory"
        notes = (f"at most {MOST_TILES:,} tiles may be full, and {MOST_OPEN:,} partial",)
        helps = ("choose larger tiles, or shorter lengths",)
        raise AttnDslError(Diagnostic("A407", title, notes=notes, helps=helps))


def _next_levels(levels: tuple[int, int], boxes: int) -> tuple[int, int]:
    """One level down, or more while the boxes stay few."""
    shift, step = 2 if levels[0] else 1, 1
    while step < levels[1] and boxes << shift * (step + 1) <= _FIRST_BOXES:
        step += 1
    return max(0, levels[0] - step), levels[1] - step


def _all_boxes(n_rows: int, n_columns: int) -> tuple[IntArray, IntArray]:
    rows, columns = np.indices((n_rows, n_columns), dtype=np.int64)
    return rows.reshape(-1), columns.reshape(-1)


def _runs(
    rows: IntArray,
    columns: IntArray,
    levels: tuple[int, int],
    queries: TileAxis,
    keys: TileAxis,
) -> tuple[IntArray, IntArray, IntArray]:
    """(row, first, stop) of the tiles in boxes of those levels: neighbours are joined while they are few."""
    if levels == (0, 0) or len(rows) == 0:
        return rows, columns, columns + 1
    boxes = Runs.joined(rows, columns, columns + 1)
    height = 1 << levels[0]
    fine_rows = (boxes.rows.astype(np.int64)[:, None] * height + np.arange(height)).reshape(-1)
    first, stop = (
        np.repeat(x.astype(np.int64) << levels[1], height) for x in (boxes.first, boxes.stop)
    )
    exists = fine_rows < queries.n_tiles
    return fine_rows[exists], first[exists], np.minimum(stop[exists], keys.n_tiles)


def _split(
    rows: IntArray,
    columns: IntArray,
    levels: tuple[int, int],
    finer: tuple[int, int],
    queries: TileAxis,
    keys: TileAxis,
) -> tuple[IntArray, IntArray]:
    """The boxes of the finer levels that lie in those boxes."""
    if levels == finer or len(rows) == 0:
        return rows, columns
    steps = levels[0] - finer[0], levels[1] - finer[1]
    inner_rows, inner_columns = _all_boxes(1 << steps[0], 1 << steps[1])
    fine_rows = ((rows[:, None] << steps[0]) + inner_rows).reshape(-1)
    fine_columns = ((columns[:, None] << steps[1]) + inner_columns).reshape(-1)
    exists = (fine_rows < queries.count(finer[0])) & (fine_columns < keys.count(finer[1]))
    return fine_rows[exists], fine_columns[exists]
