"""The syntax tree: what was written, nothing inferred. A closed union; its expressions are in `expressions.py`.

    Module      = Declaration*
    Declaration = Import | Grid | Space | Input | Def | Pattern | Attention | Units | Select | Label | Rank

Every node carries the `span` it was read from. Spans take no part in equality. No tree that was
parsed is deeper than 200 nodes.
"""

# ruff: noqa: RUF009  (`_span()` makes a fresh dataclasses.field each time, nothing is shared)
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from attndsl.source import NOWHERE, Span

from .expressions import Access as Access
from .expressions import All as All
from .expressions import And as And
from .expressions import Any as Any
from .expressions import Argument as Argument
from .expressions import Binding as Binding
from .expressions import Bool as Bool
from .expressions import By as By
from .expressions import Call as Call
from .expressions import Compare as Compare
from .expressions import CompareOp as CompareOp
from .expressions import Count as Count
from .expressions import Expression as Expression
from .expressions import Fraction as Fraction
from .expressions import If as If
from .expressions import Index as Index
from .expressions import Int as Int
from .expressions import Join as Join
from .expressions import Let as Let
from .expressions import ListOf as ListOf
from .expressions import Loop as Loop
from .expressions import Member as Member
from .expressions import Name as Name
from .expressions import Neg as Neg
from .expressions import Not as Not
from .expressions import Or as Or
from .expressions import Product as Product
from .expressions import Range as Range
from .expressions import Scored as Scored
from .expressions import Sum as Sum
from .expressions import Total as Total
from .expressions import Weights as Weights
from .expressions import children as children
from .expressions import unlike as unlike
from .remarks import Remarks as Remarks
from .selection_tree import Choosing as Choosing
from .selection_tree import Label as Label
from .selection_tree import Rank as Rank
from .selection_tree import Reduction as Reduction
from .selection_tree import Select as Select
from .selection_tree import Units as Units

Kind: TypeAlias = Literal["int", "bool", "list", "real"]
Align: TypeAlias = Literal["start", "end"]


def _span() -> Span:
    return field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ImportName:
    """`near` or `far as distant`."""

    name: str
    alias: str | None = None
    name_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Import:
    """`import "other.attn"` (names is empty: everything) or `import near from "other.attn"`."""

    path: str
    names: tuple[ImportName, ...] = ()
    doc: str = ""
    remarks: Remarks = Remarks()
    path_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Axis:
    """`y` or `y=56`."""

    name: str
    extent: int | None = None
    name_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Grid:
    """`grid image(y, x)`; at least one axis."""

    name: str
    axes: tuple[Axis, ...]
    doc: str = ""
    remarks: Remarks = Remarks()
    name_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Segment:
    """`image(y, x=14)` by its axes, `text(77)` by its length, or `image` alone: a declared grid."""

    name: str
    axes: tuple[Axis, ...] = ()
    length: int | None = None
    name_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Space:
    """`space joint = text(77) ++ image(y, x)`; at least one segment, in order."""

    name: str
    segments: tuple[Segment, ...]
    doc: str = ""
    remarks: Remarks = Remarks()
    name_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Dim:
    """One dimension of an input: `batch`, `head`, `q`, an axis, any other name, or a size."""

    value: str | int
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Input:
    """`input doc: int[batch, pos]`; at least one dimension."""

    name: str
    kind: Kind
    dims: tuple[Dim, ...]
    doc: str = ""
    remarks: Remarks = Remarks()
    name_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Parameter:
    """`left: int` or `right: int = left`."""

    name: str
    kind: Kind
    default: Expression | None = None
    name_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Def:
    """`def near(a: int, b: int) = abs(a - b) <= 3`."""

    name: str
    parameters: tuple[Parameter, ...]
    body: Expression
    doc: str = ""
    remarks: Remarks = Remarks()
    name_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Over:
    """`over image` (keys is None: the same space) or `over latent -> data`."""

    queries: str
    keys: str | None = None
    queries_span: Span = _span()
    keys_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Phrase:
    """`keys per query == 49`: two or more words, later ones perhaps numbers, and perhaps a bound."""

    words: tuple[str | int, ...]
    operator: CompareOp | None = None
    bound: Expression | None = None
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Measure:
    """`density(4096) < 0.1`: a comparison with a fraction."""

    subject: Expression
    operator: CompareOp
    bound: Fraction
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Assertion:
    """`assert claim where condition`; the claim may be any expression."""

    claim: Expression | Phrase | Measure
    where: tuple[Expression, ...] = ()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Pattern:
    """`pattern p(m: int = 7) over image align start where m >= 1 = body zeros 1 assert symmetric`.

    `zeros` and `align` are None where none are written; `align_span` is then nowhere.
    """

    name: str
    parameters: tuple[Parameter, ...]
    body: Expression
    over: Over | None = None
    align: Align | None = None
    where: tuple[Expression, ...] = ()
    doc: str = ""
    remarks: Remarks = Remarks()
    assertions: tuple[Assertion, ...] = ()
    zeros: Expression | None = None
    name_span: Span = _span()
    align_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Attention:
    """`attention a(c: real = 50.0) over causal align end where c > 0 = score c * tanh(s / c)`.

    `over` is the name of a space, with `keys` that of another for its keys, or says which pairs there are; None
    where branches or other attentions do.
    """

    name: str
    parameters: tuple[Parameter, ...]
    body: Expression
    over: Expression | None = None
    keys: str | None = None
    align: Align | None = None
    where: tuple[Expression, ...] = ()
    doc: str = ""
    remarks: Remarks = Remarks()
    name_span: Span = _span()
    keys_span: Span = _span()
    align_span: Span = _span()
    span: Span = _span()


Declaration: TypeAlias = (
    Import | Grid | Space | Input | Def | Pattern | Attention | Units | Choosing
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Module:
    """A file. `remarks` are the comments below its last declaration."""

    declarations: tuple[Declaration, ...] = ()
    remarks: tuple[str, ...] = ()
    span: Span = _span()


def parts(assertion: Assertion) -> tuple[Expression, ...]:
    """The expressions of an assertion, in the order written."""
    match assertion.claim:
        case Phrase(bound=bound):
            inside = () if bound is None else (bound,)
        case Measure(subject=subject):
            inside = (subject,)
        case expression:
            inside = (expression,)
    return (*inside, *assertion.where)
