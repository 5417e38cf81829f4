"""Long chains and lists that people generate: terms that repeat the one before them but for their numbers.

Such a term is not parsed. The tree of the one before it is made anew with other numbers and places, which takes a
fifth of the time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final, TypeAlias

from lark import Tree

from attndsl.source import Source, Span

from . import tree
from .building import LARGEST
from .clauses import Alike, Word
from .machine import Machine, Stack

SEPARATORS: Final = frozenset(("AND", "OR", "COMMA"))

# Numbers of a term in the order written, and by how much what stands behind so many of them is moved.
_Make: TypeAlias = Callable[[Sequence[int], Sequence[int]], Any]
_NUMBER = re.compile(r"\b[0-9]+")
_SEEN: Final = 8  # terms of one shape in a row, before the next ones are expected to repeat it


@dataclass(frozen=True, slots=True)
class Skipped:
    """Terms that were made without a parse: how many words they have, and where the text goes on."""

    words: int
    stop: int


@dataclass(slots=True)
class _Chain:
    """A chain or list while it is read."""

    terms: list[Any]  # but for the first
    stop: int  # of the last separator
    shape: str = ""  # of the last term
    seen: int = 0  # terms of that shape in a row


class _Otherwise(Exception):
    """A tree in which numbers stand that are no `Int`."""


class Repeats:
    """The chains and lists that are being read, by how deep they stand, and the last term of each."""

    def __init__(self, machine: Machine, source: Source, text: str, parse: Stack) -> None:
        self._machine, self._source, self._text, self._parse = machine, source, text, parse
        self._chains: dict[int, _Chain] = {}

    def behind(self, separator: Word, most: int) -> Skipped | None:
        """Makes the terms behind a separator that repeat the one before it, of so many words at the most."""
        before, depth = self._parse.values[-2], len(self._parse.stack)
        chain = self._chains.get(depth)
        terms = before.children if isinstance(before, Tree) else []
        if chain is None or chain.terms is not terms:
            self._chains[depth] = _Chain(terms, separator.stop)
            return None
        start, chain.stop = chain.stop, separator.stop
        shape = _NUMBER.sub("0", self._text[start : separator.stop])
        chain.seen = chain.seen + 1 if shape == chain.shape else 0
        chain.shape = shape
        if chain.seen < _SEEN or "#" in shape:
            return None
        chain.seen = 0
        if (made := self._made(start, separator, terms, most)) is not None:
            chain.stop = made.stop
        return made

    def _made(self, start: int, separator: Word, terms: list[Any], most: int) -> Skipped | None:
        text = self._text[start : separator.stop]
        words = list(self._machine.words(text))
        numbers = [word for word in words if word.kind == "INT"]
        try:
            make = _Maker(self._source, start, numbers).of_all(terms[-1])
        except _Otherwise:
            return None
        term, at, made = _reader(text, numbers, separator), separator.stop, list[Any]()
        stops = [number.stop for number in numbers]
        while (found := term.match(self._text, at)) and len(made) * len(words) <= most:
            values = list(map(int, found.groups()))
            if max(values, default=0) > LARGEST:
                break
            ends = [found.end(i + 1) - stop for i, stop in enumerate(stops)]
            made.append(make(values, [at, *ends]))
            at = found.end()
        if not made:
            return None
        terms += made if separator.kind == "COMMA" else [Alike(tuple(made))]
        return Skipped(len(made) * len(words), at)


def _reader(text: str, numbers: Sequence[Word], separator: Word) -> re.Pattern[str]:
    """A reader of the same term with other numbers, and of the separator behind it."""
    way, at = "", 0
    for word in numbers:
        way += f"{re.escape(text[at : word.start])}([0-9]{{1,10}})"
        at = word.stop
    return re.compile(way + re.escape(text[at:]) + (r"\b" if separator.isalpha() else ""))


class _Maker:
    """Makes trees like that of a term whose text began at ``start`` and held these numbers."""

    def __init__(self, source: Source, start: int, numbers: Sequence[Word]) -> None:
        self._source, self._start, self._numbers = source, start, numbers
        self._found = 0

    def of_all(self, term: Any) -> _Make:
        """A maker of the term, every number of which is an `Int`."""
        made = self._of(term)
        if self._found != len(self._numbers):
            raise _Otherwise
        return made

    def _of(self, value: Any) -> _Make:
        match value:
            case Span():
                (begin, first), (end, last) = self._place(value.start), self._place(value.stop)
                source = self._source
                return lambda _, moved: Span(source, begin + moved[first], end + moved[last])
            case tree.Int():
                self._found += 1
                at, (_, place) = self._of(value.span), self._place(value.span.start)
                return lambda values, moved: tree.Int(values[place], at(values, moved))
            case str() | bool() | None:
                return lambda _, __: value
            case tuple() if type(value) is tuple:
                makers = [self._of(each) for each in value]
                return lambda values, moved: tuple([make(values, moved) for make in makers])
            case _ if is_dataclass(value):
                cls: Any = type(value)
                parts = [self._of(getattr(value, each.name)) for each in fields(value)]
                return lambda values, moved: cls(*[make(values, moved) for make in parts])
            case _:
                raise _Otherwise

    def _place(self, offset: int) -> tuple[int, int]:
        """A place, counted from where the term begins, and how many numbers end before it."""
        place = offset - self._start
        return place, sum(number.stop <= place for number in self._numbers)
