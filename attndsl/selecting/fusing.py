"""Selections that one kernel makes: the units of the greatest products of a vector of the row and one of the unit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from torch import Tensor

from attndsl import ir
from attndsl.passes import bind, lower_root, separate_root

from .unit_counts import counted
from .values import Values
from .vectors import Summaries

sel, reals = ir.selection, ir.reals

# (vectors of rows, vectors of units, factor, where, keeping, numbers of rows, count) -> the units; None: it does not.
Chooser: TypeAlias = Callable[[Tensor, Tensor, float, ir.Node, ir.Node, range, int], Tensor | None]


def fused(
    selection: ir.Selection, made: Summaries, numbers: range, chooser: Chooser
) -> Tensor | None:
    """The table of the selection, made by the chooser; None where it is no such selection."""
    units, choice = selection.units, selection.choice
    found = _product(selection.score, made)
    if found is None or choice.take is not sel.Take.TOP or isinstance(units, sel.Numbers):
        return None
    if selection.shared is not sel.Shared.NOTHING or selection.by_column:
        return None
    if isinstance(selection.queries, sel.Numbers) or not isinstance(choice.amount, ir.Const):
        return None
    factor, of_row, of_unit = found
    env, frame = made.env, ir.Mask(ir.TRUE, *selection.spaces)
    bound = [
        separate_root(bind(lower_root(node, frame), env.sizes, heads=env.heads, layer=env.layer))
        for node in (selection.where, selection.keeping)
    ]
    if any(node.deps & (ir.Deps.BATCH | ir.Deps.HEAD) or _reads(node) for node in bound):
        return None
    where = ir.conj(bound[0], ir.le(ir.Const(0), ir.Pos(ir.Side.QUERY)))
    count, many = choice.amount.value, counted(units, env)
    if _most_kept(ir.conj(where, bound[1]), numbers, many) > count:
        return None  # which is refused in words where it is made strip by strip
    values = Values(made, np.arange(numbers.start, numbers.stop), 0, selection.queries)
    x = values._vector(of_row, units)[:, :, :, 0]
    y = values._vector(of_unit, units)[:, :, 0]
    return chooser(x, y, factor, where, bound[1], numbers, count)


def _product(score: ir.Node, made: Summaries) -> tuple[float, ir.Node, ir.Node] | None:
    """(factor, vector of the row, vector of the unit) of a score that is the product of these."""
    factor = 1.0
    if isinstance(score, reals.Times):
        for number, rest in ((score.left, score.right), (score.right, score.left)):
            if isinstance(number, reals.Number | sel.Scale):
                factor = made.scale if isinstance(number, sel.Scale) else number.value
                score = rest
                break
    if not isinstance(score, reals.Dot):
        return None
    sides = {_side(node): node for node in (score.left, score.right)}
    if sides.keys() != {ir.Side.QUERY, ir.Side.KEY}:
        return None
    return factor, sides[ir.Side.QUERY], sides[ir.Side.KEY]


def _side(node: ir.Node) -> ir.Side | None:
    """The side whose vector it is, as the call has it or pooled."""
    if isinstance(node, sel.Unit):
        return _side(node.item)
    return node.side if isinstance(node, reals.Own | sel.Pooled) else None


def _reads(node: ir.Node) -> bool:
    return any(isinstance(x, ir.Load | ir.Exists | sel.Exceeds) for x in ir.postorder(node))


@functools.lru_cache(maxsize=64)
def _most_kept(node: ir.Node, numbers: range, units: int) -> int:
    """The most units that are kept of a row."""
    if node is ir.FALSE:
        return 0
    most, step = 0, max(1, (1 << 20) // max(1, units))
    for at in range(numbers.start, numbers.stop, step):
        rows = np.arange(at, min(at + step, numbers.stop))[:, None]
        kept = np.asarray(ir.evaluate(node, ir.Env(rows, np.arange(units), {})))
        most = max(most, int(np.broadcast_to(kept, (len(rows), units)).sum(1).max(initial=0)))
    return most
