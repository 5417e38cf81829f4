"""Long disjunctions as loops over a table of bounds, and loops as sets of values: what intervals and lookups take.

    a1 <= q <= b1 and c1 <= k <= d1  or  a2 <= q <= b2 and ...   -->  any s in 0..m: A[s] <= q <= B[s] and ...
    any s in 0..m: f(q, s) == g(k)                               -->  T[q, g(k)]

Laws: alternatives that compare the same terms differ in numbers alone; and for one position, the values that the
numbers of a loop give are a set.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from attndsl import ir
from attndsl.schedule.allowed import AT_ONCE
from attndsl.schedule.model import BoolArray, IntArray
from attndsl.schedule.summaries import TileAxis

MANY: Final = 64  # alternatives; fewer are as cheap to evaluate as a table is to read
_MOST_TERMS: Final = 8  # different ones of a loop: two for each side of a parallelogram
_LARGEST_SET: Final = 1 << 24  # bytes of the sets of all positions
_MOST_TRIED: Final = 1 << 26  # numbers of all positions: under a second


def is_long(node: ir.Node) -> bool:
    """Whether it has so many alternatives that they may be a loop; negated ones are conditions."""
    return isinstance(node, ir.Or | ir.And) and len(node.items) > MANY and node.is_pair


def bounds_of(root: ir.Or) -> dict[ir.Node, list[int | None]] | None:
    """By term, the bound of each alternative, ``term <= bound``, None where it has none; None for other forms."""
    found: dict[ir.Node, list[int | None]] = {}
    for number, part in enumerate(root.items):
        for term, bound in _limits(part):
            if term is None or (term not in found and len(found) == _MOST_TERMS):
                return None
            bounds = found.setdefault(term, [None] * len(root.items))
            known = bounds[number]
            bounds[number] = bound if known is None else min(known, bound)
    return found


def _limits(part: ir.Node) -> Iterator[tuple[ir.Node | None, int]]:
    for item in part.items if isinstance(part, ir.And) else (part,):
        match item:
            case ir.Le(item=term, bound=bound):
                yield term, bound
            case ir.Eq(item=term, bound=bound):
                yield term, bound
                yield ir.scale(term, -1), -bound
            case _:
                yield None, 0


def equation(item: ir.Node, axis: TileAxis, variable: ir.Node) -> tuple[ir.Node, ir.Node] | None:
    """(x, y) of an equation ``x == y``, x of that side and the bound variable, y of the other side; None for others."""
    if not isinstance(item, ir.Eq):
        return None
    terms, constant = ir.linear(item.item)
    theirs = {term: -c for term, c in terms.items() if term.deps & axis.side.other.deps}
    mine = {term: c for term, c in terms.items() if term not in theirs}
    mixed = any(term.deps & axis.side.deps or variable in ir.postorder(term) for term in theirs)
    if not theirs or mixed:
        return None
    return ir.combine(mine, constant - item.bound), ir.combine(theirs)


def sets_of(
    term: ir.Node, own: ir.Node, level: int, numbers: range, axis: TileAxis, values: range
) -> BoolArray | None:
    """Whether some number gives a position a value, [positions, values]; None where that is too much, or no gain.

    Args:
        term: Gives the values, of the position and the bound variable.
        own: Holds for the numbers that count, at a position.
        level: Of the bound variable.
        numbers: What that may be.
        axis: The side of the positions.
        values: All that the other side may ask for.
    """
    tried = len(numbers) * axis.length
    if len(numbers) <= MANY or tried > _MOST_TRIED or len(values) * axis.length > _LARGEST_SET:
        return None
    made = np.zeros((axis.length, len(values)), dtype=bool)
    variable = np.arange(numbers.start, numbers.stop, dtype=np.int64)
    at_once = max(1, AT_ONCE // max(1, len(numbers)))
    for start in range(0, axis.length, at_once):
        places = np.arange(start, min(start + at_once, axis.length))
        at = axis.positions(places)[:, None]
        env = ir.Env(q=at, k=at, sizes={}, tables=axis.tables, fits=True, indices={level: variable})
        shape = len(places), len(variable)
        counts = np.broadcast_to(np.asarray(ir.evaluate(own, env), dtype=bool), shape)
        given: IntArray = np.broadcast_to(np.asarray(ir.evaluate(term, env)), shape)
        counts = counts & (given >= values.start) & (given < values.stop)
        rows, _ = np.nonzero(counts)
        made[places[rows], given[counts] - values.start] = True
    return made
