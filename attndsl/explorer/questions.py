"""A question that the page asks, read from JSON: every field checked before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from attndsl import frontend

LONGEST_TEXT: Final = 1 << 18  # characters of a program
LONGEST: Final = 1 << 20  # tokens
MOST_HEADS: Final = 256
MOST_ELEMENTS: Final = 64  # of a batch
MOST_CELLS: Final = 1024  # of a picture, a side
_NAME: Final = 200  # characters


class BadQuestion(ValueError):
    """A question that the page does not ask; its text is one sentence."""


@dataclass(frozen=True, slots=True)
class Question:
    """A pattern with values, a call, and what of it is looked at. None: not said, so chosen here."""

    text: str
    entry: str | None = None
    values: Mapping[str, frontend.Given] = field(default_factory=dict)
    align: str | None = None
    layer: int = 0
    q_len: int | None = None
    k_len: int | None = None
    heads: int | None = None
    batch: int | None = None
    extents: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0
    head: int = 0
    element: int = 0
    head_dim: int = 64
    layout: str = "auto"
    rows: tuple[int, int] | None = None
    columns: tuple[int, int] | None = None
    cells: int = 512
    query: int | None = None
    key: int | None = None

    @staticmethod
    def read(data: Any) -> Question:
        """The question that JSON holds.

        Raises:
            BadQuestion: It is none.
        """
        if not isinstance(data, dict) or not isinstance(data.get("text"), str):
            raise BadQuestion("a question is an object with the text of a program")
        if len(data["text"]) > LONGEST_TEXT:
            raise BadQuestion(f"a program has at most {LONGEST_TEXT:,} characters here")
        if unknown := sorted(set(data) - set(_READERS)):
            raise BadQuestion(f"a question has no field {unknown[0][:40]!r}")
        return Question(
            **{
                name: _READERS[name](name, value)
                for name, value in data.items()
                if value is not None
            }
        )


def _text(name: str, value: Any) -> str:
    if isinstance(value, str) and (name == "text" or len(value) <= _NAME):
        return value
    raise BadQuestion(f"{name} is a short text")


def _number(low: int, high: int) -> Any:
    def read(name: str, value: Any) -> int:
        if type(value) is int and low <= value <= high:
            return value
        raise BadQuestion(f"{name} is a whole number from {low:,} to {high:,}")

    return read


def _pair(name: str, value: Any) -> tuple[int, int]:
    number = _number(0, LONGEST)
    if not isinstance(value, list) or len(value) != 2:
        raise BadQuestion(f"{name} are two numbers, first and stop")
    return number(name, value[0]), number(name, value[1])


def _extents(name: str, value: Any) -> dict[str, int]:
    return {key: _number(1, LONGEST)(name, size) for key, size in _mapping(name, value).items()}


def _values(name: str, value: Any) -> dict[str, frontend.Given]:
    def read(given: Any) -> frontend.Given:
        if isinstance(given, bool | int | float):
            return given
        if isinstance(given, list) and len(given) <= 4096 and all(type(x) is int for x in given):
            return given
        raise BadQuestion("a value is a number, true, false, or a list of whole numbers")

    return {key: read(given) for key, given in _mapping(name, value).items()}


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and len(value) <= 64 and all(len(key) <= _NAME for key in value):
        return value
    raise BadQuestion(f"{name} are given by name")


_READERS: Final = {
    "text": _text,
    "entry": _text,
    "values": _values,
    "align": _text,
    "layer": _number(0, 1 << 16),
    "q_len": _number(1, LONGEST),
    "k_len": _number(1, LONGEST),
    "heads": _number(1, MOST_HEADS),
    "batch": _number(1, MOST_ELEMENTS),
    "extents": _extents,
    "seed": _number(0, 1 << 31),
    "head": _number(0, MOST_HEADS - 1),
    "element": _number(0, MOST_ELEMENTS - 1),
    "head_dim": _number(1, 1 << 14),
    "layout": _text,
    "rows": _pair,
    "columns": _pair,
    "cells": _number(8, MOST_CELLS),
    "query": _number(0, LONGEST),
    "key": _number(0, LONGEST),
}
