"""Tree nodes of selections from grammar rules."""

from __future__ import annotations

import typing

from attndsl.source import NOWHERE, Diagnostic, Label, Span

from . import tree
from .clauses import Align, Parts, TreeError, Where, Word, clip, is_token, sort_clauses
from .selection_tree import Blocks, Groups, Numbers, Side, Take, Tiles


class SelectionRules:
    """The callbacks of the rules of selections; `_span` is that of all rules."""

    _span: typing.Callable[..., Span]

    def units(self, parts: Parts) -> tree.Units:
        opening, name, blocks = parts
        span = self._span(opening, blocks)
        return tree.Units(str(name), blocks, name_span=self._span(name), span=span)

    def blocks(self, parts: Parts) -> Blocks:
        word, last = parts[0], parts[-1]
        span = self._span(word, last)
        if word != "blocks":
            raise TreeError(_no_units(self._span(word)))
        given = [part for part in parts if not isinstance(part, Word)]
        is_whole = is_token(last, "WHOLE")
        return Blocks(given[0], given[1] if len(given) > 1 else None, is_whole, span)

    def tiles(self, parts: Parts) -> Tiles:
        word, *sides, _, _, grid = (part for part in parts if not is_token(part, "LPAR"))
        span = self._span(word, grid)
        if word != "tiles":
            raise TreeError(_no_units(self._span(word)))
        return Tiles(str(grid), tuple(sides), self._span(grid), span)

    def side(self, parts: Parts) -> Side:
        axis, size = parts
        return Side(str(axis), size, self._span(axis, size))

    def among(self, parts: Parts) -> _Among:
        return _Among(self._units_said(parts[1]), self._span(parts[1]), self._span(*parts))

    def each(self, parts: Parts) -> _Each:
        return _Each(self._units_said(parts[1]), self._span(parts[1]), self._span(*parts))

    def _units_said(self, part: typing.Any) -> typing.Any:
        return part if isinstance(part, Blocks | Tiles | Numbers) else str(part)

    def numbers(self, parts: Parts) -> Numbers:
        name, _, bounds = parts
        return Numbers(str(name), bounds, self._span(name), self._span(name, bounds))

    def per(self, parts: Parts) -> _Per:
        return _Per(str(parts[1]), self._span(parts[1]), self._span(*parts))

    def keeping(self, parts: Parts) -> _Keeping:
        return _Keeping(parts[1], self._span(*parts))

    def seed(self, parts: Parts) -> _Seed:
        return _Seed(parts[1], self._span(*parts))

    def take(self, parts: Parts) -> Take:
        opening, how, amount, *rest = parts
        seed = rest[0].body if rest and isinstance(rest[0], _Seed) else None
        by = rest[0] if rest and isinstance(rest[0], _Column) else None
        word, said = (by.word, by.named) if by else (None, NOWHERE)
        span = self._span(opening, parts[-1])
        return Take(str(how), amount, seed, word, self._span(how), said, span)

    def column(self, parts: Parts) -> _Column:
        return _Column(str(parts[1]), self._span(parts[1]), self._span(*parts))

    def label(self, parts: Parts) -> tree.Label:
        opening, name, *rest, _, numbers, body = parts
        parameters, clauses = self._head(rest, "a label")
        span = self._span(opening, body)
        return tree.Label(
            str(name), parameters, numbers, body, **clauses, name_span=self._span(name), span=span
        )

    def rank(self, parts: Parts) -> tree.Rank:
        opening, name, *rest = parts
        place = next(i for i, part in enumerate(rest) if is_token(part, "BY"))
        parameters, clauses = self._head(rest[:place], "a rank")
        body, *others = rest[place + 1 :]
        span = self._span(opening, parts[-1])
        name_span = self._span(name)
        return tree.Rank(
            str(name), parameters, body, tuple(others), **clauses, name_span=name_span, span=span
        )

    def _head(
        self, parts: Parts, whose: str
    ) -> tuple[tuple[tree.Parameter, ...], dict[str, typing.Any]]:
        """Parameters, and the clauses that labels and ranks have."""
        parameters = tuple(part for part in parts if isinstance(part, tree.Parameter))
        head = sort_clauses(parts[len(parameters) :], whose)
        align, where = head.get(Align), head.get(Where)
        return parameters, {
            "align": align.align if align else None,
            "align_span": align.span if align else NOWHERE,
            "where": where.conditions if where else (),
        }

    def select(self, parts: Parts) -> tree.Select:
        opening, name, *rest, take = parts
        place = next(i for i, part in enumerate(rest) if _is_expression(part))
        parameters = tuple(part for part in rest[:place] if isinstance(part, tree.Parameter))
        head = sort_clauses(rest[len(parameters) : place], "a selection")
        tail = sort_clauses(rest[place + 1 :], "a selection")
        among, each, per = head.get(_Among), head.get(_Each), head.get(_Per)
        align, where = head.get(Align), head.get(Where)
        candidates, keeping = tail.get(Where), tail.get(_Keeping)
        return tree.Select(
            str(name),
            parameters,
            rest[place],
            take,
            among.units if among else None,
            each.units if each else None,
            per.word if per else None,
            align.align if align else None,
            where.conditions if where else (),
            candidates.conditions if candidates else (),
            keeping.body if keeping else None,
            name_span=self._span(name),
            over_span=among.named if among else NOWHERE,
            queries_span=each.named if each else NOWHERE,
            per_span=per.named if per else NOWHERE,
            align_span=align.span if align else NOWHERE,
            span=self._span(opening, take),
        )

    def reduction(self, parts: Parts) -> tree.Reduction:
        opening, _, *rest, body = parts
        every = is_token(rest[0], "ALL")
        over, *rest = rest[every:]
        rows = rest[1] if rest and is_token(rest[0], "IN") else None
        where = rest[-1] if rest and not isinstance(rest[-1], Word) else None
        how: typing.Any = str(opening)
        said = str(rows) if rows is not None else None
        spans = self._span(over), self._span(rows) if rows is not None else NOWHERE
        return tree.Reduction(
            how, str(over), body, where, every, said, *spans, self._span(opening, body)
        )


class _Among(typing.NamedTuple):
    units: str | Groups
    named: Span
    span: Span


class _Each(typing.NamedTuple):
    units: str | Groups | Numbers
    named: Span
    span: Span


class _Per(typing.NamedTuple):
    word: str
    named: Span
    span: Span


class _Keeping(typing.NamedTuple):
    body: tree.Expression
    span: Span


class _Column(typing.NamedTuple):
    word: str
    named: Span
    span: Span


class _Seed(typing.NamedTuple):
    body: tree.Expression
    span: Span


def _no_units(span: Span) -> Diagnostic:
    label = Label(span, "expected `blocks`")
    helps = (
        "units are `blocks(64)`, `blocks(32, every 16)`, `tiles(y = 4, x = 4) of image`, or a name that is declared",
    )
    return Diagnostic("A101", f"there are no units `{clip(span.text)}`", (label,), helps=helps)


def _is_expression(part: object) -> bool:
    """Whether it is no parameter and no clause."""
    return not isinstance(part, tree.Parameter | tuple)
