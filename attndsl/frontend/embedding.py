"""The Python form: expressions over ``q`` and ``k`` that build the same nodes as the text.

    (0 <= q - k) & (q - k < 256) | (k < 4)

``&``, ``|``, ``~`` and ``^`` join truth values; ``and``, ``or``, ``not`` and chained comparisons
cannot be overloaded in Python, and say so. Axes, segments and alignment stay open until `to_mask`
sets the expression in its spaces.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from attndsl import ir
from attndsl.source import AttnDslError

from .callers import here
from .errors import make_error
from .frames import WIDEST_RANGE, one_of
from .rows import SHIFT, in_row, open_size, stored
from .spaces import Pair

Operand: TypeAlias = "Expr | int | bool"

_WORDS = {ir.Sort.INT: "an int", ir.Sort.BOOL: "a bool"}


Kind: TypeAlias = type[ir.And] | type[ir.Or] | type[ir.Sum] | type[ir.Min] | type[ir.Max]


@dataclass(frozen=True, slots=True)
class Chain:
    """``left & right``, ``left + right``, ..., not built yet: each node built alone would copy all before it."""

    kind: Kind
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Asked:
    """Demands of patterns written as text on whoever uses them: how queries are placed, what inputs must satisfy."""

    align: str | None = None
    conditions: tuple[ir.Condition, ...] = ()

    def and_(self, other: Asked) -> Asked:
        """Both.

        Raises:
            AttnDslError: A212, they are aligned in different ways.
        """
        if None not in (self.align, other.align) and self.align != other.align:
            title = "parts of this pattern are aligned in different ways: one at the start, one at the end"
            raise AttnDslError(make_error("A212", title, here()))
        both = {each.node: each for each in (*self.conditions, *other.conditions)}
        return Asked(self.align or other.align, tuple(both.values()))


class Expr:
    """An int or a truth value that depends on the pair, on heads, lengths or run-time tables."""

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
        return _ints("*", ir.mul, self, other)

    def __rmul__(self, other: Operand) -> Expr:
        return _ints("*", ir.mul, other, self)

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
        return _ints("abs", ir.absolute, self)

    # ------------------------------------------------------------------ comparisons

    def __lt__(self, other: Operand) -> Expr:
        return _ints("<", ir.lt, self, other)

    def __le__(self, other: Operand) -> Expr:
        return _ints("<=", ir.le, self, other)

    def __gt__(self, other: Operand) -> Expr:
        return _ints(">", ir.gt, self, other)

    def __ge__(self, other: Operand) -> Expr:
        return _ints(">=", ir.ge, self, other)

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
            return _ints("in", lambda x: ir.conj(ir.le(low, x), ir.lt(x, high)), self)
        return _ints("in", lambda x, *items: one_of(x, items), self, *container)

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
        made = _expect(ir.Sort.INT, "zeros", count)
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


# ---------------------------------------------------------------------- functions


def minimum(*items: Operand) -> Expr:
    """The least of one or more ints."""
    return _extremum("minimum", ir.Min, items)


def maximum(*items: Operand) -> Expr:
    """The greatest of one or more ints."""
    return _extremum("maximum", ir.Max, items)


def clamp(item: Operand, low: Operand, high: Operand) -> Expr:
    """max(low, min(item, high))."""
    return _ints("clamp", ir.clamp, item, low, high)


def ilog2(item: Operand) -> Expr:
    """Floor of the binary logarithm, -1 below 1."""
    return _ints("ilog2", ir.ilog2, item)


def pow2(item: Operand) -> Expr:
    """2**item for 0 <= item <= 62, else 0."""
    return _ints("pow2", ir.pow2, item)


def where(condition: Operand, yes: Operand, no: Operand) -> Expr:
    """``yes`` where the condition holds, else ``no``; both ints or both truth values."""
    test = _expect(ir.Sort.BOOL, "where", condition)
    parts = (test, as_expr(yes), as_expr(no))
    if parts[1]._sort is not parts[2]._sort:
        raise AttnDslError(make_error("A202", "`where` needs two ints or two bools", here()))
    return merged(ir.select(*(part._node for part in parts)), parts)


def length(name: str) -> Expr:
    """How long "q" or "k" is, an axis ("y", "image.y") or a segment ("image")."""
    return Expr(ir.Size(name))


def any_(start: Operand, stop: Operand, body: Callable[[Expr], Operand]) -> Expr:
    """Whether some int j with start <= j < stop makes ``body(j)`` true."""
    return _looped(ir.exists, ir.Sort.BOOL, start, stop, body)


def all_(start: Operand, stop: Operand, body: Callable[[Expr], Operand]) -> Expr:
    """Whether every int j with start <= j < stop makes ``body(j)`` true."""
    return _looped(ir.forall, ir.Sort.BOOL, start, stop, body)


def count_(start: Operand, stop: Operand, body: Callable[[Expr], Operand]) -> Expr:
    """How many ints j with start <= j < stop make ``body(j)`` true."""
    return _looped(ir.count, ir.Sort.BOOL, start, stop, body)


def sum_(start: Operand, stop: Operand, body: Callable[[Expr], Operand]) -> Expr:
    """The sum of ``body(j)`` over the ints j with start <= j < stop; 0 where there are none."""
    return _looped(ir.total, ir.Sort.INT, start, stop, body)


Looping: TypeAlias = Callable[[ir.Node, ir.Node, Callable[[ir.Node], ir.Node]], ir.Node]


def _looped(
    make: Looping, sort: ir.Sort, start: Operand, stop: Operand, body: Callable[[Expr], Operand]
) -> Expr:
    limits = [_expect(ir.Sort.INT, "a range", each) for each in (start, stop)]
    parts = list(limits)

    def inner(index: ir.Node) -> ir.Node:
        made = _expect(sort, "the body", body(Expr(index)))
        parts.append(made)
        return made._node

    ends = limits[0]._node, limits[1]._node
    found, width = make(*ends, inner), ir.sub(ends[1], ends[0])
    is_left = isinstance(found.item if isinstance(found, ir.Not) else found, ir.Loop)
    if is_left and isinstance(width, ir.Const) and width.value > WIDEST_RANGE:
        title = f"a range of {width.value:,} is too wide"
        raise AttnDslError(make_error("A303", title, here(), f"at most {WIDEST_RANGE}"))
    if (bodies := ir.trials(found)[0]) > ir.MOST_TRIALS:
        title = f"ranges within each other try {bodies:,} combinations"
        raise AttnDslError(make_error("A303", title, here(), f"at most {ir.MOST_TRIALS:,}"))
    return merged(found, parts)


# ---------------------------------------------------------------------- spaces and tables


def grid(name: str, *axes: str | tuple[str, int]) -> ir.Space:
    """``grid("image", "y", "x")``; ``("y", 56)`` fixes an extent."""
    made = tuple(ir.Axis(a) if isinstance(a, str) else ir.Axis(*a) for a in axes)
    return _sound(ir.Space(name, (ir.Segment(name, made),)))


def space(name: str, *segments: ir.Space | tuple[str, int]) -> ir.Space:
    """Segments in order: grids, or ``("text", 77)``, whose one axis has the segment's name."""
    made: list[ir.Segment] = []
    for each in segments:
        if isinstance(each, ir.Space):
            made.extend(each.segments)
        else:
            made.append(ir.Segment(each[0], (ir.Axis(*each),)))
    return _sound(ir.Space(name, tuple(made)))


def _sound(made: ir.Space) -> ir.Space:
    """The space, if the language has such."""
    wrong = ir.space_fault(made) if made.segments else "it has no segments"
    if wrong is not None:
        raise AttnDslError(make_error("A209", f"there is no such space: {wrong}", here()))
    return made


class Table:
    """A run-time input, read by ``table[...]`` at positions or other ints."""

    def __init__(self, table: ir.Table) -> None:
        """Wrap the declaration."""
        self.table = table

    def __getitem__(self, index: Operand | tuple[Operand, ...]) -> Expr | Row:
        items = index if isinstance(index, tuple) else (index,)
        wanted = len(self.table.indexed_dims) - self.table.is_list
        if len(items) != wanted:
            title = f"`{self.table.name}` takes {wanted} indices, not {len(items)}"
            raise AttnDslError(make_error("A205", title, here()))
        parts = tuple(_expect(ir.Sort.INT, "an index", item) for item in items)
        if self.table.is_list:
            return Row(self.table, parts)
        nodes = tuple(part._node for part in parts)
        entries = stored(self.table, nodes, SHIFT)
        node = ir.Load(self.table.name, self.table.kind, entries, self.table.ambient)
        return merged(node, (*parts, Expr(node, (self.table,))))


class Row:
    """A row of a list table, for ``k.isin(neighbors[q])``."""

    def __init__(self, table: ir.Table, index: tuple[Expr, ...]) -> None:
        """The row at the index."""
        self.table = table
        self.index = index

    def __contains__(self, item: object) -> NoReturn:
        raise TypeError(f"write x.isin({self.table.name}[...]) instead of `in`")

    def holds(self, item: Expr) -> Expr:
        """Whether some slot of the row holds the item; as ``in`` of the language."""
        wanted = _expect(ir.Sort.INT, "in", item)
        index = [each._node for each in self.index]
        node = in_row(self.table, index, wanted._node, SHIFT, open_size(self.table))
        return merged(node, (*self.index, wanted, Expr(node, (self.table,))))


def table(name: str, kind: str, *dims: str | int) -> Table:
    """An input as the language's `input name: kind[dims]`; kind is "int", "bool" or "list"."""
    order = [{"batch": 0, "head": 1}.get(str(dim), 2) for dim in dims]
    if kind not in ("int", "bool", "list") or order != sorted(order) or not dims:
        title = f"an input is int, bool or list, its dims lead with batch and head: `{name}` is not"
        raise AttnDslError(make_error("A209", title, here()))
    sort = ir.Sort.BOOL if kind == "bool" else ir.Sort.INT
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
    title = f"{type(value).__name__} cannot be part of a pattern"
    raise AttnDslError(
        make_error("A202", title, here(), "an int, a bool or an expression is needed")
    )


def _expect(sort: ir.Sort, what: str, value: object) -> Expr:
    made = as_expr(value)
    if made._sort is sort:
        return made
    helps = []
    if what in ("&", "|", "~", "^"):
        helps.append("comparisons bind looser than & and |: write (q < 4) & (k < 4)")
    title = f"`{what}` takes {_WORDS[sort]}, not {_WORDS[made._sort]}"
    raise AttnDslError(make_error("A202", title, here(), helps=helps))


def _ints(what: str, build: Callable[..., ir.Node], *items: object) -> Expr:
    parts = tuple(_expect(ir.Sort.INT, what, item) for item in items)
    return merged(build(*(part._node for part in parts)), parts)


def _bools(what: str, build: Callable[..., ir.Node], *items: object) -> Expr:
    parts = tuple(_expect(ir.Sort.BOOL, what, item) for item in items)
    return merged(build(*(part._node for part in parts)), parts)


def _negative(item: object) -> Expr:
    return _ints("-", lambda node: ir.scale(node, -1), item)


def _sort_of(kind: Kind) -> ir.Sort:
    return ir.Sort.BOOL if kind in (ir.And, ir.Or) else ir.Sort.INT


def _chained(what: str, kind: Kind, left: object, right: object) -> Expr:
    first, second = (_expect(_sort_of(kind), what, item) for item in (left, right))
    return merged(Chain(kind, first, second), (first, second))


def _extremum(what: str, kind: Kind, items: tuple[Operand, ...]) -> Expr:
    first, *others = (_expect(ir.Sort.INT, what, item) for item in _some(what, items))
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
    return _bools(what, build, left, right) if _is_bool(left) else _ints(what, build, left, right)


def _is_bool(value: object) -> bool:
    return as_expr(value)._sort is ir.Sort.BOOL


def _divided(what: str, build: Callable[..., ir.Node], left: object, right: object) -> Expr:
    divisor = _expect(ir.Sort.INT, what, right)
    if isinstance(divisor._node, ir.Const) and divisor._node.value <= 0:
        title = "division by a number that is not positive"
        raise AttnDslError(make_error("A302", title, here()))
    return _ints(what, build, left, divisor)


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


def zeros_of(expr: Expr) -> ir.Node:
    """How many zero keys a query sees."""
    return expr._zeros
