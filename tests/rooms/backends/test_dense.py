"""The oracle against torch's own attention where that is defined, and against loops where not."""

import math

import torch

from attndsl.backends import Dense


def tensors(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    make = torch.Generator().manual_seed(0)
    shapes = [(2, 4, 9, 6), (2, 2, 11, 6), (2, 2, 11, 5)]
    return [torch.randn(*shape, dtype=dtype, generator=make) for shape in shapes]


def test_it_is_scaled_dot_product_attention_where_every_query_has_a_key():
    q, k, v = tensors()
    mask = torch.rand(2, 1, 9, 11, generator=torch.Generator().manual_seed(1)) < 0.5
    mask[..., 0] = True
    out, lse = Dense(mask).forward(q, k, v, scale=0.7)
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    theirs = torch.nn.functional.scaled_dot_product_attention(
        *leaves, attn_mask=mask, scale=0.7, enable_gqa=True
    )
    assert torch.allclose(out, theirs)
    dout = torch.randn_like(out)
    ours = Dense(mask).backward(q, k, v, out, lse, dout, None, scale=0.7)
    for one, other in zip(ours, torch.autograd.grad(theirs, leaves, dout), strict=True):
        assert torch.allclose(one, other)


def test_each_log_sum_exp_is_that_of_the_scores_seen():
    q, k, v = tensors()
    mask = torch.rand(1, 4, 9, 11, generator=torch.Generator().manual_seed(1)) < 0.3
    _, lse = Dense(mask).forward(q, k, v, scale=0.7)
    for b, h, i in torch.cartesian_prod(torch.arange(2), torch.arange(4), torch.arange(9)).tolist():
        scores = [0.7 * float(q[b, h, i] @ k[b, h // 2, j]) for j in range(11) if mask[0, h, i, j]]
        want = math.log(sum(map(math.exp, scores))) if scores else -math.inf
        assert math.isclose(lse[b, h, i], want, rel_tol=1e-12)


def test_the_gradient_through_lse_is_its_derivative():
    q, k, v = tensors()
    mask = torch.ones(1, 1, 9, 11, dtype=torch.bool).tril()
    out, lse = Dense(mask).forward(q, k, v, scale=0.7)
    dlse = torch.randn_like(lse)
    dq, _, dv = Dense(mask).backward(q, k, v, out, lse, torch.zeros_like(out), dlse, scale=0.7)
    step = torch.zeros_like(q)
    step[1, 2, 5, 3] = 1e-6
    moved = (
        Dense(mask).forward(q + step, k, v, scale=0.7)[1]
        - Dense(mask).forward(q - step, k, v, scale=0.7)[1]
    )
    assert math.isclose(float((dlse * moved).sum()) / 2e-6, float(dq[1, 2, 5, 3]), rel_tol=1e-6)
    assert not dv.any()


def test_a_query_without_a_key_is_zero():
    q, k, v = tensors(torch.float32)
    mask = torch.ones(9, 11, dtype=torch.bool)[None, None].clone()
    mask[..., 4, :] = False
    out, lse = Dense(mask).forward(q, k, v, scale=1.0)
    assert not out[:, :, 4].any()
    assert (lse[:, :, 4] == -math.inf).all()
    gradients = Dense(mask).backward(
        q, k, v, out, lse, torch.full_like(out, math.nan), torch.ones_like(lse), scale=1.0
    )
    assert not gradients[0][:, :, 4].any()


def test_no_keys_at_all():
    q, k, v = tensors()
    out, lse = Dense(torch.ones(1, 1, 9, 0, dtype=torch.bool)).forward(
        q, k[:, :, :0], v[:, :, :0], scale=1.0
    )
    assert not out.any()
    assert (lse == -math.inf).all()
