"""Values, scopes, limits, and lists as expressions: the material of elaboration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from attndsl import ir
from attndsl.source import NOWHERE, Span

from .scope import Definition
from .spaces import Pair

# A faulty part counts as undecided, so that the rest is checked too.
SOME_INT = ir.Pos(ir.Side.QUERY)
SOME_BOOL = ir.eq(ir.Pos(ir.Side.QUERY), ir.Pos(ir.Side.KEY))
SOME: dict[str, ir.Node] = {"int": SOME_INT, "bool": SOME_BOOL, "real": ir.reals.SCORE}


@dataclass(frozen=True, slots=True)
class InputList:
    """The entries of a run-time table along its last dim, as a list."""

    table: ir.Table
    index: tuple[ir.Node, ...] = ()  # of the dims before
    declared: Span = field(default=NOWHERE, compare=False)


# A list is a tuple of ints, or a table; expressions of a selection know the units around them.
Value: TypeAlias = ir.Node | tuple[ir.Node, ...] | InputList | ir.selection.Groups | None
Chain: TypeAlias = tuple[Pair, ...]  # spaces of the patterns around, innermost first

WIDEST_RANGE = 4096
MOST_NODES = 200_000
MOST_WORK = 150_000  # expressions opened and parts joined: what time is spent on
DEEPEST = 200


@dataclass(frozen=True, slots=True)
class Scope:
    """Where an expression stands: whose names, which values, in which spaces."""

    definition: Definition
    local: Mapping[str, Value]
    chain: Chain


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the values of a definition come from: a call, or the outside."""

    span: Span | None = None
    frame: Scope | None = None


def one_of(item: ir.Node, values: Sequence[ir.Node]) -> ir.Node:
    """Whether the item is one of the values; neighbouring constants become one interval."""
    known = [value.value for value in values if isinstance(value, ir.Const)]
    others = [ir.eq(item, value) for value in values if not isinstance(value, ir.Const)]
    return ir.disj(*others, *_among(item, known))


def one_of_numbers(item: ir.Node, numbers: Iterable[int]) -> ir.Node:
    """Whether the item is one of these constants."""
    return ir.disj(*_among(item, numbers))


def _among(item: ir.Node, numbers: Iterable[int]) -> list[ir.Node]:
    known, parts = sorted(set(numbers)), list[ir.Node]()
    start = 0
    for place, number in enumerate(known):
        if place + 1 == len(known) or known[place + 1] != number + 1:
            if place == start:
                parts.append(ir.eq_number(item, number))
            else:
                low, high = ir.Const(known[start]), ir.Const(number)
                parts.append(ir.conj(ir.le(low, item), ir.le(item, high)))
            start = place + 1
    return parts


def pick(items: tuple[ir.Node, ...], at: ir.Node, start: int) -> ir.Node:
    """items[at - start] by halving, so that the expression stays shallow."""
    if len(items) == 1:
        return items[0]
    half = len(items) // 2
    low, high = pick(items[:half], at, start), pick(items[half:], at, start + half)
    return ir.select(ir.lt(at, ir.Const(start + half)), low, high)


LONGEST_CHOICE = 16  # entries: of a longer list of numbers, one is looked up


def entry_of(items: tuple[ir.Node, ...], at: ir.Node) -> ir.Node:
    """items[at], 0 outside."""
    if not items:
        return ir.ZERO
    if isinstance(at, ir.Const):
        return items[at.value] if 0 <= at.value < len(items) else ir.ZERO
    numbers = tuple(item.value for item in items if isinstance(item, ir.Const))
    if len(numbers) == len(items) > LONGEST_CHOICE:
        return ir.entry(numbers, at)
    inside = ir.conj(ir.le(ir.ZERO, at), ir.lt(at, ir.Const(len(items))))
    return ir.select(inside, pick(items, at, 0), ir.ZERO)
