"""Decide exactly what refinement left open, evaluating each distinct leaf once.

The values a pattern takes on a tile are a function of a few *units*: per-query terms, per-key terms and
their sums. Two tiles whose units have the same shapes and offsets hold the same bits. A comparison that
the analysis decides on the tile counts by its verdict alone. Translation-invariant patterns so have a
handful of distinct leaves at any length.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from attndsl import ir
from attndsl.analysis import split_sum
from attndsl.schedule.model import BoolArray, IntArray
from attndsl.schedule.refine import classify, parted
from attndsl.schedule.summaries import TileAxis, inside

_LOGIC = (ir.And, ir.Or, ir.Not)
_PAIRS_AT_ONCE = 1 << 21  # bounds the memory of evaluating leaves


@dataclass(frozen=True, slots=True, eq=False)
class Leaves:
    """The verdict on each open tile: ``which`` distinct mask it holds, and those masks."""

    which: IntArray  # [n] index into masks
    masks: BoolArray  # [distinct, bq, bk], False outside the lengths
    is_empty: BoolArray  # [distinct]
    is_full: BoolArray  # [distinct], within the lengths


def decide(
    root: ir.Node, queries: TileAxis, keys: TileAxis, rows: IntArray, columns: IntArray
) -> Leaves:
    """Evaluate the distinct tiles among (rows, columns) pair by pair."""
    signature = _signature(root, queries, keys, rows, columns)
    _, first, which = np.unique(signature, return_index=True, return_inverse=True)
    rows, columns = rows[first], columns[first]
    valid = inside(queries, rows)[:, :, None] & inside(keys, columns)[:, None, :]
    masks = np.empty_like(valid)
    at_once = max(1, _PAIRS_AT_ONCE // (queries.tile * keys.tile))
    for start in range(0, len(rows), at_once):
        some = slice(start, start + at_once)
        masks[some] = _evaluate(root, queries, keys, rows[some], columns[some])
    masks &= valid
    is_empty = np.asarray(~masks.any(axis=(1, 2)))
    is_full = np.asarray((masks == valid).all(axis=(1, 2)))
    return Leaves(which.reshape(-1), masks, is_empty, is_full)


@dataclass(frozen=True, slots=True)
class Survey:
    """How many tiles turn out FULL and PARTIAL, and how many pairs the PARTIAL ones hold.

    ``keys``: the PARTIAL tiles by the share of their keys that some query sees.
    """

    full: float
    partial: float
    pairs: float
    keys: float
    exact: bool = True


def survey(
    root: ir.Node,
    queries: TileAxis,
    keys: TileAxis,
    rows: IntArray,
    columns: IntArray,
    limit: int,
) -> Survey:
    """``decide`` in numbers only, at most ``limit`` of the distinct tiles evaluated, evenly drawn."""
    if len(rows) == 0:
        return Survey(0.0, 0.0, 0.0, 0.0)
    signature = _signature(root, queries, keys, rows, columns)
    _, first, counts = np.unique(signature, return_index=True, return_counts=True)
    some = np.linspace(0, len(first) - 1, min(limit, len(first))).astype(np.int64)
    leaves = decide(root, queries, keys, rows[first[some]], columns[first[some]])
    weight = counts[some] * (counts.sum() / counts[some].sum())
    which = leaves.which
    full, empty = leaves.is_full[which], leaves.is_empty[which]
    partial = weight * ~(full | empty)
    pairs = leaves.masks.sum(axis=(1, 2))[which]
    seen = leaves.masks.any(axis=1).mean(axis=1)[which]
    return Survey(
        float((weight * full).sum()),
        float(partial.sum()),
        float((partial * pairs).sum()),
        float((partial * seen).sum()),
        len(some) == len(first),
    )


def _evaluate(
    root: ir.Node, queries: TileAxis, keys: TileAxis, rows: IntArray, columns: IntArray
) -> BoolArray:
    """The pairs of those tiles, each evaluated once where neighbours on both sides are alike."""
    of_queries, of_keys = (_alike(root, axis, n) for axis, n in ((queries, rows), (keys, columns)))

    def positions(axis: TileAxis, tiles: IntArray, alike: BoolArray) -> IntArray:
        return axis.positions(tiles[:, None] * axis.tile + np.flatnonzero(~alike))

    env = ir.Env(
        q=positions(queries, rows, of_queries)[:, :, None],
        k=positions(keys, columns, of_keys)[:, None, :],
        sizes={},
        tables=queries.tables,
    )
    shape = (len(rows), int((~of_queries).sum()), int((~of_keys).sum()))
    found = np.broadcast_to(_holds(root, env, queries, keys), shape)
    if of_queries.any():
        found = found[:, np.cumsum(~of_queries) - 1]
    return found[:, :, np.cumsum(~of_keys) - 1] if of_keys.any() else found


def _holds(root: ir.Node, env: ir.Env, queries: TileAxis, keys: TileAxis) -> BoolArray:
    """``ir.evaluate``, with a + b <= c of a query's a and a key's b as a <= c - b: no sum of each pair."""
    memo: dict[ir.Node, Any] = {}
    stack = [root]
    while stack:
        node = stack.pop()
        inner = ir.children(node) if node.is_pair and isinstance(node, _LOGIC) else ()
        missing = [item for item in inner if item not in memo]
        if missing:
            stack += [node, *missing]
            continue
        match node:
            case ir.And() if inner:
                memo[node] = functools.reduce(np.logical_and, map(memo.__getitem__, inner))
            case ir.Or() if inner:
                memo[node] = functools.reduce(np.logical_or, map(memo.__getitem__, inner))
            case ir.Not() if inner:
                memo[node] = ~memo[node.item]
            case ir.AtMost() | ir.Equals() if (parts := parted(node, queries, keys)) is not None:
                mine, theirs = ir.evaluate(parts[0], env), parts[2] - ir.evaluate(parts[1], env)
                memo[node] = mine <= theirs if isinstance(node, ir.AtMost) else mine == theirs
            case _:
                memo[node] = ir.evaluate(node, env)
    return np.asarray(memo[root])


def _alike(root: ir.Node, axis: TileAxis, tiles: IntArray) -> BoolArray:
    """Whether an offset on these tiles differs from the one before it in no term of the side, [tile]."""
    found: dict[ir.Node, None] = {}
    seen: set[ir.Node] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if axis.owns(node):
            found[node] = None
        elif node not in seen:
            stack.extend(ir.children(node))
        seen.add(node)
    alike = np.zeros(axis.tile, dtype=bool)
    if any(axis.rises(node) for node in found):
        return alike
    alike[1:] = True
    distinct = np.unique(tiles)
    for node in found:
        alike[1:] &= axis.repeats(node, distinct)
    return alike


def _signature(
    root: ir.Node, queries: TileAxis, keys: TileAxis, rows: IntArray, columns: IntArray
) -> IntArray:
    """One number per tile; tiles with equal numbers hold equal bits."""
    code = np.zeros(len(rows), dtype=np.int64)
    for axis, tiles in ((queries, rows), (keys, columns)):
        if axis.length % axis.tile:
            code = _append(code, tiles == axis.n_tiles - 1)
    for node in _comparisons(root, queries, keys):
        verdict = classify(node, queries, keys, (0, 0), rows, columns)
        open_here = verdict.may_hold & verdict.may_fail
        code = _append(code, verdict.may_hold.astype(np.int64) + open_here)
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


def _comparisons(root: ir.Node, queries: TileAxis, keys: TileAxis) -> list[ir.Node]:
    """The outermost truth values that are not And, Or, Not of pairs."""
    found: dict[ir.Node, None] = {}
    stack = [root]
    while stack:
        node = stack.pop()
        if node.is_pair and isinstance(node, _LOGIC):
            stack.extend(ir.children(node))
        else:
            found[node] = None
    return list(found)


def _units(
    root: ir.Node, queries: TileAxis, keys: TileAxis, rows: IntArray, columns: IntArray
) -> list[IntArray]:
    """The columns of the signature that ``root`` needs on tiles where it is undecided."""
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
