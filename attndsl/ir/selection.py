"""A selection: for each query, or unit of queries, the units of keys that are worth attending to, found from q and k.

```
selection = units [of rows] score where keeping choice shared [by column]
units     = Units size every whole | Tiles space sizes | Numbers stop         -- tokens are blocks of one
rows      = Units | Tiles | Numbers                       -- queries without it
choice    = top n | above x | reaching p | within p | sample n seed
rank      = side int int ...
```

It is made in seven stages, each a field:

1. units: what is chosen, blocks of keys or tiles of a grid of them; and rows, for which it is chosen: queries, units of
   them, or numbers, of clusters say.
2. summaries: `Pooled` vectors, one for each unit.
3. score: a real expression for each pair of query and unit, see `unit_scores`. In it `Pos(KEY)` is the number of the
   unit, and `Pos(QUERY)` the position of the query, or the number of the unit of queries.
4. reduction: over the heads of a group, over units that overlap the one that is scored, or over queries.
5. candidates: ``where``, a condition of the pattern language on the numbers of query and unit.
6. choice: how many are taken, and which; of the units for each row, or by column of the rows for each unit.
7. kept units: ``keeping``, those that are taken whatever their score, if they are candidates.

A label is a selection of one number in [0, n) for each query; for each key it is one by column, among rows that are
numbers. A rank says where a token stands when all are sorted by ints.

Rules that hold for all: scores are float32, rounded once from float64 arithmetic on float32 operands; of equal scores
the lower unit is taken; a score of -inf or NaN is never taken; kept units count among the n that are taken; a
selection carries no gradient, and is a function of positions alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from attndsl.ir import reals
from attndsl.ir.arithmetic import sub
from attndsl.ir.interning import Deps, Node, Side, Sort
from attndsl.ir.mask import FLAT, Align, Space, Table, first_query
from attndsl.ir.nodes import Const, Pos
from attndsl.ir.tiles import Tiles as Tiles
from attndsl.ir.unit_scores import LARGEST_UNIT as LARGEST_UNIT
from attndsl.ir.unit_scores import TOKENS as TOKENS
from attndsl.ir.unit_scores import WHOLE as WHOLE
from attndsl.ir.unit_scores import WIDTH, is_nonnegative
from attndsl.ir.unit_scores import Antidiagonal as Antidiagonal
from attndsl.ir.unit_scores import Bound as Bound
from attndsl.ir.unit_scores import Exceeds as Exceeds
from attndsl.ir.unit_scores import Fold as Fold
from attndsl.ir.unit_scores import Groups as Groups
from attndsl.ir.unit_scores import Numbers as Numbers
from attndsl.ir.unit_scores import Pool as Pool
from attndsl.ir.unit_scores import Pooled as Pooled
from attndsl.ir.unit_scores import QueryFold as QueryFold
from attndsl.ir.unit_scores import Reduced as Reduced
from attndsl.ir.unit_scores import RowFold as RowFold
from attndsl.ir.unit_scores import Scale as Scale
from attndsl.ir.unit_scores import Series as Series
from attndsl.ir.unit_scores import Shared as Shared
from attndsl.ir.unit_scores import Unit as Unit
from attndsl.ir.unit_scores import Units as Units
from attndsl.ir.unit_scores import compared as compared
from attndsl.ir.unit_scores import series as series
from attndsl.ir.unit_scores import sides_read as sides_read
from attndsl.ir.unit_scores import varies_by as varies_by
from attndsl.ir.walks import postorder
from attndsl.source import NOWHERE, Span

MOST_TAKEN: Final = 4096  # units of one query, as wide as any list of the language


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

    ``within`` are other selections that its conditions ask, whose tables are among ``tables``. ``by_column``: each unit
    takes the rows of the highest scores, and a pair is chosen where the query's row is among them. ``spaces`` are those
    of queries and keys, grids where units are tiles of them. ``place``, for errors, is where the choice was written.
    """

    name: str
    units: Groups | Numbers
    queries: Groups | Numbers | None
    score: Node
    where: Node
    keeping: Node
    choice: Choice
    shared: Shared = Shared.NOTHING
    tables: tuple[Table, ...] = ()
    align: Align = Align.END
    within: tuple[Chosen, ...] = ()
    doc: str = field(default="", compare=False)
    by_column: bool = False
    spaces: tuple[Space, Space] = (FLAT, FLAT)
    place: Span = field(default=NOWHERE, compare=False, repr=False)

    @property
    def digest(self) -> str:
        """Stable across processes and machines: 32 hex digits of everything that has meaning."""
        units = [
            each if isinstance(each, Groups) else type(each) for each in (self.units, self.queries)
        ]
        own = units, self.choice.take, self.choice.seed, self.shared, self.align, self.by_column
        return _digest(self, (*own, self.spaces) if self.is_on_grid else own)

    @property
    def is_on_grid(self) -> bool:
        """Whether it speaks of the axes of a grid."""
        return self.spaces != (FLAT, FLAT)

    def expressions(self) -> Iterator[Node]:
        """All expressions in it."""
        yield from (self.score, self.where, self.keeping, self.choice.amount)
        yield from (each.stop for each in (self.units, self.queries) if isinstance(each, Numbers))

    @property
    def table(self) -> Table:
        """The input of a pattern that holds what was chosen: lists of units in ascending order, -1 behind them."""
        dims: list[str | int] = ["batch"]
        dims += [] if self.shared is Shared.HEADS else ["head"]
        if self.by_column:
            dims += ["k" if self.units == TOKENS else f"{self.name}_columns"]
        else:
            dims += ["q" if self.queries is None else f"{self.name}_rows"]
        amount = self.choice.amount
        known = self.choice.take in (Take.TOP, Take.SAMPLE) and isinstance(amount, Const)
        dims += [amount.value if known and isinstance(amount, Const) else f"{self.name}_slots"]
        return Table(self.name, Sort.INT, tuple(dims), is_list=True)

    def row(self, shift: Node) -> Node:
        """The row of the table that is the query's, among those that a call has; query 0 stands at ``shift``."""
        if self.queries == WHOLE:
            return Const(0)
        assert not isinstance(self.queries, Numbers), "the row of a number is the number"
        number = self.row_number()
        if isinstance(self.queries, Tiles):
            return number  # a call has all of them
        return sub(number, shift if self.queries is None else self.queries.number_of(shift))

    def row_number(self) -> Node:
        """The number of the query, or of its unit of queries, from position 0."""
        if self.queries is None:
            return Pos(Side.QUERY)
        assert not isinstance(self.queries, Numbers), "numbers have no queries"
        return self.queries.number_of(Pos(Side.QUERY))

    @property
    def shift(self) -> Node:
        """The position of query 0."""
        return first_query(self.align)


@dataclass(frozen=True, slots=True)
class Rank:
    """The place of each query, or key, when all of a sequence are sorted by numbers.

    By the first number, those where it is equal by the second, and so on; where all are equal, in their order. ``keys``
    are functions of `Pos(side)`, reals of keys alone: these are rounded to float32 once, and NaN comes last.
    """

    name: str
    side: Side
    keys: tuple[Node, ...]
    tables: tuple[Table, ...] = ()
    align: Align = Align.END
    within: tuple[Chosen, ...] = ()
    doc: str = field(default="", compare=False)

    @property
    def digest(self) -> str:
        """Stable across processes and machines: 32 hex digits of everything that has meaning."""
        return _digest(self, (self.side, self.align))

    def expressions(self) -> Iterator[Node]:
        """All expressions in it."""
        yield from self.keys

    @property
    def table(self) -> Table:
        """The input of a pattern that holds the places."""
        shared = min(map(varies_by, self.keys), key=WIDTH.__getitem__)
        heads = () if shared is Shared.HEADS else ("head",)
        return Table(self.name, Sort.INT, ("batch", *heads, self.side.value))

    @property
    def shift(self) -> Node:
        """The position of query 0."""
        return first_query(self.align)


Chosen: TypeAlias = Selection | Rank


def with_inner(selections: Iterable[Chosen]) -> list[Chosen]:
    """Selections, and behind them those within them."""
    found = list(selections)
    for each in found:
        found += each.within
    return found


def _digest(chosen: Chosen, own: object) -> str:
    name = type(chosen).__name__, chosen.name, own, chosen.tables
    hasher = hashlib.blake2b(repr(name).encode(), digest_size=16)
    for node in chosen.expressions():
        hasher.update(node.digest)
    for each in chosen.within:
        hasher.update(each.digest.encode())
    return hasher.hexdigest()


def selection_fault(selection: Selection) -> tuple[str, str] | None:
    """The field that cannot be as it is, and why; None where there is such a selection."""
    if (fault := _amount_fault(selection.choice)) is not None:
        return "choice", fault
    take, queries = selection.choice.take, selection.queries
    if take in (Take.REACHING, Take.WITHIN) and not is_nonnegative(selection.score):
        return "score", f"`take {take.value}` adds scores up, and these may be negative"
    if take is Take.SAMPLE and not isinstance(selection.score, reals.Number):
        return "score", "a sample takes each candidate as likely as another, and reads no scores"
    if isinstance(queries, Units) and not queries.is_partition:
        return "queries", "each query is in one unit: blocks of queries follow each other"
    if selection.by_column and take is not Take.TOP:
        return (
            "choice",
            "by column the rows of the highest scores are taken: `take top n by column`",
        )
    for numbers, side in ((queries, Side.QUERY), (selection.units, Side.KEY)):
        if isinstance(numbers, Numbers) and _reads_vectors(selection, side):
            return "score", f"numbers have no vectors of `{side.value}`"
    if (folds := _fold_fault(selection)) is not None:
        return folds
    if (spaces := _space_fault(selection)) is not None:
        return spaces
    for name, node in _fields(selection):
        if WIDTH[varies_by(node)] < WIDTH[selection.shared]:
            return name, "it is one choice for several heads, which differ in it"
    return None


def _space_fault(selection: Selection) -> tuple[str, str] | None:
    """The field that speaks of tiles of another grid than that of its side."""
    queries, keys = selection.spaces
    for name, units, space in (
        ("units", selection.units, keys),
        ("queries", selection.queries, queries),
    ):
        if isinstance(units, Tiles) and units.space != space:
            return name, "tiles are those of the grid that tokens stand in"
    for name, root in _fields(selection):
        for node in postorder(root):
            units = getattr(node, "units", None)
            space = queries if getattr(node, "side", Side.KEY) is Side.QUERY else keys
            if isinstance(units, Tiles) and units.space != space:
                return name, "tiles are those of the grid that tokens stand in"
    return None


def _fields(selection: Selection) -> Iterator[tuple[str, Node]]:
    for name in ("score", "where", "keeping"):
        yield name, getattr(selection, name)
    yield "choice", selection.choice.amount


def _reads_vectors(selection: Selection, side: Side) -> bool:
    for _, root in _fields(selection):
        for node in postorder(root):
            match node:
                case Pooled(side=own) | reals.Own(side=own):
                    if own is side:
                        return True
                case Bound() | Antidiagonal() | RowFold() | QueryFold():
                    return True
                case _:
                    pass
    return False


def _amount_fault(choice: Choice) -> str | None:
    amount = choice.amount
    if choice.take in (Take.TOP, Take.SAMPLE):
        if isinstance(amount, Const) and 0 <= amount.value <= MOST_TAKEN:
            return None
        found = f", not {amount.value}" if isinstance(amount, Const) else ""
        return f"a number of units is a known int from 0 to {MOST_TAKEN}{found}"
    if sides_read(amount) & Deps.KEY:
        return "how much is taken is the same for all units"
    is_share = choice.take is not Take.ABOVE
    if is_share and isinstance(amount, reals.Number) and not 0 < amount.value <= 1:
        return f"a share of the whole is greater than 0 and at most 1, not {amount.value}"
    return None


def _fold_fault(selection: Selection) -> tuple[str, str] | None:
    """The field whose fold of queries cannot be, and why."""
    rows = selection.queries
    for name, root in _fields(selection):
        for node in (each for each in postorder(root) if isinstance(each, QueryFold)):
            if not isinstance(rows, Units):
                return name, "folds of queries are those of a block of queries: `for blocks(64)`"
            if not node.rows.is_partition or (rows != WHOLE and rows.size % node.rows.size):
                return name, "units of queries that are folded make up the one that chooses"
            if node.by_distance and selection.units != TOKENS:
                return name, "diagonals are chosen as tokens are, without `over`"
    return None
