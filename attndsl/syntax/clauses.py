"""Clauses on their way from grammar rules to tree nodes, and what is wrong with them."""

from __future__ import annotations

import typing

from attndsl.source import Diagnostic, Label, Span

from . import tree

Parts: typing.TypeAlias = list[typing.Any]  # words, and nodes that earlier callbacks returned


class Word(str):
    """A word or sign of a text, by the name of its terminal in grammar.lark; characters [start, stop)."""

    __slots__ = ("kind", "start", "stop")
    kind: str
    start: int
    stop: int


class TreeError(Exception):
    """The grammar reads it, the language does not."""

    def __init__(self, diagnostic: Diagnostic, offset: int | None = None) -> None:
        """Take what to tell the user, and where reading stopped if that is elsewhere."""
        super().__init__(diagnostic, offset)
        self.diagnostic = diagnostic
        span = diagnostic.span
        self.offset = offset if offset is not None else span.start if span else 0


class Alike(typing.NamedTuple):
    """Operands of a chain that repeat the one before them but for their numbers."""

    operands: tuple[tree.Expression, ...]


class Align(typing.NamedTuple):
    align: tree.Align
    span: Span


class Where(typing.NamedTuple):
    conditions: tuple[tree.Expression, ...]
    span: Span


def sort_clauses(clauses: Parts, whose: str = "a pattern") -> dict[type, typing.Any]:
    found: dict[type, typing.Any] = {}
    for clause in clauses:
        if type(clause) in found:
            raise TreeError(written_twice(found[type(clause)].span, clause.span, whose))
        found[type(clause)] = clause
    return found


def is_token(part: object, kind: str) -> bool:
    return isinstance(part, Word) and part.kind == kind


def written_twice(first: Span, second: Span, whose: str) -> Diagnostic:
    word = second.text.split(maxsplit=1)[0]
    return Diagnostic(
        code="A109",
        title=f"{whose} has one `{word}` clause",
        labels=(Label(second, "written again here"), Label(first, "first here", primary=False)),
        helps=("separate conditions by commas: `where a >= 0, b >= 0`",) if word == "where" else (),
    )


def clip(text: str, most: int = 40) -> str:
    """The text, or its beginning and dots."""
    return text if len(text) <= most else f"{text[: most - 3]}..."
