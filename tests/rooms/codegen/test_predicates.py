"""Generated functions say of every pair what the pattern means, and their text does not know its numbers."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from hypothesis import given, settings

import attndsl
from attndsl import codegen, schedule
from attndsl.backends import generated, tuning
from attndsl.testing import Program, programs
from tests.rooms.schedule.test_exact import PROGRAMS


@triton.jit
def square(
    Out, constants, tables, Q: tl.constexpr, K: tl.constexpr, CONSTANTS: tl.constexpr,
    QUERY_TERMS: tl.constexpr, KEY_TERMS: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """All pairs at once."""
    numbers = CONSTANTS(constants)
    q, k = tl.arange(0, Q)[:, None], tl.arange(0, K)[None, :]
    kept = KEEP(numbers, QUERY_TERMS(numbers, tables, q), KEY_TERMS(numbers, tables, k))
    tl.store(Out + q * K + k, kept & (k >= 0) & (q >= 0))


def predicate_of(
    p: attndsl.Pattern, q_len: int, k_len: int, heads: int = 1, **given
) -> codegen.Predicate:
    call = p._program.call(q_len, k_len, 1, heads, None, given)
    of = schedule.arranged(p._program.normal, call)
    return codegen.predicate(of.roots, of.tables, of.queries, of.keys)


def evaluated(made: codegen.Predicate, plan: int, q_len: int, k_len: int) -> np.ndarray:
    sizes = [max(2, triton.next_power_of_2(n)) for n in (q_len, k_len)]
    out = torch.zeros(*sizes, dtype=torch.bool)
    read = torch.from_numpy(made.constants[plan].copy()), torch.from_numpy(made.tables)
    square[(1,)](out, *read, *sizes, **generated.load(made.text))
    return out[:q_len, :k_len].numpy()


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(("q_len", "k_len"), [(60, 60), (50, 33)])
def test_it_is_the_pattern(program: str, q_len: int, k_len: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(codegen.predicates, "MOST_PAIR_OPERATIONS", 10_000)
    p = attndsl.compile(program)
    heads = 2
    call = p._program.call(q_len, k_len, 1, heads, None, {})
    roots, plan_of, tables = schedule.specialise(p._program.normal, call)
    shift = p.ir.shift(q_len, k_len)
    truth = p.mask(q_len, k_len, heads)[0].numpy()
    for head, plan in enumerate(plan_of[0]):
        one = [roots[plan]]
        try:
            made = codegen.predicate(one, tables, range(shift, shift + q_len), range(k_len))
        except codegen.OverBudget:
            assert "%" in program  # of what cannot be separated
        else:
            assert np.array_equal(evaluated(made, 0, q_len, k_len), truth[head])


def test_what_lies_behind_a_table_is_not_read():
    p = attndsl.compile("input t: int[q]\npattern p = k <= q and t[q + 1] == 7")
    t = torch.tensor([7, 7, 3, 7])
    made = predicate_of(p, 4, 4, t=t)
    assert np.array_equal(evaluated(made, 0, 4, 4), p.mask(4, t=t)[0, 0].numpy())


def test_what_is_divided_by_no_positive_number_is_0():
    p = attndsl.compile("pattern p = k <= q // (q - 5) + q % (3 - q)")
    made = predicate_of(p, 16, 16)
    assert np.array_equal(evaluated(made, 0, 16, 16), p.mask(16)[0, 0].numpy())


@settings(max_examples=40)
@given(programs())
def test_it_is_what_generated_programs_mean(program: Program):
    p = attndsl.compile(program.text, layer=program.layer)
    read = {table.name: program.tables[table.name] for table in p.ir.tables}
    lengths = program.q_len, program.k_len, program.batch, program.heads
    call = schedule.Call(*lengths, program.layer, program.sizes, read)
    roots, plan_of, tables = schedule.specialise(p._program.normal, call)
    shift = p.ir.shift(program.q_len, program.k_len)
    dense = p._program.dense(call)
    positions = range(shift, shift + program.q_len), range(program.k_len)
    for b, h in np.ndindex(plan_of.shape):
        try:
            made = codegen.predicate([roots[plan_of[b, h]]], tables, *positions)
        except codegen.OverBudget:
            continue
        assert np.array_equal(evaluated(made, 0, program.q_len, program.k_len), dense[b, h])


@pytest.mark.parametrize(
    ("name", "values", "others"),
    [
        ("causal_window", {"w": 5}, {"w": 4000}),
        ("longformer", {"w": 16, "g": 1}, {"w": 2048, "g": 7}),
        ("strided", {"s": 12}, {"s": 64}),
    ],
)
def test_one_text_serves_all_lengths_and_parameters(name: str, values: dict, others: dict):
    texts = {
        predicate_of(attndsl.compile(name, **given), q_len, k_len).text
        for given in (values, others)
        for q_len, k_len in [(64, 64), (1000, 1000), (77, 1000), (5, 1 << 20)]
    }
    assert len(texts) == 1


def test_one_text_serves_all_heads_whose_patterns_differ_in_numbers():
    made = predicate_of(
        attndsl.compile("pattern p = causal and q - k < 3 + 5 * head"), 100, 100, heads=4
    )
    assert len(made.constants) == 4
    for head in range(4):
        apart = np.arange(100)[:, None] - np.arange(100)
        assert np.array_equal(
            evaluated(made, head, 100, 100), (apart >= 0) & (apart < 3 + 5 * head)
        )


def test_heads_of_different_shapes_read_masks():
    p = attndsl.compile("pattern p = if head == 0 then k <= q else q % 3 == k % 3")
    with pytest.raises(codegen.OverBudget, match="shapes"):
        predicate_of(p, 50, 50, heads=2)


def test_a_dear_predicate_reads_masks():
    with pytest.raises(codegen.OverBudget, match="operations a pair"):
        predicate_of(attndsl.compile("pattern p = any j in 0..40: q - k == j * j"), 50, 50)


def test_the_choice_is_explained():
    assert "kernels evaluate the pattern: 1 operation a pair" in attndsl.compile("causal").explain(
        500
    )
    dear = attndsl.compile("pattern p = any j in 0..40: q - k == j * j")
    assert "kernels read masks, a bit a pair: to evaluate the pattern takes" in dear.explain(500)


def test_numbers_beyond_32_bits_are_computed_in_64():
    p = attndsl.compile("pattern p = q * 2000000011 <= k * 2000000000 + 5")
    made = predicate_of(p, 40, 40)
    assert "int64" in made.text
    assert np.array_equal(evaluated(made, 0, 40, 40), p.mask(40)[0, 0].numpy())
    assert "int32" in predicate_of(attndsl.compile("causal"), 40, 40).text


@pytest.mark.parametrize(
    "body", ["abs(q - k) // 7 % 3 == 1", "q * k % 7 == 3", "pow2(abs(q - k)) <= q"]
)
def test_nothing_is_divided_for_each_pair(body: str):
    with pytest.raises(codegen.OverBudget, match="for each pair"):
        predicate_of(attndsl.compile(f"pattern p = {body}"), 50, 50)


@pytest.mark.parametrize("body", ["q // 7 == k // 7", "(k - q) % 5 == 2", "t[q] <= t[k] % 3"])
def test_what_is_dear_on_one_side_is_read(body: str):
    p = attndsl.compile(f"input t: int[pos]\npattern p = {body}")
    given = {"t": np.arange(50)[::-1].copy()} if "t[" in body else {}
    made = predicate_of(p, 50, 50, **given)
    functions = made.text.partition("def constants")[2]
    assert "//" not in functions
    assert "%" not in functions
    assert functions.count("tl.load(t + ") == 2
    assert np.array_equal(evaluated(made, 0, 50, 50), p.mask(50, **given)[0, 0].numpy())


def test_equal_terms_are_kept_once_and_all_are_aligned():
    bodies = "q // 8 == k // 8", "q // 8 == k // 4"
    one, two = (predicate_of(attndsl.compile(f"pattern p = {x}"), 50, 50).tables for x in bodies)
    assert two.size - one.size == 64


def test_a_tile_may_reach_beyond_the_last_term():
    made = predicate_of(attndsl.compile("pattern p = q // 8 == k // 8"), 33, 33)
    assert made.tables.size >= 33 + max(tuning._TILES)


def test_a_users_names_are_not_in_the_text():
    p = attndsl.compile("input evil: int[pos]\npattern evil_too = evil[q] == evil[k]")
    assert "evil" not in predicate_of(p, 9, 9, evil=np.arange(9)).text


def test_a_table_without_positions_is_one_number():
    p = attndsl.compile("input reach: int[head]\npattern p = 0 <= q - k and q - k <= reach")
    reach = np.array([0, 3])
    made = predicate_of(p, 9, 9, heads=2, reach=reach)
    for head in range(2):
        truth = p.mask(9, heads=2, reach=reach)[0, head].numpy()
        assert np.array_equal(evaluated(made, head, 9, 9), truth)


def test_a_table_that_is_read_for_each_pair_is_left_to_masks():
    p = attndsl.compile("input near: bool[d]\npattern p = near[abs(q - k)]")
    with pytest.raises(codegen.OverBudget, match="read for each pair"):
        predicate_of(p, 9, 9, near=np.array([True, False, True]))


@pytest.mark.parametrize("body", ["5 - v + 6 * q == 9 - 3 * v", "v * v == k"])
def test_a_quantifier_whose_limits_depend_on_the_query_becomes_comparisons(body: str):
    p = attndsl.compile(f"pattern p = any v in q - 1..q + 2: {body}")
    made = predicate_of(p, 9, 9)
    assert np.array_equal(evaluated(made, 0, 9, 9), p.mask(9)[0, 0].numpy())
