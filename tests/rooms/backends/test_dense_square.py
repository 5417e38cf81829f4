"""Squares and triangles are told from other schedules, and computed whole."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attndsl
from attndsl.backends import Blocked
from attndsl.backends.dense_square import DenseSquare, shape_of
from tests.rooms.backends.agreement import assert_agrees, both
from tests.rooms.backends.cases import Case
from tests.support.dense_schedule import DenseWork
from tests.support.torch_calls import flash_calls

NEAR = [
    "true", "k <= q", "k < q", "k <= q + 1", "k <= q and k != 3", "k <= q or q == 5", "q >= k or k == 70",
    "k >= q", "q - k >= 0 and q - k < 64", "k <= q and q != 40", "k < 64 or k <= q", "not (q < k)", "k < 100",
]  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(NEAR), st.integers(0, 200), st.integers(-1, 1), st.sampled_from([16, 64]))
def test_the_shape_is_that_of_the_dense_mask(body: str, length: int, more: int, side: int):
    p = attndsl.compile(f"pattern p = {body}")
    lengths = length, max(0, length + more)
    mask = p.mask(*lengths).numpy()[0, 0]
    shape = shape_of(p.schedule(*lengths, tile=(side, side)))
    if not mask.size:
        assert shape is None
    elif mask.all():
        assert shape == "full"
    elif np.array_equal(mask, np.tri(*lengths, dtype=bool)) and more == 0:
        assert shape == "causal"
    else:
        assert shape is None


def test_a_triangle_of_many_tokens_is_told_by_its_runs():
    assert shape_of(attndsl.compile("causal").schedule(1 << 18, tile=(64, 64))) == "causal"
    short = (
        "pattern p = k <= q and (q < 192 or k // 64 != q // 64 - 1)"  # by one tile, from row 3 on
    )
    assert shape_of(attndsl.compile(short).schedule(1 << 12, tile=(64, 64))) is None


@pytest.mark.parametrize("order", ["q", "k"])
def test_another_order_of_tokens_is_no_triangle(order: str):
    rows = np.arange(40)[::-1].copy()
    given = {"rows": rows} if order == "q" else {"columns": rows}
    work = DenseWork(np.tri(40, dtype=bool)[None, None][:, :, :, ::-1], (16, 16), **given)
    assert shape_of(work.schedule((16, 16))) is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("heads", [(2, 2), (4, 2), (3, 1)])
@pytest.mark.parametrize("shape", ["full", "causal"])
@pytest.mark.parametrize("widths", [(8, 8), (8, 5), (4, 12)])
def test_it_agrees_with_the_oracle(dtype, heads, shape, widths):
    make, n = torch.Generator().manual_seed(0), 45
    sizes = (
        (heads[0], widths[0]),
        (heads[1], widths[0]),
        (heads[1], widths[1]),
        (heads[0], widths[1]),
    )
    q, k, v, dout = (torch.randn(2, h, n, w, generator=make).to(dtype) for h, w in sizes)
    mask = np.ones((n, n), bool) if shape == "full" else np.tri(n, dtype=bool)
    case = Case(mask[None, None], (64, 64), q, k, v, dout, None)
    kernels = DenseWork(case.masks).lowered(Blocked(), q, k, v)
    assert kernels.square == DenseSquare(shape)
    assert_agrees(both(kernels, case), case)


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_what_is_not_finite_takes_the_other_way(name: str):
    p = attndsl.compile("causal")
    tensors = dict(
        zip(
            "qkv",
            torch.randn(3, 1, 2, 80, 8, generator=torch.Generator().manual_seed(0)),
            strict=True,
        )
    )
    tensors[name][0, 1, 33, 2] = math.nan
    out = p(**tensors)
    exact = p(**tensors, backend="reference")
    assert torch.equal(out.isfinite(), exact.isfinite())
    sound = exact.isfinite()
    torch.testing.assert_close(out[sound], exact[sound])


def test_one_kernel_runs_and_gradients_of_the_log_sum_exp_take_the_other_way():
    p = attndsl.compile("causal")
    q, k, v = (x.requires_grad_() for x in torch.randn(3, 1, 2, 300, 8, dtype=torch.float64))
    assert flash_calls(lambda: torch.autograd.grad(p(q, k, v).sum(), (q, k, v))) == [
        ("forward", 300),
        ("backward", 300),
    ]
    lse = p(q, k, v, return_lse=True)[1]
    found = torch.autograd.grad(lse.sum(), (q, k))
    exact = torch.autograd.grad(p(q, k, v, return_lse=True, backend="reference")[1].sum(), (q, k))
    torch.testing.assert_close(found, exact)
