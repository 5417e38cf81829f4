"""Tree nodes of attentions from grammar rules."""

from __future__ import annotations

import dataclasses
import typing

from attndsl.source import NOWHERE, Span

from . import tree
from .building_errors import no_keys, no_space
from .clauses import Align as AlignClause
from .clauses import Parts, TreeError, sort_clauses, written_twice
from .clauses import Where as WhereClause


class AttentionRules:
    """The callbacks of the rules of attentions; `_span` and `_number` are those of all rules."""

    _span: typing.Callable[..., Span]
    _number: typing.Callable[..., typing.Any]

    def attention(self, parts: Parts) -> tree.Attention:
        opening, name, *rest, body = parts
        parameters = tuple(part for part in rest if isinstance(part, tree.Parameter))
        clauses = sort_clauses([part for part in rest if isinstance(part, tuple)], "an attention")
        within, align = clauses.get(_Within), clauses.get(AlignClause)
        where = clauses.get(WhereClause)
        return tree.Attention(
            str(name),
            parameters,
            body,
            within.over if within else None,
            within.keys if within else None,
            align.align if align else None,
            where.conditions if where else (),
            name_span=self._span(name),
            keys_span=within.keys_span if within else NOWHERE,
            align_span=align.span if align else NOWHERE,
            span=self._span(opening, body),
        )

    def within(self, parts: Parts) -> _Within:
        opening, over, *rest = parts
        keys = str(rest[0]) if rest else None
        if keys is not None and not isinstance(over, tree.Name):
            raise TreeError(no_space(over.span))
        keys_span = self._span(rest[0]) if rest else NOWHERE
        return _Within(over, keys, keys_span, self._span(opening, parts[-1]))

    def scored(self, parts: Parts) -> tree.Scored:
        opening, score, *clauses = parts
        found, by = self._clauses(clauses)
        span = self._span(opening, parts[-1])
        weights, factor, mass = map(found.get, (tree.Weights, "factor", "mass"))
        return tree.Scored(score, weights, factor, mass, by=by, span=span)

    def branch(self, parts: Parts) -> tree.Scored:
        *before, scored = parts
        if not before:
            return typing.cast("tree.Scored", scored)
        found, by = self._clauses([*before, *scored.by])
        made: tree.Scored = dataclasses.replace(scored, over=found.get("over"), by=by)
        return made

    def _clauses(self, clauses: Parts) -> tuple[dict[object, typing.Any], tuple[tree.By, ...]]:
        """Clauses of scores by what they are, each at most once, and those that say by whose keys."""
        found: dict[object, typing.Any] = {}
        places: dict[object, Span] = {}
        for clause in clauses:
            kind: object = clause.word if isinstance(clause, _Clause) else type(clause)
            if isinstance(clause, tree.By):
                kind = clause.number is None, "by"
            if kind in found:
                raise TreeError(written_twice(places[kind], clause.span, "a score"))
            found[kind] = clause.body if isinstance(clause, _Clause) else clause
            places[kind] = clause.span
        by = (found.get((False, "by")), found.get((True, "by")))
        return found, tuple(each for each in by if each is not None)

    def restriction(self, parts: Parts) -> _Clause:
        return _Clause("over", parts[1], self._span(parts[0], parts[1]))

    def factor(self, parts: Parts) -> _Clause:
        return _Clause("factor", parts[1], self._span(parts[0], parts[1]))

    def mass(self, parts: Parts) -> _Clause:
        return _Clause("mass", parts[1], self._span(parts[0], parts[1]))

    def weights(self, parts: Parts) -> tree.Weights:
        opening, form, *rest = parts
        expression = rest[0] if rest else None
        span = self._span(opening, parts[-1])
        return tree.Weights(str(form), expression, self._span(form), span)

    def by(self, parts: Parts) -> tree.By:
        opening, name, *rest = parts
        span = self._span(opening, parts[-1])
        if bool(rest) != (name == "pair"):
            raise TreeError(no_keys(span))
        return tree.By(str(name), self._number(rest[0]) if rest else None, span)


class _Within(typing.NamedTuple):
    over: tree.Expression
    keys: str | None
    keys_span: Span
    span: Span


class _Clause(typing.NamedTuple):
    word: str
    body: tree.Expression
    span: Span
