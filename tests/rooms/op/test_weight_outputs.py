"""Weights themselves, their sums by key, and weights that are dropped."""

from __future__ import annotations

import pytest
import torch

import attndsl
from attndsl.backends.triton import INTERPRETED
from attndsl.source import AttnDslError

FORMS = {
    "softmax": "score s + b[head] * q mass exp(b[head])",
    "a factor": "score s + b[head] * k factor 1 / (q - k + 1.0)",
    "l1": "score s + b[head] weights l1 softplus(s)",
    "columns": "score s * b[head] weights columns",
    "pointwise": "score s + b[head] weights sigmoid",
}
PRIME = 2**30 - 35


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    make = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=make, dtype=torch.float64).requires_grad_()


def kept(seed: int, p: float, shape: tuple[int, ...], first: int) -> torch.Tensor:
    """The weights that stay, number by number, in Python's integers."""

    def mixed(x: int) -> int:
        return (x**3 + 715_827_883) % PRIME

    def number(b: int, h: int, q: int, k: int) -> int:
        x = seed % PRIME
        for item in (b, h, q):
            x = mixed(mixed((x + item) % PRIME))
        y = (x + mixed(mixed(k))) * 0x7FEB352D % 2**32
        signed = y - 2**32 if y >= 2**31 else y
        return (signed ^ (signed >> 15)) * 0x846CA68B % 2**31

    of_pairs = [
        number(b, h, q + first, k) >= round(p * 2**31)
        for b in range(shape[0])
        for h in range(shape[1])
        for q in range(shape[2])
        for k in range(shape[3])
    ]
    return torch.tensor(of_pairs).reshape(shape)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_dropped_weights_are_those_of_the_seed_with_every_gradient(form: str, backend: str):
    a = attndsl.compile(f"input b: real[head] attention a over causal = {FORMS[form]}")
    q, k, v, b = normal(2, 2, 4, 4), normal(2, 1, 6, 4), normal(2, 1, 6, 3), normal(2)
    keep = kept(7, 0.4, (2, 2, 4, 6), first=2)
    whole = a.weights(q, k, b=b, backend="reference")
    wanted = torch.where(keep, whole / 0.6, 0.0) @ v
    options = {"b": b, "dropout_p": 0.4, "dropout_seed": 7, "backend": backend}
    found = a(q, k, v, **options)
    torch.testing.assert_close(found, wanted)
    gain = torch.randn_like(wanted)
    ours = torch.autograd.grad(found, (q, k, v, b), gain, allow_unused=True)
    theirs = torch.autograd.grad(wanted, (q, k, v, b), gain, allow_unused=True)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)


def test_equal_seeds_drop_equal_pairs_in_every_layout_and_cache():
    a = attndsl.compile("attention a over causal = score s")
    q, k = normal(1, 2, 40, 4), normal(1, 2, 40, 4)
    options = {"dropout_p": 0.5, "dropout_seed": torch.tensor(3)}
    wanted = a.weights(q, k, **options)
    for layout in ("residues(8)", "auto"):
        torch.testing.assert_close(a.weights(q, k, layout=layout, **options), wanted)
    torch.testing.assert_close(a.weights(q[:, :, 30:], k, **options), wanted[:, :, 30:])
    longer = torch.cat([k, k], 2)
    buffered = a.weights(q[:, :, 20:30], longer, q_start=20, kv_len=30, **options)
    torch.testing.assert_close(buffered[..., :30], wanted[:, :, 20:30, :30])
    kv_len = torch.tensor([35])
    ragged = a.weights(q[:, :, 10:30], k, kv_len=kv_len, q_start=torch.tensor([10]), **options)
    torch.testing.assert_close(ragged[..., :35], wanted[:, :, 10:30, :35])
    other = a.weights(q, k, dropout_p=0.5, dropout_seed=4)
    assert not torch.equal(other == 0, wanted == 0)


def test_dropping_is_even_and_independent_between_neighbours():
    a = attndsl.compile("attention a over 0 <= k = score s")
    q = torch.zeros(2, 2, 160, 1)
    signs = (a.weights(q, q, dropout_p=0.5, dropout_seed=1) != 0).double() * 2 - 1
    limit = 5 / signs.numel() ** 0.5  # five standard deviations
    assert abs(signs.mean()) < limit
    for one, other in (
        (signs[1:], signs[:-1]),
        (signs[:, 1:], signs[:, :-1]),
        (signs[:, :, 1:], signs[:, :, :-1]),
        (signs[..., 1:], signs[..., :-1]),
        (signs[:, :, 1:, 1:], signs[:, :, :-1, :-1]),
    ):
        assert abs((one * other).mean()) < 1.5 * limit


def test_dropout_needs_a_seed_and_a_probability():
    a = attndsl.compile("attention a over causal = score s")
    q = torch.randn(1, 1, 4, 4)
    for options, words in (
        ({"dropout_p": 0.1}, "needs an int as its seed"),
        ({"dropout_p": 0.1, "dropout_seed": 0.5}, "needs an int as its seed"),
        ({"dropout_p": 1.0, "dropout_seed": 1}, "from 0 to below 1"),
        ({"dropout_p": -0.1, "dropout_seed": 1}, "from 0 to below 1"),
    ):
        with pytest.raises(AttnDslError, match=words):
            a(q, q, q, **options)
    assert torch.equal(a(q, q, q, dropout_p=0.0), a(q, q, q))


@pytest.mark.parametrize("backend", ["auto", "reference", "triton"])
def test_row_maxima_are_the_largest_scores(backend: str):
    if backend == "triton" and not INTERPRETED:
        pytest.skip("it runs in Triton's interpreter")
    text = """
    input b: real[head]
    attention near over 0 <= q - k < 3 = score 50.0 * s - b[head]
    attention far over 3 < q - k and q != 11 = score s + b[head] * k
    attention both = near ++ far
    """
    a = attndsl.compile(text)
    q, k, b = (x.detach().float() for x in (normal(2, 2, 9, 4), normal(2, 1, 14, 4), normal(2)))
    q[1, 1, 3] = q[1, 1, 2]  # and a score that is met twice
    k[1, 0, 7] = k[1, 0, 6]
    at, of = torch.arange(9)[:, None] + 5, torch.arange(14)
    s, c = q @ k.mT / 2, b[:, None, None]
    wanted = torch.where(at - of < 3, 50.0 * s - c, s + c * of)
    seen = (of <= at) & ((at - of < 3) | (at - of > 3) & (at != 11))
    wanted = wanted.masked_fill(~seen, -torch.inf).amax(-1)
    torch.testing.assert_close(a.row_max(q, k, b=b, backend=backend), wanted)
    if backend != "triton":
        wide = a.row_max(q.double(), k.double(), b=b, backend=backend)
        torch.testing.assert_close(wide, wanted.double(), rtol=1e-6, atol=1e-6)


def test_row_maxima_of_keyless_rows_and_of_what_has_none():
    a = attndsl.compile("attention a over k < q - 1 = score s mass 3.0 weights l1 exp(s)")
    q = torch.randn(1, 2, 4, 4)
    assert a.row_max(q, q).isneginf().tolist() == [[[True, True, False, False]] * 2]
    with pytest.raises(AttnDslError, match="no log-sum-exp"):
        (a + a).row_max(q, q)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_zero_keys_of_patterns_weigh_in_attentions(backend: str):
    p = attndsl.compile("pattern p = window(2, 0) zeros 3 - inside(q - 2, 3, len(k))")
    a = attndsl.compile(
        "pattern p = window(2, 0) zeros 3 - inside(q - 2, 3, len(k))\nattention a over p = score s"
    )
    q, k, v = (normal(1, 2, 7, 4, seed=i) for i in range(3))
    for mine, theirs in zip(
        a(q, k, v, return_lse=True, backend=backend), p(q, k, v, return_lse=True), strict=True
    ):
        torch.testing.assert_close(mine, theirs)
    with pytest.raises(AttnDslError, match="zero keys have no weight"):
        attndsl.compile(
            "pattern p = causal zeros 1\nattention a over p = score s weights l1 exp(s)"
        )


@pytest.mark.parametrize("weights", ["softmax", "columns"])
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_scores_far_below_zero_have_gradients(weights: str, backend: str):
    a = attndsl.compile(f"attention a over causal = score s - 300.0 weights {weights}")
    q, k, v = (normal(1, 1, 5, 4, seed=i).detach().float().requires_grad_() for i in range(3))
    a(q, k, v, backend=backend).sin().sum().backward()
    assert all(x.grad is not None and bool(x.grad.isfinite().all()) for x in (q, k, v))


@pytest.mark.parametrize("form", FORMS)
def test_column_sums_are_those_of_the_weights(form: str):
    a = attndsl.compile(f"input b: real[head] attention a over causal = {FORMS[form]}")
    q, k, b = normal(2, 4, 5, 4), normal(2, 2, 6, 4), normal(4)
    weights = a.weights(q, k, b=b, backend="reference")
    wanted = weights.sum(2).reshape(2, 2, 2, 6).sum(2)  # over the query heads of a key head
    torch.testing.assert_close(a.column_sums(q, k, b=b), wanted)
    torch.testing.assert_close(a.weights(q, k, b=b), weights)


def test_weights_of_paired_heads_are_of_the_pairs_and_keys_from_elsewhere_are_refused():
    a = attndsl.compile("differential")
    q, k, v, lam = normal(1, 4, 5, 4), normal(1, 4, 5, 4), normal(1, 2, 5, 3), normal(2)
    weights = a.weights(q, k, lam=lam)
    torch.testing.assert_close(weights @ v, a(q, k, v, lam=lam))
    with pytest.raises(AttnDslError, match="keys from elsewhere"):
        attndsl.compile("llama_adapter").weights(q, k, gate=lam)
