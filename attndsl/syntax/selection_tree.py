"""The nodes of selections: units, what is chosen among them, and folds of scores."""

# ruff: noqa: RUF009  (`_span()` makes a fresh dataclasses.field each time, nothing is shared)
from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from attndsl.source import NOWHERE, Span

from .remarks import Remarks

if TYPE_CHECKING:
    from .expressions import Expression, Range
    from .tree import Align, Parameter

FoldWord: TypeAlias = Literal["sum", "max", "lse", "softmax"]


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
class Tiles:
    """`tiles(y = 4, x = 4) of image`; `sizes` in the order written."""

    grid: str
    sizes: tuple[Side, ...]
    grid_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Side:
    """`y = 4` of tiles."""

    axis: str
    size: Expression
    span: Span = _span()


Groups: TypeAlias = Blocks | Tiles


@dataclass(frozen=True, slots=True)
class Numbers:
    """`c in 0..n`: numbers that are no tokens."""

    name: str
    range: Range
    name_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Reduction:
    """`softmax over fine where fine.end <= q + 1: e`: a fold over units, or over `group`. In a Select only.

    `every`: over `all fine` of the row. `rows` are units of queries: `sum over queries in fine: e`.
    """

    how: FoldWord
    over: str
    body: Expression
    where: Expression | None = None
    every: bool = False
    rows: str | None = None
    over_span: Span = _span()
    rows_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Take:
    """`take top 16`, `take sample 8 seed 1`, `take top 4 by column`: `how` and `by` are any words."""

    how: str
    amount: Expression
    seed: Expression | None = None
    by: str | None = None
    how_span: Span = _span()
    by_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Units:
    """`units fine = blocks(32, every 16) whole`."""

    name: str
    blocks: Groups
    doc: str = ""
    remarks: Remarks = Remarks()
    name_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Select:
    """`select near(n: int) over block per group for rows = score where ... keeping ... take top n`.

    `over` and `queries` are units by name, or blocks or tiles that have none; None for single tokens. `queries` may be
    `all` of them, which no units are named, or numbers. `where` are constraints on parameters, `candidates` conditions
    on units.
    """

    name: str
    parameters: tuple[Parameter, ...]
    body: Expression
    take: Take
    over: str | Groups | None = None
    queries: str | Groups | Numbers | None = None
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


@dataclass(frozen=True, slots=True)
class Label:
    """`label bucket(n: int) = argmax c in 0..n: e`: the number that scores highest, for each query or each key."""

    name: str
    parameters: tuple[Parameter, ...]
    numbers: Numbers
    body: Expression
    align: Align | None = None
    where: tuple[Expression, ...] = ()
    doc: str = ""
    remarks: Remarks = Remarks()
    name_span: Span = _span()
    align_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Rank:
    """`rank place = by bucket[k], k`: where each query, or key, stands when all are sorted; `body` is the first int."""

    name: str
    parameters: tuple[Parameter, ...]
    body: Expression
    others: tuple[Expression, ...] = ()
    align: Align | None = None
    where: tuple[Expression, ...] = ()
    doc: str = ""
    remarks: Remarks = Remarks()
    name_span: Span = _span()
    align_span: Span = _span()
    span: Span = _span()


Choosing: TypeAlias = Select | Label | Rank


def blocks_of(each: str | Groups | Numbers | None) -> tuple[Expression, ...]:
    """The expressions in units."""
    if isinstance(each, Tiles):
        return tuple(side.size for side in each.sizes)
    if isinstance(each, Numbers):
        return (each.range,)
    if not isinstance(each, Blocks):
        return ()
    return (each.size,) if each.every is None else (each.size, each.every)


def asides(select: Choosing) -> tuple[Expression, ...]:
    """The expressions beside constraints and body, in the order written."""
    if isinstance(select, Rank):
        return select.others
    if isinstance(select, Label):
        return (select.numbers.range,)
    found = (*blocks_of(select.over), *blocks_of(select.queries), *select.candidates)
    found += () if select.keeping is None else (select.keeping,)
    found += (select.take.amount,)
    return found if select.take.seed is None else (*found, select.take.seed)
