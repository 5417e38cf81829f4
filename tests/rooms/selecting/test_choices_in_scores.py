"""Selections that a score, a factor or a coefficient asks, not the pattern."""

import pickle

import pytest
import torch

import attndsl
from attndsl import k, q, reals, selections
from attndsl.source import AttnDslError

KEPT = """
select best(n: int) = scale * dot(q, k) take top n
attention kept(n: int = 3) over k <= q = score s factor if k in best(n)[q] then 1.0 else 0.0
"""
COEFFICIENT = """
select first = dot(q, k) where k <= q take top 1
attention gated over k <= q = (if 0 in first[q] then 2.0 else 1.0) * (over k <= q: score s)
"""


def drawn():
    torch.manual_seed(0)
    x, y = (torch.randn(1, 2, 9, 4) for _ in "xy")
    weights = (0.5 * x @ y.mT).masked_fill(~torch.ones(9, 9).tril().bool(), -torch.inf).softmax(-1)
    return x, y, weights


def kept(x, y, weights):
    chosen = (x @ y.mT).topk(3).indices
    return weights * torch.zeros_like(weights).scatter(-1, chosen, 1.0)


def in_python():
    best = selections.select("best", reals.dot(q, k), selections.top(3))
    return attndsl.attention(k <= q, factor=attndsl.where(k.isin(best[q]), 1.0, 0.0))


@pytest.mark.parametrize("made", [lambda: attndsl.compile(KEPT), in_python])
def test_a_factor_asks_what_the_call_chooses(made):
    a, (x, y, weights) = made(), drawn()
    right = kept(x, y, weights)
    torch.testing.assert_close(a(x, y, torch.eye(9).expand(1, 2, 9, 9)), right)
    assert a.select(x, y)["best"].shape == (1, 2, 9, 3)
    (again,) = (pickle.loads(pickle.dumps(a)),)
    assert again == a
    torch.testing.assert_close(again(x, y, torch.eye(9).expand(1, 2, 9, 9)), right)


def test_a_factor_asks_in_a_sum_and_in_a_multiple_of_an_attention():
    a, (x, y, weights) = in_python(), drawn()
    found = (2.0 * a + attndsl.attention(k <= q))(x, y, torch.eye(9).expand(1, 2, 9, 9))
    torch.testing.assert_close(found, 2 * kept(x, y, weights) + weights)


def test_a_coefficient_asks_what_the_call_chooses():
    x, y, weights = drawn()
    best = (x @ y.mT).masked_fill(weights == 0, -torch.inf).argmax(-1, keepdim=True)
    found = attndsl.compile(COEFFICIENT)(x, y, torch.eye(9).expand(1, 2, 9, 9))
    torch.testing.assert_close(found, weights * torch.where(best == 0, 2.0, 1.0))


def test_an_attention_names_the_inputs_that_its_selection_alone_reads():
    a = attndsl.compile(
        "input w: real[k] "
        "select best = w[k] * dot(q, k) where k <= q take top 1 "
        "attention a over k <= q and k in best[q] = score s"
    )
    x, w = torch.randn(1, 2, 5, 4), torch.rand(5)
    assert [each.name for each in a.inputs] == ["best", "w"]
    table = a.select(x, x, w=w)["best"]
    assert torch.equal(a(x, x, x, w=w), a(x, x, x, best=table, w=w))
    with pytest.raises(AttnDslError, match=r"the call needs the input 'w'.*selection 'best' reads"):
        a(x, x, x)


def test_branches_that_use_one_selection_with_different_values_are_refused():
    text = "select best(n: int) = dot(q, k) take top n\nattention a over 0 <= k = (over k in best(2)[q]: score s) + "
    with pytest.raises(AttnDslError, match="`best` is used with different values") as caught:
        attndsl.compile(text + "(over k in best(3)[q]: score s)")
    assert caught.value.diagnostics[0].code == "A219"
