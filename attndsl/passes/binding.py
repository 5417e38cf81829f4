"""Specialise a mask for one call: lengths, heads and one (batch, head) become constants.

    len(image.x)                   -->  56
    any j in 0..2: body(j)         -->  body(0) or body(1)
    doc[q], batch 3                -->  a table of its own, "doc" of batch element 3

Law: for that call both sides evaluate alike. What is left depends on positions alone, so schedules can be
shared between all heads and batch elements whose specialised roots are the same object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attndsl import ir


class TooManyAlternatives(Exception):
    """A quantifier whose range, at these lengths, is wider than ``ir.WIDEST_RANGE``."""

    def __init__(self, width: int) -> None:
        super().__init__(f"any/all over {width} values")
        self.width = width


def bind(
    root: ir.Node,
    sizes: Mapping[str, int],
    *,
    heads: int = 1,
    layer: int = 0,
    batch: int | None = None,
    head: int | None = None,
    rename: Callable[[ir.Load], str] | None = None,
) -> ir.Node:
    """``root`` with lengths (and, if given, batch element and head) as constants and its quantifiers unrolled.

    ``rename`` names the table that a batch- or head-dependent read sees in this specialisation.

    Raises:
        TooManyAlternatives: a quantifier is too wide to unroll.
    """
    given = {"heads": heads, "layer": layer, "batch": batch, "head": head}
    known = {name: value for name, value in given.items() if value is not None}

    def rule(node: ir.Node) -> ir.Node:
        match node:
            case ir.Size(name=name):
                return ir.Const(sizes[name])
            case ir.Var(name=name) if name in known:
                return ir.Const(known[name])
            case ir.Load() if rename is not None and node.ambient:
                return ir.Load(rename(node), node.kind, node.index, ir.Rank.NONE)
            case ir.Exists(start=ir.Const(value=start), stop=ir.Const(value=stop)):
                return _unroll(node, start, stop)
            case _:
                return node

    return ir.transform(root, rule)


def _unroll(node: ir.Exists, start: int, stop: int) -> ir.Node:
    if stop - start > ir.WIDEST_RANGE:
        raise TooManyAlternatives(stop - start)
    variable = ir.Index(node.level)
    bodies = (ir.substitute(node.body, {variable: ir.Const(j)}) for j in range(start, stop))
    return ir.disj(*bodies)
