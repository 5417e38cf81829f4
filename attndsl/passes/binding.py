"""Specialise a mask for one call: lengths, heads and one (batch, head) become constants.

    len(image.x)                   -->  56
    doc[q], batch 3                -->  a table of its own, "doc" of batch element 3

Law: for that call both sides evaluate alike. The result depends on positions alone, so schedules can be
shared between all heads and batch elements whose specialised roots are the same object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attndsl import ir


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
    """``root`` with lengths (and, if given, batch element and head) as constants.

    ``rename`` names the table that a batch- or head-dependent read sees in this specialisation.
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
                return ir.Load(rename(node), node.kind, node.index, ir.Deps.NONE)
            case _:
                return node

    return ir.transform(root, rule, ir.Size, ir.Var, ir.Load)
