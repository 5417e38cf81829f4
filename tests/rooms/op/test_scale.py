"""A scale that is a tensor: one for all, one a head, one a query; trained like any other parameter."""

import numpy as np
import pytest
import torch

import attndsl

B, H, S, D = 2, 4, 7, 3


def normal(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def dense(q, k, v, scale):
    """Causal attention, written out."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    later = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).triu(1)
    scores = torch.einsum("bhqd,bhkd->bhqk", q, k) * scale
    return scores.masked_fill(later, -torch.inf).softmax(-1) @ v


SHAPES = [(), (1,), (H,), (H, 1, 1), (1, H, 1, 1), (B, 1, 1, 1), (B, H, 1, 1), (S, 1), (B, H, S, 1)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backend", ["auto", "reference", "triton"])
def test_a_tensor_scales_what_it_broadcasts_to_and_gets_its_gradient(backend, shape):
    if backend == "triton" and shape not in [(H,), (B, H, S, 1)]:
        pytest.skip("the kernels are interpreted: two shapes are enough")
    dtype = torch.float32 if backend == "triton" else torch.float64
    q, k, v = normal(B, H, S, D), normal(B, 2, S, D, seed=1), normal(B, 2, S, 2, seed=2)
    scale = normal(*shape, seed=3).requires_grad_()
    truth = dense(q, k, v, scale.view(1, H, 1, 1) if shape == (H,) else scale)
    (right,) = torch.autograd.grad(truth.sin().sum(), scale)
    low = scale.detach().to(dtype).requires_grad_()
    out = attndsl.compile("causal")(*(x.to(dtype) for x in (q, k, v)), scale=low, backend=backend)
    (mine,) = torch.autograd.grad(out.sin().sum(), low)
    torch.testing.assert_close(out, truth.to(dtype))
    torch.testing.assert_close(mine, right.to(dtype))


def test_a_temperature_is_trained_whether_or_not_queries_are():
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 6, 4, dtype=torch.float64) for _ in range(3))
    p = attndsl.compile("causal")
    for queries in (q, q.clone().requires_grad_()):
        t = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
        p(queries, k, v, scale=t.exp()).square().sum().backward()
        assert t.grad.item() == pytest.approx(5.903538, abs=1e-6)


def test_a_scale_is_a_module_s_parameter():
    module = attndsl.nn.PatternAttention(
        attndsl.compile("causal"), scale=torch.nn.Parameter(torch.full((H,), 0.3))
    )
    assert [name for name, _ in module.named_parameters()] == ["scale"]
    q = normal(B, H, S, D, dtype=torch.float32)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    grads = []
    for run in (module, compiled):
        grads += torch.autograd.grad(run(q, q, q).square().sum(), module.scale)
    torch.testing.assert_close(*grads)
    assert grads[0].all()


def test_a_scale_without_a_gradient_is_as_good_as_its_number():
    q = normal(B, H, S, D, dtype=torch.float32)
    p = attndsl.compile("causal")
    for scale in (torch.tensor(0.3), np.float32(0.3), np.array(0.3, np.float32)):
        assert torch.equal(p(q, q, q, scale=scale), p(q, q, q, scale=float(np.float32(0.3))))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_a_scale_of_lower_precision_rounds_the_queries_once(dtype):
    q = normal(B, H, S, D).to(dtype)
    scale = torch.rand(H, generator=torch.Generator().manual_seed(1))
    out = attndsl.compile("causal")(q, q, q, scale=scale)
    wide = (q.float() * scale.view(1, H, 1, 1)).bfloat16()
    assert out.dtype == torch.bfloat16
    exact = dense(wide.double(), q.double(), q.double(), 1.0)
    torch.testing.assert_close(out.double(), exact, rtol=2**-7, atol=2**-7)


def test_a_query_without_keys_gives_a_scale_no_gradient():
    q, k = normal(1, 1, 4, D), normal(1, 1, 4, D, seed=1)
    q[:, :, 0] = torch.nan
    scale = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    attndsl.compile("pattern p = k < q")(q, k, k, scale=scale).sin().sum().backward()
    assert scale.grad.isfinite()
    assert scale.grad


WRONG = {
    "a number for each batch element": ("A502", torch.ones(B)),
    "heads and dims": ("A502", torch.ones(H, D)),
    "a number for each dim": ("A502", torch.ones(1, 1, 1, D)),
    "too many dims": ("A502", torch.ones(1, 1, 1, 1, 1)),
    "a number for each key": ("A502", np.ones(S)),
    "words": ("A502", "half"),
    "truths": ("A503", torch.ones(H, dtype=torch.bool)),
    "complex": ("A503", torch.ones(H, dtype=torch.complex64)),
    "another device": ("A503", torch.ones(H, device="meta")),
}


@pytest.mark.parametrize("name", WRONG)
def test_another_scale_is_refused(name):
    q = normal(B, H, S, D, dtype=torch.float32)
    code, scale = WRONG[name]
    with pytest.raises(attndsl.AttnDslError) as caught:
        attndsl.compile("causal")(q, q, q, scale=scale)
    assert caught.value.code == code
    assert "scale" in str(caught.value)


def test_a_scale_of_8_bits_is_not_trained():
    q = normal(B, H, S, D).to(torch.float8_e5m2)
    with pytest.raises(attndsl.AttnDslError, match="A503"):
        attndsl.compile("causal")(q, q, q, scale=torch.ones(H, requires_grad=True))
