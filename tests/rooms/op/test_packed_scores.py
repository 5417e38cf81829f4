"""Attentions over packed sequences, bound calls, and positions beside keys from elsewhere."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

import attndsl
from attndsl.source import AttnDslError

TEXT = """
input b: real[head, n]
input w: real[batch, pos]
input sink: real[head]
input doc: int[batch, pos]
attention a over causal and doc[q] == doc[k] =
    score s + b[min(q - k, len(b.n) - 1)] - w[k] - 0.1 * q / len(k) mass exp(sink)
"""
BOUNDS = [0, 3, 3, 9, 14]  # one of no tokens, three of different lengths


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    make = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=make, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("by_token", [True, False])
def test_a_packed_call_is_that_of_each_sequence_with_every_gradient(backend: str, by_token: bool):
    a, n = attndsl.compile(TEXT), BOUNDS[-1]
    q, k, v = normal(n, 4, 4), normal(n, 2, 4, seed=1), normal(n, 2, 3, seed=2)
    given = {"b": normal(4, 3), "sink": normal(4), "w": normal(n, seed=5)}
    doc = torch.arange(n) // 4
    if not by_token:  # an entry for each sequence, as long as the longest
        given["w"], doc = normal(4, 6, seed=6), (torch.arange(24) // 4).reshape(4, 6)
    packed = attndsl.varlen(a)
    out, lse = packed(q, k, v, BOUNDS, return_lse=True, backend=backend, doc=doc, **given)
    outs, lses = [], []
    for place, (i, j) in enumerate(itertools.pairwise(BOUNDS)):
        mine = [x[i:j].transpose(0, 1)[None] for x in (q, k, v)]
        w = given["w"][i:j] if by_token else given["w"][place, : j - i]
        ids = doc[i:j] if by_token else doc[place, : j - i]
        own = {**given, "w": w[None], "doc": ids[None]}
        wanted, level = a(*mine, return_lse=True, backend="reference", **own)
        outs.append(wanted[0].transpose(0, 1))
        lses.append(level[0].transpose(0, 1))
    torch.testing.assert_close(out, torch.cat(outs))
    torch.testing.assert_close(lse, torch.cat(lses))
    leaves = q, k, v, *given.values()
    gains = torch.randn_like(out), torch.randn_like(lse)
    found = torch.autograd.grad([out, lse], leaves, gains)
    wanted = torch.autograd.grad([torch.cat(outs), torch.cat(lses)], leaves, gains)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_what_packed_sequences_cannot_be_beside_is_refused():
    q = k = v = normal(4, 2, 4)
    for text, words in (
        ("attention a over causal = (by memory: score s)", "keys from elsewhere"),
        ("attention a over causal = score s + batch", "reads `batch`"),
    ):
        with pytest.raises(AttnDslError, match=words):
            attndsl.varlen(attndsl.compile(text))(q, k, v, [0, 4])
    with pytest.raises(AttnDslError, match="ends at 3, but q has 4"):
        attndsl.varlen("attention a over causal = score s")(q, k, v, [0, 3])


def test_a_bound_call_is_the_call_and_its_real_inputs_are_trained():
    a = attndsl.compile(TEXT)
    q, k, v = normal(2, 2, 5, 4), normal(2, 2, 7, 4), normal(2, 2, 7, 3)
    doc, kv_len = torch.zeros(2, 7, dtype=torch.int64), torch.tensor([5, 7])
    doc[1, 4:] = 1
    given: dict[str, Any] = {"b": normal(2, 3), "sink": normal(2), "w": normal(2, 7)}
    call = a.bind(5, 7, 2, batch=2, doc=doc, kv_len=kv_len, b=given["b"], sink=given["sink"])
    wanted = a(q, k, v, doc=doc.clone(), kv_len=kv_len.clone(), **given)
    doc.zero_(), kv_len.zero_()  # copies were bound
    found, lse = call(q, k, v, w=given["w"], return_lse=True)
    torch.testing.assert_close(found, wanted)
    assert lse.shape == (2, 2, 5)
    leaves, dout = [q, k, v, *given.values()], torch.randn_like(wanted)
    ours, theirs = (torch.autograd.grad(x, leaves, dout) for x in (found, wanted))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    for wrong, words in (
        (lambda: call(q, k, v), "'w' is neither bound nor given"),
        (lambda: call(q, k, v, doc=doc), "'doc' is no real input"),
        (lambda: call(q[:, :, :3], k, v, w=given["w"]), "bound for other tensors"),
        (lambda: a.bind(5, 7, 2, batch=2, **given), "doc"),
        (lambda: a.bind(5, 7, 2, batch=2, doc=doc[:, :3]), "doc"),
        (lambda: attndsl.compile("differential").bind(5, heads=3), "groups of 2"),
    ):
        with pytest.raises(AttnDslError, match=words):
            wrong()


def test_heads_that_go_in_pairs_take_positions_and_are_bound():
    a = attndsl.compile("differential")
    q, k, v, lam = normal(2, 4, 3, 4), normal(2, 4, 6, 4), normal(2, 2, 6, 3), normal(2)
    kv_len = torch.tensor([4, 6])
    found = a(q, k, v, lam=lam, kv_len=kv_len)
    bound = a.bind(3, 6, 4, batch=2, kv_len=kv_len)(q, k, v, lam=lam)
    torch.testing.assert_close(found, bound)
    for e, m in enumerate(kv_len.tolist()):
        mine = q[e : e + 1], k[e : e + 1, :, :m], v[e : e + 1, :, :m]
        torch.testing.assert_close(found[e], a(*mine, lam=lam, backend="reference")[0])


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_keys_from_elsewhere_stand_beside_positions_that_they_do_not_read(backend: str):
    a = attndsl.compile("llama_adapter")
    q, k, v, gate = normal(2, 2, 6, 4), normal(2, 2, 8, 4), normal(2, 2, 8, 3), normal(2)
    prompt = normal(2, 2, 3, 4, seed=7), normal(2, 2, 3, 3, seed=8)
    kv_len, q_len = torch.tensor([5, 8]), torch.tensor([2, 6])
    found = a(q, k, v, gate=gate, prompt=prompt, kv_len=kv_len, q_len=q_len, backend=backend)
    for e, (n, m) in enumerate(zip(q_len.tolist(), kv_len.tolist(), strict=True)):
        mine = q[e : e + 1, :, :n], k[e : e + 1, :, :m], v[e : e + 1, :, :m]
        own = tuple(x[e : e + 1] for x in prompt)
        wanted = a(*mine, gate=gate, prompt=own, backend="reference")
        torch.testing.assert_close(found[e, :, :n], wanted[0])
        assert found[e, :, n:].eq(0).all()
    late = attndsl.compile("attention a over causal = (by memory: score s)")
    with pytest.raises(AttnDslError, match="positions of tokens are not taken"):
        late(q, k, v, memory=prompt, kv_len=kv_len, backend=backend)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_an_int_input_that_only_scores_read_is_placed_with_the_tokens(backend):
    a = attndsl.compile("input kind: int[batch, pos] attention a over causal = score s - kind[k]")
    q, k, v = (torch.randn(2, 1, 6, 4, dtype=torch.float64) for _ in range(3))
    kind, kv_len = torch.arange(12).reshape(2, 6) % 3, torch.tensor([4, 6])
    found = a(q[:, :, :3], k, v, kind=kind, kv_len=kv_len, backend=backend)
    for e, m in enumerate(kv_len.tolist()):
        mine = q[e : e + 1, :, :3], k[e : e + 1, :, :m], v[e : e + 1, :, :m]
        wanted = a(*mine, kind=kind[e : e + 1, :m], backend="reference")
        torch.testing.assert_close(found[e], wanted[0])
