"""Parts of a score that need not be computed for each pair: columns of numbers by query, by key, or by distance.

    s - slope[head] * (q - k)       -->  s + (x[2] - y[1]) * x[1]        x = (row, -slope, q), y = (row, k)
    s + table[min(q - k, 32)]       -->  s + d[1]                        d by q - k
    s + dot(q, rel[bucket(q - k)])  -->  s + product[q, bucket(q - k)]   of all queries and all rows of ``rel``

Law: where columns and products are what they say, both sides are equal at every pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from attndsl import ir

reals = ir.reals

# A table of our own: so much of the scaled product is the product of query and key.
PER_SCALE: Final = "<1 / scale>"

_Q, _K = ir.Pos(ir.Side.QUERY), ir.Pos(ir.Side.KEY)
_STEP: Final[dict[ir.Node, ir.Node]] = {_Q: ir.add(_Q, ir.ONE), _K: ir.add(_K, ir.ONE)}
_CHEAP: Final = (
    reals.Number, reals.Plus, reals.Times, reals.FromInt, reals.Least, reals.Greatest, ir.Sum, ir.Pos, ir.Const,
    ir.Abs, ir.Min, ir.Max,
)  # fmt: skip
_AMBIENT: Final = ir.Deps.BATCH | ir.Deps.HEAD


class NoKernel(Exception):
    """Why scores have no generated kernel."""


@dataclass(frozen=True, slots=True)
class Column:
    """A value that is computed before: a real, an int, or a bool. ``is_exact``: as a whole number it is read."""

    node: ir.Node
    is_exact: bool

    @property
    def carries(self) -> bool:
        """Whether a gradient goes through it."""
        return any(
            isinstance(each, reals.Row | reals.Own)
            or (isinstance(each, ir.Load) and each.kind is ir.Sort.REAL and each.table != PER_SCALE)
            for each in ir.postorder(self.node)
        )

    @property
    def is_kept(self) -> bool:
        """Whether it follows from the call alone, whatever its tensors and scale are."""
        return not self.carries and PER_SCALE not in ir.tables_read(self.node)


@dataclass(frozen=True, slots=True)
class Product:
    """A table of our own: the inner products of all rows of two vectors, read at both their indices."""

    name: str
    left: ir.Node
    right: ir.Node


Columns: TypeAlias = dict[ir.Node, Column]


def carriers_first(columns: Columns) -> Columns:
    """The columns, those that carry gradients first, then those that follow from tensors of a call."""
    return dict(sorted(columns.items(), key=lambda item: (not item[1].carries, item[1].is_kept)))


class Hoisting:
    """Replaces what need not be computed for each pair by reads of columns."""

    def __init__(self, root: ir.Node, first: ir.Node) -> None:
        self.first = first  # the position of the first query
        self._scored: set[ir.Node] = set()  # what depends on the score of the pair
        for node in ir.postorder(root):
            if node is reals.SCORE or any(part in self._scored for part in node.parts):
                self._scored.add(node)
        self.query: Columns = {}
        self.key: Columns = {}
        self.distance: Columns = {}
        self.products: list[Product] = []
        self._known: dict[ir.Node, ir.Node] = {}

    @property
    def columns(self) -> set[ir.Node]:
        return {*self.query, *self.key, *self.distance}

    def real(self, node: ir.Node) -> ir.Node:
        """The expression over columns."""
        if node not in self._known:
            self._known[node] = self._made(node)
        return self._known[node]

    def _made(self, node: ir.Node) -> ir.Node:
        if isinstance(node, reals.Number | reals.Score):
            return node
        side = self._side(node)
        if side is not None:
            return self._column(side, node)
        match node:
            case reals.Plus(items=items):
                return self._grouped(items, reals.plus)
            case reals.Times():
                return self._grouped(_factors(node), reals.times)
            case reals.FromInt(item=ir.Sum() as item):
                return self._difference(node, item)
            case reals.FromInt() | ir.Load() | reals.Drawn():
                return node
            case reals.Dot(left=left, right=right):
                return self._product(left, right)
            case reals.Choose(cond=cond, yes=yes, no=no):
                return reals.choose(cond, self.real(yes), self.real(no))
            case _:
                return reals.rebuild_real(node, tuple(map(self.real, node.parts)))

    def _side(self, node: ir.Node) -> Columns | None:
        """The columns that a real belongs to; None: it is computed for each pair."""
        if node in self._scored:
            return None
        if not node.deps & ir.Deps.KEY:
            return self.query
        if not node.deps & ir.Deps.QUERY:
            return self.key
        return self.distance if is_dear(node) and of_distance(node) else None

    def _column(self, side: Columns, node: ir.Node, is_exact: bool = False) -> ir.Node:
        if isinstance(node, reals.Number):
            return node
        for read, column in side.items():
            if column.node is node and column.is_exact == is_exact:
                return read
        name, index = (
            ("x", _Q)
            if side is self.query
            else ("y", _K)
            if side is self.key
            else ("d", ir.sub(_Q, _K))
        )
        read = ir.Load(f"<{name}{len(side)}>", ir.Sort.REAL, (index,), _AMBIENT)
        side[read] = Column(node, is_exact)
        return read

    def _grouped(self, items: Sequence[ir.Node], join: Callable[..., ir.Node]) -> ir.Node:
        """A sum or product, what goes together in one column joined before."""
        groups: dict[int, list[ir.Node]] = {}
        sides: dict[int, Columns] = {}
        rest: list[ir.Node] = []
        for item in items:
            side = None if isinstance(item, reals.Number) else self._side(item)
            if side is None:
                rest.append(self.real(item))
            else:
                groups.setdefault(id(side), []).append(item)
                sides[id(side)] = side
        if groups and join is reals.times:  # a number goes with a column, for nothing
            numbers = [item for item in rest if isinstance(item, reals.Number)]
            rest = [item for item in rest if not isinstance(item, reals.Number)]
            next(iter(groups.values()))[:0] = numbers
        made = [self._column(sides[name], join(*group)) for name, group in groups.items()]
        return join(*rest, *made)

    def _difference(self, node: ir.Node, total: ir.Sum) -> ir.Node:
        """A whole number that is what one side gives less what the other does, each a column."""
        parts: dict[str, ir.Node] = {"q": ir.Const(total.constant), "k": ir.ZERO}
        for term, factor in total.terms:
            if term.is_pair:
                return node
            side = "k" if term.deps & ir.Deps.KEY else "q"
            parts[side] = ir.add(parts[side], ir.scale(term, -factor if side == "k" else factor))
        left, right = (reals.as_real(parts[side]) for side in "qk")
        return reals.minus(
            self._column(self.query, left, is_exact=True),
            self._column(self.key, right, is_exact=True),
        )

    def _product(self, left: ir.Node, right: ir.Node) -> ir.Node:
        if isinstance(left, reals.Own) and isinstance(right, reals.Own):
            inverse = ir.Load(PER_SCALE, ir.Sort.REAL, (), ir.Deps.NONE)
            return reals.times(reals.SCORE, self._column(self.query, inverse))
        sides = [vector.deps & ir.Deps.PAIR for vector in (left, right)]
        if {*sides} == {ir.Deps.QUERY, ir.Deps.KEY}:
            raise NoKernel("it has a product of one more vector of the query and one of the key")
        index = [*self._rows(left), *self._rows(right)]
        name = f"<product {len(self.products)}>"
        self.products.append(Product(name, left, right))
        return ir.Load(name, ir.Sort.REAL, tuple(index), _AMBIENT)

    def _rows(self, vector: ir.Node) -> tuple[ir.Node, ...]:
        """The index of the row of a vector among all that there are."""
        side = vector.deps & ir.Deps.PAIR
        if side == ir.Deps.QUERY:
            return (ir.sub(_Q, self.first),)
        if side == ir.Deps.KEY:
            return (_K,)
        return vector.index if isinstance(vector, reals.Row) else ()


def _factors(node: ir.Node) -> list[ir.Node]:
    if isinstance(node, reals.Times):
        return [*_factors(node.left), *_factors(node.right)]
    return [node]


def of_distance(node: ir.Node) -> bool:
    """Whether it is the same where query and key move on together."""
    own = ir.holds(node, reals.Own)
    return not own and ir.substitute(node, _STEP) is node


def is_dear(node: ir.Node) -> bool:
    """Whether some part of it takes more to compute for each pair than to read."""
    return any(each.is_pair and not isinstance(each, _CHEAP) for each in ir.postorder(node))
