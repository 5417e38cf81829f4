"""Random expressions of the IR, each with the plain Python that says what it should be."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from attndsl import ir

Q, K = ir.Pos(ir.Side.QUERY), ir.Pos(ir.Side.KEY)
HEAD, BATCH = ir.Var("head"), ir.Var("batch")
TABLE = np.array([3, 0, 5, 1, 1, 7, -2])
PER_BATCH = np.array([[0, 0, 1, 1, 2], [2, 1, 0, 0, 0]])
TABLES = {"t": TABLE, "b": PER_BATCH}
DECLARED = (
    ir.Table("t", ir.Sort.INT, ("n",)),
    ir.Table("b", ir.Sort.INT, ("batch", "m")),
)


@dataclass(frozen=True)
class Point:
    """One pair of one head and batch element; ``j`` are the bound variables."""

    q: int
    k: int
    head: int = 0
    batch: int = 0
    j: tuple[int, ...] = ()


@dataclass(frozen=True)
class Expression:
    """A node, and its value by plain Python at a point. ``node`` is given the bound variables."""

    node: Callable[[tuple[ir.Node, ...]], ir.Node]
    value: Callable[[Point], Any]

    @property
    def root(self) -> ir.Node:
        return self.node(())


def lift(make: Callable[..., ir.Node], plain: Callable[..., Any], *parts: Expression) -> Expression:
    return Expression(
        lambda j: make(*(part.node(j) for part in parts)),
        lambda at: plain(*(part.value(at) for part in parts)),
    )


def read(table: np.ndarray, index: int) -> int:
    return int(table[index]) if 0 <= index < len(table) else 0


def log(value: int) -> int:
    return value.bit_length() - 1 if value >= 1 else -1


def by(make: Callable[..., ir.Node], plain: Callable[..., int], number: int) -> Any:
    """A two-place operation with a constant on its right."""
    return lambda x: lift(lambda n: make(n, ir.Const(number)), lambda v: plain(v, number), x)


def atoms(bound: int) -> st.SearchStrategy[Expression]:
    fixed = [
        Expression(lambda j: Q, lambda at: at.q),
        Expression(lambda j: K, lambda at: at.k),
        Expression(lambda j: HEAD, lambda at: at.head),
    ]
    gap = Expression(lambda j: ir.sub(Q, K), lambda at: at.q - at.k)
    positions = st.sampled_from([*fixed, *fixed[:2], gap, gap])
    variables = [
        Expression(lambda j, i=i: j[i], lambda at, i=i: at.j[i])  # type: ignore[misc]
        for i in range(bound)
    ]
    numbers = st.integers(-9, 20).map(
        lambda c: Expression(lambda j: ir.Const(c), lambda at: c)  # a small constant
    )
    options = [positions, positions, positions, numbers]
    return st.one_of(*options, st.sampled_from(variables)) if variables else st.one_of(*options)


@functools.cache
def ints(depth: int, bound: int = 0) -> st.SearchStrategy[Expression]:
    if depth <= 0:
        return atoms(bound)
    one, small = st.deferred(lambda: ints(depth - 1, bound)), atoms(bound)
    looped = []
    if bound < 2:
        inner, test = (
            st.deferred(lambda kind=kind: kind(depth - 1, bound + 1))  # type: ignore[misc]
            for kind in (ints, bools)
        )
        looped = [st.builds(summed, limits(bound), inner), st.builds(counted, limits(bound), test)]
    divisor = st.integers(-1, 12)
    unary = st.one_of(
        st.just(lambda x: lift(ir.absolute, abs, x)),
        st.just(lambda x: lift(ir.ilog2, log, x)),
        st.just(
            lambda x: lift(
                lambda n: ir.pow2(ir.clamp(n, ir.Const(-1), ir.Const(5))),
                lambda v: 1 << c if (c := max(-1, min(v, 5))) >= 0 else 0,
                x,
            )
        ),
        st.just(
            lambda x: lift(
                lambda n: ir.Load("t", ir.Sort.INT, (n,), ir.Deps.NONE), lambda v: read(TABLE, v), x
            )
        ),
        st.just(
            lambda x: Expression(
                lambda j: ir.Load("b", ir.Sort.INT, (x.node(j),), ir.Deps.BATCH),
                lambda at: read(PER_BATCH[at.batch], x.value(at)),
            )
        ),
        st.just(
            lambda x: lift(
                lambda n: ir.entry(tuple(TABLE.tolist()), n), lambda v: read(TABLE, v), x
            )
        ),
        divisor.map(lambda m: by(ir.floordiv, lambda v, m: v // m if m > 0 else 0, m)),
        divisor.map(lambda m: by(ir.mod, lambda v, m: v % m if m > 0 else 0, m)),
        st.integers(-4, 4).map(
            lambda c: lambda x: lift(lambda n: ir.scale(n, c), lambda v: v * c, x)
        ),
    )
    binary = st.sampled_from(
        [
            (ir.add, lambda a, b: a + b),
            (ir.sub, lambda a, b: a - b),
            (ir.sub, lambda a, b: a - b),
            (ir.minimum, min),
            (ir.maximum, max),
        ]
    )
    return st.one_of(
        small.map(lambda x: x),  # one choice of six, not one for each kind of atom
        st.builds(lambda f, x: f(x), unary, one),
        st.builds(lambda f, x, y: lift(*f, x, y), binary, one, one),
        st.builds(lambda x, y: lift(ir.mul, lambda a, b: a * b, x, y), small, small),
        st.builds(
            lambda c, x, y: lift(ir.select, lambda c, a, b: a if c else b, c, x, y),
            st.deferred(lambda: bools(depth - 1, bound)), one, one,
        ),
        *looped,
    )  # fmt: skip


def limits(bound: int) -> st.SearchStrategy[tuple[Expression, Expression]]:
    """Limits of a loop: numbers, or terms of positions, heads and tables; never far apart."""
    known = st.integers(-2, 4).map(lambda c: Expression(lambda j: ir.Const(c), lambda at: c))
    q, k = Expression(lambda j: Q, lambda at: at.q), Expression(lambda j: K, lambda at: at.k)
    varying = [
        by(ir.mod, lambda v, m: v % m, 4)(q),
        by(ir.mod, lambda v, m: v % m, 3)(k),
        Expression(lambda j: HEAD, lambda at: at.head),
        Expression(
            lambda j: ir.clamp(ir.sub(Q, K), ir.Const(-1), ir.Const(4)),
            lambda at: max(-1, min(at.q - at.k, 4)),
        ),
        Expression(
            lambda j: ir.Load("b", ir.Sort.INT, (Q,), ir.Deps.BATCH),
            lambda at: read(PER_BATCH[at.batch], at.q),
        ),
        *(Expression(lambda j: j[-1], lambda at: at.j[-1]) for _ in range(min(bound, 1))),
    ]
    one = st.one_of(known, known, st.sampled_from(varying))
    from_start = st.builds(
        lambda start, width: (start, by(ir.add, lambda v, w: v + w, width)(start)),
        st.sampled_from([q, *varying]), st.integers(0, 3),
    )  # fmt: skip
    return st.one_of(st.tuples(one, one), st.tuples(one, one), from_start)


Limits = tuple[Expression, Expression]


def looped(make: Any, join: Callable[..., Any], ends: Limits, body: Expression) -> Expression:
    """A loop as a node, and by a plain loop."""

    def value(at: Point) -> Any:
        numbers = range(*(end.value(at) for end in ends))
        return join(body.value(Point(at.q, at.k, at.head, at.batch, (*at.j, i))) for i in numbers)

    return Expression(
        lambda j: make(*(end.node(j) for end in ends), lambda i: body.node((*j, i))), value
    )


def summed(ends: Limits, body: Expression) -> Expression:
    return looped(ir.total, sum, ends, body)


def counted(ends: Limits, body: Expression) -> Expression:
    return looped(ir.count, lambda found: sum(map(bool, found)), ends, body)


def quantified(ends: Limits, body: Expression) -> Expression:
    return looped(ir.exists, any, ends, body)


@functools.cache
def bools(depth: int = 4, bound: int = 0) -> st.SearchStrategy[Expression]:
    number = ints(depth - 1, bound)
    compare = st.sampled_from(
        [
            (ir.le, lambda a, b: a <= b),
            (ir.le, lambda a, b: a <= b),
            (ir.lt, lambda a, b: a < b),
            (ir.eq, lambda a, b: a == b),
            (ir.ne, lambda a, b: a != b),
        ]
    )
    comparison = st.builds(lambda f, x, y: lift(*f, x, y), compare, number, number)
    if depth <= 1:
        return comparison
    one = st.deferred(lambda: bools(depth - 1, bound))
    junction = st.sampled_from([(ir.conj, lambda a, b: a and b), (ir.disj, lambda a, b: a or b)])
    options = [
        comparison.map(lambda x: x),
        st.builds(lambda f, x, y: lift(*f, x, y), junction, one, one),
        one.map(lambda x: lift(ir.negate, lambda a: not a, x)),
        st.builds(
            lambda c, x, y: lift(ir.select, lambda c, a, b: a if c else b, c, x, y), one, one, one
        ),
    ]
    if bound < 2:
        inner = st.deferred(lambda: bools(depth - 1, bound + 1))
        options.append(st.builds(quantified, limits(bound), inner))
    return st.one_of(*options)


def relations() -> st.SearchStrategy[Expression]:
    """Several truth values joined, so that few collapse to a constant."""
    return st.builds(
        lambda a, b, c, d: lift(
            lambda a, b, c, d: ir.select(a, ir.disj(b, c), ir.conj(ir.disj(b, d), ir.negate(c))),
            lambda a, b, c, d: (b or c) if a else ((b or d) and not c),
            a, b, c, d,
        ),
        bools(3), bools(3), bools(2), bools(4),
    )  # fmt: skip


def mask(root: ir.Node, align: ir.Align = ir.Align.END) -> ir.Mask:
    return ir.Mask(root, tables=DECLARED, align=align).with_root(root)


def dense(made: ir.Mask, q_len: int, k_len: int, heads: int = 1) -> np.ndarray:
    sizes = {"q": q_len, "k": k_len}
    return ir.meaning(made, q_len, k_len, sizes, TABLES, batch=2, heads=heads)
