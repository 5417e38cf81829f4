"""Derivatives of attentions beyond the gradient: the oracle has all, other back ends none, and say so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, jvp, vmap

import attndsl
from attndsl.source import AttnDslError

TEXTS = {
    "softmax": "score 2.0 * tanh(s / 2.0) + b[head] * (k - q) mass exp(b[head])",
    "entmax": "score s * b[head] weights entmax",
    "columns": "score s * b[head] weights columns",
    "l1": "score s + b[head] weights l1 softplus(s)",
}


def leaves() -> list[Tensor]:
    make = torch.Generator().manual_seed(2)
    return [
        torch.randn(*shape, generator=make, dtype=torch.float64)
        for shape in [(1, 2, 4, 3)] * 3 + [(2,)]
    ]


def function(form: str, backend: str) -> Callable[..., Tensor]:
    a = attndsl.compile(f"input b: real[head] attention a over causal = {TEXTS[form]}")
    return lambda q, k, v, b: a(q, k, v, b=b, backend=backend)


@pytest.mark.parametrize("form", TEXTS)
def test_second_derivatives_of_the_oracle_are_right_and_others_are_refused(form: str):
    tracked = [x.requires_grad_() for x in leaves()]
    assert torch.autograd.gradgradcheck(function(form, "reference"), tracked)
    out = function(form, "blocked")(*tracked).sin().sum()
    first = torch.autograd.grad(out, tracked, create_graph=True)
    with pytest.raises(AttnDslError, match="no second derivatives"):
        torch.autograd.grad(sum(x.sin().sum() for x in first), tracked)


def test_transforms_of_the_oracle_are_those_of_dense_attention():
    oracle, (q, k, v, b) = function("softmax", "reference"), leaves()

    def dense(q: Tensor, k: Tensor, v: Tensor, b: Tensor) -> Tensor:
        back = torch.arange(4)[:, None] - torch.arange(4)
        scores = 2 * torch.tanh(q @ k.mT / 3**0.5 / 2) - b[:, None, None] * back
        scores = torch.cat(
            (scores.masked_fill(back < 0, -torch.inf), b[:, None, None].expand(1, 2, 4, 1)), -1
        )
        return scores.softmax(-1)[..., :-1] @ v

    for run in (oracle, dense):
        assert grad(lambda x, run=run: run(x, k, v, b).sum())(q).shape == q.shape
    close = torch.testing.assert_close
    close(
        *(
            jvp(lambda x, y, f=f: f(q, x, v, y), (k, b), (k.cos(), b.cos()))[1]
            for f in (oracle, dense)
        )
    )
    close(*(hessian(lambda y, f=f: f(q, k, v, y).sin().sum())(b) for f in (oracle, dense)))
    close(*(vmap(lambda x, f=f: f(x, k, v, b))(torch.stack((q, q.sin()))) for f in (oracle, dense)))


def test_gradients_by_transforms_are_those_of_the_oracle_and_other_transforms_refused():
    fast, oracle, (q, k, v, b) = (
        function("softmax", "auto"),
        function("softmax", "reference"),
        leaves(),
    )
    mine, theirs = (grad(lambda y, f=f: f(q, k, v, y).sin().sum())(b) for f in (fast, oracle))
    torch.testing.assert_close(mine, theirs)
    for transform, words in (
        (lambda: vmap(lambda x: fast(x, k, v, b))(torch.stack((q, q))), "vmap does not go"),
        (lambda: jvp(lambda x: fast(x, k, v, b), (q,), (q,)), "no forward-mode"),
        (
            lambda: grad(lambda y: grad(lambda x: fast(q, k, v, x).sin().sum())(y).sum())(b),
            "no second",
        ),
    ):
        with pytest.raises(AttnDslError, match=words):
            transform()
