"""The CPU backend agrees with the oracle, gives the same bits twice, and keeps NaN where it belongs."""

import math
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import attndsl
from attndsl.backends import (
    Blocked,
    Request,
    block_batches,
    blocked,
    dense_blocks,
    flash_passes,
    strip_passes,
)
from tests.rooms.backends.agreement import assert_agrees, plain_case, run
from tests.rooms.backends.cases import Case, cases
from tests.support.dense_schedule import DenseWork

DTYPES = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data())
def test_it_agrees_with_the_oracle(dtype: str, data: st.DataObject):
    case = data.draw(cases(DTYPES[dtype]))
    work = DenseWork(case.masks, case.tile)
    results = run(Blocked(), work, case)
    assert_agrees(results, case)
    again = run(Blocked(), work, case)
    for first, second in zip(results, again, strict=True):
        assert torch.equal(first.nan_to_num(7.0), second.nan_to_num(7.0))


@given(data=st.data())
def test_it_agrees_in_any_order_of_tokens(data: st.DataObject):
    case = data.draw(cases(torch.float64))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    rows, columns = (
        rng.permutation(n) if data.draw(st.booleans()) else None for n in case.masks.shape[2:]
    )
    work = DenseWork(case.masks, case.tile, rows, columns)
    assert_agrees(run(Blocked(), work, case), case)


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@given(data=st.data())
def test_it_agrees_with_and_without_products_of_16_bits(dtype: str, data: st.DataObject):
    case = data.draw(cases(DTYPES[dtype]))
    for longest in (0, 1 << 20):  # tokens of a backward that goes by float32
        with (
            mock.patch.object(flash_passes, "LONGEST_WIDENED", longest),
            mock.patch.object(flash_passes, "EMULATED", False),
        ):
            assert_agrees(run(Blocked(), DenseWork(case.masks, case.tile), case), case)


@pytest.mark.parametrize(
    ("body", "is_widened"),
    [
        ("q - k < 300 and k <= q", True),  # strips of 64 queries
        ("q // 200 == k // 200", True),
        ("k <= q", False),
        ("k <= q or k < 300", False),
    ],
)
def test_a_backward_in_16_bits_goes_by_float32_where_kernels_are_given_few_tokens(body, is_widened):
    q, k, v = (
        x.requires_grad_() for x in torch.randn(3, 1, 1, 800, 8, dtype=torch.bfloat16).unbind()
    )
    out = attndsl.compile(f"pattern p = {body}")(q, k, v)
    given = []

    def spied(dout: torch.Tensor, *others: torch.Tensor, **options: object):
        given.append(dout.dtype)
        return kernel(dout, *others, **options)

    kernel = flash_passes.flash_backward
    with (
        mock.patch.object(flash_passes, "EMULATED", False),
        mock.patch.object(strip_passes, "flash_backward", spied),
        mock.patch.object(dense_blocks, "_flash_backward", spied),
    ):
        torch.autograd.grad(out.sum(), (q, k, v))
    assert set(given) == {torch.float32 if is_widened else torch.bfloat16}


@given(
    case=cases(torch.float64), segment=st.sampled_from([64, 128]), long=st.sampled_from([1, 999])
)
def test_it_agrees_when_runs_are_cut_and_calls_are_small(case: Case, segment: int, long: int):
    with (
        mock.patch.object(strip_passes, "BUDGET", 10_000),
        mock.patch.object(block_batches, "SEGMENT", segment),
        mock.patch.object(block_batches, "LONG_RUN", long),
        mock.patch.object(block_batches, "FEWEST_FLAT", 1),
    ):
        assert_agrees(run(Blocked(), DenseWork(case.masks, case.tile), case), case)


def test_each_piece_of_a_strip_has_its_own_masks():
    rng = np.random.default_rng(0)
    places = rng.random((12, 12)).argsort(1) < 3
    case = plain_case(np.kron(places, np.ones((16, 16), bool)) & (rng.random((192, 192)) < 0.8))
    work = DenseWork(case.masks, (16, 16))
    (found,) = block_batches.block_batches(work.schedule((16, 16)))
    assert any(strip.mask is not None and len(strip.mask) > 2 for strip in found)
    with mock.patch.object(strip_passes, "BUDGET", 1), mock.patch.object(blocked, "TILE", 16):
        assert_agrees(run(Blocked(), work, case), case)


def test_a_query_without_a_key_is_zero_whatever_gradient_reaches_it():
    mask = np.tri(40, 50, dtype=bool)
    mask[[0, 7, 39]] = False
    case = plain_case(mask)
    case.dout[:, :, 7] = math.nan
    out, lse, dq, dk, dv = run(Blocked(), DenseWork(case.masks, case.tile), case)
    empty = torch.tensor([0, 7, 39])
    assert (out[:, :, empty] == 0).all()
    assert (lse[:, :, empty] == -math.inf).all()
    assert (dq[:, :, empty] == 0).all()
    assert all(torch.isfinite(x).all() for x in (dq, dk, dv))


def test_a_pattern_without_any_pair_gives_zeros():
    case = plain_case(np.zeros((20, 30), bool))
    out, lse, *gradients = run(Blocked(), DenseWork(case.masks, case.tile), case)
    assert (lse == -math.inf).all()
    assert not any(x.any() for x in (out, *gradients))


@pytest.mark.parametrize(
    "shape", [(0, 2, 5, 6, 4), (1, 0, 5, 6, 4), (1, 2, 0, 6, 4), (1, 2, 5, 0, 4), (1, 2, 5, 6, 0)]
)
def test_empty_tensors_pass_through(shape: tuple[int, ...]):
    B, H, Q, K, D = shape
    q, k, v = torch.ones(B, H, Q, D), torch.ones(B, H, K, D), torch.ones(B, H, K, 3)
    work = DenseWork(np.ones((1, 1, Q, K), bool), (16, 16))
    kernels = work.lowered(Blocked(), q, k, v)
    out, lse = kernels.forward(q, k, v, scale=1.0)
    assert out.shape == (B, H, Q, 3)
    assert torch.equal(out, torch.full_like(out, float(K > 0)))
    assert torch.allclose(lse, torch.full_like(lse, K or 0).log() + D, equal_nan=True)
    gradients = kernels.backward(q, k, v, out, lse, torch.ones_like(out), None, scale=1.0)
    assert [x.shape for x in gradients] == [q.shape, k.shape, v.shape]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["q", "k", "v"])
def test_what_is_not_finite_reaches_only_the_queries_that_see_it(where: str, bad: float):
    mask = np.random.default_rng(1).random((100, 90)) < 0.3
    mask[:, 5] &= np.arange(100) < 50
    case = plain_case(mask)
    kernels = DenseWork(case.masks, case.tile).lowered(Blocked(), case.q, case.k, case.v)
    clean, _ = kernels.forward(case.q, case.k, case.v, scale=1)
    getattr(case, where)[1, 0, 5, 3] = bad
    out, lse = kernels.forward(case.q, case.k, case.v, scale=1)
    hit = np.zeros((2, 2, 100), bool)
    hit[1, 0] = np.arange(100) == 5 if where == "q" else mask[:, 5]
    hit = torch.from_numpy(hit)
    assert torch.equal(~out.isfinite().all(-1), hit)
    if where != "v":
        assert torch.equal(~lse.isfinite(), hit)
    assert torch.allclose(out[~hit], clean[~hit])
    assert where != "v" or out[hit].isfinite().sum() == 7 * hit.sum()


def test_garbage_in_keys_that_no_query_sees_leaves_gradients_clean():
    mask = np.tri(64, 80, dtype=bool)  # keys 64... are padding
    case = plain_case(mask)
    want = run(Blocked(), DenseWork(case.masks, case.tile), case)
    case.k[:, :, 64:], case.v[:, :, 64:] = math.nan, math.inf
    got = run(Blocked(), DenseWork(case.masks, case.tile), case)
    for ours, theirs in zip(got, want, strict=True):
        assert torch.allclose(ours, theirs)


def test_it_says_what_it_cannot_do():
    assert Blocked().supports(Request(torch.device("cpu"), torch.float32, 64, 64)) is None
    assert "cuda" in Blocked().supports(Request(torch.device("cuda"), torch.float32, 64, 64))
    assert "float8" in Blocked().supports(
        Request(torch.device("cpu"), torch.float8_e5m2fnuz, 64, 64)
    )


@pytest.mark.parametrize("length", [1, 15, 16, 17, 64, 8192])
def test_the_best_tile_is_a_power_of_two_that_fits(length: int):
    rows, columns = blocked.best_tile(length, 8192)
    assert rows in (16, 32, 64)
    assert columns == 64
    assert rows == 16 or rows < 2 * length


def test_strips_of_a_schedule_are_made_once_and_freed_with_it():
    case = plain_case(np.tri(40, 40, dtype=bool))
    work = DenseWork(case.masks, case.tile)
    before = len(block_batches._KNOWN)
    kernels = work.lowered(Blocked(), case.q, case.k, case.v)
    assert kernels.batches is block_batches.batches_of(kernels.schedule)
    assert len(block_batches._KNOWN) == before + 1
    del kernels
    assert len(block_batches._KNOWN) == before
