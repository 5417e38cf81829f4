"""Limits that depend on positions, inputs or parameters: scheduled as what plain loops over the numbers say."""

import itertools
from collections.abc import Callable
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attndsl
from attndsl import ir
from attndsl.passes import normalise
from attndsl.schedule import Call, allowed, alternatives, plan, specialise
from attndsl.schedule import loops as taken_out
from tests.support import expressions as ex
from tests.support.work import calls_of

OFF = np.array([0, 2, 3, 3, 8, 9, 12, 12, 20, 20, 20])
COUNT = np.array([3, 0, 1, 2, 2, 0, 3, 1, 1, 0, 2, 3, 1, 0, 0, 2, 1, 3, 0, 1])
FIRST, LAST = np.array([0, 4, 4, 9, 15]), np.array([5, 4, 11, 15, 20])


def read(table: np.ndarray, place: int) -> int:
    return int(table[place]) if 0 <= place < len(table) else 0


CASES: dict[str, Callable[[int, int], bool]] = {
    "any s in 0..q: k == s": lambda q, k: any(k == s for s in range(q)),
    "all j in k..q: j % 2 == 0": lambda q, k: all(j % 2 == 0 for j in range(k, q)),
    "any s in off[q // 2]..off[q // 2 + 1]: k == s or k == s * s % 20": lambda q, k: any(
        k in (s, s * s % 20) for s in range(read(OFF, q // 2), read(OFF, q // 2 + 1))
    ),
    "any s in 0..min(q, 3): k == q - s * s": lambda q, k: any(
        k == q - s * s for s in range(min(q, 3))
    ),
    "any s in 0..n[q]: k % 4 == s": lambda q, k: any(k % 4 == s for s in range(read(COUNT, q))),
    "any s in k - 1..k + 2: s * s % 7 == q % 7": lambda q, k: any(
        s * s % 7 == q % 7 for s in range(k - 1, k + 2)
    ),
    "any s in 0..5: first[s] <= q < last[s] and first[s] <= k < last[s]": lambda q, k: any(
        a <= q < b and a <= k < b for a, b in zip(FIRST, LAST, strict=True)
    ),
    "any a in 0..q: any b in a..k: a * b == 12": lambda q, k: any(
        a * b == 12 for a in range(q) for b in range(a, k)
    ),
    "any s in q..k: n[s] == 3": lambda q, k: any(read(COUNT, s) == 3 for s in range(q, k)),
    "any s in k..q // 2: n[s] == 3": lambda q, k: any(
        read(COUNT, s) == 3 for s in range(k, q // 2)
    ),
    "any s in 0..k: s > q // 2 and s * 3 <= k": lambda q, k: any(
        s > q // 2 and s * 3 <= k for s in range(k)
    ),
    "2 <= (count s in 0..6: (q + s) % 5 == k % (s + 2))": lambda q, k: (
        sum((q + s) % 5 == k % (s + 2) for s in range(6)) >= 2
    ),
    "k == (count s in 0..q: n[s] > 0)": lambda q, k: k == sum(read(COUNT, s) > 0 for s in range(q)),
    "(sum s in k..q: n[s]) < 4": lambda q, k: sum(read(COUNT, s) for s in range(k, q)) < 4,
    "(count s in 0..5: first[s] <= q) == (count s in 0..5: not first[s] > k)": lambda q, k: (
        sum(q >= FIRST) == sum(k >= FIRST)
    ),
    "k < (count s in 0..n[q]: s * q % 3 == 0)": lambda q, k: (
        k < sum(s * q % 3 == 0 for s in range(read(COUNT, q)))
    ),
    "k <= (sum s in off[q // 2]..off[q // 2 + 1]: s * q % 7 - 2)": lambda q, k: (
        k <= sum(s * q % 7 - 2 for s in range(read(OFF, q // 2), read(OFF, q // 2 + 1)))
    ),
    "(sum s in q - 1..q + 2: if s < k then n[s] else s) % 3 == 0": lambda q, k: (
        sum(read(COUNT, s) if s < k else s for s in range(q - 1, q + 2)) % 3 == 0
    ),
    "(count s in 0..20: n[s] <= q - k) == 7 or (count s in 0..20: n[s] != q - k) < 16": lambda q, k: (
        sum(q - k >= COUNT) == 7 or sum(q - k != COUNT) < 16
    ),
    "any s in 0..20: 3 * n[s] >= q + 1 and n[s] != k and s % 5 == 1 and s * k % 7 != 3": lambda q, k: (
        any(
            3 * n >= q + 1 and n != k and s % 5 == 1 and s * k % 7 != 3 for s, n in enumerate(COUNT)
        )
    ),
    "any s in 0..20: n[s] == q % 4 and q % 4 >= n[s] and s // 3 == k % 7": lambda q, k: any(
        n == q % 4 and s // 3 == k % 7 for s, n in enumerate(COUNT)
    ),
    "k == (sum s in 0..4: 5)": lambda q, k: k == 20,
    "(count s in 2..q: true) == k": lambda q, k: max(0, q - 2) == k,
    "all a in 1..4: k // a <= (count b in 0..q: b % a == 0)": lambda q, k: all(
        k // a <= sum(b % a == 0 for b in range(q)) for a in range(1, 4)
    ),
    "any s in q // 4..5: (s * s + k * s + q) % 7 == 3": lambda q, k: any(
        (s * s + k * s + q) % 7 == 3 for s in range(q // 4, 5)
    ),
    "any s in 0..20: s * q % 20 == 8 and s * s % 20 == k": lambda q, k: any(
        s * q % 20 == 8 and s * s % 20 == k for s in range(20)
    ),
    "any s in -5..q: 3 * s == k - 1": lambda q, k: any(3 * s == k - 1 for s in range(-5, q)),
}
GIVEN = {"off": OFF, "n": COUNT, "first": FIRST, "last": LAST}
INPUTS = "input off: int[m]\ninput n: int[pos]\ninput first: int[s]\ninput last: int[s]\n"


def pattern(body: str) -> attndsl.Pattern:
    return attndsl.compile(f"{INPUTS}pattern p = {body}")


def inputs_of(p: attndsl.Pattern) -> dict[str, torch.Tensor]:
    return {table.name: torch.from_numpy(GIVEN[table.name]) for table in p.ir.tables}


@pytest.mark.parametrize("body", CASES)
def test_limits_that_vary_are_scheduled(body: str):
    p, holds = pattern(body), CASES[body]
    wanted = np.array([[holds(q, k) for k in range(20)] for q in range(20)])
    given = inputs_of(p)
    assert np.array_equal(p.mask(20, **given)[0, 0].numpy(), wanted)
    for tile in ((4, 8), (128, 128)):
        assert np.array_equal(p.schedule(20, tile=tile, **given).cover(), wanted)
    with mock.patch.object(allowed, "AT_ONCE", 60):  # truth values of a few positions
        assert np.array_equal(pattern(body).schedule(20, tile=(4, 8), **given).cover(), wanted)


@pytest.mark.parametrize("body", CASES)
def test_limits_that_vary_run_forward_and_backward(body: str):
    p = pattern(body)
    make, given = torch.Generator().manual_seed(0), inputs_of(p)
    x = [torch.randn(1, 1, 20, 8, generator=make, dtype=torch.float64) for _ in range(4)]
    found = []
    for backend in ("blocked", "reference"):
        leaves = [each.clone().requires_grad_() for each in x[:3]]
        out = p(*leaves, backend=backend, **given)
        found.append([out.detach(), *torch.autograd.grad(out, leaves, x[3])])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@settings(max_examples=80)
@given(ex.relations(), st.integers(1, 12), st.integers(1, 12), st.booleans())
def test_every_way_to_take_a_loop_out_keeps_the_meaning(expression, q_len, k_len, narrow):
    mask = ex.mask(expression.root)
    call = Call(q_len, k_len, 2, 2, 0, {"q": q_len, "k": k_len}, ex.TABLES)
    truth = ex.dense(mask, q_len, k_len, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(taken_out, "NARROW", 2 if narrow else 0)  # and tables where there are more
        patch.setattr(taken_out, "FEWER", 1)
        patch.setattr(alternatives, "MANY", 1)
        made = plan(normalise(mask), call, (4, 4))
    for batch, head in itertools.product(range(2), range(2)):
        assert np.array_equal(made.cover(batch, head), truth[batch, head])


def test_every_way_is_taken():
    """Tables of sums, of counts, of values by position, of what is allowed; numbers, and distances."""
    ways = {
        "any s in k..q: n[s] == 3": "#0",
        "any s in 0..20: first[s] <= q < last[s] and k % 5 == s % 3": "#0",
        "k < (count s in 0..5: first[s] <= q)": "#0",
        "k < (count s in 0..n[q]: s * q % 3 == 1)": "#0",
        "any s in q - 1..q + 2: k == n[s]": None,
    }
    for body, table in ways.items():
        p = pattern(body)
        given = {name: array.numpy() for name, array in inputs_of(p).items()}
        sizes = ir.resolve_sizes(p.ir, 20, 20, None, {name: x.shape for name, x in given.items()})
        call = Call(20, 20, 1, 1, 0, sizes, given)
        (root,), _, tables = specialise(normalise(p.ir), call)
        assert not any(isinstance(node, ir.Loop) for node in ir.postorder(root))
        assert any(name.startswith("#") for name in tables) == bool(table), body


PLACES = np.arange(60)
BOXES = np.random.default_rng(0).integers(0, 60, (90, 2)), 1 + np.arange(90) % 7
LONG: dict[str, np.ndarray] = {
    " or ".join(
        f"({a} <= q < {a + n} and {c} <= k <= {c + n})" for (a, c), n in zip(*BOXES, strict=True)
    ): sum(
        np.outer((a <= PLACES) & (a + n > PLACES), (c <= PLACES) & (c + n >= PLACES))
        for (a, c), n in zip(*BOXES, strict=True)
    )
    > 0,
    " or ".join(f"(k == q - {3 * i} and q - k <= 40)" for i in range(100)): np.isin(
        np.subtract.outer(PLACES, PLACES), range(0, 41, 3)
    ),
    " and ".join(f"(q < {i} or k > {i})" for i in range(70)): np.less.outer(PLACES, PLACES),
}


@pytest.mark.parametrize("body", LONG, ids=["rectangles", "distances", "all of many"])
def test_long_disjunctions_become_intervals(body: str):
    """There are as few comparisons as a query sees intervals, not as many as are written."""
    p = pattern(body)
    (root,), _, _ = specialise(normalise(p.ir), Call(60, 60, 1, 1, 0, {"q": 60, "k": 60}, {}))
    assert len(root.parts) <= 25
    assert np.array_equal(p.schedule(60, tile=(4, 8)).cover(), LONG[body])
    assert np.array_equal(p.mask(60)[0, 0].numpy(), LONG[body])


VALUES: dict[str, Callable[[int, int], bool]] = {
    "any s in 0..70: (q * s + k) % 47 == 1": lambda q, k: any(
        (q * s + k) % 47 == 1 for s in range(70)
    ),
    "any s in 0..70: q * s % 37 == k - 2": lambda q, k: any(q * s % 37 == k - 2 for s in range(70)),
    "any s in 3..2 * k: k * s % 37 == q // 2 and s % 3 == 0": lambda q, k: any(
        k * s % 37 == q // 2 and s % 3 == 0 for s in range(3, 2 * k)
    ),
}


@pytest.mark.parametrize("body", VALUES)
def test_numbers_that_give_a_position_values_are_a_table(body: str):
    p, holds = pattern(body), VALUES[body]
    (root,), _, _ = specialise(normalise(p.ir), Call(60, 60, 1, 1, 0, {"q": 60, "k": 60}, {}))
    assert isinstance(root, ir.Load)
    wanted = [[holds(q, k) for k in range(60)] for q in range(60)]
    assert np.array_equal(p.schedule(60, tile=(4, 8)).cover(), wanted)
    x = torch.randn(3, 1, 1, 60, 8, dtype=torch.float64)
    torch.testing.assert_close(p(*x, backend="blocked"), p(*x, backend="reference"))


def test_the_cost_is_that_of_constant_limits():
    """A bound that every query reaches, at 4,096 tokens: as much work as the number itself, but for a factor."""
    varying = attndsl.compile("pattern p = any s in 0..min(q + 40, 40): q - k == s * s")
    known = attndsl.compile("pattern p = any s in 0..40: q - k == s * s")
    plain, more = (calls_of(lambda p=p: p.schedule(4096)) for p in (known, varying))
    assert more < 3 * plain


@pytest.mark.parametrize(
    "body",
    [
        "any s in 0..q: k == s",
        "all j in k..q: j % 2 == 0",
        "any s in k..q: n[s] == 3",
        "any s in q - 9..q: k == n[s]",
    ],
)
def test_what_need_not_be_tried_has_no_widest_range(body: str):
    p = pattern(body)
    given = {table.name: torch.arange(16_384) % 7 for table in p.ir.tables}
    assert p.schedule(16_384, **given).density > 0


def test_what_must_be_tried_is_refused_past_the_widest_range():
    p = pattern("any s in 0..q: (s * s * k + q) % 1009 == k")
    assert p.schedule(200).density > 0
    with pytest.raises(attndsl.AttnDslError, match="A404"):
        p.schedule(4_100)
    with pytest.raises(attndsl.AttnDslError, match="A303"):
        pattern("any a in 0..4096: any b in 0..4096: a * b * b == q + k")
    nested = pattern("any a in 0..len(k): any b in 0..len(k): a * b * b == q + k")
    with pytest.raises(attndsl.AttnDslError, match="A404"):
        nested.schedule(600)


@pytest.mark.parametrize(
    ("text", "wide"),
    [
        ("k <= q and any a in 0..q: (q * a + a * k) % 4093 == 1", "0..q"),
        ("(any a in 0..3: (a * q + k) % 7 == 1) and all b in 1..k: (b * q + k) % 7 != 1", "1..k"),
        ("any a in 0..3: any b in 0..q * q: (a * q + b * k) % 97 == 1", "0..q * q"),
        ("k <= q zeros count j in 0..q: q * j % 7 == 1", "0..q"),
    ],
)
def test_a_loop_that_is_too_wide_is_shown_where_it_stands(text, wide):
    pattern = attndsl.compile(f"pattern p = {text}")
    runs = [pattern.zero_keys] if "zeros" in text else [pattern.schedule, pattern.mask]
    for run in runs:
        with pytest.raises(attndsl.AttnDslError, match="A404") as caught:
            run(9_000)
        assert caught.value.diagnostics[0].span.text == wide
