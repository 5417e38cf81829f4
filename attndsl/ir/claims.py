"""Claims about a mask, as data for the checkers. Claims are no part of a mask's meaning."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

from attndsl.ir.interning import Node, Side
from attndsl.ir.logic import TRUE
from attndsl.ir.loops import transform
from attndsl.ir.mask import Table
from attndsl.ir.nodes import Coord, Inside, Pos
from attndsl.source import NOWHERE, Span

Comparison: TypeAlias = Literal["<", "<=", ">", ">=", "==", "!="]


@dataclass(frozen=True, slots=True)
class Always:
    """Every pair satisfies ``root``; with ``is_square``, where there are as many queries as keys."""

    root: Node
    is_square: bool = False


@dataclass(frozen=True, slots=True)
class Counted:
    """How many keys each query sees (side QUERY), or how many queries see each key (side KEY).

    ``bound`` may depend on the position of that side. Keys are counted where there are as many queries.
    """

    side: Side
    operator: Comparison
    bound: Node


@dataclass(frozen=True, slots=True)
class Density:
    """Pairs of the pattern over all pairs, averaged over heads, at one length or with these extents."""

    length: int | None
    extents: tuple[tuple[str, int], ...]
    heads: int
    operator: Comparison
    bound: Fraction


@dataclass(frozen=True, slots=True)
class Reached:
    """After so many layers every token knows every other; every earlier one, if the pattern is causal."""

    layers: int


Property: TypeAlias = Always | Counted | Density | Reached


@dataclass(frozen=True, slots=True)
class Claim:
    """One ``assert``. ``text`` is the claim as the language spells it.

    ``condition`` restricts what it speaks of: lengths, heads, and for pairs and counts positions too.
    ``tables`` are the run-time inputs that its relations and the mask read.
    """

    text: str
    what: Property
    condition: Node = TRUE
    tables: tuple[Table, ...] = ()
    span: Span = NOWHERE


def swapped(root: Node) -> Node:
    """The relation of (k, q): every query position becomes the key's and the other way round."""

    def rule(node: Node) -> Node:
        match node:
            case Pos(side=side):
                return Pos(side.other)
            case Coord(side=side, axis=axis):
                return Coord(side.other, axis)
            case Inside(side=side, segment=segment):
                return Inside(side.other, segment)
            case _:
                return node

    return transform(root, rule, Pos, Coord, Inside)
