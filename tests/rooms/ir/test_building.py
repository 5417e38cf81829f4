"""The smart constructors keep the meaning, and equal nodes are one object with one text and one file."""

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attndsl import ir
from attndsl.source import AttnDslError
from tests.support import expressions as ex

LENGTHS = st.tuples(st.integers(1, 9), st.integers(1, 9))


@settings(max_examples=70)
@given(ex.relations(), LENGTHS)
def test_nodes_mean_what_plain_python_says(expression, lengths):
    q_len, k_len = lengths
    found = ex.dense(ex.mask(expression.root, ir.Align.START), q_len, k_len, heads=2)
    for batch in range(2):
        for head in range(2):
            for q in range(q_len):
                for k in range(k_len):
                    expected = expression.value(ex.Point(q, k, head, batch))
                    assert found[batch, head, q, k] == expected


@settings(max_examples=70)
@given(ex.relations())
def test_built_twice_is_one_object_with_one_text(expression):
    first, text = expression.root, ir.show(expression.root)
    second = expression.root
    assert first is second
    assert ir.show(second) == text
    assert first.digest == second.digest


@settings(max_examples=70)
@given(ex.relations())
def test_rewriting_nothing_changes_nothing(expression):
    root = expression.root
    assert ir.transform(root, lambda node: node) is root
    again = root
    for node in ir.postorder(root):
        again = ir.rebuild(node, node.parts)
        assert again is node, ir.show(node)
    assert again is root


@settings(max_examples=70)
@given(ex.relations())
def test_negating_twice_is_nothing(expression):
    root = expression.root
    assert ir.negate(ir.negate(root)) is root
    assert ir.conj(root, ir.negate(root)) in (ir.FALSE, ir.conj(root, ir.negate(root)))
    assert ir.conj(root, root) is root
    assert ir.disj(root, root) is root


@settings(max_examples=70)
@given(ex.relations(), st.sampled_from(list(ir.Align)))
def test_saved_masks_come_back(expression, align):
    made = ex.mask(expression.root, align)
    back = ir.load(ir.dump(made))
    assert back == made
    assert back.digest == made.digest
    assert pickle.loads(pickle.dumps(made)) == made


GOOD = ir.dump(ex.mask(ir.le(ex.K, ex.Q)))
GARBAGE = [
    "", "{", "[]", "null", "7", '"text"', "{}", '{"format": 2}', '{"format": 1, "nodes": []}',
    GOOD.replace('"format": 1', '"format": 99'),
    GOOD.replace('"Pos"', '"System"'),
    GOOD.replace('"AtMost"', '"Sum"'),
    GOOD.replace('"end"', '"sideways"'),
    GOOD.replace('"k"', '"x"'),
    GOOD[:-9],
]  # fmt: skip


@pytest.mark.parametrize("text", GARBAGE)
def test_what_is_not_a_saved_mask_is_refused(text):
    with pytest.raises(AttnDslError, match="A405"):
        ir.load(text)


@settings(max_examples=70)
@given(st.data())
def test_damaged_files_are_read_or_refused_but_never_crash(data):
    at = data.draw(st.integers(0, len(GOOD) - 1))
    char = data.draw(st.sampled_from('{}[]",:0179-ankqe '))
    text = GOOD[:at] + char + GOOD[at + 1 :]
    try:
        ir.show(ir.load(text).root)
    except AttnDslError as error:
        refused = str(error)
    else:
        refused = "A405"
    assert "A405" in refused


def test_of_extrema_that_differ_by_a_constant_only_one_stays():
    q, one, three = ir.Pos(ir.Side.QUERY), ir.Const(1), ir.Const(3)
    assert ir.minimum(ir.add(q, one), ir.add(q, three)) is ir.add(q, one)
    assert ir.maximum(ir.add(q, one), q, ir.add(q, three)) is ir.add(q, three)
    assert ir.minimum(q, three, ir.minimum(q, one)) is ir.minimum(one, q)


def test_nodes_are_replaced_all_at_once():
    q, k, four = ir.Pos(ir.Side.QUERY), ir.Pos(ir.Side.KEY), ir.Const(4)
    block = ir.floordiv(q, four)
    assert ir.substitute(block, {q: ir.add(ir.scale(q, 4), ir.Const(3))}) is q
    assert ir.substitute(ir.sub(block, k), {q: ir.scale(k, 4), k: q}) is ir.sub(k, q)


ATOMS = [
    *(ir.le(ex.Q, ir.Const(bound)) for bound in (1, 3, 5)),
    *(ir.ge(ex.Q, ir.Const(bound)) for bound in (0, 2, 4)),
    ir.eq(ex.Q, ex.K),
    ir.ne(ex.Q, ex.K),
    ir.eq(ex.K, ir.Const(7)),
    ir.le(ex.Q, ex.K),
]
JUNCTIONS = st.recursive(
    st.sampled_from([*ATOMS, ir.TRUE, ir.FALSE]),
    lambda inner: st.builds(
        lambda make, items: make(*items),
        st.sampled_from([ir.conj, ir.disj]),
        st.lists(inner, min_size=2, max_size=4),
    ),
)


@settings(max_examples=70)
@given(st.sampled_from([(ir.And, ir.conj), (ir.Or, ir.disj)]), st.lists(JUNCTIONS, max_size=8))
def test_a_chain_is_what_its_links_give_one_by_one(kind, items):
    kind, join = kind
    found = join()
    for item in items:
        found = join(found, item)
    assert ir.chained(kind, items) is found


def test_a_loop_is_solved_alike_whatever_number_its_variable_had():
    """Two equations determine the variable; which one is taken must not depend on what was built before."""
    q = ir.Pos(ir.Side.QUERY)

    def built() -> ir.Node:
        return ir.exists(
            ir.ZERO,
            ir.Const(3),
            lambda j: ir.conj(
                ir.eq(ir.scale(q, 5), ir.scale(j, -2)), ir.lt(q, ir.ZERO), ir.eq(j, ir.ZERO)
            ),
        )

    assert len({built() for _ in range(40)}) == 1
    assert ir.show(built()) == "q <= -1 and q == 0"
