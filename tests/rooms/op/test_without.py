"""Simplifications can be switched off by name, and change no result."""

import pickle
from pathlib import Path

import pytest
import torch

import attndsl
from attndsl.program_arguments import SIMPLIFICATIONS

GOLDEN = Path(__file__).parents[2] / "golden" / "errors" / "A4"
TEXT = "pattern p = causal and (if head < 2 then window(40) else q - k < 50) or k < 4 and causal"


@pytest.mark.parametrize("name", SIMPLIFICATIONS)
def test_a_simplification_changes_the_way_and_not_the_result(name: str):
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 4, 32, 8, requires_grad=True) for _ in range(3))
    found = []
    for p in (attndsl.compile(TEXT), attndsl.compile(TEXT, without=[name])):
        out, lse = p(q, k, v, return_lse=True)
        found.append((out, lse, *torch.autograd.grad(out.square().sum(), (q, k, v))))
    for one, two in zip(*found, strict=True):  # the same tiles, the same sums
        assert torch.equal(one, two)


def test_what_was_left_out_belongs_to_the_pattern():
    whole, apart = attndsl.compile(TEXT), attndsl.compile(TEXT, without=["merge_heads"])
    assert (whole.without, apart.without) == ((), ("merge_heads",))
    assert whole != apart
    assert pickle.loads(pickle.dumps(apart)) == apart
    assert [len(p.schedule(32, heads=4).plans) for p in (whole, apart)] == [1, 2]


def test_one_relation_has_one_digest():
    spelled = ("window(4) and causal", "0 <= q - k <= 4", "window(4) and causal and k >= 0")
    digests = {attndsl.compile(f"pattern p = {text}").digest for text in spelled}
    assert len(digests) == 1
    assert attndsl.compile("causal").digest not in digests


def test_explain_shows_what_each_pass_makes():
    text, less = (
        attndsl.compile("pattern p = causal and (window(4) or k < 2)", without=without).explain(64)
        for without in ((), ["drop_implied"])
    )
    assert "after drop_implied\n         (k <= 1 or q - k <= 4) and k <= q" in text
    assert "drop_implied" not in less


def unknown_simplification():
    attndsl.compile("causal", without=["drop_implies"])


def needed_pass():
    attndsl.compile("causal", without="lower_coordinates")


@pytest.mark.parametrize("mistake", [unknown_simplification, needed_pass])
def test_mistakes_are_explained(mistake, golden):
    with pytest.raises(attndsl.AttnDslError) as caught:
        mistake()
    golden(GOLDEN / f"{mistake.__name__}.err", str(caught.value) + "\n")
