"""Laws of terms, for attentions in both forms: multiples, and one softmax over several key sets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from attndsl import ir
from attndsl.source import AttnDslError, Span

from .errors import make_error

reals = ir.reals

Terms: TypeAlias = tuple[ir.Term, ...]

NO_PART: Final = ("branches are joined by their log-sum-exps, which no other weights have",)
NOT_JOINED: Final = ("add them by `+`, each with weights of its own",)


def multiple(factor: ir.Node, terms: Terms) -> Terms:
    """Each term times a real."""
    return tuple(replace(term, coefficient=reals.times(factor, term.coefficient)) for term in terms)


def check_query(value: ir.Node, what: str, span: Span) -> None:
    """Refuses a coefficient or mass that there is not one of for each query.

    Raises:
        AttnDslError: A217.
    """
    if value.deps & ir.Deps.KEY:
        notes = ("there is one for each query",)
        raise AttnDslError(make_error("A217", f"{what} cannot depend on `k`", span, notes=notes))


def log_of_mass(mass: ir.Node, span: Span) -> ir.Node | None:
    """The logarithm of a mass; None of a mass that is known to be 0.

    Raises:
        AttnDslError: A217, it is known to be negative: weights would be no shares.
    """
    if isinstance(mass, reals.Number) and mass.value < 0:
        notes = (f"it is {mass.value:g}",)
        helps = ("a mass is added to a sum of exponentials; a learned one is `exp(sink[head])`",)
        raise AttnDslError(
            make_error("A217", "a mass cannot be negative", span, notes=notes, helps=helps)
        )
    return None if mass is reals.NOUGHT else reals.apply("log", mass)


def joined(operands: Iterable[tuple[Terms, Span]]) -> ir.Term:
    """One softmax over the pairs of all operands, in which their masses add up.

    Raises:
        AttnDslError: A217, an operand is a sum or a multiple, or has other weights than those of a softmax.
    """
    parts: list[ir.Scored] = []
    masses: list[ir.Node] = []
    for terms, span in operands:
        forms = {part.form for term in terms for part in term.parts} - {ir.Form.SOFTMAX}
        if forms:
            title = f"`++` makes one softmax; weights by `{min(forms)}` cannot be part of it"
            raise AttnDslError(make_error("A217", title, span, notes=NO_PART, helps=NOT_JOINED))
        if len(terms) > 1 or terms[0].coefficient is not reals.UNITY:
            title = "`++` joins branches and attentions, not multiples or sums of them"
            raise AttnDslError(make_error("A217", title, span))
        parts += terms[0].parts
        masses += [] if terms[0].log_mass is None else [terms[0].log_mass]
    return ir.Term(tuple(parts), log_mass=_log_of_sum(masses))


def _log_of_sum(masses: Sequence[ir.Node]) -> ir.Node | None:
    """The logarithm of a sum of masses, from theirs; the greatest is taken out, so that none overflows."""
    if len(masses) < 2:
        return masses[0] if masses else None
    most = reals.greatest(*masses)
    shares = (reals.apply("exp", reals.minus(mass, most)) for mass in masses)
    return reals.plus(most, reals.apply("log", reals.plus(*shares)))


def check_members(terms: Terms, span: Span) -> None:
    """Refuses branches that have other numbers of heads than others.

    Raises:
        AttnDslError: A217.
    """
    members = {part.member and part.member[1] for term in terms for part in term.parts}
    if len(members) > 1:
        title = "either all branches are of a pair, or none"
        raise AttnDslError(make_error("A217", title, span))
    if any(len({part.member for part in term.parts}) > 1 for term in terms):
        title = "the two of a pair cannot share one softmax"
        raise AttnDslError(make_error("A217", title, span))


def check_tables(attention: ir.Attention, declared: dict[str, ir.Table], span: Span) -> None:
    """Refuses inputs of one name that are declared in different ways, and selections of different values.

    Raises:
        AttnDslError: A209, A219.
    """
    chosen: dict[str, ir.Chosen] = {}
    for each in (each for mask in attention.masks for each in mask.selections):
        if chosen.setdefault(each.name, each) != each:
            title = f"`{each.name}` is used with different values for its parameters"
            helps = ("declare another selection for the other values",)
            raise AttnDslError(make_error("A219", title, span, helps=helps))
    for mask in attention.masks:
        for table in mask.tables:
            if declared.setdefault(table.name, table) != table:
                title = f"two inputs named `{table.name}` are declared in different ways"
                raise AttnDslError(make_error("A209", title, span))
