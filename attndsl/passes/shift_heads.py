"""Puts the heads that a call holds in their place among all heads of the model.

    head < heads // 2, heads 2 and 3 of 4      -->  head + 2 < 4 // 2

Law: head h of the call, of so many as it holds, sees what head h + start of the whole model sees.
"""

from __future__ import annotations

from dataclasses import replace

from attndsl import ir


def shift_heads(mask: ir.Mask, start: int, total: int) -> ir.Mask:
    """The mask of the heads from ``start`` on, of ``total`` heads. Inputs are those of the heads held."""
    root, zeros = (head_shifted(each, start, total) for each in (mask.root, mask.zeros))
    return replace(mask, root=root, zeros=zeros)


def head_shifted(root: ir.Node, start: int, total: int) -> ir.Node:
    """``shift_heads`` on a bare expression."""

    def rule(node: ir.Node) -> ir.Node:
        match node:
            case ir.Var(name="head"):
                return ir.add(node, ir.Const(start))
            case ir.Var(name="heads"):
                return ir.Const(total)
            case _:
                return node

    return ir.transform(root, rule, ir.Var)
