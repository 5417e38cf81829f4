"""The keys of single queries are those of the dense meaning, each once and in order."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from attndsl import frontend, ir
from attndsl import syntax as syn
from attndsl.compiler import Program
from attndsl.schedule import KeySets, key_positions, key_sets, key_union
from attndsl.source import AttnDslError
from attndsl.testing import Program as Random
from attndsl.testing import programs
from tests.fuzz.checking import REFUSED
from tests.rooms.schedule.test_exact import PROGRAMS

SOLVED = [
    "pattern p = causal and (q - k < 9 or k % 16 == 15)",
    "pattern p = k % 7 == q % 7 or q // 8 == k // 8",
    "pattern p = (q - k) % 5 == 2 and k <= q",
    "pattern p = 0 <= q - k < 20 and ((q - k) % 5 == 2 or (k + q) % 7 == 3)",
    "pattern p = (3 * k + q) % 4 == 1 or 2 * k == q or -3 * k >= 5 - q",
    "pattern p = abs(q // 8 - k // 8) <= 1 and not k == 12",
    "pattern p = k // (q % 3) == 0 or k % (q % 2) == 1",
    "pattern p = if head < 1 then q - k == pow2(4) else (k + 2) // 3 % 2 == 0",
    "pattern p align start = k <= q",
]


def check(found: KeySets, dense: np.ndarray) -> None:
    """Against the dense meaning, bool [batch, heads, q_len, k_len]."""
    shape = found.class_of.shape
    for b, h, q in np.ndindex(dense.shape[:3]):
        one = found.class_of[b if shape[0] > 1 else 0, h if shape[1] > 1 else 0]
        keys = found.classes[one][q]
        assert key_positions(keys).tolist() == np.flatnonzero(dense[b, h, q]).tolist()
        if isinstance(keys, tuple):
            assert all(stop < start for (_, stop), (start, _) in itertools.pairwise(keys))


@pytest.mark.parametrize("text", SOLVED)
def test_what_is_solved_is_what_trying_gives(text: str):
    program = Program(frontend.elaborate(syn.parse(text)))
    for q_len, k_len in ((5, 40), (16, 130), (4, 2)):
        call = program.call(q_len, k_len, 1, 2, None, {})
        check(program.key_sets(call), program.dense(call))


@settings(max_examples=90, deadline=None)
@given(
    st.sampled_from(PROGRAMS + SOLVED), st.integers(0, 16), st.integers(0, 130), st.integers(1, 3)
)
def test_every_key_and_no_other(text: str, q_len: int, k_len: int, heads: int):
    program = Program(frontend.elaborate(syn.parse(text)))
    call = program.call(q_len, k_len, 1, heads, None, {})
    check(program.key_sets(call), program.dense(call))


@settings(max_examples=70, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs(depth=3))
def test_random_programs(program: Random):
    try:
        made = Program(frontend.elaborate(syn.parse(program.text)), program.layer)
        tables = {table.name: program.tables[table.name] for table in made.mask.tables}
        axes = {name: n for name, n in program.sizes.items() if ir.axes_named(made.mask, name)}
        lengths = program.q_len, program.k_len, program.batch, program.heads
        call = made.call(*lengths, axes, tables)
        dense = made.dense(call)
    except AttnDslError as error:
        if error.code not in (*REFUSED, "A403", "A404", "A501"):  # A501: too few entries
            raise
        reject()
    check(made.key_sets(call), dense)


@pytest.mark.parametrize("comparison", ["==", "<=", ">", ">="])
@pytest.mark.parametrize("offset", [0, 3, -2])
def test_a_table_by_position_is_read_and_is_0_outside(comparison: str, offset: int):
    mask = frontend.elaborate(
        syn.parse(
            "input doc: int[batch, pos]\n"
            f"pattern p = doc[k] {comparison} doc[q] - {offset} and k <= q or k == 2"
        )
    )
    program, rng = Program(mask), np.random.default_rng(0)
    call = program.call(6, 40, 3, 2, None, {"doc": rng.integers(-3, 4, (3, 40))})
    check(program.key_sets(call), program.dense(call))


def test_a_table_that_ends_early_is_0_beyond():
    text = "input t: int[n]\npattern p = t[k] == 0 and q % 2 == 0 or k < len(t.n) and q % 2 == 1"
    program = Program(frontend.elaborate(syn.parse(text)))
    call = program.call(4, 9, 1, 1, None, {"t": np.array([0, 1, 0, 2])})
    found = program.key_sets(call)
    check(found, program.dense(call))
    assert found.classes[0][1] == ((0, 1), (2, 3), (4, 9))


def test_the_price_follows_the_keys_that_are_seen(monkeypatch: pytest.MonkeyPatch):
    """Nothing is tried key by key where conditions bound the key."""
    tried: list[int] = []
    whole = ir.evaluate
    monkeypatch.setattr(
        ir, "evaluate", lambda node, env: tried.append(np.size(env.k)) or whole(node, env)
    )
    text = "pattern p = causal_window(256) or k < 4 or (q - k) % 4096 == 0 and q // 9 != k // 9"
    program = Program(frontend.elaborate(syn.parse(text)))
    call = program.call(1, 1 << 20, 1, 1, None, {})
    found = key_sets(program.normal, call)
    assert max(tried, default=0) <= 256
    (keys,) = found.classes[0]
    assert len(key_positions(keys)) == 256 + 4 + 255


def test_sets_are_joined_once():
    array = np.array([1, 5, 9])
    assert key_union([((0, 4),), ((4, 6), (8, 9))]) == ((0, 6), (8, 9))
    assert key_positions(key_union([((0, 3),), array])).tolist() == [0, 1, 2, 5, 9]
    assert key_positions(key_union([((i, i + 1),) for i in range(0, 40, 2)])).tolist() == list(
        range(0, 40, 2)
    )
    assert key_union([]) == ()
