"""Passes keep the meaning, and leave what they promise."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attndsl import ir
from attndsl.passes import (
    OPTIONAL,
    PIPELINE,
    bind,
    normalise,
    separate_root,
    steps,
)
from tests.support import expressions as ex


@settings(max_examples=100)
@given(ex.relations(), st.integers(1, 20), st.integers(1, 20))
def test_every_pass_keeps_the_meaning(expression, q_len, k_len):
    made = ex.mask(expression.root)
    truth = ex.dense(made, q_len, k_len, heads=2)

    for name, after in steps(made):
        assert np.array_equal(ex.dense(after, q_len, k_len, heads=2), truth), name


@settings(max_examples=70)
@given(ex.relations(), st.integers(0, 1), st.integers(0, 2))
def test_binding_is_the_same_relation_at_that_head(expression, batch, head):
    root = expression.root
    bound = bind(root, {"q": 9, "k": 9}, heads=3, batch=batch, head=head)
    assert not any(isinstance(node, ir.Size) for node in ir.postorder(bound))
    assert not any(node == ex.HEAD for node in ir.postorder(bound))
    truth = ex.dense(ex.mask(root), 9, 9, heads=3)[batch, head]
    for after in (bound, separate_root(bound)):
        assert np.array_equal(ex.dense(ex.mask(after), 9, 9, heads=3)[batch, head], truth)


SPACE = ir.Space("s", (
    ir.Segment("text", (ir.Axis("text"),)),
    ir.Segment("image", (ir.Axis("y"), ir.Axis("x", 3))),
))  # fmt: skip


@pytest.mark.parametrize("axis", ["text.text", "image.y", "image.x"])
@pytest.mark.parametrize("side", list(ir.Side))
def test_coordinates_become_arithmetic(axis, side):
    at, other = ir.Coord(side, axis), ir.Coord(side.other, axis)
    root = ir.disj(ir.eq(at, other), ir.conj(ir.Inside(side, "text"), ir.lt(at, ir.Const(2))))
    mask = ir.Mask(root, SPACE, SPACE)
    sizes = ir.resolve_sizes(mask, 6, 14, {"y": 4})
    assert sizes["text.text"] == 2
    normal = normalise(mask)
    assert not any(isinstance(n, ir.Coord | ir.Inside) for n in ir.postorder(normal.root))
    before, after = (ir.meaning(m, 6, 14, sizes) for m in (mask, normal))
    assert np.array_equal(before, after)


def test_passes_run_in_order_and_can_be_left_out():
    near = ir.le(ir.absolute(ir.sub(ex.Q, ex.K)), ir.Const(4))
    mask = ex.mask(ir.conj(near, ir.ge(ex.K, ir.ZERO)))
    assert [name for name, _ in steps(mask)] == list(PIPELINE)
    *_, (_, last) = steps(mask)
    assert last.root is normalise(mask).root
    for left_out in OPTIONAL:
        assert left_out not in dict(steps(mask, [left_out]))
        assert normalise(mask, [left_out]).root is not last.root
