"""The interpreter's single steps on all small verdicts and ranges: sound, and as exact as the parts allow."""

import itertools

import numpy as np
import pytest

from attndsl import ir
from attndsl.analysis import Interpreter, Range, Truths

Q, K = ir.Pos(ir.Side.QUERY), ir.Pos(ir.Side.KEY)
VERDICTS = {(True, False): {True}, (False, True): {False}, (True, True): {True, False}}
ENDS = [(low, high) for low in range(-2, 4) for high in range(low, 4)]


def interpreter(known):
    return Interpreter(known.get, np.zeros(1, dtype=np.int64))


def point(low, high):
    return Range(np.array([low]), np.array([high]))


@pytest.mark.parametrize("kind", [ir.And, ir.Or])
def test_junctions_say_what_independent_parts_can_be(kind):
    parts = [ir.Load(name, ir.Sort.BOOL, (Q,), ir.Deps.NONE) for name in "abc"]
    node = (ir.conj if kind is ir.And else ir.disj)(*parts)
    assert isinstance(node, kind)
    for given in itertools.product(VERDICTS, repeat=3):
        known = {
            part: Truths(np.array([holds]), np.array([fails]))
            for part, (holds, fails) in zip(parts, given, strict=True)
        }
        said = interpreter(known).truths(node)
        combine = all if kind is ir.And else any
        possible = {combine(values) for values in itertools.product(*(VERDICTS[v] for v in given))}
        assert bool(said.may_hold[0]) == (True in possible)
        assert bool(said.may_fail[0]) == (False in possible)


@pytest.mark.parametrize("least", [-1, 0, 1, 2])
def test_a_quantifier_with_open_ends_is_sound_on_all_small_ranges(least):
    node = ir.exists(Q, K, lambda j: ir.eq(ir.mod(j, ir.Const(3)), ir.Const(least)))
    for start, stop in itertools.product(ENDS, repeat=2):
        said = interpreter({Q: point(*start), K: point(*stop)}).truths(node)
        q, k = np.arange(start[0], start[1] + 1)[:, None], np.arange(stop[0], stop[1] + 1)
        values = np.asarray(ir.evaluate(node, ir.Env(q=q, k=k, sizes={})))
        assert said.may_hold[0] or not values.any(), (start, stop)
        assert said.may_fail[0] or values.all(), (start, stop)


def test_powers_of_two_lie_in_their_range_also_where_they_are_0():
    exponents = [-3, -1, 0, 1, 2, 60, 61, 62, 63, 64, 70]
    for low, high in itertools.combinations_with_replacement(exponents, 2):
        said = interpreter({Q: point(low, high)}).range(ir.pow2(Q))
        values = [1 << x if 0 <= x <= 62 else 0 for x in range(low, high + 1)]
        assert said.low[0] <= min(values), (low, high)
        assert said.high[0] >= max(values), (low, high)
        if low >= 0 and high <= 62:
            assert (said.low[0], said.high[0]) == (min(values), max(values))
