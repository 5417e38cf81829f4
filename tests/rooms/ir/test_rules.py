"""Each constructor on all pairs of some operands that its rules look at, against NumPy on their values."""

import itertools

import numpy as np
import pytest

from attndsl import ir

Q, K = ir.Pos(ir.Side.QUERY), ir.Pos(ir.Side.KEY)
AT = ir.Env(q=np.arange(-7, 8)[:, None], k=np.arange(-7, 8), sizes={})
GAP = ir.sub(Q, K)


def number(value):
    return ir.Const(value)


OPERANDS = [
    *map(number, range(-3, 8)), Q, ir.scale(K, -1), GAP, ir.sub(K, Q), ir.add(ir.scale(Q, 4), number(6)),
    ir.scale(GAP, -2), ir.mod(Q, number(6)), ir.sub(ir.mod(K, number(4)), number(2)),
    ir.add(ir.mod(Q, number(3)), number(6)), ir.sub(ir.mod(K, number(2)), number(4)),
    ir.floordiv(GAP, number(2)), ir.add(ir.floordiv(Q, number(3)), ir.scale(K, 3)), ir.absolute(GAP),
    ir.scale(ir.absolute(Q), -3), ir.pow2(Q), ir.ilog2(K), ir.maximum(Q, K),
]  # fmt: skip
CONDITIONS = [ir.le(Q, K), ir.eq(Q, K), ir.ne(ir.mod(Q, number(2)), ir.ZERO), ir.FALSE, ir.TRUE]


def value(node):
    return np.broadcast_to(ir.evaluate(node, AT), (15, 15)).astype(np.int64)


def quotient(a, b):
    return np.where(b > 0, a // np.maximum(b, 1), 0)


def remainder(a, b):
    return np.where(b > 0, a % np.maximum(b, 1), 0)


BINARY = {
    "add": (ir.add, np.add),
    "sub": (ir.sub, np.subtract),
    "mul": (ir.mul, np.multiply),
    "floordiv": (ir.floordiv, quotient),
    "mod": (ir.mod, remainder),
    "minimum": (ir.minimum, np.minimum),
    "maximum": (ir.maximum, np.maximum),
    "le": (ir.le, np.less_equal),
    "lt": (ir.lt, np.less),
    "ge": (ir.ge, np.greater_equal),
    "gt": (ir.gt, np.greater),
    "eq": (ir.eq, np.equal),
    "ne": (ir.ne, np.not_equal),
}


@pytest.mark.parametrize("name", BINARY)
def test_two_operands_make_what_numpy_makes_of_their_values(name):
    make, plain = BINARY[name]
    values = {node: value(node) for node in OPERANDS}
    for a, b in itertools.product(OPERANDS, repeat=2):
        found = value(make(a, b))
        assert np.array_equal(found, plain(values[a], values[b])), (ir.show(a), ir.show(b))


def test_nested_divisions_are_one():
    for a, b in itertools.product(range(1, 6), repeat=2):
        once = ir.floordiv(GAP, number(a))
        assert np.array_equal(value(ir.floordiv(once, number(b))), value(GAP) // a // b)
        assert np.array_equal(value(ir.mod(ir.mod(GAP, number(a * b)), number(b))), value(GAP) % b)


def test_absolute_values():
    for node in OPERANDS:
        assert np.array_equal(value(ir.absolute(node)), abs(value(node))), ir.show(node)


def test_a_choice_takes_one_of_both():
    for cond in CONDITIONS:
        for yes, no in itertools.permutations([Q, K, ir.ONE, GAP], 2):
            wanted = np.where(value(cond), value(yes), value(no))
            assert np.array_equal(value(ir.select(cond, yes, no)), wanted)
        for yes, no in itertools.product(CONDITIONS, repeat=2):
            wanted = np.where(value(cond), value(yes), value(no))
            assert np.array_equal(value(ir.select(cond, yes, no)), wanted)


@pytest.mark.parametrize("limits", [(Q, K), (ir.ZERO, GAP), (ir.ONE, ir.ONE), (ir.ONE, number(4))])
def test_quantifiers_hold_where_some_number_does(limits):
    start, stop = map(value, limits)
    bodies = (lambda j: ir.le(Q, ir.ONE)), (lambda j: ir.eq(ir.mod(j, number(4)), ir.ONE))
    for body in bodies:
        wanted = np.zeros((15, 15), dtype=bool)
        for j in range(-20, 20):
            wanted |= (start <= j) & (j < stop) & (value(body(number(j))) != 0)
        assert np.array_equal(value(ir.exists(*limits, body)), wanted)
        wanted = np.ones((15, 15), dtype=bool)
        for j in range(-20, 20):
            wanted &= (start > j) | (j >= stop) | (value(body(number(j))) != 0)
        assert np.array_equal(value(ir.forall(*limits, body)), wanted)


def test_an_equation_is_one_node_however_it_is_turned():
    for a, b in itertools.combinations(OPERANDS, 2):
        assert ir.eq(a, b) is ir.eq(b, a)
        assert ir.eq(ir.scale(a, -3), ir.scale(b, -3)) is ir.eq(a, b)
