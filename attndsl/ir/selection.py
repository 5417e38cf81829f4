"""A selection: for each query, or unit of queries, the units of keys that are worth attending to, found from q and k.

```
selection = units [of queries] score where keeping choice shared
units     = Units size every whole                      -- tokens are blocks of one
score     = real | Pooled | Bound | Scale | Reduced | Series
choice    = top n | above x | reaching p | within p | sample n seed
```

It is made in seven stages, each a field:

1. units: what is chosen, blocks of keys; and for what it is chosen, queries or blocks of them.
2. summaries: `Pooled` vectors, one for each unit.
3. score: a real expression for each pair of query and unit. In it `Pos(KEY)` is the number of the unit, and
   `Pos(QUERY)` the position of the query, or the number of the unit of queries.
4. reduction: over the heads of a group, or over units that overlap the one that is scored.
5. candidates: ``where``, a condition of the pattern language on the numbers of query and unit.
6. choice: how many are taken, and which.
7. kept units: ``keeping``, those that are taken whatever their score, if they are candidates.

Rules that hold for all: scores are float32, rounded once from float64 arithmetic on float32 operands; of equal scores
the lower unit is taken; a score of -inf or NaN is never taken; kept units count among the n that are taken; a
selection carries no gradient, and is a function of positions alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from attndsl.ir import reals
from attndsl.ir.arithmetic import add, floordiv, minimum, scale, sub
from attndsl.ir.loops import substitute
from attndsl.ir.mask import Align, Table
from attndsl.ir.nodes import (
    Const,
    Deps,
    Index,
    Load,
    Loop,
    Node,
    Pos,
    Side,
    Size,
    Sort,
    Var,
    postorder,
)
from attndsl.ir.reals import Real, Vector


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

    @property
    def is_token(self) -> bool:
        """Whether they are single tokens."""
        return self.size == self.every == 1


TOKENS: Final = Units()
MOST_TAKEN: Final = 4096  # units of one query, as wide as any list of the language


class Pool(StrEnum):
    """How the vectors of a unit become one, float32: each channel for itself."""

    MEAN = "mean"
    MAX = "max"
    MIN = "min"


class Fold(StrEnum):
    """How many scores become one, or all of a row are normalised."""

    SUM = "sum"
    MAX = "max"
    SOFTMAX = "softmax"


class Shared(StrEnum):
    """For which heads a choice is made together."""

    NOTHING = "head"
    GROUP = "group"
    HEADS = "heads"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Pooled(Vector):
    """The mean, or the greatest or least of each channel, of the queries or keys of a unit, those that exist."""

    how: Pool
    side: Side
    units: Units

    def _own_deps(self) -> Deps:
        return Deps.BATCH | Deps.HEAD | self.side.deps


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Bound(Real):
    """The greatest inner product of the query with any vector between least and greatest of the unit's keys."""

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
    units: Units | Shared
    item: Node
    where: Node
    by_share: bool


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


class Take(StrEnum):
    """The ways of taking some of the candidates.

    - TOP: the n of the highest scores.
    - ABOVE: those whose score is greater than x.
    - REACHING: the fewest of the highest scores whose sum is at least p of that of all candidates.
    - WITHIN: as many of the highest scores as sum to at most p of that of all candidates.
    - SAMPLE: n of them, each as likely as another, drawn anew for each batch element, head, and query.
    """

    TOP = "top"
    ABOVE = "above"
    REACHING = "reaching"
    WITHIN = "within"
    SAMPLE = "sample"


@dataclass(frozen=True, slots=True)
class Choice:
    """``amount``: an int of TOP and SAMPLE, a real of the others, which depends on batch, head and query at most."""

    take: Take
    amount: Node
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Selection:
    """See above. ``queries`` is None where each query chooses for itself; ``tables`` are the inputs it reads.

    ``within`` are other selections that its conditions ask, whose tables are among ``tables``.
    """

    name: str
    units: Units
    queries: Units | None
    score: Node
    where: Node
    keeping: Node
    choice: Choice
    shared: Shared = Shared.NOTHING
    tables: tuple[Table, ...] = ()
    align: Align = Align.END
    within: tuple[Selection, ...] = ()
    doc: str = field(default="", compare=False)

    @property
    def digest(self) -> str:
        """Stable across processes and machines: 32 hex digits of everything that has meaning."""
        own = self.units, self.queries, self.choice.take, self.choice.seed, self.shared, self.align
        hasher = hashlib.blake2b(repr((self.name, own, self.tables)).encode(), digest_size=16)
        for node in self.expressions():
            hasher.update(node.digest)
        for each in self.within:
            hasher.update(each.digest.encode())
        return hasher.hexdigest()

    def expressions(self) -> Iterator[Node]:
        """All expressions in it."""
        yield from (self.score, self.where, self.keeping, self.choice.amount)

    @property
    def table(self) -> Table:
        """The input of a pattern that holds what was chosen: lists of units in ascending order, -1 behind them."""
        dims: list[str | int] = ["batch"]
        dims += [] if self.shared is Shared.HEADS else ["head"]
        dims += ["q" if self.queries is None else f"{self.name}_rows"]
        amount = self.choice.amount
        known = self.choice.take in (Take.TOP, Take.SAMPLE) and isinstance(amount, Const)
        dims += [amount.value if known and isinstance(amount, Const) else f"{self.name}_slots"]
        return Table(self.name, Sort.INT, tuple(dims), is_list=True)

    def row(self) -> Node:
        """The row of the table that is the query's, among those that a call has."""
        shift = self.shift
        if self.queries is None:
            return sub(Pos(Side.QUERY), shift)
        size = Const(self.queries.size)
        return sub(floordiv(Pos(Side.QUERY), size), floordiv(shift, size))

    @property
    def shift(self) -> Node:
        """The position of query 0."""
        return sub(Size("k"), Size("q")) if self.align is Align.END else Const(0)


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
        case Reduced(how=how, item=item):
            return how is Fold.SOFTMAX or is_nonnegative(item)
        case Series(body=body):
            return is_nonnegative(body)
        case _:
            return False


def varies_by(node: Node) -> Shared:
    """For which heads values of an expression are the same: for none, those of a group, or all of them."""
    known: dict[Node, Shared] = {}
    for each in postorder(node):
        match each:
            case Pooled(side=Side.KEY) | reals.Own(side=Side.KEY):
                own = Shared.GROUP
            case Pooled() | reals.Own() | Bound() | reals.Score():
                own = Shared.NOTHING
            case reals.Row(ambient=ambient) | Load(ambient=ambient):
                own = Shared.NOTHING if ambient & Deps.HEAD else Shared.HEADS
            case Var(name="head"):
                own = Shared.NOTHING
            case Reduced(units=Shared() as shared, item=item):
                known[each] = max(shared, known[item], key=_WIDTH.__getitem__)
                continue
            case _:
                own = Shared.HEADS
        known[each] = min((own, *map(known.__getitem__, each.parts)), key=_WIDTH.__getitem__)
    return known[node]


_WIDTH: Final = {Shared.NOTHING: 0, Shared.GROUP: 1, Shared.HEADS: 2}


def selection_fault(selection: Selection) -> tuple[str, str] | None:
    """The field that cannot be as it is, and why; None where there is such a selection."""
    if (fault := _amount_fault(selection.choice)) is not None:
        return "choice", fault
    take, queries = selection.choice.take, selection.queries
    if take in (Take.REACHING, Take.WITHIN) and not is_nonnegative(selection.score):
        return "score", f"`take {take.value}` adds scores up, and these may be negative"
    if take is Take.SAMPLE and not isinstance(selection.score, reals.Number):
        return "score", "a sample takes each candidate as likely as another, and reads no scores"
    if queries is not None and (queries.size != queries.every or queries.whole):
        return "queries", "each query is in one unit: blocks of queries follow each other"
    for name, node in (
        ("score", selection.score),
        ("where", selection.where),
        ("keeping", selection.keeping),
        ("choice", selection.choice.amount),
    ):
        if _WIDTH[varies_by(node)] < _WIDTH[selection.shared]:
            return name, "it is one choice for several heads, which differ in it"
    return None


def _amount_fault(choice: Choice) -> str | None:
    amount = choice.amount
    if choice.take in (Take.TOP, Take.SAMPLE):
        if isinstance(amount, Const) and 0 <= amount.value <= MOST_TAKEN:
            return None
        found = f", not {amount.value}" if isinstance(amount, Const) else ""
        return f"a number of units is a known int from 0 to {MOST_TAKEN}{found}"
    if amount.deps & Deps.PAIR:
        return "how much is taken is the same for all queries"
    is_share = choice.take is not Take.ABOVE
    if is_share and isinstance(amount, reals.Number) and not 0 < amount.value <= 1:
        return f"a share of the whole is greater than 0 and at most 1, not {amount.value}"
    return None
