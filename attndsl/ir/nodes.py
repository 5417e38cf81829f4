"""The closed set of IR nodes: everything a pattern can mean, on one page.

```
int  = Const value | Pos side | Coord side axis | Size name | Var name | Index level
     | Sum ((int, coefficient)*, constant) | Mul int int | FloorDiv int int | Mod int int
     | Min int* | Max int* | Abs int | ILog2 int | Pow2 int | Select bool int int
     | Load table int*                                        -- an int table
     | Total level int int int | Entry value* int
bool = BoolConst value | Inside side segment | Le int bound | Eq int bound
     | Not bool | And bool* | Or bool* | Exists level int int bool
     | Load table int*                                        -- a bool table
```

Nodes are immutable and hash-consed: two equal expressions are one object, so ``is`` is equality and a
dictionary keyed by nodes is a memo table. Build them with the functions of ``arithmetic``, ``logic`` and
``loops``, which keep the canonical form (sums are linear combinations ordered by digest, comparisons have
their constant on the right, negations sit on the leaves); the classes themselves only store.

Every node knows its ``deps``: which of batch, head, query and key its value depends on. Code generation
hoists by them, and the analysis summarises per-query and per-key terms once per tile.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from dataclasses import dataclass, field, fields
from enum import IntFlag, StrEnum
from typing import Any, ClassVar, Final, TypeAlias, cast
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
        if kind is Sum:
            total = cast(Sum, self)
            spelled = [_spelled_terms(total.terms, parts), _spelled(total.constant, parts)]
        else:
            spelled = [_spelled(getattr(self, name), parts) for name in field_names(kind)]
        text = b"".join((_spelled_tag(kind), *spelled))
        deps, held = int(self._own_deps()), kind.bit
        for part in parts:
            deps |= int(part.deps)
            held |= part.held
        object.__setattr__(self, "deps", _DEPS[deps])
        object.__setattr__(self, "is_pair", deps & _PAIR == _PAIR)
        object.__setattr__(self, "digest", hashlib.blake2b(text, digest_size=16).digest())
        object.__setattr__(self, "parts", tuple(parts))
        object.__setattr__(self, "held", held)
        object.__setattr__(self, "sort", self._own_sort())

    def _own_deps(self) -> Deps:
        return Deps.NONE

    def __repr__(self) -> str:
        return _written(self, _SHOWN_LEVELS)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, name) for name in field_names(type(self)))

    def _own_sort(self) -> Sort:
        return Sort.BOOL if type(self) in TRUTHS else Sort.INT


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


_PAIR = int(Deps.PAIR)
_DEPS = tuple(map(Deps, range(16)))  # numbers are joined several times faster than flags


@functools.cache
def field_names(kind: type[Node]) -> tuple[str, ...]:
    """The fields that a node of the class is made of, in order."""
    return tuple(item.name for item in fields(kind) if item.init)


def _spelled(value: object, parts: list[Node]) -> bytes:
    """A field as bytes, unambiguously; the nodes in it are appended to ``parts``, left to right."""
    if type(value) is int:
        return _spelled_number(value)
    if type(value) is tuple:
        return b"".join((b"t%d:" % len(value), *[_spelled(item, parts) for item in value]))
    if isinstance(value, Node):
        parts.append(value)
        return b"n" + value.digest
    return _spelled_value(value)


def _spelled_terms(terms: tuple[tuple[Node, int], ...], parts: list[Node]) -> bytes:
    """Bytes as of `_spelled`, several times faster: sums may be long."""
    parts += [term for term, _ in terms]
    pairs = [b"t2:n%b%b" % (term.digest, _spelled_number(factor)) for term, factor in terms]
    return b"t%d:%b" % (len(terms), b"".join(pairs))


@functools.cache
def _spelled_tag(kind: type[Node]) -> bytes:
    return tag_of(kind).encode()


def _spelled_value(value: object) -> bytes:
    text = f"{tag_of(type(value))}:{value}".encode()
    return b"v%d:" % len(text) + text


_spelled_number = functools.lru_cache(4096)(_spelled_value)  # of an int, not of a bool, its equal


# ---------------------------------------------------------------- integers


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Const(Node):
    """An integer constant."""

    value: int


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Pos(Node):
    """Flat position of the query or key in its space. Queries are shifted when ends are aligned."""

    side: Side

    def _own_deps(self) -> Deps:
        return self.side.deps


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Coord(Node):
    """Coordinate on ``axis`` ("segment.axis"); -1 for a token whose segment lacks the axis."""

    side: Side
    axis: str

    def _own_deps(self) -> Deps:
        return self.side.deps


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Size(Node):
    """A length known when tensors are: "q", "k", "segment", "segment.axis", "table:dim"."""

    name: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Var(Node):
    """One of head, heads, batch, layer."""

    name: str

    def _own_deps(self) -> Deps:
        return {"head": Deps.HEAD, "batch": Deps.BATCH}.get(self.name, Deps.NONE)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Index(Node):
    """The variable of the enclosing ``Exists`` or ``Total`` of that level."""

    level: int


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Sum(Node):
    """Linear combination: sum of coefficient * term, plus a constant. Terms are not sums."""

    terms: tuple[tuple[Node, int], ...]
    constant: int


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Mul(Node):
    """Product of two non-constant integers."""

    left: Node
    right: Node


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FloorDiv(Node):
    """Floor of the quotient; 0 where the divisor is not positive."""

    left: Node
    right: Node


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Mod(Node):
    """Non-negative remainder; 0 where the divisor is not positive."""

    left: Node
    right: Node


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Min(Node):
    """Least of two or more integers."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Max(Node):
    """Greatest of two or more integers."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Abs(Node):
    """Absolute value."""

    item: Node


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ILog2(Node):
    """Floor of the binary logarithm; -1 for arguments below 1."""

    item: Node


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Pow2(Node):
    """Two to the power of the argument for 0 <= argument <= 62, else 0."""

    item: Node


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Select(Node):
    """``if cond then yes else no`` on integers."""

    cond: Node
    yes: Node
    no: Node


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Entry(Node):
    """An entry of a long list of known numbers; 0 outside the list."""

    values: tuple[int, ...]
    index: Node


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Total(Node):
    """Sum of the body over all integers in ``[start, stop)``; 0 over none. Levels as for ``Exists``."""

    level: int
    start: Node
    stop: Node
    body: Node


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Load(Node):
    """A run-time table read at an index; 0 (false) outside the table."""

    table: str
    kind: Sort
    index: tuple[Node, ...]
    ambient: Deps  # batch and head dims are implicit: the table's own rank

    def _own_deps(self) -> Deps:
        return self.ambient

    def _own_sort(self) -> Sort:
        return self.kind


# ---------------------------------------------------------------- truth values


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class BoolConst(Node):
    """True or false."""

    value: bool


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Inside(Node):
    """Whether the token lies in the named segment of its space."""

    side: Side
    segment: str

    def _own_deps(self) -> Deps:
        return self.side.deps


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Le(Node):
    """``item <= bound``; the item carries no constant and its coefficients have no common factor."""

    item: Node
    bound: int


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Eq(Node):
    """``item == bound``; as for AtMost, and the first coefficient is positive."""

    item: Node
    bound: int


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Not(Node):
    """Negation of an Equals, Inside, Exists or bool Load (others are negated by rewriting)."""

    item: Node


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class And(Node):
    """Conjunction of two or more."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Or(Node):
    """Disjunction of two or more."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Exists(Node):
    """Some integer in ``[start, stop)`` makes the body true. ``level`` exceeds every level inside."""

    level: int
    start: Node
    stop: Node
    body: Node


TRUTHS: Final = (BoolConst, Inside, Le, Eq, Not, And, Or, Exists)  # beside tables of truth values

Atom: TypeAlias = Const | Pos | Coord | Size | Var | Index | BoolConst | Inside
Arithmetic: TypeAlias = (
    Sum | Mul | FloorDiv | Mod | Min | Max | Abs | ILog2 | Pow2 | Select | Load | Entry | Total
)
Logic: TypeAlias = Le | Eq | Not | And | Or | Exists
AnyNode: TypeAlias = Atom | Arithmetic | Logic

LOOPS: Final = (Exists, Total)  # what binds a variable
Loop: TypeAlias = Exists | Total


def holds(root: Node, *kinds: type[Node]) -> bool:
    """Whether a node of one of the classes is in an expression; nothing is walked."""
    return bool(root.held & _bits(kinds))


def _bits(kinds: tuple[type[Node], ...]) -> int:
    return functools.reduce(int.__or__, (kind.bit for kind in kinds), 0)


def postorder(root: Node, *within: type[Node]) -> list[Node]:
    """Every distinct node of ``root``, parts first. Iterative: depth is no limit.

    With ``within``, those alone that hold, or are, a node of one of these classes.
    """
    wanted = _bits(within) if within else -1
    found: list[Node] = []
    seen: set[Node] = set()
    stack: list[Node | None] = [root]  # None stands above a node whose parts are done
    while stack:
        node = stack.pop()
        if node is None:
            found.append(cast(Node, stack.pop()))
        elif node.held & wanted and node not in seen:
            seen.add(node)
            if parts := node.parts:
                stack += (node, None)
                stack += parts[::-1]
            else:
                found.append(node)
    return found


def is_larger(root: Node, most: int) -> bool:
    """Whether an expression has more nodes and operands than that, all together; it is looked at no further."""
    seen = {root}
    stack = [root]
    while stack and most >= 0:
        parts = stack.pop().parts
        most -= 1 + len(parts)
        fresh = set(parts) - seen
        seen |= fresh
        stack += fresh
    return most < 0


LARGEST: Final = 1 << 62  # constants are smaller, so that sums of two fit 64 bits


def largest(node: Node) -> int:
    """The greatest magnitude of the constants in this very node."""
    match node:
        case Const(value=value):
            return abs(value)
        case Sum(terms=terms, constant=constant):
            return max(abs(constant), *(abs(factor) for _, factor in terms))
        case Le(item=item, bound=bound) | Eq(item=item, bound=bound):
            return max(abs(bound), largest(item) if isinstance(item, Sum) else 0)
        case _:
            return 0


def numbers(root: Node) -> set[int]:
    """The numbers in an expression, without their signs: its edges lie around them."""
    found = set()
    for node in postorder(root):
        match node:
            case Le(bound=value) | Eq(bound=value) | Const(value=value):
                found.add(abs(value))
            case _:
                pass
    return found
