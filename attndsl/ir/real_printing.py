"""Real expressions as text of the language: a piece for each node, made of the pieces of its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from attndsl.ir import reals
from attndsl.ir.interning import Node

# Binding strengths, loosest first, as in the grammar.
OPEN, OR, AND, NOT, COMPARE, SUM, PRODUCT, UNARY, ATOM = range(9)

Piece: TypeAlias = tuple[str, int]  # text and how tightly it binds

_MINUS: Final = reals.Number(-1.0)


def real_piece(node: reals.Real | reals.Vector, done: Mapping[Node, Piece]) -> Piece:  # noqa: C901 - an arm a class
    """The text of a real or a vector."""

    def at(child: Node, strength: int) -> str:
        text, own = done[child]
        return text if own >= strength else f"({text})"

    def call(name: str, *items: Node) -> Piece:
        return f"{name}({', '.join(at(item, OPEN) for item in items)})", ATOM

    match node:
        case reals.Number(value=value):
            return repr(value), ATOM if value >= 0 else UNARY
        case reals.FromInt(item=item):
            return at(item, ATOM), ATOM
        case reals.Score():
            return "s", ATOM
        case reals.Plus(items=items):
            first, *others = items
            return at(first, PRODUCT) + "".join(_signed(each, at) for each in others), SUM
        case reals.Times(left=left, right=right):
            return f"{at(left, PRODUCT)} * {at(right, UNARY)}", PRODUCT
        case reals.Over(left=left, right=right):
            return f"{at(left, PRODUCT)} / {at(right, UNARY)}", PRODUCT
        case reals.Apply(function=function, item=item):
            return call(function, item)
        case reals.Least(left=left, right=right):
            return call("min", left, right)
        case reals.Greatest(left=left, right=right):
            return call("max", left, right)
        case reals.Choose(cond=cond, yes=yes, no=no):
            return f"if {at(cond, OR)} then {at(yes, OR)} else {at(no, OPEN)}", OPEN
        case reals.Dot(left=left, right=right):
            return call("dot", left, right)
        case reals.Drawn(least=least, left=left, right=right):
            return f"drawn({least}, {at(left, OPEN)}, {at(right, OPEN)})", ATOM
        case reals.Row(table=table, index=index):
            return (
                f"{table}[{', '.join(at(item, OPEN) for item in index)}]" if index else table,
                ATOM,
            )
        case reals.Own(side=side):
            return side.value, ATOM
        case _:
            raise AssertionError(f"{type(node).__name__} is no real")


def _signed(item: Node, at: Callable[[Node, int], str]) -> str:
    """An operand of a sum behind its sign."""
    if isinstance(item, reals.Times) and item.left is _MINUS:
        return f" - {at(item.right, UNARY)}"
    return f" + {at(item, PRODUCT)}"
