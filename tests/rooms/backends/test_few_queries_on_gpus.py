"""Heads that share keys fill one tile of a few queries, and long rows of keys are split: the same results."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import attndsl
from attndsl.backends import Request, attend
from attndsl.backends.triton import INTERPRETED, Triton
from tests.support.dense_schedule import DenseWork, lowered

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="runs in Triton's interpreter")


def case(
    q_len: int, heads: int, kv_heads: int, k_len: int = 150, batch: int = 2
) -> list[torch.Tensor]:
    make = torch.Generator().manual_seed(q_len)
    sizes = (heads, q_len, 16), (kv_heads, k_len, 16), (kv_heads, k_len, 24)
    shapes = [(batch, *size) for size in sizes]
    return [torch.randn(shape, generator=make) for shape in shapes]


@pytest.mark.parametrize("longest", [1, None])
@pytest.mark.parametrize(("q_len", "heads"), [(1, 2), (1, 10), (3, 6), (16, 2), (9, 30)])
def test_heads_that_share_keys_are_one_tile(q_len: int, heads: int, longest: int | None):
    q, k, v = case(q_len, heads, 2, batch=1 if heads > 10 else 2)
    random = np.random.default_rng(heads)
    masks = random.random((len(q), 1, q_len, 150)) < 0.3
    masks[:, :, :, 64:128] = True
    masks[0, :, 0] = False
    backend = Triton(longest=longest)
    request = Request.of(q, k, v, gradient=False)
    kernels = lowered(backend, request, DenseWork(masks).schedule)
    assert kernels.folded == (heads // 2 if heads // 2 * q_len <= 128 else 1)
    found = kernels.forward(q, k, v, scale=-0.3)
    want = attend(torch.from_numpy(masks), q, k, v, -0.3)
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)
    again = kernels.forward(q, k, v, scale=-0.3)
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


def test_heads_that_see_other_keys_have_tiles_of_their_own():
    q, k, v = case(2, 4, 2)
    masks = np.random.default_rng(0).random((1, 4, 2, 150)) < 0.4
    kernels = lowered(Triton(), Request.of(q, k, v, gradient=False), DenseWork(masks).schedule)
    assert kernels.folded == 1
    want = attend(torch.from_numpy(masks), q, k, v, 0.5)
    torch.testing.assert_close(kernels.forward(q, k, v, scale=0.5), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["natural", "residues(3)", "boxes(y=2, x=2)"])
def test_any_order_of_tokens_will_do(layout: str):
    p = attndsl.compile("grid g(y, x=10)\npattern p over g = abs(q.y - k.y) <= 3 and k <= q")
    q, k, v = case(5, 4, 2)
    found = p(q, k, v, layout=layout, backend="triton")
    torch.testing.assert_close(found, p(q, k, v, backend="reference"), rtol=1e-5, atol=1e-5)


def test_what_no_query_sees_may_hold_anything_and_is_not_copied(monkeypatch: pytest.MonkeyPatch):
    p, (q, k, v) = attndsl.compile("causal_window(60)"), case(3, 4, 2)
    at = torch.stack([torch.randperm(150), torch.randperm(150)])
    at = torch.where(at % 3 == 0, -1, at)
    want = p(q, k, v, k_pos=at, backend="reference")
    k, v = (x.masked_fill((at < 0)[:, None, :, None], math.nan) for x in (k, v))
    monkeypatch.setattr(attndsl.op.rows, "_cleared", lambda *_: pytest.fail("copied"))
    for backend in ("triton", "blocked"):
        found = p(q, k, v, k_pos=at, backend=backend)
        torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)


def test_a_gradient_takes_the_tiles_of_the_backward():
    q, k, v = case(2, 4, 2)
    backend, request = Triton(), Request.of(q, k, v, gradient=True)
    assert backend.tiles(request) != backend.tiles(replace(request, gradient=False))
