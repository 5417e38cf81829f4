"""Pieces of Python text, each with how tightly it binds."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable
from typing import Final, TypeAlias

from attndsl import ir

LINE: Final = 72  # columns of an expression; longer ones are written in steps
# How tightly operators bind in Python, loosest first.
COMPARE, OR, AND, SUM, PRODUCT, UNARY, ATOM = range(7)


Piece: TypeAlias = tuple[str, int]  # text and how tightly it binds


def list_lines(name: str, values: tuple[int, ...], device: str) -> list[str]:
    """The statement that makes a tensor of a list."""
    rows = textwrap.wrap(", ".join(map(str, values)), LINE)
    return [f"{name} = torch.tensor(", "    [", *(f"        {row}" for row in rows), "    ],",
            f"    device={device},", ")"]  # fmt: skip


def number(value: int) -> Piece:
    return str(value), ATOM if value >= 0 else UNARY


def at_least(piece: Piece, strength: int) -> str:
    text, own = piece
    return text if own >= strength else f"({text})"


def infix(symbol: str, left: Piece, right: Piece) -> Piece:
    return f"{at_least(left, PRODUCT)}{symbol}{at_least(right, UNARY)}", PRODUCT


def times(factor: int, piece: Piece) -> str:
    return at_least(piece, PRODUCT) if factor == 1 else f"{factor} * {at_least(piece, UNARY)}"


def uses(root: ir.Node) -> Counter[ir.Node]:
    """How often each value is written; a comparison writes the terms of its sum."""
    found: Counter[ir.Node] = Counter()
    for node in ir.postorder(root):
        parts: Iterable[ir.Node] = node.parts
        if isinstance(node, ir.Le | ir.Eq):
            parts = ir.linear(node.item)[0]
        found.update(parts)
    return found


def parts_of(node: ir.Node) -> tuple[ir.Node, ...]:
    """Nodes that are written before a value; a loop writes its own parts."""
    match node:
        case ir.Exists() | ir.Total():
            return ()
        case ir.Le(item=item) | ir.Eq(item=item) | ir.Not(item=ir.Eq(item=item)):
            return tuple(ir.linear(item)[0])
        case _:
            return node.parts
