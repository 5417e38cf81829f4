"""The nodes of selections: units, what is chosen among them, and folds of scores."""

# ruff: noqa: RUF009  (`_span()` makes a fresh dataclasses.field each time, nothing is shared)
from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from attndsl.source import NOWHERE, Span

from .remarks import Remarks

if TYPE_CHECKING:
    from .tree import Align, Expression, Parameter

FoldWord: TypeAlias = Literal["sum", "max", "softmax"]


def _span() -> Span:
    return field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Blocks:
    """`blocks(32, every 16) whole`; `every` is None where blocks follow each other."""

    size: Expression
    every: Expression | None = None
    whole: bool = False
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Reduction:
    """`softmax over fine where fine.end <= q + 1: e`: a fold over units, or over `group`. In a Select only."""

    how: FoldWord
    over: str
    body: Expression
    where: Expression | None = None
    over_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Take:
    """`take top 16`, `take sample 8 seed 1`: `how` is any word."""

    how: str
    amount: Expression
    seed: Expression | None = None
    how_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Units:
    """`units fine = blocks(32, every 16) whole`."""

    name: str
    blocks: Blocks
    doc: str = ""
    remarks: Remarks = Remarks()
    name_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Select:
    """`select near(n: int) over block per group for rows = score where ... keeping ... take top n`.

    `over` and `queries` are units by name, or blocks that have none; None for single tokens. `where` are constraints
    on parameters, `candidates` conditions on units.
    """

    name: str
    parameters: tuple[Parameter, ...]
    body: Expression
    take: Take
    over: str | Blocks | None = None
    queries: str | Blocks | None = None
    per: str | None = None
    align: Align | None = None
    where: tuple[Expression, ...] = ()
    candidates: tuple[Expression, ...] = ()
    keeping: Expression | None = None
    doc: str = ""
    remarks: Remarks = Remarks()
    name_span: Span = _span()
    over_span: Span = _span()
    queries_span: Span = _span()
    per_span: Span = _span()
    align_span: Span = _span()
    span: Span = _span()


def blocks_of(each: str | Blocks | None) -> tuple[Expression, ...]:
    """The expressions in units."""
    if not isinstance(each, Blocks):
        return ()
    return (each.size,) if each.every is None else (each.size, each.every)


def asides(select: Select) -> tuple[Expression, ...]:
    """The expressions of a selection beside its constraints and its score, in the order written."""
    found = (*blocks_of(select.over), *blocks_of(select.queries), *select.candidates)
    found += () if select.keeping is None else (select.keeping,)
    found += (select.take.amount,)
    return found if select.take.seed is None else (*found, select.take.seed)
