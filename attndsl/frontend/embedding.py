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
from .joining import (
    ASKS_NOTHING,
    SORT_WORDS,
    Asked,
    Container,
    Kind,
    Readable,
    Scalable,
    checked,
    joined,
    some_of,
    sort_of,
)  # fmt: skip
from .spaces import Pair

reals = ir.reals

Operand: TypeAlias = "Expr | Readable | int | bool | float"


@dataclass(frozen=True, slots=True)
class Chain:
    """``left & right``, ``left + right``, ..., not built yet: each node built alone would copy all before it."""

    kind: Kind
    left: Expr
    right: Expr


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
        asked: Asked = ASKS_NOTHING,
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
        return sort_of(self._built.kind) if isinstance(self._built, Chain) else self._built.sort

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

    def isin(self, container: Sequence[Operand] | range | Container) -> Expr:
        """Whether it is one of these ints, in the range, or in a row of a list table."""
        if isinstance(container, Container):
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
        case Readable() if (read := value.only_value()) is not None:
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
    title = f"`{what}` takes {SORT_WORDS[sort]}, not {SORT_WORDS[made._sort]}"
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


_OF_REALS: dict[Kind, Callable[..., ir.Node]] = {
    ir.Sum: reals.plus, ir.Min: reals.least, ir.Max: reals.greatest,
}  # fmt: skip


def _chained(what: str, kind: Kind, left: object, right: object) -> Expr:
    sides = as_expr(left), as_expr(right)
    if kind in _OF_REALS and any(side._sort is ir.Sort.REAL for side in sides):
        return numeric(what, ir.add, _OF_REALS[kind], *sides)
    first, second = (expect(sort_of(kind), what, item) for item in (left, right))
    return merged(Chain(kind, first, second), (first, second))


def extremum(what: str, kind: Kind, items: tuple[Operand, ...]) -> Expr:
    first, *others = map(as_expr, some_of(what, items))
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
            waiting.pop()._built = checked(joined(chain.kind, nodes))


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
    if as_expr(left)._sort is ir.Sort.BOOL:
        return _bools(what, build, left, right)
    return _compared(what, build, left, right)


def _divided(what: str, build: Callable[..., ir.Node], left: object, right: object) -> Expr:
    divisor = expect(ir.Sort.INT, what, right)
    if isinstance(divisor._node, ir.Const) and divisor._node.value <= 0:
        title = "division by a number that is not positive"
        raise AttnDslError(make_error("A302", title, here()))
    return ints(what, build, left, divisor)


def merged(node: ir.Node | Chain, parts: Iterable[Expr]) -> Expr:
    """The node, with what its parts know of tables and spaces."""
    tables: dict[str, ir.Table] = {}
    overs: dict[Pair, None] = {}
    asked = ASKS_NOTHING
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
    whole = checked(node) if isinstance(node, ir.Node) else node
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
