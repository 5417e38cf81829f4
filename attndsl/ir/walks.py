"""Walks over the parts of an expression, and what is asked of its constants."""

from __future__ import annotations

import functools
from typing import Final, cast

from attndsl.ir.interning import Node
from attndsl.ir.nodes import Const, Eq, Le, Sum


def holds(root: Node, *kinds: type[Node]) -> bool:
    """Whether a node of one of the classes is in an expression; nothing is walked."""
    return bool(root.held & _bits(kinds))


@functools.cache
def _bits(kinds: tuple[type[Node], ...]) -> int:
    return functools.reduce(int.__or__, (kind.bit for kind in kinds), 0)


def postorder(root: Node, *within: type[Node]) -> list[Node]:
    """Every distinct node of ``root``, parts first. Iterative: depth is no limit.

    With ``within``, those alone that hold, or are, a node of one of these classes.
    """
    wanted = _bits(within) if within else -1
    found: list[Node] = []
    seen: set[Node] = set()
    stack: list[Node | None] = [root]  # None stands above a node whose parts are done
    while stack:
        node = stack.pop()
        if node is None:
            found.append(cast(Node, stack.pop()))
        elif node.held & wanted and node not in seen:
            seen.add(node)
            if parts := node.parts:
                stack += (node, None)
                stack += parts[::-1]
            else:
                found.append(node)
    return found


def is_larger(root: Node, most: int) -> bool:
    """Whether an expression has more nodes and operands than that, all together; it is looked at no further."""
    seen = {root}
    stack = [root]
    while stack and most >= 0:
        parts = stack.pop().parts
        most -= 1 + len(parts)
        fresh = set(parts) - seen
        seen |= fresh
        stack += fresh
    return most < 0


LARGEST: Final = 1 << 62  # constants are smaller, so that sums of two fit 64 bits


def largest(node: Node) -> int:
    """The greatest magnitude of the constants in this very node."""
    match node:
        case Const(value=value):
            return abs(value)
        case Sum(terms=terms, constant=constant):
            return max(abs(constant), *(abs(factor) for _, factor in terms))
        case Le(item=item, bound=bound) | Eq(item=item, bound=bound):
            return max(abs(bound), largest(item) if isinstance(item, Sum) else 0)
        case _:
            return 0


def numbers(root: Node) -> set[int]:
    """The numbers in an expression, without their signs: its edges lie around them."""
    found = set()
    for node in postorder(root):
        match node:
            case Le(bound=value) | Eq(bound=value) | Const(value=value):
                found.add(abs(value))
            case _:
                pass
    return found
