"""Numbers to nodes: ints stay ints until a real stands beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from attndsl import ir

reals = ir.reals


def is_real(*nodes: ir.Node) -> bool:
    """Whether one of the numbers is a real."""
    return any(node.sort is ir.Sort.REAL for node in nodes)


def negative(node: ir.Node) -> ir.Node:
    """-x."""
    return reals.times(reals.Number(-1.0), node) if is_real(node) else ir.scale(node, -1)


def total(items: Sequence[ir.Node], signs: Sequence[int]) -> ir.Node:
    """The sum, each with its sign; ints beside each other are added up first, exactly."""
    if not is_real(*items):
        if len(items) == 2 and signs[1] < 0:  # most sums of texts with thousands of them
            return ir.sub(*items)
        return ir.add(*(ir.scale(i, sign) for i, sign in zip(items, signs, strict=True)))
    found = [item if sign > 0 else negative(item) for item, sign in zip(items, signs, strict=True)]
    return reals.plus(*found)


def times(left: ir.Node, right: ir.Node) -> ir.Node:
    """The product."""
    return reals.times(left, right) if is_real(left, right) else ir.mul(left, right)


def select(condition: ir.Node, yes: ir.Node, no: ir.Node) -> ir.Node:
    """The choice of two ints, bools or reals."""
    if is_real(yes, no):
        return reals.choose(condition, yes, no)
    return ir.select(condition, yes, no)


def function(name: str, items: Sequence[ir.Node]) -> ir.Node | None:
    """A function of ints and reals where one is real; None for others."""
    if not is_real(*items):
        return None
    match name, [*items]:
        case "min", _:
            return reals.least(*items)
        case "max", _:
            return reals.greatest(*items)
        case "abs", [item]:
            return reals.apply("abs", item)
        case "clamp", [item, low, high]:
            return reals.greatest(low, reals.least(item, high))
        case _:
            return None


def is_finite(node: ir.Node) -> bool:
    """Whether the constants in this very node are finite."""
    return all(
        math.isfinite(each.value) for each in (node, *node.parts) if isinstance(each, reals.Number)
    )


_COMPARE = {"<": ir.lt, "<=": ir.le, ">": ir.gt, ">=": ir.ge, "==": ir.eq, "!=": ir.ne}


def compared(operator: str, left: ir.Node, right: ir.Node) -> ir.Node:
    """The comparison of two numbers."""
    if is_real(left, right):
        made = ir.selection.compared(operator, left, right)
        assert made is not None, "kinds were checked"
        return made
    return _COMPARE[operator](left, right)
