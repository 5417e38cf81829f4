"""Calls through torch's flex_attention are those of the other back ends."""

import pytest
import torch

import attndsl

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
DOC = torch.arange(150) // 40


@pytest.mark.parametrize("text", ["causal", "longformer", "documents_causal", "q % 7 == k % 7 and head < 1",
                                  "input t: list[k, slots]\npattern p = k in t[q]"])  # fmt: skip
def test_a_call_is_that_of_the_oracle(text):
    p = attndsl.compile(text)
    given = {"documents_causal": {"doc": DOC[None]}}.get(text, {})
    if "list" in text:
        given = {"t": torch.tensor([[0, -1], [1, 3]] * 75)}
    q, k, v = torch.randn(2, 4, 130, 16), torch.randn(2, 2, 150, 16), torch.randn(2, 2, 150, 16)
    out, lse = p(q, k, v, backend="flex", return_lse=True, scale=0.3, **given)
    wanted = p(q, k, v, backend="reference", return_lse=True, scale=0.3, **given)
    torch.testing.assert_close((out, lse), wanted)


def test_few_queries_and_inputs_that_change_are_computed_too():
    p = attndsl.compile("documents_causal")
    q, k = torch.randn(1, 2, 1, 16), torch.randn(1, 2, 150, 16)
    doc = DOC[None].clone()
    for _ in range(2):
        out = p(q, k, k, doc=doc, backend="flex")
        torch.testing.assert_close(out, p(q, k, k, doc=doc, backend="reference"))
        doc[:, 140:] = 9


def test_what_it_cannot_is_refused():
    q = torch.randn(1, 1, 20, 16, requires_grad=True)
    plain = q.detach()
    with pytest.raises(attndsl.AttnDslError) as caught:
        attndsl.compile("causal")(q, q, q, backend="flex")
    assert "no backward on CPUs" in str(caught.value)
    with pytest.raises(attndsl.AttnDslError) as caught:
        attndsl.compile("pattern p = causal zeros 1")(plain, plain, plain, backend="flex")
    assert caught.value.code == "A520"


@pytest.mark.gpu
@pytest.mark.slow
def test_gradients_on_a_gpu_are_those_of_the_oracle():
    p = attndsl.compile("longformer")
    tensors = [torch.randn(1, 2, 300, 64, device="cuda", requires_grad=True) for _ in range(3)]
    found = torch.autograd.grad(p(*tensors, backend="flex").square().sum(), tensors)
    wanted = torch.autograd.grad(p(*tensors, backend="reference").square().sum(), tensors)
    torch.testing.assert_close(found, wanted, rtol=2e-2, atol=2e-2)
