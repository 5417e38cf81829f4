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

from dataclasses import dataclass
from typing import Final, TypeAlias

from attndsl.ir.interning import Deps, Node, Side, Sort, spelled, spelled_number

# ---------------------------------------------------------------- integers


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Const(Node):
    """An integer constant."""

    value: int

    def _own_spelling(self, parts: list[Node]) -> list[bytes]:
        return [spelled_number(self.value)]  # as `spelled` does, faster: texts may hold thousands


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

    def _own_spelling(self, parts: list[Node]) -> list[bytes]:
        # the bytes of `spelled`, several times faster: sums may be long
        parts += [term for term, _ in self.terms]
        pairs = [b"t2:n%b%b" % (term.digest, spelled_number(factor)) for term, factor in self.terms]
        return [b"t%d:%b" % (len(pairs), b"".join(pairs)), spelled(self.constant, parts)]


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
class _Truth(Node):
    def _own_sort(self) -> Sort:
        return Sort.BOOL


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class BoolConst(_Truth):
    """True or false."""

    value: bool


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Inside(_Truth):
    """Whether the token lies in the named segment of its space."""

    side: Side
    segment: str

    def _own_deps(self) -> Deps:
        return self.side.deps


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Le(_Truth):
    """``item <= bound``; the item carries no constant and its coefficients have no common factor."""

    item: Node
    bound: int

    def _own_spelling(self, parts: list[Node]) -> list[bytes]:
        return _spelled_bound(self, parts)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Eq(_Truth):
    """``item == bound``; as for AtMost, and the first coefficient is positive."""

    item: Node
    bound: int

    def _own_spelling(self, parts: list[Node]) -> list[bytes]:
        return _spelled_bound(self, parts)


def _spelled_bound(node: Le | Eq, parts: list[Node]) -> list[bytes]:
    parts.append(node.item)
    return [b"n", node.item.digest, spelled_number(node.bound)]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Not(_Truth):
    """Negation of an Equals, Inside, Exists or bool Load (others are negated by rewriting)."""

    item: Node


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class And(_Truth):
    """Conjunction of two or more."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Or(_Truth):
    """Disjunction of two or more."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Exists(_Truth):
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
