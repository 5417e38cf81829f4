"""Short calls whose batch elements or heads differ are one call of a kernel over all pairs."""

import math

import pytest
import torch

import attndsl
from tests.support.torch_calls import flash_calls

BY_BATCH = "input keep: bool[batch, pos]\npattern p = keep[k] and k <= q"
BY_HEAD = "pattern p = q - k < 3 * (head + 1) and k <= q and k != 2"
BOTH = "input keep: bool[batch, pos]\npattern p = keep[k] and q - k <= 2 * head zeros head"


def tensors(dtype=torch.float64, batch=5, heads=4, kv_heads=2, q_len=9, k_len=13, width=3):
    make = torch.Generator().manual_seed(0)
    shapes = (batch, heads, q_len, 8), (batch, kv_heads, k_len, 8), (batch, kv_heads, k_len, width)
    return [torch.randn(shape, generator=make, dtype=dtype) for shape in shapes]


def results(p, through_lse, **options):
    """out, lse, dq, dk, dv."""
    leaves = [x.requires_grad_() for x in tensors()]
    out, lse = p(*leaves, return_lse=True, **options)
    loss = out.sin().sum()
    if through_lse:
        loss = loss + lse.masked_fill(lse.isinf(), 0.0).cos().sum()
    return [out.detach(), lse.detach(), *torch.autograd.grad(loss, leaves)]


def keep(batch=5, k_len=13):
    return torch.arange(k_len) < torch.tensor([13, 1, 0, 7, 12])[:batch, None]


@pytest.mark.parametrize("text", [BY_BATCH, BY_HEAD, BOTH])
@pytest.mark.parametrize("through_lse", [False, True])
def test_it_agrees_with_the_reference(text, through_lse):
    p = attndsl.compile(text)
    inputs = {"keep": keep()} if "keep" in text else {}
    ours, theirs = (
        results(p, through_lse, inputs=inputs, backend=backend)
        for backend in ("blocked", "reference")
    )
    for mine, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-10, atol=1e-12)


def test_the_number_of_heads_is_that_of_the_call_where_all_heads_see_the_same():
    p, (q, k, v) = attndsl.compile("pattern p = k <= q + batch and heads == 4"), tensors()
    torch.testing.assert_close(p(q, k, v), p(q, k, v, backend="reference"))
    assert p(q, k, v).any()


def test_all_elements_are_computed_by_one_call():
    leaves = [x.requires_grad_() for x in tensors(q_len=13)]
    lengths = torch.tensor([3, 13, 7, 0, 2])
    p, causal = attndsl.compile(BY_BATCH), attndsl.compile("causal")
    assert len(flash_calls(lambda: p(*leaves, inputs={"keep": keep()}))) == 1
    out = p(*leaves, inputs={"keep": keep()})  # with rows that see nothing
    assert len(flash_calls(lambda: out.sum().backward())) == 1
    assert len(flash_calls(lambda: causal(*leaves, q_len=lengths, kv_len=lengths))) == 1


def test_a_key_that_is_not_finite_reaches_those_that_see_it_alone():
    q, k, v = tensors()
    k[:, :, 7], v[:, :, 12, 1] = math.nan, math.inf
    p, given = attndsl.compile(BY_BATCH), {"keep": keep()}
    out = p(q, k, v, inputs=given)
    seen = p.mask(9, 13, 4, batch=5, inputs=given)[:, :, :, 7]
    assert torch.equal(out[..., 0].isnan(), seen)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    upstream = torch.ones_like(out)
    upstream[:, :, 3] = math.nan
    dq, dk, _ = torch.autograd.grad(p(*leaves, inputs=given), leaves, upstream)
    assert dq[1].isfinite()[:, 4:].all()
    assert not dk[2].any()
