"""Attentions as published, written in the language, beside loops over pairs: outputs and every gradient."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest
import torch

import attndsl
from tests.support.score_loops import Loop, attend


class Case(NamedTuple):
    """An attention of the language, the shapes of its real inputs, and the loop that it stands for."""

    text: str
    inputs: dict[str, tuple[int | str, ...]]
    loop: Loop


def causal(q: int, k: int) -> bool:
    return k <= q


def near(q: int, k: int) -> bool:
    return 0 <= q - k < 3


CASES = {
    "ALiBi (Press et al., 2022)": Case(
        "input slope: real[head] attention a over causal = score s - slope[head] * (q - k)",
        {"slope": ("H",)},
        Loop(causal, lambda s, p: s - p.x["slope"][p.head] * (p.q - p.k)),
    ),
    "soft cap before a bias by distance (Gemma 2)": Case(
        "input b: real[head, n] attention a(c: real = 2.0) over causal ="
        " score c * tanh(s / c) + b[min(q - k, len(b.n) - 1)]",
        {"b": ("H", 4)},
        Loop(causal, lambda s, p: 2 * torch.tanh(s / 2) + p.x["b"][p.head, min(p.q - p.k, 3)]),
    ),
    "sink in the denominator (gpt-oss)": Case(
        "input sink: real[head] attention a over 0 <= q - k < 3 = score s mass exp(sink[head])",
        {"sink": ("H",)},
        Loop(near, mass=lambda p: torch.exp(p.x["sink"][p.head])),
    ),
    "softmax plus one, empty rows among them": Case(
        "attention a over k < q - 2 = score s mass 1.0",
        {},
        Loop(lambda q, k: k < q - 2, mass=lambda p: 1.0),
    ),
    "bias of each pair": Case(
        "input bias: real[head, q, k] attention a over window(2) = score s + bias[q, k]",
        {"bias": ("H", "Q", "K")},
        Loop(lambda q, k: abs(q - k) <= 2, lambda s, p: s + p.x["bias"][p.head, p.row, p.k]),
    ),
    "bias of keys and temperatures of queries": Case(
        "input a_: real[batch, k] input t: real[head, q]"
        " attention a over causal = score t[q] * s + a_[k]",
        {"a_": ("B", "K"), "t": ("H", "Q")},
        Loop(causal, lambda s, p: p.x["t"][p.head, p.row] * s + p.x["a_"][p.batch, p.k]),
    ),
    "relative vectors (Shaw et al., 2018)": Case(
        "input rel: real[n, d] attention a over window(2) = score s + 0.5 * dot(q, rel[k - q + 2])",
        {"rel": (5, "D")},
        Loop(
            lambda q, k: abs(q - k) <= 2,
            lambda s, p: s + 0.5 * (p.of_q @ p.x["rel"][p.k - p.q + 2]),
        ),
    ),
    "forget gates (Lin et al., 2025)": Case(
        "input c: real[batch, head, k] input d: real[batch, head, q]"
        " attention a over causal = score s + d[q] - c[k]",
        {"c": ("B", "H", "K"), "d": ("B", "H", "Q")},
        Loop(
            causal,
            lambda s, p: s + p.x["d"][p.batch, p.head, p.row] - p.x["c"][p.batch, p.head, p.k],
        ),
    ),
    "sigmoid attention (Ramapuram et al., 2024)": Case(
        "input b: real[head] attention a over causal = score s + b[head] weights sigmoid",
        {"b": ("H",)},
        Loop(causal, lambda s, p: s + p.x["b"][p.head], "pointwise", torch.sigmoid),
    ),
    "squared ReLU, without a denominator": Case(
        "attention a over causal = score s weights pointwise relu(s) * relu(s)",
        {},
        Loop(causal, form="pointwise", weight=lambda t: torch.relu(t) ** 2),
    ),
    "softplus over its sum (Softplus attention)": Case(
        "input b: real[head] attention a over causal = score s - b[head] weights l1 softplus(s)",
        {"b": ("H",)},
        Loop(
            causal,
            lambda s, p: s - p.x["b"][p.head],
            "l1",
            torch.nn.functional.softplus,
        ),
    ),
    "1.5-entmax (Peters et al., 2019)": Case(
        "input b: real[head, n] attention a over causal = score 3.0 * s + b[min(q - k, 4)] weights entmax",
        {"b": ("H", 5)},
        Loop(causal, lambda s, p: 3 * s + p.x["b"][p.head, min(p.q - p.k, 4)], "entmax"),
    ),
    "stick-breaking (Tan et al., 2024)": Case(
        "input b: real[head] attention a over causal = score s + b[head] weights stick",
        {"b": ("H",)},
        Loop(causal, lambda s, p: s + p.x["b"][p.head], "stick"),
    ),
    "columns that sum to one": Case(
        "input b: real[head, k] attention a over window(2) = score s * b[k] weights columns",
        {"b": ("H", "K")},
        Loop(lambda q, k: abs(q - k) <= 2, lambda s, p: s * p.x["b"][p.head, p.k], "columns"),
    ),
    "a factor after the softmax (URPE; Luo et al., 2022)": Case(
        "input c: real[head, n] attention a over causal = score s factor c[min(q - k, 3)]",
        {"c": ("H", 4)},
        Loop(causal, factor=lambda p: p.x["c"][p.head, min(p.q - p.k, 3)]),
    ),
}
LENGTHS = {"square": (6, 6), "decode": (3, 7), "more queries": (7, 5)}
KERNELS = ("reference", "auto")


def drawn(case: Case, q_len: int, k_len: int, seed: int) -> tuple[list[Any], dict[str, Any]]:
    """q, k, v with two query heads a key head, and the real inputs; float64, all wanting gradients."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64).requires_grad_()

    sizes = {"B": 2, "H": 4, "Q": q_len, "K": k_len, "D": 4}
    qkv = [normal(2, 4, q_len, 4), normal(2, 2, k_len, 4), normal(2, 2, k_len, 3)]
    made = {
        name: normal(*(sizes[n] if isinstance(n, str) else n for n in shape))
        for name, shape in case.inputs.items()
    }
    return qkv, made


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("name", CASES)
def test_attentions_equal_their_loops_with_every_gradient(name, lengths, backend):
    case = CASES[name]
    qkv, inputs = drawn(case, *LENGTHS[lengths], seed=len(name))
    compiled = attndsl.compile(case.text)
    found = compiled(*qkv, inputs=inputs, backend=backend)
    wanted = attend(case.loop, *qkv, inputs)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)
    leaves = [*qkv, *inputs.values()]
    gain = torch.sin(torch.arange(wanted.numel(), dtype=torch.float64)).reshape(wanted.shape)
    made = torch.autograd.grad((found * gain).sum(), leaves, allow_unused=True)
    right = torch.autograd.grad((wanted * gain).sum(), leaves, allow_unused=True)
    for mine, theirs, leaf in zip(made, right, leaves, strict=True):
        theirs = torch.zeros_like(leaf) if theirs is None else theirs
        mine = torch.zeros_like(leaf) if mine is None else mine
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("backend", KERNELS)
def test_the_log_sum_exp_holds_the_mass_and_is_differentiable(backend):
    a = attndsl.compile("input z: real[head] attention a over k < q = score s mass exp(z[head])")
    q, k, v = (torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    z = torch.randn(2, dtype=torch.float64, requires_grad=True)
    out, lse = a(q, k, v, z=z, return_lse=True, backend=backend)
    scores = (q @ k.mT / 2).masked_fill(~torch.ones(5, 5).tril(-1).bool(), -math.inf)
    wanted = torch.cat((scores, z[:, None, None].expand(1, 2, 5, 1)), -1).logsumexp(-1)
    torch.testing.assert_close(lse, wanted)
    assert out[:, :, 0].eq(0).all()  # a query without keys: the sink takes all of its mass
    grads = torch.autograd.grad(lse.sin().sum(), (q, k, z))
    for mine, theirs in zip(grads, torch.autograd.grad(wanted.sin().sum(), (q, k, z)), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("backend", KERNELS)
def test_branches_are_normalised_apart_and_unions_together(backend):
    text = """
    input lam: real[head]
    input gate: real[batch, head, q, 2]
    attention diff over causal = (by pair 0: score s) - lam[head] * (by pair 1: score s)
    attention gated over causal =
        gate[q, 0] * (over window(1): score s) + gate[q, 1] * (over k < 2: score 2.0 * s)
    attention near over k <= q and q - k < 2 = score s
    attention far over k <= q - 2 = score 0.5 * s
    attention both = near ++ far
    """
    rng = torch.Generator().manual_seed(5)
    q, k = (torch.randn(2, 4, 6, 4, generator=rng, dtype=torch.float64) for _ in range(2))
    v = torch.randn(2, 2, 6, 8, generator=rng, dtype=torch.float64)
    lam, s = torch.rand(2, dtype=torch.float64), q @ k.mT / 2
    lower = torch.ones(6, 6).tril().bool()
    p = s.masked_fill(~lower, -math.inf).softmax(-1)
    found = attndsl.compile(text, entry="diff")(q, k, v, lam=lam, backend=backend)
    wanted = p[:, 0::2] @ v - lam[:, None, None] * (p[:, 1::2] @ v)
    torch.testing.assert_close(found, wanted)
    v = torch.randn(2, 4, 6, 8, generator=rng, dtype=torch.float64)
    gate = torch.randn(2, 4, 6, 2, generator=rng, dtype=torch.float64)
    found = attndsl.compile(text, entry="gated")(q, k, v, gate=gate, backend=backend)
    window = lower & torch.ones(6, 6).triu(-1).bool()
    first = (torch.arange(6) < 2) & lower
    a = s.masked_fill(~window, -math.inf).softmax(-1) @ v
    b = (2 * s).masked_fill(~first, -math.inf).softmax(-1) @ v
    torch.testing.assert_close(found, gate[..., :1] * a + gate[..., 1:] * b)
    found = attndsl.compile(text, entry="both")(q, k, v, backend=backend)
    joined = torch.where(window, s, 0.5 * s).masked_fill(~lower, -math.inf).softmax(-1) @ v
    torch.testing.assert_close(found, joined)


@pytest.mark.parametrize("backend", KERNELS)
def test_keys_and_values_come_from_elsewhere_where_the_attention_says_so(backend):
    a = attndsl.compile("""
    attention own over causal = score s
    attention there over 0 <= k = score s by memory
    attention both = own ++ there
    """)
    q, k, v = (torch.randn(1, 2, 5, 4, dtype=torch.float64) for _ in range(3))
    mk, mv = (torch.randn(1, 2, 3, 4, dtype=torch.float64) for _ in range(2))
    found = a(q, k, v, memory=(mk, mv), backend=backend)
    scores = (q @ k.mT / 2).masked_fill(~torch.ones(5, 5).tril().bool(), -math.inf)
    weights = torch.cat((scores, q @ mk.mT / 2), -1).softmax(-1)
    torch.testing.assert_close(found, weights @ torch.cat((v, mv), -2))
    with pytest.raises(attndsl.AttnDslError, match="memory"):
        a(q, k, v, backend=backend)


@pytest.mark.parametrize("backend", KERNELS)
def test_positions_place_the_scores_of_attentions_too(backend):
    a = attndsl.compile(
        "input b: real[head, n] input w: real[head, k] attention a over causal ="
        " score s + b[min(q - k, len(b.n) - 1)] + w[k] - 0.1 * q / len(k)"
    )
    q, k, v = (torch.randn(2, 2, 6, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    b, w = (torch.randn(2, n, dtype=torch.float64, requires_grad=True) for n in (4, 6))
    q_len, kv_len = torch.tensor([2, 6]), torch.tensor([5, 6])
    found, lse = a(q, k, v, b=b, w=w, q_len=q_len, kv_len=kv_len, return_lse=True, backend=backend)
    for e, (n, m) in enumerate(zip(q_len.tolist(), kv_len.tolist(), strict=True)):
        mine = (q[e : e + 1, :, :n], k[e : e + 1, :, :m], v[e : e + 1, :, :m])
        wanted, level = a(*mine, b=b, w=w[:, :m], return_lse=True, backend="reference")
        torch.testing.assert_close(found[e, :, :n], wanted[0])
        torch.testing.assert_close(lse[e, :, :n], level[0])
        assert found[e, :, n:].eq(0).all()


def test_a_rank_that_holds_some_heads_scores_them_by_their_own_numbers():
    a = attndsl.compile(
        "input t: real[head] attention a over causal = score s * (head + 1) + t[head]"
    )
    q, k, v = (torch.randn(1, 4, 5, 4, dtype=torch.float64) for _ in range(3))
    t = torch.randn(4, dtype=torch.float64)
    whole = a(q, k, v, t=t)
    for given in (t, t[2:]):
        part = a(q[:, 2:], k[:, 2:], v[:, 2:], t=given, heads=4, head_start=2)
        torch.testing.assert_close(part, whole[:, 2:])


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"slope": torch.ones(3)}, "3 entries along head, expected 2"),
        ({"slope": torch.ones(2, 2)}, "needs 1 dims"),
        ({"slope": torch.ones(2, dtype=torch.bool)}, "real numbers, not bool"),
        ({}, "needs the input 'slope'"),
        ({"slope": torch.ones(2), "slop": 1}, "did you mean 'slope'"),
    ],
)
def test_real_inputs_that_do_not_fit_are_refused(inputs, words):
    a = attndsl.compile(
        "input slope: real[head] attention a over causal = score s - slope[head] * (q - k)"
    )
    with pytest.raises(attndsl.AttnDslError, match=words):
        a(*(torch.randn(1, 2, 4, 4) for _ in range(3)), inputs=inputs)


@pytest.mark.parametrize(
    "score",
    [
        "input r: real[4, d] attention a over causal = score dot(q, r[min(q, 3)])",
        "input r: real[4, d] attention a over causal = score s mass exp(dot(q, r[min(q, 3)]))",
        "input r: real[4, d] input p: real[2, e] attention a over causal = score dot(p[q % 2], r[k % 4])",
    ],
)
def test_vectors_of_another_width_than_those_they_meet_are_refused(score):
    a, x = attndsl.compile(score), torch.randn(1, 2, 5, 4)
    others = {"p": torch.ones(2, 4)} if "input p" in score else {}
    a(x, x, x, r=torch.ones(4, 4), **others)
    with pytest.raises(attndsl.AttnDslError, match=r"'r' has vectors of 5 numbers.*have 4"):
        a(x, x, x, r=torch.ones(4, 5), **others)


def test_what_an_attention_cannot_take_is_refused_and_not_ignored():
    q, k, v = (torch.randn(1, 2, 5, 4) for _ in range(3))
    far = attndsl.compile("attention far over causal = score s by memory")
    with pytest.raises(attndsl.AttnDslError, match="A413"):
        far(q, k, v, memory=(k, v), q_start=3)
    few = k[:, :, :3], v[:, :, :3]
    with pytest.raises(attndsl.AttnDslError, match=r"A402.*3 keys, too few for 5 queries"):
        far(q, k, v, memory=few)
    start = attndsl.compile("attention far over causal align start = score s by memory")
    torch.testing.assert_close(start(q, k, v, memory=few)[:, :, 0], v[:, :, 0])
    pairs = attndsl.compile("attention p over causal = (by pair 0: score s) - (by pair 1: score s)")
    with pytest.raises(attndsl.AttnDslError, match=r"A402"):
        pairs(q, k, v[:, :1], heads=4, head_start=2)
    with pytest.raises(attndsl.AttnDslError, match="A211"):
        attndsl.compile(far.ir, align="start")


def test_gradients_of_several_passes_are_added_before_they_are_rounded():
    a = attndsl.compile("attention a over window(3) = score s weights columns")
    make = torch.Generator().manual_seed(3)
    q, k, v, dout = (torch.randn(1, 1, 40, 8, generator=make).bfloat16() for _ in range(4))

    def gradient(dtype: torch.dtype) -> torch.Tensor:
        leaves = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        a(*leaves).backward(dout.to(dtype))
        assert leaves[0].grad is not None
        return leaves[0].grad.double()

    exact = gradient(torch.float64)
    assert ((gradient(torch.bfloat16) - exact).abs() <= 2**-8 * exact.abs() + 1e-5).all()


def test_a_product_that_stands_twice_in_a_gradient_is_the_same_both_times():
    text = "input pairs: real[3, 3]\ninput slope: real[head]\nattention twice over causal = score "
    text += "tanh(slope * pairs[q % 3, k % 3] - pairs[q % 3, k % 3]) * slope + s weights columns"
    p, make = attndsl.compile(text), torch.Generator().manual_seed(0)
    q, k, v, dout = torch.randn(4, 1, 2, 5, 4, generator=make, dtype=torch.float64)
    leaves = [
        torch.randn(shape, generator=make, dtype=torch.float64).requires_grad_()
        for shape in ((3, 3), (2,))
    ]
    found = []
    for backend in ("blocked", "reference"):
        out = p(q, k, v, pairs=leaves[0], slope=leaves[1], backend=backend)
        found.append(torch.autograd.grad(out, leaves, dout))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_weights_by_columns_do_not_change_with_what_a_key_adds_to_all_of_its_scores():
    a = attndsl.compile("input b: real[k] attention a over causal = score s + b[k] weights columns")
    p = attndsl.compile("attention p over causal = score s weights columns")
    q, k, v = (
        torch.randn(1, 2, 9, 4, generator=torch.Generator().manual_seed(i)) for i in range(3)
    )
    b = torch.tensor([0.0, -200.0, 3.0, -900.0, 150.0, 1.0, -70.0, 0.0, 400.0])
    torch.testing.assert_close(a(q, k, v, b=b), p(q, k, v), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("backend", ["blocked", "reference"])
@pytest.mark.parametrize("weights", ["", "weights sigmoid", "weights entmax", "weights stick"])
def test_scores_that_lie_far_apart_lose_no_digits(weights: str, backend: str):
    a = attndsl.compile(f"input w: real[k] attention a over k <= q = score s + w[k] {weights}")
    make = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, 12, 4, generator=make) for _ in range(3))
    w = torch.tensor([0.0, 5, 100, -100, 0, 2e4, 0, -3, 1, -5, 0, -2e4])

    def results(dtype: torch.dtype, backend: str) -> list[torch.Tensor]:
        leaves = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        out = a(*leaves, w=w.to(dtype), backend=backend)
        return [out, *torch.autograd.grad(out.sin().sum(), leaves)]

    exact = results(torch.float64, "reference")
    for mine, right in zip(results(torch.float32, backend), exact, strict=True):
        torch.testing.assert_close(mine.double(), right, atol=3e-5, rtol=1e-4)


@pytest.mark.parametrize("backend", ["blocked", "reference"])
def test_sums_of_weights_without_digits_are_zero(backend: str):
    a = attndsl.compile("attention a over k <= q = score s weights l1 softplus(s - 95.0)")
    q, k, v = (torch.full((1, 1, 6, 4), 0.1, requires_grad=True) for _ in range(3))
    out = a(q, k, v, backend=backend)
    assert not out.any()
    assert all(bool(x.isfinite().all()) for x in torch.autograd.grad(out.sum(), (q, k, v)))
