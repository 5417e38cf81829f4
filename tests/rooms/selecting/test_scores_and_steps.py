"""Scores as outputs with gradients, and summaries of a cache that grows."""

import pytest
import torch

import attndsl
from attndsl import selecting
from attndsl.source import AttnDslError

MOBA = """
select past over blocks(8) = dot(q, mean(k)) where block < q // 8 take top 2
pattern p = k <= q and (k // 8 == q // 8 or k in past[q])
"""
MANY = """
units fine = blocks(8, every 4) whole
select best over blocks(16) per group =
    sum over group:
        sum over fine: share * (softmax over fine where fine.end <= q + 1: scale * dot(q, mean(k)))
    where block.start <= q
    take top 2
select page over blocks(4) = bound(q, k) where block.start <= q take top 3
select alike over blocks(8) = dot(unit(q), mean(unit(k))) where block.start <= q take top 2
pattern p = k <= q and (k in best[q] or k in page[q] or k in alike[q])
"""
COLUMNS = """
input w: real[head, d]
select heard over blocks(8) = dot(w, max(k)) * dot(q, q) take top 2 by column
pattern p = k in heard[q]
"""


def drawn(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_scores_are_those_of_the_units_taken_and_carry_gradients():
    p = attndsl.compile(MOBA)
    q, k = drawn(0, 2, 4, 37, 6).requires_grad_(), drawn(1, 2, 2, 37, 6).requires_grad_()
    chosen = p.select(q, k)
    found, table = p.scores(q, k, chosen)["past"], chosen["past"].long()
    assert found.dtype is torch.float32
    assert torch.equal(found == -torch.inf, table < 0)
    means = torch.stack([each.mean(2) for each in k.split(8, 2)], 2).repeat_interleave(2, 1)
    dense = (q.double() @ means.double().mT).gather(3, table.clamp(min=0))
    seed = drawn(2, *table.shape) * (table >= 0)
    torch.testing.assert_close(found[table >= 0], dense.float()[table >= 0])
    ours = torch.autograd.grad(found.masked_fill(table < 0, 0), (q, k), seed)
    theirs = torch.autograd.grad(dense, (q, k), seed.double())
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text", [MANY, COLUMNS])
def test_scores_and_gradients_are_the_same_strip_by_strip(text):
    p = attndsl.compile(text)
    q, k = drawn(3, 1, 4, 37, 6).requires_grad_(), drawn(4, 1, 2, 37, 6).requires_grad_()
    w = drawn(5, 4, 6).requires_grad_()
    inputs = {"w": w} if text is COLUMNS else {}
    chosen = p.select(q, k, **inputs)
    for name, whole in p.scores(q, k, chosen, **inputs).items():
        (selection,) = (each for each in p.ir.selections if each.name == name)
        given = selecting.Activations(q, k, 6**-0.5, {}, inputs)
        parts = selecting.scores(selection, given, chosen[name], strip=400)
        there = chosen[name] >= 0
        assert there.any()
        torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-6)
        for leaf in (q, k, *inputs.values()):
            one, other = (
                torch.autograd.grad(x[there].square().sum(), leaf, retain_graph=True)[0]
                for x in (parts, whole)
            )
            assert one.abs().sum() > 0
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text", [MOBA, MANY])
def test_steps_that_keep_summaries_choose_what_the_rows_of_a_prefill_do(text):
    p = attndsl.compile(text)
    q, k = drawn(6, 2, 4, 45, 6), drawn(7, 2, 2, 45, 6)
    kept, length = attndsl.KeySummaries(), 0
    for new in (30, 1, 1, 1, 7, 1, 1, 1, 1, 1):
        length += new
        keys = k[:, :, :length].clone()
        step = p.select(q[:, :, length - new : length], keys, summaries=kept)
        whole = p.select(q[:, :, :length], keys)
        for name, table in step.items():
            assert torch.equal(table, whole[name][:, :, -new:]), (name, length)
        if length > 31:  # the keys before are not read again
            k[:, :, : length - 1] = torch.nan
            after = p.select(q[:, :, length - new : length], k[:, :, :length], summaries=kept)
            k = drawn(7, 2, 2, 45, 6)
            assert all(torch.equal(after[name], step[name]) for name in step)


def test_summaries_of_another_cache_are_refused():
    p, kept = attndsl.compile(MOBA), attndsl.KeySummaries()
    x = drawn(8, 1, 2, 20, 6)
    p.select(x, x, summaries=kept)
    for other in (x[:, :, :9], x[:, :1], x[..., :4]):
        with pytest.raises(AttnDslError, match="more keys, or with other ones"):
            p.select(other, other, summaries=kept)
    y = drawn(9, 1, 2, 24, 6)
    with pytest.raises(AttnDslError, match="more keys, or with other ones"):
        p.select(y, y, summaries=kept)
    with pytest.raises(AttnDslError, match="for another call"):
        p.scores(y, y, p.select(x, x))
