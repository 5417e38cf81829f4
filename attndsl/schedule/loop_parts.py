"""Questions about a loop and its body, and loops made from others."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from attndsl import ir
from attndsl.analysis import Range
from attndsl.schedule.model import IntArray
from attndsl.schedule.summaries import TileAxis

WIDEST_TABLE: Final = 1 << 24  # numbers for which a body that depends on nothing else is evaluated
NARROW: Final = 16  # numbers that are tried without a look for a better way
FEWER: Final = 4  # times fewer numbers are tried where a table holds them, each a comparison more


@dataclass(frozen=True, slots=True, eq=False)
class Ranks:
    """How many of some sorted values are at least the term, or equal it; or how many are not."""

    term: ir.Node
    values: IntArray
    equal: bool
    wanted: bool

    def at(self, terms: IntArray) -> IntArray:
        """The counts for values of the term."""
        below = np.searchsorted(self.values, terms, side="left")
        above = np.searchsorted(self.values, terms, side="right")
        held = above - below if self.equal else len(self.values) - below
        return np.asarray(held if self.wanted else len(self.values) - held, dtype=np.int64)


def is_any(loop: ir.Loop) -> bool:
    return isinstance(loop, ir.Exists)


def nothing_found(loop: ir.Loop) -> ir.Node:
    return ir.FALSE if is_any(loop) else ir.ZERO


def has_numbers(loop: ir.Loop) -> bool:
    """Whether both limits are numbers."""
    return isinstance(loop.start, ir.Const) and isinstance(loop.stop, ir.Const)


def written_size(body: ir.Node) -> int:
    """How many nodes it takes to write a body out, loops over known numbers in it too."""
    count, stack = 0, [(body, 1)]
    seen: set[ir.Node] = set()
    while stack:
        node, times = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        count += times
        if isinstance(node, ir.Loop) and has_numbers(node):
            times *= max(1, int(ir.linear(ir.sub(node.stop, node.start))[1]))
        stack.extend((part, times) for part in node.parts)
    return count


def with_body(loop: ir.Exists, body: ir.Node) -> ir.Node:
    variable = ir.Index(loop.level)
    return ir.exists(loop.start, loop.stop, lambda j: ir.substitute(body, {variable: j}))


def loop_from_start(loop: ir.Loop, width: int) -> ir.Loop:
    """The same over the distance from the start; made as it is, for nobody to solve."""
    variable = ir.Index(loop.level)
    body = ir.substitute(loop.body, {variable: ir.add(loop.start, variable)})
    inside = ir.lt(variable, ir.sub(loop.stop, loop.start))
    limited = ir.conj(inside, body) if is_any(loop) else ir.select(inside, body, ir.ZERO)
    return type(loop)(loop.level, ir.ZERO, ir.Const(width), limited)


def tested(loop: ir.Loop) -> tuple[ir.Le | ir.Eq, bool] | None:
    """The comparison whose truth is counted, and whether where it holds or where it fails."""
    match loop.body:
        case ir.Select(cond=cond, yes=ir.Const(value=yes), no=ir.Const(value=no)) if {yes, no} == {
            0,
            1,
        }:
            test, wanted = cond, yes == 1
        case ir.Not(item=item):
            test, wanted = item, False
        case body:
            test, wanted = body, True
    return (test, wanted) if isinstance(test, ir.Le | ir.Eq) else None


def speaks_of_other(node: ir.Node, axis: TileAxis) -> bool:
    return bool(node.deps & axis.side.other.deps)


def digest_of(values: Any) -> str:
    """A digest of the shape and the contents of an array."""
    hashed = hashlib.blake2b(repr(values.shape).encode(), digest_size=16)
    hashed.update(np.ascontiguousarray(values).data)
    return hashed.hexdigest()


class TooManyAlternatives(Exception):
    """A loop over more numbers than are tried."""

    def __init__(self, width: int) -> None:
        super().__init__(f"a loop over {width} values")
        self.width = width


def conditions_of(loop: ir.Exists) -> tuple[ir.Node, ...]:
    """The conditions on a number that counts, its limits among them."""
    items = loop.body.items if isinstance(loop.body, ir.And) else (loop.body,)
    variable = ir.Index(loop.level)
    return *items, ir.le(loop.start, variable), ir.lt(variable, loop.stop)


def range_known(axes: tuple[TileAxis, TileAxis], node: ir.Node) -> Range | None:
    """The exact range of what depends on the positions of one side alone."""
    for axis in axes:
        if axis.owns(node) and node.sort is ir.Sort.INT:
            values = axis.values(node)
            return Range.between(
                *((int(values.min()), int(values.max())) if values.size else (0, 0))
            )
    return Range.between(*axes[0].table_bounds(node.table)) if isinstance(node, ir.Load) else None
