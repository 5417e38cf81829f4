"""The default token order of a call, recognised by the last bits of its result."""

import pytest
import torch

import attndsl

DILATED = "pattern p = abs(q - k) <= 64 and (q - k) % 8 == 0"
GIVEN = f"input doc: int[pos]\n{DILATED} and doc[q] == doc[k]"


def results(pattern, length, **inputs):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, length, 16, generator=generator) for _ in range(3))
    named = {layout: pattern(q, k, v, layout=layout, **inputs) for layout in ("natural", "auto")}
    assert not torch.equal(named["natural"], named["auto"])  # or the bits tell nothing
    return pattern(q, k, v, **inputs), named


def test_long_calls_take_the_cheapest_order():
    out, named = results(attndsl.compile(DILATED), 512)
    assert torch.equal(out, named["auto"])


@pytest.mark.parametrize(
    ("text", "length", "inputs"),
    [
        pytest.param(DILATED, 511, {}, id="short"),
        pytest.param(GIVEN, 512, {"doc": torch.zeros(512, dtype=torch.int64)}, id="inputs"),
    ],
)
def test_others_the_natural_one(text, length, inputs):
    out, named = results(attndsl.compile(text), length, **inputs)
    assert torch.equal(out, named["natural"])


@pytest.mark.parametrize("k_len", [600, 640])
def test_tokens_that_are_ranked_lie_in_the_order_of_their_ranks(k_len):
    pattern = attndsl.compile("""
        rank of_query = by 5 * q % 7
        rank of_key = by 3 * k % 7
        pattern p = k <= q and 0 <= of_query[q] // 40 - of_key[k] // 40 <= 1
    """)
    q, k = torch.randn(1, 2, 600, 16), torch.randn(1, 2, k_len, 16)
    ordered = "sorted(of_query)/sorted(of_key)"
    out = pattern(q, k, k)
    assert torch.equal(out, pattern(q, k, k, layout=ordered))
    torch.testing.assert_close(out, pattern(q, k, k, backend="reference"), rtol=1e-4, atol=1e-5)
    tables = pattern.select(q, k)
    q_order, k_order = tables["of_query"][0].argsort(), tables["of_key"][0].argsort()
    (schedule,) = pattern.running(600, k_len, heads=2, inputs=dict(tables))
    assert schedule.plan().q_order.rows.tolist() == q_order.tolist()
    assert schedule.plan().k_order.rows.tolist() == k_order.tolist()


def test_a_module_hands_its_layout_on():
    pattern = attndsl.compile(DILATED)
    q, k, v = torch.randn(3, 1, 1, 600, 16)
    for layout in ("natural", "auto"):
        module = attndsl.nn.PatternAttention(pattern, layout=layout)
        assert torch.equal(module(q, k, v), pattern(q, k, v, layout=layout))


@pytest.mark.parametrize(("device", "natural"), [("cpu", False), ("cuda", True)])
def test_the_schedules_of_a_call_are_those_it_runs(device, natural):
    (schedule,) = attndsl.compile(DILATED).running(4096, device=device)
    assert (schedule.plan().q_order is None) == natural
