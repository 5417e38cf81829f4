"""Attentions in the Python form: what is done with the scores of a mask, as expressions of ``s``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self, TypeAlias

from attndsl import ir
from attndsl.source import AttnDslError, Span, suggest

from .attention_check import FORMS, PAIRED
from .attention_terms import (
    check_members,
    check_query,
    check_tables,
    joined,
    log_of_mass,
    multiple,
)
from .callers import here
from .embedded_tables import Position, Row, Table
from .embedding import Expr, Operand, as_expr, expect, merged, numeric, parts_of
from .errors import listed, make_error, stop_if_any
from .joining import Scalable
from .rows import SHIFT, stored
from .score_values import number_faults
from .space_binding import SpaceBinder, chosen_of
from .spaces import Pair

reals = ir.reals

Rule: TypeAlias = "Callable[[Expr], Operand] | Operand"
"""A real: of the score, as a function, or of none."""
Weights: TypeAlias = str | tuple[str, Callable[[Expr], Operand]]


# ---------------------------------------------------------------------- functions


def _applied(name: str, item: Operand) -> Expr:
    def of_real(node: ir.Node) -> ir.Node:
        return reals.apply(name, node)

    return numeric(name, of_real, of_real, item)


def exp(item: Operand) -> Expr:
    """e to the power of a number."""
    return _applied("exp", item)


def exp2(item: Operand) -> Expr:
    """2 to the power of a number."""
    return _applied("exp2", item)


def log(item: Operand) -> Expr:
    """The natural logarithm; NaN of negative numbers, infinite of 0."""
    return _applied("log", item)


def tanh(item: Operand) -> Expr:
    """The hyperbolic tangent."""
    return _applied("tanh", item)


def sigmoid(item: Operand) -> Expr:
    """1 / (1 + exp(-x))."""
    return _applied("sigmoid", item)


def softplus(item: Operand) -> Expr:
    """log(1 + exp(x))."""
    return _applied("softplus", item)


def relu(item: Operand) -> Expr:
    """The number, or 0 where it is negative."""
    return _applied("relu", item)


def sqrt(item: Operand) -> Expr:
    """The square root; NaN of negative numbers."""
    return _applied("sqrt", item)


def dot(left: Position | Row | Table | Vector, right: Position | Row | Table | Vector) -> Expr:
    """The product of two vectors: ``q``, ``k``, or rows ``rel[q - k]`` of real inputs, the last index left out."""
    (one, first), (two, second) = vector_of(left), vector_of(right)
    node = reals.dot(one, two)
    return merged(node, (*first, *second))


@dataclass(frozen=True, slots=True)
class Vector:
    """A vector of a selection, for `dot`, and the expressions it is made of."""

    node: ir.Node
    parts: tuple[Expr, ...]


def vector_of(item: object) -> tuple[ir.Node, tuple[Expr, ...]]:
    """The node of an operand of `dot`, and the expressions it is made of.

    Raises:
        AttnDslError: A202, it is no vector.
    """
    match item:
        case Vector(node=node, parts=parts):
            return node, parts
        case Position():
            node = parts_of(item)[0]
            assert isinstance(node, ir.Pos), "a position stands for its side"
            return reals.Own(node.side), ()
        case Table(table=table) if len(table.indexed_dims) == 1:
            index: tuple[Expr, ...] = ()
        case Row(table=table, index=index):
            pass
        case _:
            title = "a vector is q, k, or a row of a real input"
            raise AttnDslError(make_error("A202", title, here()))
    if table.kind is not ir.Sort.REAL:
        raise AttnDslError(make_error("A202", f"`{table.name}` does not hold reals", here()))
    nodes = [parts_of(each)[0] for each in index]
    row = reals.Row(table.name, stored(table, nodes, SHIFT), table.ambient)
    return row, (*index, Expr(reals.NOUGHT, (table,)))


# ---------------------------------------------------------------------- attentions


def scored(
    mask: ir.Mask,
    score: Rule | None = None,
    weights: Weights = "softmax",
    factor: Rule | None = None,
    mass: Operand | None = None,
    keys: str = "",
    pair: int | None = None,
    name: str = "",
    doc: str = "",
) -> ir.Attention:
    """The attention of one mask, as `attention ... over mask = score ...` of the language.

    Args:
        mask: The pairs.
        score: A function from the score ``s`` to a real; by default the score as it is.
        weights: "softmax", "sigmoid", "entmax", "stick", "columns", or ("pointwise", f) and ("l1", f) with a function
            of what became of the score.
        factor: A real that multiplies the weights after they are normalised.
        mass: A real that is added to the denominator of each query. It does not depend on the key.
        keys: The name of keys and values that a call is given beside its own.
        pair: 0 or 1: heads 2i, or 2i + 1, of q and k, with all heads of v.
        name: For people.
        doc: Likewise.

    Raises:
        AttnDslError: A2xx, with the place in the caller's program.
    """
    binder = _Binder(mask, here())
    form, weight = binder.weights(weights)
    log_mass = None
    if mass is not None:
        made = binder.real(mass)
        check_query(made, "a mass", binder.span)
        if form not in (ir.Form.SOFTMAX, ir.Form.L1):
            title = f"weights by `{form}` have no denominator of a query for mass to be in"
            raise AttnDslError(make_error("A217", title, binder.span))
        log_mass = log_of_mass(made, binder.span)
    if pair not in (None, *range(PAIRED)):
        raise AttnDslError(make_error("A217", "a pair has numbers 0 and 1", binder.span))
    if keys and not keys.isidentifier():
        raise AttnDslError(make_error("A217", "keys from elsewhere have a name", binder.span))
    part = ir.Scored(
        mask,
        reals.SCORE if score is None else binder.real(score),
        form,
        weight,
        None if factor is None else binder.real(factor),
        keys,
        None if pair is None else (pair, PAIRED),
    )
    found = ir.Attention((ir.Term((part,), log_mass=log_mass),), (), name, doc)
    return _with_tables(found, binder.tables, binder.chosen, binder.span)


@dataclass(slots=True)
class _Binder:
    """Sets real expressions in the spaces of a mask, and keeps the inputs that they read, and what makes these."""

    mask: ir.Mask
    span: Span
    tables: dict[str, ir.Table]
    chosen: tuple[ir.Chosen, ...]

    def __init__(self, mask: ir.Mask, span: Span) -> None:
        self.mask = mask
        self.span = span
        self.tables = {}
        self.chosen = ()

    def real(self, rule: Rule) -> ir.Node:
        """A real, of the score where it is a function."""
        made = as_expr(rule(Expr(reals.SCORE)) if callable(rule) else rule)
        node, tables, overs, _ = parts_of(made)
        if node.sort is ir.Sort.BOOL:
            expect(ir.Sort.REAL, "a score", made)
        for table in tables:
            if self.tables.setdefault(table.name, table) != table:
                title = f"two inputs named `{table.name}` are declared in different ways"
                raise AttnDslError(make_error("A209", title, self.span))
        pair = Pair(self.mask.queries, self.mask.keys)
        binder = SpaceBinder(pair, overs, ir.first_query(self.mask.align), self.span)
        bound = binder.bound_to_spaces(node)
        self.chosen += chosen_of(made, self.mask.align, bound, self.span, pair)
        return reals.as_real(bound)

    def weights(self, weights: Weights) -> tuple[ir.Form, ir.Node | None]:
        """The form, and its function of the score."""
        word, rule = (weights, None) if isinstance(weights, str) else weights
        if word not in FORMS:
            near = suggest(str(word), FORMS)
            helps = (f"did you mean {near!r}?",) if near else ()
            notes = (f"weights are {listed(FORMS)}",)
            title = f"there are no weights {word!r:.60}"
            raise AttnDslError(make_error("A217", title, self.span, notes=notes, helps=helps))
        takes = word in ("pointwise", "l1")
        if takes != (rule is not None):
            title = f"weights by `{word}` {'need' if takes else 'have no'} function of `s`"
            helps = (f"weights=({word!r}, lambda s: ...)",) if takes else ()
            raise AttnDslError(make_error("A217", title, self.span, helps=helps))
        if word == "sigmoid":
            return ir.Form.POINTWISE, reals.apply("sigmoid", reals.SCORE)
        return ir.Form(word), None if rule is None else self.real(rule)


def _with_tables(
    found: ir.Attention,
    tables: dict[str, ir.Table],
    chosen: tuple[ir.Chosen, ...],
    span: Span,
) -> ir.Attention:
    check_tables(found, dict(tables), span)
    read = ir.tables_read(*(each for term in found.terms for each in term.expressions()))
    inputs = tuple(tables[name] for name in sorted(read))
    asked = tuple(each for each in dict.fromkeys(chosen) if each.name in read)
    unread = tuple(sorted({*found.unread, *tables} - read))
    made = replace(found, tables=inputs, selections=asked, unread=unread)
    stop_if_any(number_faults(made, {}, span))
    return made


def added(*attentions: ir.Attention) -> ir.Attention:
    """The sum of attentions, each normalised for itself."""
    return _whole(tuple(term for each in attentions for term in each.terms), attentions)


def scaled(factor: Operand, attention: ir.Attention) -> ir.Attention:
    """An attention times a real that depends on batch, head and query at most."""
    binder = _Binder(attention.masks[0], here())
    binder.tables.update({table.name: table for table in attention.tables})
    value = binder.real(factor)
    check_query(value, "a factor of an attention", binder.span)
    found = replace(attention, terms=multiple(value, attention.terms))
    return _with_tables(found, binder.tables, (*attention.selections, *binder.chosen), binder.span)


def joined_attention(*attentions: ir.Attention) -> ir.Attention:
    """One softmax over the pairs of several attentions, whose masses add up: `++` of the language."""
    span = here()
    return _whole((joined((each.terms, span) for each in attentions),), attentions)


def _whole(terms: tuple[ir.Term, ...], parts: tuple[ir.Attention, ...]) -> ir.Attention:
    span = here()
    check_members(terms, span)
    tables: dict[str, ir.Table] = {}
    for table in (table for part in parts for table in part.tables):
        if tables.setdefault(table.name, table) != table:
            title = f"two inputs named `{table.name}` are declared in different ways"
            raise AttnDslError(make_error("A209", title, span))
    spaces = {(mask.queries, mask.keys, mask.align) for part in parts for mask in part.masks}
    if len(spaces) > 1:
        title = "these attentions live in different spaces, or are aligned in different ways"
        raise AttnDslError(make_error("A210", title, span))
    chosen = tuple(each for part in parts for each in part.selections)
    unread = tuple(name for part in parts for name in part.unread)
    return _with_tables(ir.Attention(terms, unread=unread), tables, chosen, span)


class AttentionOperators(Scalable):
    """Operators of attentions: ``a + 2.0 * b``, ``a - lam * b``, and ``a | b`` for one softmax over both."""

    @property
    @abstractmethod
    def ir(self) -> ir.Attention:
        """The attention itself."""

    @abstractmethod
    def _of(self, attention: Any) -> Self:
        """Another of its kind."""

    def __add__(self, other: Self) -> Self:
        return self._of(added(self.ir, _attention(other)))

    def __sub__(self, other: Self) -> Self:
        return self._of(added(self.ir, scaled(-1.0, _attention(other))))

    def __neg__(self) -> Self:
        return self._of(scaled(-1.0, self.ir))

    def __mul__(self, factor: Operand) -> Self:
        return self._of(scaled(factor, self.ir))

    __rmul__ = __mul__

    def __truediv__(self, divisor: Operand) -> Self:
        return self._of(scaled(1 / as_expr(divisor), self.ir))

    def __or__(self, other: Self) -> Self:
        return self._of(joined_attention(self.ir, _attention(other)))


def _attention(other: object) -> ir.Attention:
    if isinstance(other, AttentionOperators):
        return other.ir
    title = f"an attention is needed here, not a {type(other).__name__}"
    raise AttnDslError(make_error("A217", title, here()))
