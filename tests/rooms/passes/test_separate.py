"""Each law of separation, applied for sure, keeps the meaning at every small pair."""

import itertools

import numpy as np
import pytest

from attndsl import ir
from attndsl.passes import separate_root

Q, K = ir.Pos(ir.Side.QUERY), ir.Pos(ir.Side.KEY)
AT = ir.Env(q=np.arange(-9, 10)[:, None], k=np.arange(-9, 10), sizes={})
GAPS = [ir.sub(Q, K), ir.sub(K, Q), ir.add(Q, K), ir.sub(ir.scale(Q, 2), K)]
TERMS = {
    "floordiv": lambda x: ir.floordiv(x, ir.Const(3)),
    "mod": lambda x: ir.mod(x, ir.Const(4)),
    "abs": ir.absolute,
    "max": lambda x: ir.maximum(x, ir.Const(-2), ir.sub(Q, ir.Const(1))),
    "min": lambda x: ir.minimum(x, ir.Const(3), ir.add(K, ir.Const(1))),
    "select": lambda x: ir.select(ir.le(Q, ir.ONE), x, ir.sub(ir.Const(2), K)),
}
RESTS = [ir.ZERO, Q, ir.scale(K, -2)]


@pytest.mark.parametrize("name", TERMS)
def test_a_comparison_means_what_it_meant(name: str):
    changed = 0
    for gap, factor, rest in itertools.product(GAPS, (1, -1, 2), RESTS):
        item = ir.add(ir.scale(TERMS[name](gap), factor), rest)
        for bound, make in itertools.product(range(-5, 6), (ir.le, ir.ge, ir.eq)):
            root = make(item, ir.Const(bound))
            made = separate_root(root)
            changed += made is not root
            expected, found = (np.broadcast_to(ir.evaluate(x, AT), (19, 19)) for x in (root, made))
            assert np.array_equal(found, expected), f"{ir.show(root)}  -->  {ir.show(made)}"
    assert changed > 100, "the law is never applied"


def test_extrema_that_multiply_are_left():
    distance = ir.sub(Q, K)
    for number in range(12):
        apart = ir.absolute(ir.sub(distance, ir.Const(number)))
        distance = ir.sub(ir.maximum(apart, Q), K)
    root = ir.le(distance, ir.Const(5))
    assert separate_root(root) is root
