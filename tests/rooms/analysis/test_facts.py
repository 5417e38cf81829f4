"""Facts that are claimed are true; boxes called empty or full are so."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attndsl import frontend, ir
from attndsl import syntax as syn
from attndsl.analysis import Fact, Interpreter, Range, facts
from attndsl.compiler import Program
from attndsl.passes import bind, separate_root

PROGRAMS = [
    "k <= q",
    "-3 <= k - q <= 5",
    "causal and (q - k < 50 or k % 4 == 3)",
    "abs(q - k) <= 40 and (q - k) % 8 == 0",
    "(q - k) // 3 <= 4 and (k - q) // 5 >= -2",
    "(q + 2 * k) % 6 == 1",
    "max(q, k) - min(q, k) < ilog2(q + 2)",
    "(if q < k then q else k) % 5 < 3",
    "any j in 0..6: q - k == pow2(j)",
    "q // 16 == k // 16 and q != k",
    "q * k > 200 and abs(q - 30) < k",
]


def normal(text: str) -> ir.Mask:
    return Program(frontend.elaborate(syn.parse(f"pattern p = {text}"))).normal


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(PROGRAMS),
    st.tuples(*[st.integers(0, 90), st.integers(1, 12)] * 2),
)
def test_what_is_said_of_a_box_holds_for_all_its_pairs(text, box):
    q0, height, k0, width = box
    root = separate_root(bind(normal(text).root, {"q": 200, "k": 200}))

    def known(node):
        match node:
            case ir.Pos(side=ir.Side.QUERY):
                return Range(np.array([q0]), np.array([q0 + height - 1]), np.array([1]))
            case ir.Pos():
                return Range(np.array([k0]), np.array([k0 + width - 1]), np.array([1]))
        return None

    verdict = Interpreter(known, np.zeros(1, dtype=np.int64)).truths(root)
    q, k = np.arange(q0, q0 + height)[:, None], np.arange(k0, k0 + width)
    values = np.broadcast_to(ir.evaluate(root, ir.Env(q=q, k=k, sizes={})), (height, width))
    assert verdict.may_hold[0] or not values.any()
    assert verdict.may_fail[0] or values.all()


CLAIMS = {
    "causal": lambda m: not np.triu(m, 1).any(),
    "symmetric": lambda m: np.array_equal(m, m.T),
    "sees_itself": lambda m: m.diagonal().all(),
    "translation_invariant": lambda m: np.array_equal(m[:-7, :-7], m[7:, 7:]),
}


@pytest.mark.parametrize("text", PROGRAMS)
def test_proved_facts_are_true(text):
    mask = normal(text)
    dense = ir.meaning(mask, 70, 70, {"q": 70, "k": 70})[0, 0]
    for name, fact in facts(mask).items():
        if fact is Fact.PROVED and name in CLAIMS:
            assert CLAIMS[name](dense), name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("causal", {"causal", "sees_itself", "translation_invariant"}),
        ("window(3)", {"symmetric", "sees_itself", "translation_invariant"}),
        ("causal and (q - k < 50 or k < 4)", {"causal", "sees_itself"}),
        ("window(4) or q < 2 or k < 2", {"symmetric", "sees_itself"}),
        ("q // 8 == k // 8", {"symmetric", "sees_itself"}),
        ("k < q", {"causal", "translation_invariant"}),
        ("(k - q) % 8 == 0", {"symmetric", "sees_itself", "translation_invariant"}),
        ("q % 8 == k % 8", {"symmetric", "sees_itself", "translation_invariant"}),
        ("q % 8 == (k + 1) % 8", {"translation_invariant"}),
        ("q % 8 == (2 * k) % 8", set()),
        ("q % 8 == k % 4", set()),
    ],
)
def test_what_should_be_provable_is_proved(text, expected):
    proved = {name for name, fact in facts(normal(text)).items() if fact is Fact.PROVED}
    assert proved & set(CLAIMS) == expected
