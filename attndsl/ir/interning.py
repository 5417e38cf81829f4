"""The base of every node of the IR: interned, with a digest, and knowing what its value depends on.

Nodes are immutable and hash-consed: two equal expressions are one object, so ``is`` is equality and a
dictionary keyed by nodes is a memo table. The kinds of nodes are in ``nodes`` and ``reals``.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from dataclasses import dataclass, field, fields
from enum import IntFlag, StrEnum
from typing import Any, ClassVar, Final
from weakref import WeakValueDictionary

# Classes that were renamed: digests and saved patterns know them by their first names, so that both stay valid.
_FIRST_NAMES: Final = {
    "BoolConst": "Truth",
    "Le": "AtMost",
    "Eq": "Equals",
    "Deps": "Rank",
}


def tag_of(cls: type) -> str:
    """The name under which digests and saved patterns know a class."""
    return _FIRST_NAMES.get(cls.__name__, cls.__name__)


class Deps(IntFlag):
    """The set of things a value depends on, beside lengths and parameters."""

    NONE = 0
    BATCH = 1
    HEAD = 2
    QUERY = 4
    KEY = 8
    PAIR = 12


class Side(StrEnum):
    """Whose position: the query's or the key's."""

    QUERY = "q"
    KEY = "k"

    @property
    def deps(self) -> Deps:
        """The rank of a value that depends on this side alone."""
        return Deps.QUERY if self is Side.QUERY else Deps.KEY

    @property
    def other(self) -> Side:
        """The opposite side."""
        return Side.KEY if self is Side.QUERY else Side.QUERY


class Sort(StrEnum):
    """The types of expressions; masks are made of the first two."""

    INT = "int"
    BOOL = "bool"
    REAL = "real"
    VECTOR = "vector"


class _Interned(type):
    """Hash-consing: constructing a node that already exists returns the existing one."""

    bit: int
    """A power of two, the class's own."""
    _bits: ClassVar[dict[tuple[str, str], int]] = {}
    _nodes: ClassVar[WeakValueDictionary[tuple[Any, ...], Node]] = WeakValueDictionary()
    _lock = threading.Lock()

    def __init__(cls, name: str, *args: Any, **options: Any) -> None:
        super().__init__(name, *args, **options)
        # by name, as a class with slots is made twice
        cls.bit = _Interned._bits.setdefault((cls.__module__, name), 1 << len(_Interned._bits))

    def __call__(cls, *args: Any) -> Any:
        key = (cls, *args)
        found = _Interned._nodes.get(key)
        if found is not None:
            return found
        node = super().__call__(*args)
        with _Interned._lock:
            return _Interned._nodes.setdefault(key, node)


@dataclass(frozen=True, slots=True, eq=False, repr=False, weakref_slot=True)
class Node(metaclass=_Interned):
    """Base of all nodes: identity is equality; ``digest`` is stable across processes."""

    deps: Deps = field(init=False, repr=False)
    is_pair: bool = field(init=False, repr=False)
    """Whether the value depends on the query and the key together."""
    digest: bytes = field(init=False, repr=False)
    parts: tuple[Node, ...] = field(init=False, repr=False)
    """The direct sub-expressions, left to right."""
    held: int = field(init=False, repr=False)
    """The bits of the classes of all nodes in it, its own included: see `holds`."""
    sort: Sort = field(init=False, repr=False)
    """The type of its value."""

    def __post_init__(self) -> None:
        parts: list[Node] = []
        kind: type[Node] = type(self)
        text = b"".join((_spelled_tag(kind), *self._own_spelling(parts)))
        deps, held = int(self._own_deps()), kind.bit
        for part in parts:
            deps |= int(part.deps)
            held |= part.held
        _set(self, "deps", _DEPS[deps])
        _set(self, "is_pair", deps & _PAIR == _PAIR)
        _set(self, "digest", _blake2b(text, digest_size=16).digest())
        _set(self, "parts", tuple(parts))
        _set(self, "held", held)
        _set(self, "sort", self._own_sort())

    def _own_deps(self) -> Deps:
        return Deps.NONE

    def _own_sort(self) -> Sort:
        return Sort.INT

    def _own_spelling(self, parts: list[Node]) -> list[bytes]:
        """The fields as bytes, in order; the nodes in them are appended to ``parts``, left to right."""
        return [spelled(getattr(self, name), parts) for name in field_names(type(self))]

    def __repr__(self) -> str:
        return _written(self, _SHOWN_LEVELS)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, name) for name in field_names(type(self)))


# Shared parts would be written once for each path to them, which may be without end; `show` writes all of it.
_SHOWN_LEVELS = 3
_SHOWN_ITEMS = 8


def _written(value: object, levels: int) -> str:
    """A node as Python would write it, its innermost parts and later items left out."""
    if isinstance(value, tuple):
        some = [_written(item, levels) for item in value[:_SHOWN_ITEMS]]
        return f"({', '.join([*some, *['...'] * (len(value) > _SHOWN_ITEMS)])})"
    if not isinstance(value, Node):
        return repr(value)
    if not levels:
        return f"{type(value).__name__}(...)"
    given = ((name, getattr(value, name)) for name in field_names(type(value)))
    parts = (f"{name}={_written(item, levels - 1)}" for name, item in given)
    return f"{type(value).__name__}({', '.join(parts)})"


_set = object.__setattr__  # looked up once: texts may make hundreds of thousands of nodes
_blake2b = hashlib.blake2b
_PAIR = int(Deps.PAIR)
_DEPS = tuple(map(Deps, range(16)))  # numbers are joined several times faster than flags


@functools.cache
def field_names(kind: type[Node]) -> tuple[str, ...]:
    """The fields that a node of the class is made of, in order."""
    return tuple(item.name for item in fields(kind) if item.init)


def spelled(value: object, parts: list[Node]) -> bytes:
    """A field as bytes, unambiguously; the nodes in it are appended to ``parts``, left to right."""
    if type(value) is int:
        return spelled_number(value)
    if type(value) is tuple:
        return b"".join((b"t%d:" % len(value), *[spelled(item, parts) for item in value]))
    if isinstance(value, Node):
        parts.append(value)
        return b"n" + value.digest
    return _spelled_value(value)


@functools.cache
def _spelled_tag(kind: type[Node]) -> bytes:
    return tag_of(kind).encode()


def _spelled_value(value: object) -> bytes:
    text = f"{tag_of(type(value))}:{value}".encode()
    return b"v%d:" % len(text) + text


spelled_number = functools.lru_cache(4096)(_spelled_value)  # of an int, not of a bool, its equal
