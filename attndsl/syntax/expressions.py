"""The expressions of the syntax tree: what was written, nothing inferred. A closed union, all of it on this page.

    Expression  = Int | Fraction | Bool | Name | ListOf | Access | Index | Call
                | Neg | Product | Sum | Range | Member | Compare | Not | And | Or
                | If | Let | Any | All | Count | Total | Scored | Join | Reduction

Every node carries the `span` it was read from. Spans take no part in equality. Parentheses leave
no node (they only widen the span), but grouping is kept: `(a + b) + c` is a Sum within a Sum,
`a + b + c` one Sum of three.
"""

# ruff: noqa: RUF009  (`_span()` makes a fresh dataclasses.field each time, nothing is shared)
from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from attndsl.source import NOWHERE, Span

from .selection_tree import Reduction

CompareOp: TypeAlias = Literal["<", "<=", ">", ">=", "==", "!="]


def _span() -> Span:
    return field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Int:
    """`1_000`; below 2**31, never negative (`-1` is a Neg)."""

    value: int
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Fraction:
    """`0.1`, `1e-6`: a real number, its digits without zeros at the ends that could be left out."""

    digits: str
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Bool:
    """`true` or `false`."""

    value: bool
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Name:
    """`q`, `left`, `head`."""

    name: str
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class ListOf:
    """`[1, 2, 4]`, perhaps empty."""

    items: tuple[Expression, ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Access:
    """`q.y`; `q.image.y` is an Access of an Access."""

    base: Expression
    name: str
    name_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Index:
    """`t[i, j]`; at least one index."""

    base: Expression
    indices: tuple[Expression, ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Argument:
    """`x` (name is None) or `n=3`."""

    value: Expression
    name: str | None = None
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Call:
    """`f(x, n=3)`, `f()`; arguments in the order written, which the frontend judges."""

    name: str
    arguments: tuple[Argument, ...] = ()
    name_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Neg:
    """`-x`."""

    operand: Expression
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Product:
    """`a * b // c % d / e`, from left to right; one operator fewer than operands, at least one."""

    operands: tuple[Expression, ...]
    operators: tuple[Literal["*", "/", "//", "%"], ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Sum:
    """`a + b - c`, from left to right; one operator fewer than operands, at least one."""

    operands: tuple[Expression, ...]
    operators: tuple[Literal["+", "-"], ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Range:
    """`lo..hi`, half-open; stands right of `in` only (in Member and in loops)."""

    low: Expression
    high: Expression
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Member:
    """`x in S`, `x not in S`; S is a range, a list, a segment or a row of a list table."""

    item: Expression
    container: Expression
    negated: bool = False
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Compare:
    """`a <= b < c`: every neighbouring pair; one operator fewer than operands, at least one."""

    operands: tuple[Expression, ...]
    operators: tuple[CompareOp, ...]
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Not:
    """`not x`."""

    operand: Expression
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class And:
    """`a and b and c`; at least two operands. ``shapes`` are those of them that `unlike` gives, if not all."""

    operands: tuple[Expression, ...]
    span: Span = _span()
    shapes: tuple[Expression, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Or:
    """`a or b or c`; at least two operands. ``shapes`` are those of them that `unlike` gives, if not all."""

    operands: tuple[Expression, ...]
    span: Span = _span()
    shapes: tuple[Expression, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class If:
    """`if condition then yes else no`."""

    condition: Expression
    yes: Expression
    no: Expression
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Binding:
    """`x = e` in a Let; later bindings see earlier ones."""

    name: str
    value: Expression
    name_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Let:
    """`let x = e, y = e2: body`; at least one binding."""

    bindings: tuple[Binding, ...]
    body: Expression
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Any:
    """`any j in lo..hi: body`."""

    name: str
    range: Range
    body: Expression
    name_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class All:
    """`all j in lo..hi: body`."""

    name: str
    range: Range
    body: Expression
    name_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Count:
    """`count j in lo..hi: body`: for how many numbers the body holds."""

    name: str
    range: Range
    body: Expression
    name_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Total:
    """`sum j in lo..hi: body`: the body added up over the numbers."""

    name: str
    range: Range
    body: Expression
    name_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Weights:
    """`weights sigmoid`, `weights pointwise relu(s)`; which forms there are the frontend knows."""

    form: str
    expression: Expression | None = None
    form_span: Span = _span()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class By:
    """`by memory`, or `by pair 0`."""

    name: str
    number: int | None = None
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Scored:
    """`(over causal by pair 0: score s weights softmax factor f mass m)`: what is done with scores.

    Stands in an Attention only: as its body, there without parentheses, or as an operand.
    """

    score: Expression
    weights: Weights | None = None
    factor: Expression | None = None
    mass: Expression | None = None
    over: Expression | None = None
    by: tuple[By, ...] = ()
    span: Span = _span()


@dataclass(frozen=True, slots=True)
class Join:
    """`a ++ b`: one softmax over the keys of both; at least two operands. In an Attention only."""

    operands: tuple[Expression, ...]
    span: Span = _span()


Loop: TypeAlias = Any | All | Count | Total
Expression: TypeAlias = (
    Int | Fraction | Bool | Name | ListOf | Access | Index | Call
    | Neg | Product | Sum | Range | Member | Compare | Not | And | Or
    | If | Let | Loop | Scored | Join | Reduction
)  # fmt: skip


def children(node: Expression) -> tuple[Expression, ...]:  # noqa: C901 - an arm a node
    """The expressions directly inside one, in the order written."""
    match node:
        case Int() | Fraction() | Bool() | Name():
            return ()
        case ListOf(items):
            return items
        case Index(base, indices):
            return (base, *indices)
        case Call(_, arguments):
            return tuple(argument.value for argument in arguments)
        case Access(inner) | Neg(inner) | Not(inner):
            return (inner,)
        case Product(operands) | Sum(operands) | Compare(operands) | And(operands) | Or(operands):
            return operands
        case Range(low, high):
            return (low, high)
        case Member(item, container):
            return (item, container)
        case If(condition, yes, no):
            return (condition, yes, no)
        case Let(bindings, body):
            return (*(binding.value for binding in bindings), body)
        case Any() | All() | Count() | Total():
            return (node.range, node.body)
        case Join(operands):
            return operands
        case Reduction(body=body, where=where):
            return (body,) if where is None else (where, body)
        case Scored(score, weights, factor, mass, over):
            weight = weights.expression if weights else None
            found = (over, score, weight, factor, mass)
            return tuple(each for each in found if each is not None)


def unlike(node: Expression) -> tuple[Expression, ...]:
    """The expressions directly inside one, but for operands that repeat others of them with other numbers."""
    return (isinstance(node, And | Or) and node.shapes) or children(node)
