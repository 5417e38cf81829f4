"""Ranges of the interpreter on boxes of random relations are true of every pair in them."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from attndsl import ir
from attndsl.analysis import Interpreter, Range
from attndsl.passes import bind
from tests.support import expressions as ex

BOX = st.tuples(st.integers(-5, 60), st.integers(1, 9), st.integers(-5, 60), st.integers(1, 9))
TABLES = {"t": ex.TABLE, "b": ex.PER_BATCH[0]}


def interpreter(box, dtype):
    q0, height, k0, width = box

    def known(node):
        match node:
            case ir.Pos(side=side):
                low, count = (q0, height) if side is ir.Side.QUERY else (k0, width)
                ends = (np.array([end], dtype=dtype) for end in (low, low + count - 1, 1))
                return Range(*ends)
            case ir.Load(table=table):
                low, high = min(TABLES[table].min(), 0), max(TABLES[table].max(), 0)
                return Range(np.array([int(low)], dtype=dtype), np.array([int(high)], dtype=dtype))
        return None

    return Interpreter(known, np.zeros(1, dtype=dtype))


def values(node, box):
    q0, height, k0, width = box
    q, k = np.arange(q0, q0 + height)[:, None], np.arange(k0, k0 + width)
    found = ir.evaluate(node, ir.Env(q=q, k=k, sizes={}, tables=TABLES))
    return np.broadcast_to(found, (height, width))


def closed(root):
    def plain(node):
        if isinstance(node, ir.Load):
            return ir.Load(node.table, node.kind, node.index, ir.Deps.NONE)
        return node

    return ir.transform(bind(root, {}, batch=0, head=1), plain)


@settings(max_examples=300)
@given(ex.relations(), BOX, st.sampled_from([np.int64, object]))
def test_no_pair_contradicts_a_verdict(expression, box, dtype):
    root = closed(expression.root)
    verdict, found = interpreter(box, dtype).truths(root), values(root, box)
    assert verdict.may_hold[0] or not found.any()
    assert verdict.may_fail[0] or found.all()


def outside_loops(root):
    """Nodes with a value of their own; bodies of loops have one for each number."""
    yield root
    for part in (root.start, root.stop) if isinstance(root, ir.Loop) else root.parts:
        yield from outside_loops(part)


@settings(max_examples=300)
@given(ex.ints(4), BOX)
def test_values_lie_in_their_range_and_on_its_step(expression, box):
    root = closed(expression.root)
    for node in outside_loops(root):
        if node.sort is ir.Sort.BOOL:
            continue
        range_, found = interpreter(box, np.int64).range(node), values(node, box)
        assert range_.low[0] <= found.min(), ir.show(node)
        assert found.max() <= range_.high[0], ir.show(node)
        step = int(range_.stride[0])
        assert ((found - range_.low[0]) % max(step, 1) == 0).all(), ir.show(node)


@settings(max_examples=70)
@given(ex.bools(3, bound=1), BOX)
def test_quantifiers_left_open_are_sound_too(body, box):
    root = ir.exists(ir.ZERO, ir.maximum(ex.Q, ex.K), lambda j: body.node((j,)))
    root = bind(root, {}, batch=0, head=1)
    root = closed(root)
    verdict, found = interpreter(box, np.int64).truths(root), values(root, box)
    assert verdict.may_hold[0] or not found.any()
    assert verdict.may_fail[0] or found.all()
