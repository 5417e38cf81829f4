"""Fields of a saved document, read one by one: nothing in it is believed."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from attndsl.ir.rules import is_name
from attndsl.ir.walks import LARGEST
from attndsl.source import AttnDslError, Diagnostic

E_ = TypeVar("E_", bound=StrEnum)


def not_saved(note: str) -> AttnDslError:
    """The fault of a text that is no saved pattern."""
    return AttnDslError(Diagnostic("A405", "not a saved pattern", notes=(note,)))


def parsed(text: str) -> Any:
    """A document, each of whose fields stands there once."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a field stands there twice")
        return found

    return json.loads(text, object_pairs_hook=once)


@dataclass(frozen=True, slots=True)
class Field:
    """A value of a document and where it stands. Each method gives it as what it must be, or raises ValueError."""

    value: Any
    path: str

    def wrong(self, wanted: str) -> ValueError:
        """The error where something else was wanted."""
        return ValueError(f"{self.path or 'the document'}: expected {wanted}, not {self._shown()}")

    def _shown(self) -> str:
        match self.value:
            case dict():
                return "an object"
            case list():
                return f"a list of {len(self.value)}"
            case int() if not -(10**20) < self.value < 10**20:
                return f"a number of {self.value.bit_length()} bits"
            case _:
                return f"{json.dumps(self.value):.60}"

    def part(self, key: str) -> Field:
        """The field of an object."""
        if type(self.value) is not dict or key not in self.value:
            raise self.wrong(f"an object with the field {key!r}")
        return Field(self.value[key], f"{self.path}.{key}".lstrip("."))

    def items(self, least: int = 0) -> Iterator[Field]:
        """The items of a list."""
        if type(self.value) is not list or len(self.value) < least:
            raise self.wrong(f"a list of {least} or more" if least else "a list")
        return (Field(item, f"{self.path}[{place}]") for place, item in enumerate(self.value))

    def row(self, *names: str) -> tuple[Field, ...]:
        """The items of a list of just these."""
        if type(self.value) is not list or len(self.value) != len(names):
            raise self.wrong(f"a list of {', '.join(names)}")
        pairs = zip(names, self.value, strict=True)
        return tuple(Field(item, f"{self.path}.{name}") for name, item in pairs)

    def number(self, low: int = 1 - LARGEST, high: int = LARGEST - 1) -> int:
        """An integer between two bounds, both included."""
        if type(self.value) is not int or not low <= self.value <= high:
            raise self.wrong(f"an integer from {low} to {high}")
        return self.value

    def truth(self) -> bool:
        """True or false."""
        if type(self.value) is not bool:
            raise self.wrong("true or false")
        return self.value

    def text(self) -> str:
        """Any text that can be written."""
        if type(self.value) is not str:
            raise self.wrong("text")
        try:
            self.value.encode()
        except UnicodeEncodeError:
            raise self.wrong("whole characters") from None
        return self.value

    def name(self) -> str:
        """A name of the language."""
        if type(self.value) is not str or not is_name(self.value):
            raise self.wrong("a name")
        return self.value

    def word(self, *words: str) -> str:
        """One of some words."""
        if type(self.value) is not str or self.value not in words:
            raise self.wrong(" or ".join(map(repr, words)))
        return self.value

    def declared(self, names: Collection[str]) -> str:
        """One of the names that there are."""
        if type(self.value) is not str or self.value not in names:
            raise self.wrong("one that is declared")
        return self.value

    def one_of(self, kind: type[E_]) -> E_:
        """A member of an enumeration."""
        return kind(self.word(*(member.value for member in kind)))
