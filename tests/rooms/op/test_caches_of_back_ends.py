"""Every way to keep keys, on every back end, is the call on the tokens alone."""

import math

import pytest
import torch

import attndsl
from attndsl.backends.triton import INTERPRETED

BACKENDS = [
    "blocked",
    pytest.param("triton", marks=pytest.mark.skipif(not INTERPRETED, reason="runs interpreted")),
    "reference",
]
LENGTH = 40


@pytest.fixture(params=BACKENDS)
def run(request):
    """The call of a pattern on one back end."""
    return lambda p, *args, **given: p(*args, backend=request.param, **given)


def tensors(batch: int = 2) -> list[torch.Tensor]:
    """Queries of four heads, keys and values of two."""
    make = torch.Generator().manual_seed(LENGTH)
    return [torch.randn(batch, heads, LENGTH, 16, generator=make) for heads in (4, 2, 2)]


def same(ours: torch.Tensor, want: torch.Tensor) -> None:
    torch.testing.assert_close(ours, want, rtol=1e-4, atol=1e-5)


def test_chunks_of_any_length_fill_a_static_buffer(run):
    p, (q, k, v) = attndsl.compile("causal_window(9) or causal and k < 2"), tensors()
    whole, first = p(q, k, v), 0
    kept = [torch.full_like(x, math.nan) for x in (k, v)]
    for last in (19, 20, 24, 40):
        for x, rows in zip(kept, (k, v), strict=True):
            x[:, :, first:last] = rows[:, :, first:last]
        same(run(p, q[:, :, first:last], *kept, kv_len=last), whole[:, :, first:last])
        first = last


def test_a_tree_of_drafts_sees_each_its_own_path(run):
    tree, causal, (q, k, v) = attndsl.compile("tree"), attndsl.compile("causal"), tensors()
    parents, fill = [-1, 0, 0, 2], torch.tensor([36, 21])  # with the drafts
    drafts = torch.stack([x[:, end - 4 : end] for x, end in zip(q, fill, strict=True)])
    out = run(tree, drafts, k, v, kv_len=fill, **attndsl.subtrees([parents, parents]))
    for b, end in enumerate(fill.tolist()):
        rows = [*range(end - 4), end - 4, end - 2, end - 1]
        want = causal(drafts[b : b + 1, :, 3:], *(x[b : b + 1, :, rows] for x in (k, v)))
        same(out[b : b + 1, :, 3:], want)


def test_one_token_reads_all_that_an_encoder_gave(run):
    full, (q, k, v), heard = attndsl.compile("full"), tensors(), torch.tensor([33, 12])
    hidden = (torch.arange(LENGTH) >= heard[:, None])[:, None, :, None]
    out = run(full, q[:, :, :1], *(x.masked_fill(hidden, math.nan) for x in (k, v)), kv_len=heard)
    for b, n in enumerate(heard.tolist()):
        same(out[b : b + 1], full(q[b : b + 1, :, :1], *(x[b : b + 1, :, :n] for x in (k, v))))


def test_a_cache_slides_by_a_number_and_wraps_by_positions(run):
    p, (q, k, v) = attndsl.compile("window(7, 0)"), tensors()
    whole, rows = p(q, k, v), slice(24, 36)
    same(run(p, q[:, :, 34:36], k[:, :, rows], v[:, :, rows], k_start=24), whole[:, :, 34:36])
    slots = torch.arange(24, 37)[torch.randperm(13, generator=torch.Generator().manual_seed(0))]
    ring = [x[:, :, slots].masked_fill((slots == 36)[:, None], math.nan) for x in (k, v)]
    at = torch.where(slots == 36, -1, slots)[None]
    same(run(p, q[:, :, 34:36], *ring, k_pos=at), whole[:, :, 34:36])
