"""Real-valued expressions: what is done with the score of a pair, as nodes beside those of masks.

```
real   = Number value | FromInt int | Score
       | Plus real* | Times real real | Over real real | Apply function real
       | Least real real | Greatest real real | Choose bool real real
       | Load table int*                                       -- of a real table
       | Dot vector vector | Drawn least int int
vector = Row table int* | Own side
```

Leaves may be integer and bool nodes, so that index arithmetic keeps its proofs. Real nodes are hash-consed like all
others and know what they depend on. Arithmetic is that of IEEE numbers: x / 0 is infinite or NaN, log of a negative
number is NaN, and either concerns the queries that see such a pair, and no others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Final

from attndsl.ir.interning import Deps, Node, Side, Sort
from attndsl.ir.nodes import BoolConst, Const, Load
from attndsl.ir.walks import holds, postorder


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Real(Node):
    """Base of all nodes whose value is a real number."""

    def _own_sort(self) -> Sort:
        return Sort.REAL


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Number(Real):
    """A constant, a finite float64."""

    value: float


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class FromInt(Real):
    """An integer as a real number."""

    item: Node


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Score(Real):
    """The score of the pair: scale * (query . key); in weights, what became of it."""

    def _own_deps(self) -> Deps:
        return Deps.BATCH | Deps.HEAD | Deps.PAIR


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Plus(Real):
    """Sum of two or more, added from left to right."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Times(Real):
    """Product."""

    left: Node
    right: Node


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Over(Real):
    """Quotient."""

    left: Node
    right: Node


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Apply(Real):
    """One of ``FUNCTIONS`` of a number."""

    function: str
    item: Node


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Least(Real):
    """The lesser of two; its derivative at a tie goes to the left one."""

    left: Node
    right: Node


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Greatest(Real):
    """The greater of two; its derivative at a tie goes to the left one."""

    left: Node
    right: Node


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Choose(Real):
    """``if cond then yes else no``; what is not chosen has no derivative, and may be NaN."""

    cond: Node
    yes: Node
    no: Node


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Vector(Node):
    """Base of the operands of `Dot`."""

    def _own_sort(self) -> Sort:
        return Sort.VECTOR


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Row(Vector):
    """The last dim of a real table at an index of all dims before it; zeros where it is outside."""

    table: str
    index: tuple[Node, ...]
    ambient: Deps

    def _own_deps(self) -> Deps:
        return self.ambient


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Own(Vector):
    """The query's, or the key's, own vector."""

    side: Side

    def _own_deps(self) -> Deps:
        return Deps.BATCH | Deps.HEAD | self.side.deps


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Dot(Real):
    """Inner product of two vectors, accumulated in the wide dtype."""

    left: Node
    right: Node


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Drawn(Real):
    """One where the number drawn for a pair of ints is at least ``least``, else zero.

    The ints are mixed numbers of 0 to 2**30 - 1. Their sum x is an int of 32 bits that wraps and whose shifts keep
    its sign: x *= 0x7feb352d, x ^= x >> 15, x *= 0x846ca68b (the factors of lowbias32, by C. Wellons); the number is
    its lowest 31 bits.
    """

    least: int
    left: Node
    right: Node


SCORE: Final = Score()
NOUGHT: Final = Number(0.0)
UNITY: Final = Number(1.0)
HALF: Final = Number(0.5)
LN2: Final = Number(math.log(2.0))

# Functions of one real number, by the names of the language. `sign` and `step` arise as derivatives.
FUNCTIONS: Final[Mapping[str, Callable[[float], float]]] = {
    "exp": lambda x: math.exp(x) if x < 709.0 else math.inf,
    "exp2": lambda x: 2.0**x if x < 1024.0 else math.inf,
    "log": lambda x: math.log(x) if x > 0 else (-math.inf if x == 0 else math.nan),
    "tanh": math.tanh,
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)) if x > -700.0 else 0.0,
    "softplus": lambda x: x + math.log1p(math.exp(-x)) if x > 0 else math.log1p(math.exp(x)),
    "relu": lambda x: max(x, 0.0),
    "sqrt": lambda x: math.sqrt(x) if x >= 0 else math.nan,
    "abs": abs,
    "sign": lambda x: float((x > 0) - (x < 0)),
    "step": lambda x: float(x > 0),
}


# ---------------------------------------------------------------- building


def as_real(node: Node) -> Node:
    """An int or a real as a real."""
    assert node.sort is not Sort.BOOL, "the front end checks"
    if isinstance(node, Const):
        return Number(float(node.value))
    return FromInt(node) if node.sort is Sort.INT else node


def plus(*items: Node) -> Node:
    """Sum; numbers are added up, and zeros left out, where all of it is known."""
    flat: list[Node] = []
    for item in map(as_real, items):
        flat += item.items if isinstance(item, Plus) else (item,)
    known = sum(item.value for item in flat if isinstance(item, Number))
    rest = [item for item in flat if not isinstance(item, Number)]
    if known or not rest:
        rest.append(Number(known))
    return rest[0] if len(rest) == 1 else Plus(tuple(rest))


def minus(left: Node, right: Node) -> Node:
    """Difference."""
    return plus(left, times(Number(-1.0), right))


def times(*items: Node) -> Node:
    """Product, numbers first; 0 * x is 0 only where x is known."""
    factor, rest = 1.0, list[Node]()
    for item in map(as_real, items):
        if isinstance(item, Number):
            factor *= item.value
        elif isinstance(item, Times) and isinstance(item.left, Number):
            factor *= item.left.value
            rest.append(item.right)
        else:
            rest.append(item)
    if not rest or not factor:
        return Number(factor)
    product = rest[0]
    for item in rest[1:]:
        product = Times(product, item)
    return product if factor == 1.0 else Times(Number(factor), product)


def over(left: Node, right: Node) -> Node:
    """Quotient."""
    left, right = as_real(left), as_real(right)
    if isinstance(right, Number) and right.value:
        return (
            times(Number(1.0 / right.value), left) if _is_exact(right) else _quotient(left, right)
        )
    return Over(left, right)


def _is_exact(divisor: Number) -> bool:
    """Whether multiplying by the inverse rounds like dividing: for powers of two."""
    return abs(math.frexp(divisor.value)[0]) == 0.5


def _quotient(left: Node, right: Number) -> Node:
    return Number(left.value / right.value) if isinstance(left, Number) else Over(left, right)


def apply(function: str, item: Node) -> Node:
    """One of ``FUNCTIONS``; log(exp(x)) is x."""
    item = as_real(item)
    if isinstance(item, Number):
        found = FUNCTIONS[function](item.value)
        return Number(found) if math.isfinite(found) else Apply(function, item)
    if function == "log" and isinstance(item, Apply) and item.function == "exp":
        return item.item
    return Apply(function, item)


def least(*items: Node) -> Node:
    """The least of one or more."""
    first, *rest = map(as_real, items)
    for item in rest:
        first = first if first is item else Least(first, item)
    return first


def greatest(*items: Node) -> Node:
    """The greatest of one or more."""
    first, *rest = map(as_real, items)
    for item in rest:
        first = first if first is item else Greatest(first, item)
    return first


def choose(cond: Node, yes: Node, no: Node) -> Node:
    """``if cond then yes else no``."""
    yes, no = as_real(yes), as_real(no)
    if isinstance(cond, BoolConst):
        return yes if cond.value else no
    return yes if yes is no else Choose(cond, yes, no)


def dot(left: Node, right: Node) -> Node:
    """Inner product of two vectors."""
    return Dot(left, right) if left.digest <= right.digest else Dot(right, left)


def rebuild_real(node: Node, parts: tuple[Node, ...]) -> Node:
    """The real node or vector with new children, canonical again."""
    match node:
        case FromInt():
            return as_real(*parts)
        case Plus():
            return plus(*parts)
        case Times():
            return times(*parts)
        case Over():
            return over(*parts)
        case Apply(function=function):
            return apply(function, *parts)
        case Least():
            return least(*parts)
        case Greatest():
            return greatest(*parts)
        case Choose():
            return choose(*parts)
        case Dot():
            return dot(*parts)
        case Row(table=table, ambient=ambient):
            return Row(table, parts, ambient)
        case _:
            return node if parts == node.parts else _with_parts(node, parts)


def _with_parts(node: Node, parts: tuple[Node, ...]) -> Node:
    """A node of any class whose fields are nodes or plain values, with other nodes in their places."""
    left = iter(parts)
    given = (getattr(node, each.name) for each in fields(node) if each.init)
    made: Node = type(node)(*(next(left) if isinstance(x, Node) else x for x in given))
    return made


# ---------------------------------------------------------------- asking


def reads_score(root: Node) -> bool:
    """Whether the score of the pair stands in it."""
    return holds(root, Score)


def real_reads(root: Node) -> tuple[Load | Row | Own, ...]:
    """The real leaves that carry a gradient beside the score, in order: reads of tables, and own vectors."""
    return tuple(
        node
        for node in postorder(root, Row, Own, Load)
        if isinstance(node, Row | Own) or (isinstance(node, Load) and node.kind is Sort.REAL)
    )


def additive(root: Node) -> Node | None:
    """``b`` of a score that is ``s + b``, b without s; None where it is not."""
    items = root.items if isinstance(root, Plus) else (root,)
    if SCORE not in items or items.count(SCORE) > 1:
        return None
    rest = [item for item in items if item is not SCORE]
    return None if any(map(reads_score, rest)) else plus(*rest) if rest else NOUGHT
