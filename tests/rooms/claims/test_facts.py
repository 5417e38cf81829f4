"""Facts against brute force: for random programs, and for the patterns people know."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import attndsl
from attndsl import claims, frontend, ir
from attndsl import syntax as syn
from attndsl.analysis import Fact, Far, Reach, reach
from attndsl.claims import Components, TokenGraph, rows_without_keys
from attndsl.compiler import Program
from attndsl.schedule import plan
from attndsl.sources import read_mask
from attndsl.testing import programs
from tests.support import expressions as ex
from tests.support.work import calls_of

PATTERNS = [
    "causal",
    "window(3)",
    "causal and (q - k < 9 or k % 4 == 3)",
    "window(4) or q < 2 or k < 2",
    "q // 8 == k // 8",
    "q // 7 * 7 <= k < q // 7 * 7 + 9",
    "k // 5 == q // 5 and k < q",
    "q % 4 == k % 4 and abs(q - k) < 9",
    "-9 <= k - q // 5 * 5 < 12",
    "k < q",
    "k == 3 or q == k + 5",
    "q < 20 and k < 4",
    "(q - k) % 7 <= 2",
    "if head == 0 then causal else window(2)",
    "false",
    "true",
]


def program(text: str) -> Program:
    return Program(read_mask(f"pattern p = {text}"))


def truths_of(pairs: np.ndarray, shift: int) -> dict[str, bool]:
    """The facts of a dense mask, bool [batch, heads, q_len, k_len]."""
    q_len, k_len = pairs.shape[2:]
    distance = np.arange(q_len)[:, None] + shift - np.arange(k_len)
    truths = {
        "causal": not pairs[..., distance < 0].any(),
        "every_row_non_empty": pairs.any(axis=3).all(),
        "same_for_all_heads": (pairs == pairs[:, :1]).all(),
        "same_for_all_batches": (pairs == pairs[:1]).all(),
    }
    if q_len == k_len:
        truths["sees_itself"] = pairs[..., distance == 0].all()
        truths["symmetric"] = np.array_equal(pairs, pairs.swapaxes(2, 3))
    return truths


def agree(pairs: np.ndarray, shift: int, found: dict) -> None:
    """Facts proved of a pattern are true of its dense mask."""
    q_len, k_len = pairs.shape[2:]
    moved = {"translation_invariant": np.array_equal(pairs[..., 1:, 1:], pairs[..., :-1, :-1])}
    for name, truth in (truths_of(pairs, shift) | moved).items():
        assert found[name] is not Fact.PROVED or truth, name
    distance = np.arange(q_len)[:, None] + shift - np.arange(k_len)
    seen = pairs.any(axis=(0, 1))
    for bound, apart in ((found["reach"].back, distance), (found["reach"].ahead, -distance)):
        assert not isinstance(bound, int) or (apart[seen] <= bound).all()
        assert bound is not Far.NOWHERE or not seen.any()


@settings(max_examples=20)
@given(programs())
def test_no_random_program_contradicts_its_facts(case):
    mask = frontend.elaborate(syn.parse(case.text), "main")
    found = claims.facts(mask, Program(mask).normal, case.layer)
    if case.q_len > case.k_len:
        return  # queries without a position: the facts speak of 0 <= q < len(k)
    pairs = ir.meaning(
        mask, case.q_len, case.k_len, case.sizes, case.tables, case.batch, case.heads, case.layer
    )
    agree(pairs, mask.shift(case.q_len, case.k_len), found)


@settings(max_examples=80)
@given(ex.relations(), st.integers(1, 30))
def test_no_random_relation_contradicts_its_facts(expression, length):
    tables = (ir.Table("t", ir.Sort.INT, ("n",)), ir.Table("b", ir.Sort.INT, ("batch", "n")))
    mask = ir.Mask(expression.root, tables=tables).with_root(expression.root)
    found = claims.facts(mask, Program(mask).normal)
    sizes = {"q": length, "k": length, "t:n": len(ex.TABLE), "b:n": ex.PER_BATCH.shape[1]}
    pairs = ir.meaning(mask, length, length, sizes, {"t": ex.TABLE, "b": ex.PER_BATCH}, 2, 3)
    agree(pairs, 0, found)


@pytest.mark.parametrize(
    ("text", "reach"),
    [
        ("causal", Reach(Far.UNBOUNDED, 0)),
        ("window(30, 4)", Reach(30, 4)),
        ("k < q", Reach(Far.UNBOUNDED, -1)),
        ("q // 64 == k // 64", Reach(63, 63)),
        ("0 <= q // 10 - k // 10 <= 1", Reach(19, 9)),
        ("-2 <= k - q // 5 * 5 < 7", Reach(6, 6)),
        ("q % 8 == k % 8 and abs(q - k) < 33", Reach(32, 32)),
        ("window(5) or k < 3", Reach(Far.UNBOUNDED, 5)),
        ("causal and (q - k < 9 or (q - k) % 6 == 0)", Reach(Far.UNBOUNDED, 0)),
        ("false", Reach(Far.NOWHERE, Far.NOWHERE)),
    ],
)
def test_reach_is_proved_and_tight(text, reach):
    it = program(text)
    assert claims.facts(it.mask, it.normal)["reach"] == reach


def test_the_reach_along_many_axes_takes_a_bounded_number_of_steps():
    axes = ", ".join(f"a{i}" for i in range(59))
    it = Program(frontend.elaborate(syn.parse(f"grid g({axes})\npattern p over g = q.a0 == k.a0")))
    found = []
    assert calls_of(lambda: found.append(reach(it.mask, it.normal))) < 350_000
    (way,) = found
    assert way.axes[0] == ("a0", 0, 0)  # what the steps reach
    assert way.axes[-1] == ("a58", Far.UNDECIDED, Far.UNDECIDED)


def test_reach_along_axes():
    text = (
        "grid g(y, x)\n"
        "pattern p over g = abs(q.y - k.y) <= 2 and q.x // 4 == k.x // 4 and k.x <= q.x\n"
    )
    it = Program(read_mask(text))
    assert str(claims.facts(it.mask, it.normal)["reach"]) == (
        "not decided back, not decided ahead; y: 2 back, 2 ahead; x: 3 back, 0 ahead"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("causal", Fact.PROVED),
        ("k < 3", Fact.PROVED),
        ("k < q or q == 0 and k == 0", Fact.PROVED),
        ("k == q + 1 or k == 0", Fact.PROVED),
        ("k == len(k) - 1", Fact.PROVED),
        ("-9 <= k - q // 5 * 5 < 12", Fact.PROVED),
        ("k < q", Fact.REFUTED),
        ("k == q + 1", Fact.REFUTED),
        ("q < 400 or k < q - 500", Fact.REFUTED),
        ("q < 4000 or k < q - 5000", Fact.UNDECIDED),
    ],
)
def test_whether_every_row_has_a_key(text, expected):
    it = program(text)
    assert claims.facts(it.mask, it.normal)["every_row_non_empty"] is expected


@pytest.mark.parametrize("text", ["abs(q - k) <= 3 or q - k == 7 or k - q == 7", "q * k < 90"])
def test_symmetry_is_more_than_spelling(text):
    it = program(text)
    assert claims.facts(it.mask, it.normal)["symmetric"] is Fact.PROVED


# ------------------------------------------------------------------ at one length


def brute_components(pairs: np.ndarray) -> np.ndarray:
    """Each token's least companion."""
    labels = np.arange(len(pairs))
    joined = pairs | pairs.T | np.eye(len(pairs), dtype=bool)
    while True:
        lower = np.where(joined, labels, len(pairs)).min(axis=1)
        if np.array_equal(lower, labels):
            return labels
        labels = lower


@pytest.mark.parametrize("text", PATTERNS)
@pytest.mark.parametrize("length", [1, 16, 61])
def test_facts_at_a_length_are_exact(text, length):
    it = program(text)
    call = it.call(length, length, 1, 2, None, {})
    pairs = it.dense(call)
    schedule = plan(it.normal, call, (16, 16))
    found = claims.facts_at(it.mask, call, schedule)
    for name, truth in truths_of(pairs, 0).items():
        assert found[name] is (Fact.PROVED if truth else Fact.REFUTED), name
    empty = np.flatnonzero(~pairs.any(axis=3).all(axis=(0, 1)))
    assert found["rows_without_keys"].indices.tolist() == empty.tolist()
    distance = (np.arange(length)[:, None] - np.arange(length))[pairs.any(axis=(0, 1))]
    if distance.size:
        assert found["reach"] == Reach(int(distance.max()), -int(distance.min()))
    labels = brute_components(pairs.any(axis=(0, 1)))
    assert found["block_diagonal"] is (Fact.PROVED if labels.any() else Fact.REFUTED)
    assert np.array_equal(labels == labels[:, None], same(found["classes"]))


def same(classes: Components) -> np.ndarray:
    return classes.labels == classes.labels[:, None]


@settings(max_examples=40)
@given(ex.relations(), st.integers(1, 40), st.integers(0, 4))
def test_the_graph_is_exact_for_random_relations(expression, length, layers):
    tables = (ir.Table("t", ir.Sort.INT, ("n",)), ir.Table("b", ir.Sort.INT, ("batch", "n")))
    it = Program(ir.Mask(expression.root, tables=tables).with_root(expression.root))
    entries = max(length, len(ex.TABLE))  # one for each position that may be read
    per_batch = np.stack([np.resize(row, entries) for row in ex.PER_BATCH])
    given_tables = {"t": np.resize(ex.TABLE, entries), "b": per_batch}
    read = {t.name: given_tables[t.name] for t in it.mask.tables}
    call = it.call(length, length, len(ex.PER_BATCH), 3, None, read)
    schedule = plan(it.normal, call, (8, 8))
    pairs = it.dense(call)
    assert rows_without_keys(schedule).indices.tolist() == (
        np.flatnonzero(~pairs.any(axis=3).all(axis=(0, 1))).tolist()
    )
    for batch in range(call.batch):
        graph, any_head = TokenGraph(schedule, batch), pairs[batch].any(axis=0)
        labels = brute_components(any_head)
        assert np.array_equal(labels == labels[:, None], same(graph.components()))
        step = any_head | np.eye(length, dtype=bool)
        power = np.linalg.matrix_power(step.astype(float), layers) > 0
        for token in {0, length // 2, length - 1}:
            assert np.array_equal(graph.receptive_field(token, layers), power[token])


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("q // 16 == k // 16", "4 runs of 13 to 16 tokens"),
        ("q % 4 == k % 4", "4 classes of 15 to 16 tokens"),
        ("k <= q", "one: all tokens are connected"),
        ("q == k", "61 runs of 1 tokens"),
    ],
)
def test_components_as_text(text, printed):
    it = program(text)
    schedule = plan(it.normal, it.call(61, 61, 1, 1, None, {}), (16, 16))
    assert str(TokenGraph(schedule).components()) == printed


def test_rows_as_text():
    it = program("q % 20 != 0 and k < q and q < 50")
    rows = rows_without_keys(plan(it.normal, it.call(61, 61, 1, 1, None, {}), (16, 16)))
    assert str(rows) == "14 of 61: 0, 20, 40, 50..61"
    assert rows.ranges == ((0, 1), (20, 21), (40, 41), (50, 61))


@pytest.mark.parametrize(("text", "fact"), [("k <= q", Fact.PROVED), ("k <= q + 1", Fact.REFUTED)])
def test_one_key_ahead_is_not_causal_at_any_length(text, fact):
    for length in (2, 16, 17):
        assert attndsl.compile(f"pattern p = {text}").facts(length)["causal"] is fact
