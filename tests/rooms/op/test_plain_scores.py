"""Attentions whose scores stay as they are run the kernels of their pattern, and count its zero keys once."""

import math

import pytest
import torch

import attndsl

PATTERNS = ("0 <= q - k < 40", "block(16)", "padded_window(3, 2)", "k <= q and k % 3 == 0")


@pytest.mark.parametrize("pairs", PATTERNS)
@pytest.mark.parametrize("length", [9, 200])  # one call of pairs, and tiles or whole blocks
def test_scores_that_stay_are_the_pattern_bit_for_bit(pairs, length):
    torch.manual_seed(length)
    leaves = [torch.randn(1, h, length, 8, requires_grad=True) for h in (4, 2, 2)]
    pattern, attention = (
        attndsl.compile(pairs),
        attndsl.compile(f"attention a over {pairs} = score s"),
    )
    wanted, lse = pattern(*leaves, return_lse=True)
    found, level = attention(*leaves, return_lse=True)
    is_exact = "padded" not in pairs  # zero keys are mass: a step of its own
    same = torch.equal if is_exact else torch.allclose
    assert same(found, wanted)
    assert same(level, lse)
    dout, dlse = torch.randn_like(wanted), torch.randn_like(lse)
    for mine, theirs in zip(
        torch.autograd.grad((found, level), leaves, (dout, dlse)),
        torch.autograd.grad((wanted, lse), leaves, (dout, dlse)),
        strict=True,
    ):
        torch.testing.assert_close(
            mine, theirs, rtol=0 if is_exact else 1e-5, atol=0 if is_exact else 1e-5
        )


def test_a_sink_gains_what_it_takes_from_the_others():
    text = "input sink: real[head] attention a over 0 <= q - k < 40 = score s mass exp(sink[head])"
    attention = attndsl.compile(text)
    q, k, v = (torch.randn(1, 2, 130, 8, dtype=torch.float64, requires_grad=True) for _ in range(3))
    sink = torch.tensor([0.5, -1.0], dtype=torch.float64, requires_grad=True)
    gap = torch.arange(130)[:, None] - torch.arange(130)
    scores = (q @ k.mT / math.sqrt(8)).masked_fill((gap < 0) | (gap >= 40), -math.inf)
    whole = torch.cat([scores, sink[None, :, None, None].expand(1, 2, 130, 1)], -1)
    wanted = torch.softmax(whole, -1)[..., :-1] @ v
    found = attention(q, k, v, sink=sink)
    dout = torch.randn_like(wanted)
    torch.testing.assert_close(found, wanted)
    mine = torch.autograd.grad(found, (q, k, v, sink), dout)
    for one, other in zip(mine, torch.autograd.grad(wanted, (q, k, v, sink), dout), strict=True):
        torch.testing.assert_close(one, other)
