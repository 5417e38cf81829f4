"""Masks, tiles and outputs against PyTorch's own: FlexAttention and scaled_dot_product_attention."""

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention.flex_attention import (
    and_masks,
    create_block_mask,
    create_mask,
    flex_attention,
    or_masks,
)

import attndsl

DOC = torch.repeat_interleave(torch.arange(5), torch.tensor([70, 1, 100, 130, 83]))
WIDTH = 24  # of an image of 16 rows


def causal(b, h, q, k):
    return q >= k


def near(b, h, q, k):
    return (q - k).abs() <= 40


def last_50(b, h, q, k):
    return (q - k >= 0) & (q - k < 50)


def box(b, h, q, k):
    rows = (q // WIDTH - k // WIDTH).abs() <= 1
    return rows & ((q % WIDTH - k % WIDTH).abs() <= 2)


# name, their mask, our pattern, what a call of ours needs
STATED = [
    ("causal", causal, "causal", {}),
    ("window", near, "window(40)", {}),
    ("sliding", and_masks(causal, near), "causal and window(40)", {}),
    ("last 50", last_50, "causal_window(50)", {}),
    ("prefix", or_masks(causal, lambda b, h, q, k: k < 60), "prefix(60)", {}),
    ("longformer", or_masks(near, lambda b, h, q, k: (q < 5) | (k < 5)), "longformer(40, 5)", {}),
    ("documents", lambda b, h, q, k: DOC[q] == DOC[k], "documents", {"doc": DOC[None]}),
    (
        "causal documents",
        and_masks(causal, lambda b, h, q, k: DOC[q] == DOC[k]),
        "documents_causal",
        {"doc": DOC[None]},
    ),
    ("blocks", lambda b, h, q, k: q // 50 == k // 50, "block(50)", {}),
    ("dilated", lambda b, h, q, k: near(b, h, q, k) & ((q - k) % 8 == 0), "dilated(5, 8)", {}),
    ("strided", lambda b, h, q, k: causal(b, h, q, k) & ((q - k < 32) | ((q - k) % 32 == 0)), "strided(32)", {}),
    ("by head", lambda b, h, q, k: ((h < 2) & near(b, h, q, k)) | ((h >= 2) & (q >= k)),
     "if head < 2 then window(40) else causal", {}),
    ("image", box, "box2d(3, 5)", {"extents": {"y": 16, "x": WIDTH}}),
]  # fmt: skip
LENGTH, HEADS = 384, 4


def ours(text: str) -> attndsl.Pattern:
    over = " over image" if "box2d" in text else ""
    return attndsl.compile(f"pattern p{over} = {text}")


@pytest.mark.parametrize(("name", "theirs", "text", "call"), STATED, ids=[s[0] for s in STATED])
def test_masks_are_those_of_create_mask(name, theirs, text, call):
    stated = create_mask(theirs, 1, HEADS, LENGTH, LENGTH, device="cpu")
    assert torch.equal(ours(text).mask(LENGTH, heads=HEADS, **call), stated)


@pytest.mark.parametrize(("name", "theirs", "text", "call"), STATED, ids=[s[0] for s in STATED])
def test_tiles_are_those_of_a_block_mask(name, theirs, text, call):
    blocks = create_block_mask(theirs, 1, HEADS, LENGTH, LENGTH, device="cpu", BLOCK_SIZE=128)
    schedule = ours(text).schedule(LENGTH, heads=HEADS, tile=(128, 128), **call)
    for head in range(HEADS):
        plan = schedule.plan(0, head)
        for tiles, count, index in (
            (plan.partial, blocks.kv_num_blocks, blocks.kv_indices),
            (plan.full, blocks.full_kv_num_blocks, blocks.full_kv_indices),
        ):
            listed = {
                (row, int(column))
                for row, n in enumerate(count[0, head].tolist())
                for column in index[0, head, row, :n]
            }
            assert set(tiles) == listed
        live = np.zeros(schedule.grid, bool)
        for row, column in itertools.chain(plan.full, plan.partial):
            live[row, column] = True
        assert np.array_equal(live, blocks.to_dense()[0, head].bool().numpy())


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize(("name", "theirs", "text", "call"), STATED, ids=[s[0] for s in STATED])
def test_outputs_are_those_of_flex_attention_and_sdpa(name, theirs, text, call):
    make = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, HEADS, LENGTH, 16, generator=make)
    blocks = create_block_mask(theirs, 1, HEADS, LENGTH, LENGTH, device="cpu")
    p = ours(text)
    out = p(q, k, v, **call)
    torch.testing.assert_close(
        out, flex_attention(q, k, v, block_mask=blocks), rtol=1e-4, atol=1e-5
    )
    dense = p.mask(LENGTH, heads=HEADS, **call)
    plain = F.scaled_dot_product_attention(q, k, v, attn_mask=dense)
    torch.testing.assert_close(out, plain, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_sdpa():
    make = torch.Generator().manual_seed(1)
    q, k, v, dout = torch.randn(4, 1, HEADS, LENGTH, 16, generator=make, dtype=torch.float64)
    for _, _, text, call in STATED:
        p = ours(text)
        mask = p.mask(LENGTH, heads=HEADS, **call)
        gradients = []
        for run in (
            lambda *x, p=p, call=call: p(*x, **call),
            lambda *x, mask=mask: F.scaled_dot_product_attention(*x, attn_mask=mask),
        ):
            leaves = [x.clone().requires_grad_() for x in (q, k, v)]
            gradients.append(torch.autograd.grad(run(*leaves), leaves, dout))
        for mine, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(mine, theirs)
