"""The Python form: expressions over ``q`` and ``k`` that build the same nodes as the text.

    (0 <= q - k) & (q - k < 256) | (k < 4)

``&``, ``|``, ``~`` and ``^`` join truth values; ``and``, ``or``, ``not`` and chained comparisons
cannot be overloaded in Python, and say so. Axes, segments and alignment stay open until `to_mask`
sets the expression in its spaces.
"""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from attndsl import ir
from attndsl.source import AttnDslError

from .callers import here
from .errors import make_error
from .frames import one_of
from .rows import SHIFT, in_row, open_size, stored
from .spaces import Pair

reals = ir.reals

Operand: TypeAlias = "Expr | Table | int | bool | float"

_WORDS = {ir.Sort.INT: "an int", ir.Sort.BOOL: "a bool", ir.Sort.REAL: "a real"}


Kind: TypeAlias = type[ir.And] | type[ir.Or] | type[ir.Sum] | type[ir.Min] | type[ir.Max]


@dataclass(frozen=True, slots=True)
class Chain:
    """``left & right``, ``left + right``, ..., not built yet: each node built alone would copy all before it."""

    kind: Kind
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Asked:
    """Demands on whoever uses an expression: how queries are placed, what inputs must satisfy, what is chosen."""

    align: str | None = None
    conditions: tuple[ir.Condition, ...] = ()
    selections: tuple[ir.Chosen, ...] = ()

    def and_(self, other: Asked) -> Asked:
        """Both.

        Raises:
            AttnDslError: A212, they are aligned in different ways.
        """
        if None not in (self.align, other.align) and self.align != other.align:
            title = "parts of this pattern are aligned in different ways: one at the start, one at the end"
            raise AttnDslError(make_error("A212", title, here()))
        both = {each.node: each for each in (*self.conditions, *other.conditions)}
        chosen = dict.fromkeys((*self.selections, *other.selections))
        return Asked(self.align or other.align, tuple(both.values()), tuple(chosen))


class Scalable:
    """Base of attentions: a product of an expression and one is for them to build."""


class Expr:
    """An int, a truth value or a real that depends on the pair, on heads, lengths or run-time tables."""

    __slots__ = ("_about", "_asked", "_built", "_overs", "_tables", "_zeros")

    def __init__(
        self,
        node: ir.Node | Chain,
        tables: tuple[ir.Table, ...] = (),
        overs: tuple[Pair, ...] = (),
        about: tuple[str, str] = ("", ""),
        zeros: ir.Node = ir.ZERO,
        asked: Asked = Asked(),
    ) -> None:
        """``tables``: those it reads. ``overs``: the spaces its parts were written for."""
        self._built = node
        self._tables = tables
        self._overs = overs
        self._about = about  # name and documentation
        self._zeros = zeros
        self._asked = asked

    @property
    def _node(self) -> ir.Node:
        """The node of the expression. A chain of one operator is built as a whole when it is first asked for."""
        if isinstance(self._built, Chain):
            _build(self)
        assert isinstance(self._built, ir.Node)
        return self._built

    @property
    def _sort(self) -> ir.Sort:
        return _sort_of(self._built.kind) if isinstance(self._built, Chain) else self._built.sort

    def __repr__(self) -> str:
        return f"Expr({ir.show(self._node)})"

    def __bool__(self) -> NoReturn:
        raise TypeError(
            "an attndsl expression has no truth value of its own: it stands for every pair. "
            "Write & instead of `and`, | instead of `or`, ~ instead of `not`. Chained comparisons "
            "do not work: write (a <= x) & (x < b). For `in`, write x.isin(...)."
        )

    __hash__ = None  # type: ignore[assignment]  # == builds an expression

    # ------------------------------------------------------------------ arithmetic

    def __add__(self, other: Operand) -> Expr:
        return _chained("+", ir.Sum, self, other)

    def __radd__(self, other: Operand) -> Expr:
        return _chained("+", ir.Sum, other, self)

    def __sub__(self, other: Operand) -> Expr:
        return _chained("-", ir.Sum, self, _negative(other))

    def __rsub__(self, other: Operand) -> Expr:
        return _chained("-", ir.Sum, other, -self)

    def __mul__(self, other: Operand) -> Expr:
        if isinstance(other, Scalable):
            return NotImplemented
        return numeric("*", ir.mul, reals.times, self, other)

    def __rmul__(self, other: Operand) -> Expr:
        return numeric("*", ir.mul, reals.times, other, self)

    def __truediv__(self, other: Operand) -> Expr:
        return _quotient(self, other)

    def __rtruediv__(self, other: Operand) -> Expr:
        return _quotient(other, self)

    def __floordiv__(self, other: Operand) -> Expr:
        return _divided("//", ir.floordiv, self, other)

    def __rfloordiv__(self, other: Operand) -> Expr:
        return _divided("//", ir.floordiv, other, self)

    def __mod__(self, other: Operand) -> Expr:
        return _divided("%", ir.mod, self, other)

    def __rmod__(self, other: Operand) -> Expr:
        return _divided("%", ir.mod, other, self)

    def __neg__(self) -> Expr:
        return _negative(self)

    def __abs__(self) -> Expr:
        return numeric("abs", ir.absolute, lambda node: reals.apply("abs", node), self)

    # ------------------------------------------------------------------ comparisons

    def __lt__(self, other: Operand) -> Expr:
        return _compared("<", ir.lt, self, other)

    def __le__(self, other: Operand) -> Expr:
        return _compared("<=", ir.le, self, other)

    def __gt__(self, other: Operand) -> Expr:
        return _compared(">", ir.gt, self, other)

    def __ge__(self, other: Operand) -> Expr:
        return _compared(">=", ir.ge, self, other)

    def __eq__(self, other: object) -> Expr:  # type: ignore[override]
        return _alike("==", ir.eq, self, other)

    def __ne__(self, other: object) -> Expr:  # type: ignore[override]
        return _alike("!=", ir.ne, self, other)

    def isin(self, container: Sequence[Operand] | range | Row) -> Expr:
        """Whether it is one of these ints, in the range, or in a row of a list table."""
        if isinstance(container, Row):
            return container.holds(self)
        if isinstance(container, range) and container.step == 1:
            low, high = ir.Const(container.start), ir.Const(container.stop)
            return ints("in", lambda x: ir.conj(ir.le(low, x), ir.lt(x, high)), self)
        return ints("in", lambda x, *items: one_of(x, items), self, *container)

    # ------------------------------------------------------------------ logic

    def __and__(self, other: Operand) -> Expr:
        return _chained("&", ir.And, self, other)

    def __rand__(self, other: Operand) -> Expr:
        return _chained("&", ir.And, other, self)

    def __or__(self, other: Operand) -> Expr:
        return _chained("|", ir.Or, self, other)

    def __ror__(self, other: Operand) -> Expr:
        return _chained("|", ir.Or, other, self)

    def __xor__(self, other: Operand) -> Expr:
        return _bools("^", ir.ne, self, other)

    def __rxor__(self, other: Operand) -> Expr:
        return _bools("^", ir.ne, other, self)

    def __invert__(self) -> Expr:
        return _bools("~", ir.negate, self)

    def zeros(self, count: Operand) -> Expr:
        """The same pattern, where each query sees so many zero keys: of score 0 and value 0."""
        relation = Expr(self._node, self._tables, self._overs, asked=self._asked)
        made = expect(ir.Sort.INT, "zeros", count)
        both = merged(self._node, (relation, made))
        about, asked = self._about, both._asked
        return Expr(self._node, both._tables, both._overs, about, made._node, asked)


class Coordinate(Expr):
    """``q.y``; ``q.image.y`` where several segments have the axis."""

    __slots__ = ("_axis", "_side")

    def __init__(self, side: ir.Side, axis: str) -> None:
        """An axis by its own name, or by "segment.axis"."""
        super().__init__(ir.Coord(side, axis))
        self._side = side
        self._axis = axis

    def __getattr__(self, axis: str) -> Coordinate:
        if axis.startswith("_") or "." in self._axis:
            raise AttributeError(axis)
        return Coordinate(self._side, f"{self._axis}.{axis}")


class Position(Expr):
    """``q`` or ``k``: the flat position, and by attribute its coordinates."""

    __slots__ = ("_side",)

    def __init__(self, side: ir.Side) -> None:
        """One of the two."""
        super().__init__(ir.Pos(side))
        self._side = side

    def __getattr__(self, axis: str) -> Coordinate:
        if axis.startswith("_"):
            raise AttributeError(axis)
        return Coordinate(self._side, axis)

    def inside(self, segment: str) -> Expr:
        """Whether the token lies in the segment of that name."""
        return Expr(ir.Inside(self._side, segment))


q = Position(ir.Side.QUERY)
k = Position(ir.Side.KEY)
head, heads, batch, layer = (Expr(ir.Var(name)) for name in ("head", "heads", "batch", "layer"))


# ---------------------------------------------------------------------- spaces and tables


class Table:
    """A run-time input, read by ``table[...]`` at positions or other ints."""

    def __init__(self, table: ir.Table) -> None:
        """Wrap the declaration."""
        self.table = table

    def __getitem__(self, index: Operand | tuple[Operand, ...]) -> Expr | Row:
        items = self._own(index if isinstance(index, tuple) else (index,))
        wanted = len(self.table.indexed_dims) - self.table.is_list
        if len(items) == wanted - 1 and self.table.kind is ir.Sort.REAL:
            return Row(self.table, tuple(expect(ir.Sort.INT, "an index", item) for item in items))
        if len(items) != wanted:
            title = f"`{self.table.name}` takes {wanted} indices, not {len(items)}"
            raise AttnDslError(make_error("A205", title, here()))
        parts = tuple(expect(ir.Sort.INT, "an index", item) for item in items)
        if self.table.is_list:
            return Row(self.table, parts)
        nodes = tuple(part._node for part in parts)
        entries = stored(self.table, nodes, SHIFT)
        node = ir.Load(self.table.name, self.table.kind, entries, self.table.ambient)
        return merged(node, (*parts, Expr(node, (self.table,))))

    def _own(self, items: tuple[Operand, ...]) -> tuple[Operand, ...]:
        """The indices without those that say ``batch`` and ``head``, which are known: ``slope[head]``."""
        said = [dim for dim in self.table.dims if dim in ("batch", "head")]
        lead = [node_of(item) for item in items[: len(said)] if isinstance(item, Expr)]
        own = len(self.table.indexed_dims)
        is_said = lead == [ir.Var(str(dim)) for dim in said]
        return items[len(said) :] if is_said and len(items) == len(said) + own else items

    def __add__(self, other: Operand) -> Expr:
        return as_expr(self) + other

    def __radd__(self, other: Operand) -> Expr:
        return other + as_expr(self)

    def __sub__(self, other: Operand) -> Expr:
        return as_expr(self) - other

    def __rsub__(self, other: Operand) -> Expr:
        return other - as_expr(self)

    def __mul__(self, other: Operand) -> Expr:
        return as_expr(self) * other

    def __rmul__(self, other: Operand) -> Expr:
        return other * as_expr(self)

    def __truediv__(self, other: Operand) -> Expr:
        return as_expr(self) / other

    def __rtruediv__(self, other: Operand) -> Expr:
        return other / as_expr(self)

    def __neg__(self) -> Expr:
        return -as_expr(self)


class Row:
    """A row of a list table, for ``k.isin(neighbors[q])``, or of a table of reals: a vector, for ``dot``."""

    def __init__(self, table: ir.Table, index: tuple[Expr, ...]) -> None:
        """The row at the index."""
        self.table = table
        self.index = index

    def __contains__(self, item: object) -> NoReturn:
        raise TypeError(f"write x.isin({self.table.name}[...]) instead of `in`")

    def holds(self, item: Expr) -> Expr:
        """Whether some slot of the row holds the item; as ``in`` of the language."""
        wanted = expect(ir.Sort.INT, "in", item)
        index = [each._node for each in self.index]
        node = in_row(self.table, index, wanted._node, SHIFT, open_size(self.table))
        return merged(node, (*self.index, wanted, Expr(node, (self.table,))))


def table(name: str, kind: str, *dims: str | int) -> Table:
    """An input as the language's `input name: kind[dims]`; kind is "int", "bool", "list" or "real"."""
    order = [{"batch": 0, "head": 1}.get(str(dim), 2) for dim in dims]
    if kind not in ("int", "bool", "list", "real") or order != sorted(order) or not dims:
        title = f"an input is int, bool, list or real, its dims lead with batch and head: `{name}` is not"
        raise AttnDslError(make_error("A209", title, here()))
    sort = {"bool": ir.Sort.BOOL, "real": ir.Sort.REAL}.get(kind, ir.Sort.INT)
    made = ir.Table(name, sort, dims, kind == "list")
    if (wrong := ir.table_fault(made)) is not None:
        raise AttnDslError(make_error("A209", f"there is no such input: {wrong}", here()))
    return Table(made)


# ---------------------------------------------------------------------- how nodes are joined


def as_expr(value: object) -> Expr:
    """An expression from an expression, an int or a bool."""
    match value:
        case Expr():
            return value
        case bool():
            return Expr(ir.BoolConst(value))
        case _ if hasattr(value, "__index__"):
            number = int(value.__index__())
            if abs(number) >= ir.LARGEST:
                raise AttnDslError(make_error("A305", "this constant is too large", here()))
            return Expr(ir.Const(number))
        case numbers.Real() if math.isfinite(value):
            return Expr(reals.Number(float(value)))
        case Table() if not value.table.indexed_dims and not value.table.is_list:
            read = value[()]
            assert isinstance(read, Expr), "no dim is left out"
            return read
    title = f"{type(value).__name__} cannot be part of a pattern"
    raise AttnDslError(
        make_error("A202", title, here(), "an int, a bool or an expression is needed")
    )


def expect(sort: ir.Sort, what: str, value: object) -> Expr:
    made = as_expr(value)
    if made._sort is sort:
        return made
    helps = []
    if what in ("&", "|", "~", "^"):
        helps.append("comparisons bind looser than & and |: write (q < 4) & (k < 4)")
    title = f"`{what}` takes {_WORDS[sort]}, not {_WORDS[made._sort]}"
    raise AttnDslError(make_error("A202", title, here(), helps=helps))


def ints(what: str, build: Callable[..., ir.Node], *items: object) -> Expr:
    parts = tuple(expect(ir.Sort.INT, what, item) for item in items)
    return merged(build(*(part._node for part in parts)), parts)


def _bools(what: str, build: Callable[..., ir.Node], *items: object) -> Expr:
    parts = tuple(expect(ir.Sort.BOOL, what, item) for item in items)
    return merged(build(*(part._node for part in parts)), parts)


def numeric(
    what: str, of_ints: Callable[..., ir.Node], of_reals: Callable[..., ir.Node], *items: object
) -> Expr:
    """An expression of numbers: an int where all are, else a real."""
    parts = [as_expr(item) for item in items]
    if all(part._sort is not ir.Sort.REAL for part in parts):
        return ints(what, of_ints, *parts)
    for part in parts:
        if part._sort is ir.Sort.BOOL:
            expect(ir.Sort.REAL, what, part)
    return merged(of_reals(*(part._node for part in parts)), parts)


def _quotient(left: object, right: object) -> Expr:
    divisor = as_expr(right)
    if divisor._sort is not ir.Sort.BOOL and reals.as_real(divisor._node) is reals.NOUGHT:
        raise AttnDslError(make_error("A302", "division by zero", here()))
    return numeric("/", reals.over, reals.over, left, divisor)


def _compared(what: str, build: Callable[..., ir.Node], left: object, right: object) -> Expr:
    parts = as_expr(left), as_expr(right)
    if any(part._sort is ir.Sort.REAL for part in parts):
        notes = ("which keys a query sees depends on ints and truth values",)
        helps = ("scale both sides: 2 * x <= y rather than x <= 0.5 * y",)
        title = "reals are not compared"
        raise AttnDslError(make_error("A216", title, here(), notes=notes, helps=helps))
    return ints(what, build, *parts)


def _negative(item: object) -> Expr:
    return numeric(
        "-",
        lambda node: ir.scale(node, -1),
        lambda node: reals.times(reals.Number(-1.0), node),
        item,
    )


def _sort_of(kind: Kind) -> ir.Sort:
    return ir.Sort.BOOL if kind in (ir.And, ir.Or) else ir.Sort.INT


_OF_REALS: dict[Kind, Callable[..., ir.Node]] = {
    ir.Sum: reals.plus, ir.Min: reals.least, ir.Max: reals.greatest,
}  # fmt: skip


def _chained(what: str, kind: Kind, left: object, right: object) -> Expr:
    sides = as_expr(left), as_expr(right)
    if kind in _OF_REALS and any(side._sort is ir.Sort.REAL for side in sides):
        return numeric(what, ir.add, _OF_REALS[kind], *sides)
    first, second = (expect(_sort_of(kind), what, item) for item in (left, right))
    return merged(Chain(kind, first, second), (first, second))


def extremum(what: str, kind: Kind, items: tuple[Operand, ...]) -> Expr:
    first, *others = map(as_expr, _some(what, items))
    if not others:
        return numeric(what, lambda node: node, lambda node: node, first)
    return functools.reduce(functools.partial(_chained, what, kind), others, first)


def _build(whole: Expr) -> None:
    """Builds a chain, and those that are operands of it. Iterative: any length, any depth."""
    waiting = [whole]
    while waiting:
        chain = waiting[-1]._built
        if not isinstance(chain, Chain):
            waiting.pop()
            continue
        operands = _operands(chain)
        unbuilt = [each for each in operands if isinstance(each._built, Chain)]
        waiting += unbuilt
        if not unbuilt:
            nodes = [each._node for each in operands]
            waiting.pop()._built = _checked(_joined(chain.kind, nodes))


def _joined(kind: Kind, nodes: list[ir.Node]) -> ir.Node:
    if kind is ir.And or kind is ir.Or:
        return ir.chained(kind, nodes)
    return {ir.Sum: ir.add, ir.Min: ir.minimum, ir.Max: ir.maximum}[kind](*nodes)


def _checked(node: ir.Node) -> ir.Node:
    if ir.largest(node) >= ir.LARGEST:
        raise AttnDslError(make_error("A305", "this constant is too large", here()))
    return node


def _operands(chain: Chain) -> list[Expr]:
    """Operands of a chain, one after the other."""
    found: list[Expr] = []
    link: Chain | None = chain
    while link is not None:
        inner = link.left._built, link.right._built
        ends = [isinstance(each, Chain) and each.kind is chain.kind for each in inner]
        longer, other = (
            (link.right, link.left) if ends == [False, True] else (link.left, link.right)
        )
        found.append(other)
        link = longer._built if any(ends) and isinstance(longer._built, Chain) else None
        if link is None:
            found.append(longer)
    return found[::-1]


def _alike(what: str, build: Callable[..., ir.Node], left: object, right: object) -> Expr:
    if _is_bool(left):
        return _bools(what, build, left, right)
    return _compared(what, build, left, right)


def _is_bool(value: object) -> bool:
    return as_expr(value)._sort is ir.Sort.BOOL


def _divided(what: str, build: Callable[..., ir.Node], left: object, right: object) -> Expr:
    divisor = expect(ir.Sort.INT, what, right)
    if isinstance(divisor._node, ir.Const) and divisor._node.value <= 0:
        title = "division by a number that is not positive"
        raise AttnDslError(make_error("A302", title, here()))
    return ints(what, build, left, divisor)


def _some(what: str, items: tuple[Operand, ...]) -> tuple[Operand, ...]:
    if not items:
        raise AttnDslError(make_error("A205", f"`{what}` takes 1 or more arguments", here()))
    return items


def merged(node: ir.Node | Chain, parts: Iterable[Expr]) -> Expr:
    """The node, with what its parts know of tables and spaces."""
    tables: dict[str, ir.Table] = {}
    overs: dict[Pair, None] = {}
    asked = Asked()
    for part in parts:
        if part._asked != asked:
            asked = asked.and_(part._asked)
        if part._zeros is not ir.ZERO:
            title = "the zero keys of a pattern are lost in a larger expression"
            helps = ("say how many the whole has, and drop those of the part: part.zeros(0)",)
            raise AttnDslError(make_error("A215", title, here(), helps=helps))
        overs |= dict.fromkeys(part._overs)
        for each in part._tables:
            if tables.setdefault(each.name, each) != each:
                title = f"two inputs named `{each.name}` are declared in different ways"
                raise AttnDslError(make_error("A209", title, here()))
    whole = _checked(node) if isinstance(node, ir.Node) else node
    return Expr(whole, tuple(tables.values()), tuple(overs), asked=asked)


def parts_of(expr: Expr) -> tuple[ir.Node, tuple[ir.Table, ...], tuple[Pair, ...], tuple[str, str]]:
    """Node, tables, spaces, and name with documentation."""
    return expr._node, expr._tables, expr._overs, expr._about


def asked_of(expr: Expr) -> Asked:
    """Demands of its parts on whoever uses them."""
    return expr._asked


def node_of(expr: Expr) -> ir.Node:
    """The node of an expression."""
    return expr._node


def zeros_of(expr: Expr) -> ir.Node:
    """How many zero keys a query sees."""
    return expr._zeros
