"""Nodes of the scores of units: summaries, what compares them, and folds over heads, units and queries.

```
vector = Pooled how side units | Unit vector | Row | Own
real   = Bound units | Antidiagonal units | Scale
       | Reduced how units real bool      -- over heads, or over units that overlap the one that is scored
       | RowFold how units real bool      -- over all units of the row: one number for all that are scored
       | QueryFold how units real bool    -- over the queries of the unit of queries that chooses
       | Series int int real
bool   = Exceeds real real
```
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from attndsl.ir import reals
from attndsl.ir.arithmetic import add, floordiv, minimum, scale
from attndsl.ir.interning import Deps, Node, Side, Sort
from attndsl.ir.loops import substitute
from attndsl.ir.nodes import Const, Index, Load, Loop, Pos, Var
from attndsl.ir.reals import Real, Vector
from attndsl.ir.tiles import Tiles
from attndsl.ir.walks import postorder


@dataclass(frozen=True, slots=True)
class Units:
    """Blocks of ``size`` tokens, a new one every ``every`` tokens; ``whole`` leaves out those that the end cuts."""

    size: int = 1
    every: int = 1
    whole: bool = False

    def count(self, length: int) -> int:
        """How many there are of a sequence."""
        if self.whole:
            return max(0, (length - self.size) // self.every + 1)
        return -(-length // self.every)

    def start(self, number: Node) -> Node:
        """The first token of a unit."""
        return scale(number, self.every)

    def end(self, number: Node, length: Node) -> Node:
        """The token behind the last of a unit, cut at the end of the sequence."""
        return minimum(add(self.start(number), Const(self.size)), length)

    def number_of(self, position: Node) -> Node:
        """The unit that a token is in, where they follow each other."""
        return floordiv(position, Const(self.size))

    @property
    def is_token(self) -> bool:
        """Whether they are single tokens."""
        return self.size == self.every == 1

    @property
    def is_partition(self) -> bool:
        """Whether each token is in one of them."""
        return self.size == self.every and not self.whole


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers in [0, stop), which are no tokens: clusters, say. ``stop`` depends on no position."""

    stop: Node


Groups: TypeAlias = Units | Tiles
"""Units of tokens."""
TOKENS: Final = Units()
LARGEST_UNIT: Final = 1 << 20  # tokens
WHOLE: Final = Units(1 << 40, 1 << 40)  # more tokens than any sequence has: one unit of all of them


class Pool(StrEnum):
    """How the vectors of a unit become one, float32: each channel for itself."""

    MEAN = "mean"
    MAX = "max"
    MIN = "min"


class Fold(StrEnum):
    """How many scores become one, or all of a row are normalised."""

    SUM = "sum"
    MAX = "max"
    LSE = "lse"
    SOFTMAX = "softmax"


class Shared(StrEnum):
    """For which heads a choice is made together."""

    NOTHING = "head"
    GROUP = "group"
    HEADS = "heads"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Pooled(Vector):
    """The mean, or the greatest or least of each channel, of the queries or keys of a unit, those that exist.

    ``normal``: each vector is divided by its length before, see `Unit`.
    """

    how: Pool
    side: Side
    units: Groups
    normal: bool

    def _own_deps(self) -> Deps:
        return Deps.BATCH | Deps.HEAD | self.side.deps


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Unit(Vector):
    """A vector divided by its length; zeros where that is 0."""

    item: Node


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Bound(Real):
    """The greatest inner product of the query with any vector between least and greatest of the unit's keys."""

    units: Groups

    def _own_deps(self) -> Deps:
        return Deps.BATCH | Deps.HEAD | Deps.PAIR


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Antidiagonal(Real):
    """The sum of the inner products of query i of a block of queries with key size - 1 - i of one of keys, all i.

    ``units`` are the blocks, of queries and of keys. Tokens that do not exist add nothing.
    """

    units: Units

    def _own_deps(self) -> Deps:
        return Deps.BATCH | Deps.HEAD | Deps.PAIR


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Scale(Real):
    """The factor of the call on inner products, 1/sqrt(D) by default."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Reduced(Real):
    """Scores folded: over the heads that ``units`` names, those of a group or all, or over units of keys.

    A softmax normalises over all units for which ``where`` holds, and is 0 at others. A sum or maximum goes over the
    units that overlap the one of the expression around, for which ``where`` holds; a sum over none is 0, a maximum
    -inf. With ``by_share`` each counts by the share of it that lies within. In ``where`` and ``item``, `Pos(KEY)`
    is the number among ``units``.
    """

    how: Fold
    units: Groups | Shared
    item: Node
    where: Node
    by_share: bool


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RowFold(Real):
    """The sum, maximum or log-sum-exp over all ``units`` of keys for which ``where`` holds: one number for a query.

    In ``where`` and ``item``, `Pos(KEY)` is the number among ``units``.
    """

    how: Fold
    units: Groups
    item: Node
    where: Node


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class QueryFold(Real):
    """The sum or maximum over the queries of the unit of queries that chooses, those for which ``where`` holds.

    In ``where`` and ``item``, `Pos(QUERY)` is the query's position, or the number of one of the units of queries
    ``rows`` that make up the one that chooses. With ``by_distance`` the value at key d is made of those of the pairs
    (q, q - d): sums along diagonals.
    """

    how: Fold
    rows: Units
    item: Node
    where: Node
    by_distance: bool


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Exceeds(Node):
    """Whether the left real is greater than the right one, or as great where ``or_equal``; not where one is NaN."""

    left: Node
    right: Node
    or_equal: bool

    def _own_sort(self) -> Sort:
        return Sort.BOOL


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Series(Real):
    """The sum of the body over all integers in [start, stop), the variable `Index` of that level."""

    level: int
    start: Node
    stop: Node
    body: Node


def series(start: Node, stop: Node, body: Callable[[Node], Node]) -> Node:
    """The sum of real ``body(j)`` over all j in [start, stop)."""
    placeholder = Index(-1)
    made = reals.as_real(body(placeholder))
    levels = (node.level for node in postorder(made) if isinstance(node, Loop | Series))
    level = 1 + max(levels, default=-1)
    return Series(level, start, stop, substitute(made, {placeholder: Index(level)}))


def compared(operator: str, left: Node, right: Node) -> Node | None:
    """The comparison of two reals by an operator of the language; None for `==` and `!=`."""
    sides = reals.as_real(left), reals.as_real(right)
    if operator in ("<", "<="):
        sides = sides[1], sides[0]
    elif operator not in (">", ">="):
        return None
    return Exceeds(*sides, operator.endswith("="))


def is_nonnegative(node: Node) -> bool:
    """Whether a real expression is plainly never below 0."""
    match node:
        case reals.Number(value=value):
            return value >= 0
        case reals.Apply(function=function, item=item):
            return function in ("exp", "exp2", "sigmoid", "softplus", "relu", "sqrt", "abs", "step")
        case reals.Plus(items=items):
            return all(map(is_nonnegative, items))
        case reals.Times(left=left, right=right) | reals.Over(left=left, right=right):
            return is_nonnegative(left) and is_nonnegative(right)
        case reals.Least(left=left, right=right):
            return is_nonnegative(left) and is_nonnegative(right)
        case reals.Choose(yes=left, no=right):
            return is_nonnegative(left) and is_nonnegative(right)
        case reals.Greatest(left=left, right=right):
            return is_nonnegative(left) or is_nonnegative(right)
        case Reduced(how=how, item=item) | RowFold(how=how, item=item):
            return how is Fold.SOFTMAX or (how is not Fold.LSE and is_nonnegative(item))
        case QueryFold(item=item) | Series(body=item):
            return is_nonnegative(item)
        case _:
            return False


def varies_by(node: Node) -> Shared:
    """For which heads values of an expression are the same: for none, those of a group, or all of them."""
    known: dict[Node, Shared] = {}
    for each in postorder(node):
        match each:
            case Pooled(side=Side.KEY) | reals.Own(side=Side.KEY):
                own = Shared.GROUP
            case Pooled() | reals.Own() | Bound() | Antidiagonal() | reals.Score():
                own = Shared.NOTHING
            case reals.Row(ambient=ambient) | Load(ambient=ambient):
                own = Shared.NOTHING if ambient & Deps.HEAD else Shared.HEADS
            case Var(name="head"):
                own = Shared.NOTHING
            case Reduced(units=Shared() as shared, item=item):
                known[each] = max(shared, known[item], key=WIDTH.__getitem__)
                continue
            case _:
                own = Shared.HEADS
        known[each] = min((own, *map(known.__getitem__, each.parts)), key=WIDTH.__getitem__)
    return known[node]


WIDTH: Final = {Shared.NOTHING: 0, Shared.GROUP: 1, Shared.HEADS: 2}
"""The kinds of sharing, from none to most."""


def sides_read(node: Node, *, folds_all: bool = False) -> Deps:
    """Whether a value changes with the query, and with the unit of keys: what folds go over does not count.

    ``folds_all``: folds over queries go over all of them, and not over those of a unit.
    """
    found, waiting, seen = Deps.NONE, [node], set[Node]()
    while waiting:
        each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        match each:
            case Pos(side=side) | Pooled(side=side) | reals.Own(side=side):
                found |= side.deps
            case Bound() | Antidiagonal() | reals.Score():
                found |= Deps.PAIR
            case RowFold():
                found |= each.deps & Deps.QUERY
            case QueryFold():
                found |= Deps.KEY if folds_all else Deps.PAIR
            case _:
                waiting += each.parts
    return found
