"""Each published attention beside its formula, written in plain torch from the paper: outputs and gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import attndsl
from attndsl import patterns

N, HEADS, DIM = 20, 4, 8
ROWS = torch.arange(N)
BACK = ROWS[:, None] - ROWS  # how far the key lies behind the query
CAUSAL = BACK >= 0


NOTHING: Mapping[str, Any] = MappingProxyType({})


class Formula(NamedTuple):
    """A formula of (q, k, v, inputs), the shapes of its inputs, and what the call is told."""

    of: Callable[..., Tensor]
    inputs: Mapping[str, tuple[int, ...]] = NOTHING
    call: Mapping[str, Any] = NOTHING
    values: Mapping[str, Any] = NOTHING
    layer: int = 0


def softmax(scores: Tensor, seen: Tensor | None = CAUSAL) -> Tensor:
    return (scores if seen is None else scores.masked_fill(~seen, -math.inf)).softmax(-1)


def scaled(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.mT / math.sqrt(q.shape[-1])


def heads(x: Tensor) -> Tensor:
    return x[:, None, None]


def t5_bucket(back: Tensor, both_ways: bool) -> Tensor:
    """The buckets of the released code, computed in float64."""
    count, found = (16, 16 * (back < 0)) if both_ways else (32, torch.zeros_like(back))
    n = back.abs() if both_ways else back.clamp(min=0)
    exact = count // 2
    ratio = torch.log(n.clamp(min=1).double() / exact) / math.log(128 / exact)
    large = (exact + (ratio * (count - exact) + 1e-9).long()).clamp(max=count - 1)
    return found + torch.where(n < exact, n, large)


def of_t5(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, both_ways: bool) -> Tensor:
    scores = q @ k.mT + bias[:, t5_bucket(BACK, both_ways)]
    return softmax(scores, None if both_ways else CAUSAL) @ v


def capped(q: Tensor, k: Tensor, v: Tensor, c: float, seen: Tensor) -> Tensor:
    return softmax(c * torch.tanh(scaled(q, k) / c), seen) @ v


def with_sink(q: Tensor, k: Tensor, v: Tensor, sink: Tensor, seen: Tensor) -> Tensor:
    scores = scaled(q, k).masked_fill(~seen, -math.inf)
    column = sink.expand(*scores.shape[:-1], 1)
    return torch.cat((scores, column), -1).softmax(-1)[..., :-1] @ v


def differential(q: Tensor, k: Tensor, v: Tensor, lam: Tensor) -> Tensor:
    p = softmax(scaled(q, k))
    return (p[:, 0::2] - heads(lam) * p[:, 1::2]) @ v[:, ::2]


def stick(q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
    t = scaled(q, k)
    left = F.logsigmoid(-t).masked_fill(~seen, 0.0)
    behind = left.flip(-1).cumsum(-1).flip(-1) - left
    return torch.exp(F.logsigmoid(t) + behind).masked_fill(~seen, 0.0) @ v


def entmax(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    z = scaled(q, k).masked_fill(~CAUSAL, -1e9) / 2
    low, high = z.detach().amax(-1, keepdim=True) - 1, z.detach().amax(-1, keepdim=True)
    for _ in range(80):
        middle = (low + high) / 2
        over = (z.detach() - middle).clamp(min=0).square().sum(-1, keepdim=True) >= 1
        low, high = torch.where(over, middle, low), torch.where(over, high, middle)
    seen = z.detach() > low
    n = seen.sum(-1, keepdim=True)
    mean = z.masked_fill(~seen, 0).sum(-1, keepdim=True) / n
    spread = (z - mean).masked_fill(~seen, 0).square().sum(-1, keepdim=True)
    return (z - mean + ((1 - spread) / n).sqrt()).clamp(min=0).square() @ v


def adapter(q: Tensor, k: Tensor, v: Tensor, gate: Tensor, prompt: tuple[Tensor, Tensor]) -> Tensor:
    of_prompt = softmax(scaled(q, prompt[0]), None) @ prompt[1]
    return softmax(scaled(q, k)) @ v + torch.tanh(heads(gate)) * of_prompt


Y, X = ROWS // 5, ROWS % 5  # an image of 4 by 5


def windows(m: int, r: int) -> tuple[Tensor, Tensor]:
    """Pixels that share a window of the shifted image, and the entries of the table, by its rolled order."""
    order = ROWS.view(4, 5).roll((-r, -r), (0, 1)) if r else ROWS.view(4, 5)
    label, place = torch.zeros(N, 4, dtype=torch.int64), torch.zeros(N, 2, dtype=torch.int64)
    for i in range(4):
        for j in range(5):
            pixel = int(order[i, j])
            came_round = [int(r > 0 and i >= 4 - r), int(r > 0 and j >= 5 - r)]
            label[pixel] = torch.tensor([i // m, j // m, *came_round])
            place[pixel] = torch.tensor([i % m, j % m])
    entry = (place[:, None] - place + m - 1) @ torch.tensor([2 * m - 1, 1])
    seen = (label[:, None] == label).all(-1)
    return seen, entry.where(seen, 0)


def swin(q: Tensor, k: Tensor, v: Tensor, table: Tensor, r: int) -> Tensor:
    seen, entry = windows(2, r)
    return softmax(scaled(q, k) + table[:, entry], seen) @ v


def swin_v2(q: Tensor, k: Tensor, v: Tensor, table: Tensor, tau: Tensor) -> Tensor:
    seen, entry = windows(2, 1)
    cosine = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
    scale = heads(tau).clamp(max=math.log(100)).exp()
    return softmax(scale * cosine + table[:, entry], seen) @ v


def convit(q: Tensor, k: Tensor, v: Tensor, gate: Tensor, place: Tensor) -> Tensor:
    dy, dx = Y - Y[:, None], X - X[:, None]
    where = torch.stack((dy * dy + dx * dx, dx, dy), -1).double() @ place.T
    mix = torch.sigmoid(heads(gate))
    both = (1 - mix) * softmax(scaled(q, k), None) + mix * where.permute(2, 0, 1).softmax(-1)
    return both @ v


IMAGE = {"extents": {"y": 4, "x": 5}}
NEAR = CAUSAL & (BACK < 3)
FORMULAS = {
    "alibi": Formula(
        lambda q, k, v, slope: softmax(scaled(q, k) - heads(slope) * BACK) @ v, {"slope": (HEADS,)}
    ),
    "kerple": Formula(
        lambda q, k, v, decay, reach: (
            softmax(
                scaled(q, k)
                - heads(decay.abs()) * torch.log(1 + heads(reach.abs()) * BACK.clamp(min=0))
            )
            @ v
        ),
        {"decay": (HEADS,), "reach": (HEADS,)},
    ),
    "t5_encoder": Formula(
        lambda *x: of_t5(*x, both_ways=True), {"bias": (HEADS, 32)}, {"scale": 1.0}
    ),
    "t5_decoder": Formula(
        lambda *x: of_t5(*x, both_ways=False), {"bias": (HEADS, 32)}, {"scale": 1.0}
    ),
    "shaw": Formula(
        lambda q, k, v, rel: (
            softmax(
                scaled(q, k)
                + torch.einsum("bhqd,qkd->bhqk", q, rel[(-BACK).clamp(-3, 3) + 3]) / math.sqrt(DIM),
                None,
            )
            @ v
        ),
        {"rel": (7, DIM)},
        values={"w": 3},
    ),
    "music_transformer": Formula(
        lambda q, k, v, rel: (
            softmax(
                scaled(q, k)
                + torch.einsum("bhqd,qkd->bhqk", q, rel[N - 1 - BACK.clamp(min=0)]) / math.sqrt(DIM)
            )
            @ v
        ),
        {"rel": (N, DIM)},
    ),
    "gemma2": Formula(lambda q, k, v: capped(q, k, v, 1.5, NEAR), values={"c": 1.5, "w": 3}),
    "grok": Formula(lambda q, k, v: capped(q, k, v, 30.0, CAUSAL)),
    "gpt_oss": Formula(
        lambda q, k, v, sink: with_sink(q, k, v, heads(sink), NEAR),
        {"sink": (HEADS,)},
        values={"w": 3},
    ),
    "off_by_one": Formula(
        lambda q, k, v: with_sink(q, k, v, torch.zeros(1, dtype=q.dtype), CAUSAL)
    ),
    "differential": Formula(differential, {"lam": (HEADS // 2,)}),
    "sigmoid_attention": Formula(
        lambda q, k, v: torch.sigmoid(scaled(q, k) - math.log(N)).masked_fill(~CAUSAL, 0) @ v
    ),
    "relu_attention": Formula(lambda q, k, v: torch.relu(scaled(q, k)) / N @ v),
    "entmax_attention": Formula(entmax, call={"scale": 3.0 / math.sqrt(DIM)}),
    "stick_breaking": Formula(lambda q, k, v: stick(q, k, v, BACK > 0)),
    "forgetting": Formula(
        lambda q, k, v, log_f: softmax(scaled(q, k) + log_f[..., None] - log_f[..., None, :]) @ v,
        {"log_f": (2, HEADS, N)},
    ),
    "urpe": Formula(
        lambda q, k, v, table: (softmax(scaled(q, k)) * table[:, BACK.clamp(0, 5)]) @ v,
        {"table": (HEADS, 6)},
        values={"longest": 6},
    ),
    "llama_adapter": Formula(adapter, {"gate": (HEADS,)}),
    "swin_v1": Formula(lambda *x: swin(*x, r=1), {"table": (HEADS, 9)}, IMAGE, {"m": 2, "r": 1}),
    "swin_v2": Formula(swin_v2, {"table": (HEADS, 9), "tau": (HEADS,)}, IMAGE, {"m": 2, "r": 1}),
    "convit": Formula(convit, {"gate": (HEADS,), "place": (HEADS, 3)}, IMAGE),
}


def test_there_is_a_formula_for_each():
    assert set(FORMULAS) == set(patterns.named_attentions())


@pytest.mark.parametrize("name", patterns.named_attentions())
def test_a_published_attention_is_its_formula_with_every_gradient(name):
    formula, rng = FORMULAS[name], torch.Generator().manual_seed(len(name))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    q, k, v = (normal(2, HEADS, N, DIM).requires_grad_() for _ in range(3))
    inputs = {x: normal(*shape).requires_grad_() for x, shape in formula.inputs.items()}
    if name == "kerple":
        inputs = {x: y.detach().abs().requires_grad_() for x, y in inputs.items()}
    if name == "entmax_attention":
        wanted = formula.of(3 * q, k, v)
    elif name == "llama_adapter":
        prompt = normal(2, HEADS, 3, DIM), normal(2, HEADS, 3, DIM)
        wanted = formula.of(q, k, v, *inputs.values(), prompt)
        formula = formula._replace(call={"prompt": prompt})
    else:
        wanted = (
            formula.of(q, k, v, **inputs)
            if len(inputs) > 1
            else formula.of(q, k, v, *inputs.values())
        )
    values = v[:, ::2] if name == "differential" else v
    a = attndsl.library.attention(name, layer=formula.layer, values=formula.values)
    found = a(q, k, values, inputs=inputs, **formula.call)
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)
    leaves = [q, k, v, *inputs.values()]
    grads = torch.autograd.grad(found.sin().sum(), leaves)
    right = torch.autograd.grad(wanted.sin().sum(), leaves)
    for mine, theirs in zip(grads, right, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9)


def test_buckets_of_t5_are_those_of_the_released_code_at_every_distance():
    n = 150
    for name, both_ways in (("t5_encoder", True), ("t5_decoder", False)):
        a = attndsl.library.attention(name)
        zero = torch.zeros(1, 1, n, 8, dtype=torch.float64)
        bias = torch.arange(32, dtype=torch.float64)[None] / 8
        back = torch.arange(n)[:, None] - torch.arange(n)
        seen = torch.ones(n, n).bool() if both_ways else back >= 0
        found = a(zero, zero, torch.eye(n, dtype=torch.float64)[None, None], bias=bias, scale=1.0)
        scores = bias[0, t5_bucket(back, both_ways)].masked_fill(~seen, -math.inf)
        torch.testing.assert_close(found[0, 0], scores.softmax(-1))


def test_names_of_attentions_compile_like_those_of_patterns():
    a = attndsl.compile("gpt_oss", w=3, layer=1)
    assert isinstance(a, attndsl.Attention)
    assert a.pattern.mask(4)[0, 0].equal(torch.ones(4, 4).tril().bool())
    with pytest.raises(attndsl.AttnDslError):
        attndsl.library.attention("gpt_os")
