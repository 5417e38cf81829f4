"""Scores of their own on the CPU agree with an oracle that shares no code, gradients of every input among them."""

import math
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import attndsl
from attndsl import ir
from attndsl.backends import real_evaluation, scored_blocked, scored_flash, scored_work
from attndsl.backends.block_batches import batches_of
from attndsl.backends.scored_blocked import BlockedScores
from tests.rooms.backends.cases import Case, cases
from tests.rooms.backends.scored_cases import (
    FORMS,
    Form,
    K,
    Q,
    S,
    load,
    made_tables,
    oracle,
    r,
    table,
)
from tests.support.dense_schedule import DenseWork

SCALE = 0.3


def drawn(
    name: str, case: Case, seed: int, first: int, ordered: bool = False
) -> tuple[BlockedScores, list[Tensor], dict[str, np.ndarray]]:
    """The kernels of a form over the masks of a case, and its tables."""
    form, rng = FORMS[name], np.random.default_rng(seed)
    (B, H, q_len, D), k_len = case.q.shape, case.k.shape[2]
    orders = [rng.permutation(n) if ordered else None for n in (q_len, k_len)]
    work = DenseWork(case.masks, case.tile, *orders)
    ints = {"group": rng.integers(-2, 35, (B, k_len))}
    tables = made_tables(form, rng, B, H, D, (q_len, k_len), torch.float64)
    kernels = BlockedScores.of(work.schedule(case.tile), form.bound(first, ints))
    return kernels, tables, ints


def run(kernels: BlockedScores, case: Case, tables: list[Tensor]) -> list[Tensor]:
    """out, lse, dq, dk, dv, and the gradients of the tables."""
    out, lse = kernels.forward(case.q, case.k, case.v, tables, scale=SCALE)
    given = case.q, case.k, case.v, tables, out, lse, case.dout, case.dlse
    *grads, of_tables = kernels.backward(*given, scale=SCALE)
    return [out, lse, *grads, *of_tables]


def expected(
    form: Form, case: Case, tables: list[Tensor], ints: dict[str, np.ndarray], first: int
) -> list[Tensor]:
    """The same by the oracle and autograd, in float64."""
    leaves = [x.double().requires_grad_() for x in (case.q, case.k, case.v, *tables)]
    q, k, v, *read = leaves
    out, lse = oracle(form, case.mask, first, q, k, v, read, SCALE, ints)
    loss = (out * case.dout.double()).sum()
    if case.dlse is not None and form.weigh is None:
        loss = loss + (lse.masked_fill(lse == -math.inf, 0.0) * case.dlse).sum()
    return [out, lse, *torch.autograd.grad(loss, leaves, materialize_grads=True, allow_unused=True)]


def assert_agrees(
    actual: list[Tensor], truth: list[Tensor], within: float = 1e-9, what: str = ""
) -> None:
    for place, (mine, theirs) in enumerate(zip(actual, truth, strict=True)):
        assert mine.shape == theirs.shape
        wrong = torch.where(mine == theirs, 0.0, (mine - theirs).abs())
        size = theirs[theirs.isfinite()].abs().max().item() if theirs.isfinite().any() else 0.0
        assert (wrong <= within * (1 + size)).all(), f"{what} output {place}: {wrong.max()}"


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=8)
@given(data=st.data())
def test_it_agrees_with_the_oracle(name: str, data: st.DataObject):
    case = data.draw(cases(torch.float64, longest=150))
    first = data.draw(st.sampled_from([0, case.k.shape[2] - case.q.shape[2]]))
    given_ = drawn(name, case, data.draw(st.integers(0, 99)), first, data.draw(st.booleans()))
    kernels, tables, ints = given_
    results = run(kernels, case, tables)
    assert_agrees(results, expected(FORMS[name], case, tables, ints, first), what=name)
    for once, again in zip(results, run(kernels, case, tables), strict=True):
        assert torch.equal(once, again)  # with what was kept


@settings(max_examples=25)
@given(name=st.sampled_from(list(FORMS)), data=st.data())
def test_small_pieces_and_little_memory_change_nothing(name: str, data: st.DataObject):
    case = data.draw(cases(torch.float64, longest=200))
    kernels, tables, ints = drawn(name, case, 0, 0)
    with (
        mock.patch.object(scored_work, "PIECE", data.draw(st.sampled_from([1, 5_000]))),
        mock.patch.object(scored_flash, "BUDGET", 10_000),
        mock.patch.object(real_evaluation, "_KEPT_BYTES", data.draw(st.sampled_from([0, 1 << 14]))),
    ):
        assert_agrees(
            run(kernels, case, tables), expected(FORMS[name], case, tables, ints, 0), what=name
        )
    assert kernels.nbytes <= kernels.schedule.nbytes + (1 << 14)


@pytest.mark.parametrize("name", ["alibi", "relative", "full", "soft cap", "relu power"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_dtypes_err_by_their_own_rounding(name: str, dtype: torch.dtype):
    case = banded(96, 80, dtype)
    kernels, tables, ints = drawn(name, case, 3, 0)
    tables = [x.float() for x in tables]
    results = run(kernels, case, tables)
    assert [x.dtype for x in results[:5]] == [torch.float32, torch.float32, dtype, dtype, dtype]
    truth = expected(FORMS[name], case, tables, ints, 0)
    assert_agrees(results, truth, 8 * torch.finfo(dtype).eps, name)


def banded(q_len: int, k_len: int, dtype: torch.dtype = torch.float64) -> Case:
    """Two batch elements, four heads on two key heads, a band with a global key and an empty query."""
    make = torch.Generator().manual_seed(1)
    mask = (np.arange(q_len)[:, None] - np.arange(k_len)) % 50 < 30
    mask[5] = False
    q, dout = torch.randn(2, 2, 4, q_len, 8, generator=make, dtype=torch.float64).to(dtype)
    k, v = torch.randn(2, 2, 2, k_len, 8, generator=make, dtype=torch.float64).to(dtype)
    return Case(mask[None, None], (16, 16), q, k, v, dout, None)


@pytest.mark.parametrize("name", FORMS)
def test_gradients_are_those_of_central_differences(name: str):
    case = banded(20, 18)
    kernels, tables, _ = drawn(name, case, 5, 0)
    slopes = run(kernels, case, tables)[2:]
    generator = torch.Generator().manual_seed(2)
    leaves = [case.q, case.k, case.v, *tables]
    for place, (leaf, slope) in enumerate(zip(leaves, slopes, strict=True)):
        way = torch.randn(leaf.shape, generator=generator, dtype=torch.float64) * 1e-5
        sides = []
        for sign in (1, -1):
            moved = [*leaves]
            moved[place] = leaf + sign * way
            out, _ = kernels.forward(*moved[:3], moved[3:], scale=SCALE)
            sides.append((out * case.dout).sum())
        difference, along = (sides[0] - sides[1]) / 2, (slope * way).sum()
        assert torch.allclose(difference, along, rtol=1e-4, atol=1e-9), (name, place)


@pytest.mark.parametrize("name", ["alibi", "relative", "soft cap", "sigmoid weights"])
def test_a_query_without_a_key_is_zero_whatever_gradient_reaches_it(name: str):
    case = banded(64, 64)
    case.dout[:, :, 5] = math.nan
    kernels, tables, _ = drawn(name, case, 5, 0)
    out, lse, dq, *others = run(kernels, case, tables)
    assert (out[:, :, 5] == 0).all()
    assert (lse[:, :, 5] == -math.inf).all()
    assert (dq[:, :, 5] == 0).all()
    assert all(torch.isfinite(x).all() for x in others)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["k", "v"])
@pytest.mark.parametrize("name", ["alibi", "relative", "log of a square", "relu power"])
def test_what_is_not_finite_reaches_only_the_queries_that_see_it(name: str, where: str, bad: float):
    case = banded(64, 64)
    kernels, tables, _ = drawn(name, case, 5, 0)
    before, _ = kernels.forward(case.q, case.k, case.v, tables, scale=SCALE)
    getattr(case, where)[0, 1, 7, 2] = bad
    out, lse = kernels.forward(case.q, case.k, case.v, tables, scale=SCALE)
    sees = torch.zeros(out.shape[:3], dtype=torch.bool)
    sees[0, 2:] = case.mask[0, 0, :, 7]
    touched = out.isnan().any(-1)
    assert torch.equal(touched, sees)
    assert torch.allclose(out[~sees], before[~sees])
    if where == "v" or FORMS[name].weigh is not None:
        assert not lse.isnan().any()


@pytest.mark.parametrize("bad", [math.nan, -math.inf, math.inf])
@pytest.mark.parametrize("is_capped", [False, True])
def test_a_bias_that_is_not_finite_reaches_only_the_pairs_that_read_it(bad: float, is_capped: bool):
    keyed = table("keyed", "k")
    capped = r.apply("tanh", S) if is_capped else S
    form = Form(r.plus(capped, load(keyed, K)), lambda a: a.s, (keyed,))
    case = banded(64, 64)
    kernels = BlockedScores.of(DenseWork(case.masks).schedule((16, 16)), form.bound(0, {}))
    bias = torch.zeros(64, dtype=torch.float64)
    before, _ = kernels.forward(case.q, case.k, case.v, [bias], scale=SCALE)
    bias[7] = bad
    out, _ = kernels.forward(case.q, case.k, case.v, [bias], scale=SCALE)
    sees = case.mask[0, 0, :, 7]
    assert torch.allclose(out[:, :, ~sees], before[:, :, ~sees])
    assert out[:, :, sees].isnan().all() == (bad != -math.inf)
    assert not out[:, :, ~sees].isnan().any()


@pytest.mark.parametrize("is_capped", [False, True])
def test_a_query_whose_scores_are_all_minus_infinity_is_like_one_without_keys(is_capped: bool):
    queried = table("queried", "q")
    capped = r.apply("tanh", S) if is_capped else S
    form = Form(r.plus(capped, load(queried, Q)), lambda a: a.s, (queried,))
    case = banded(40, 40)
    kernels = BlockedScores.of(DenseWork(case.masks).schedule((16, 16)), form.bound(0, {}))
    bias = torch.zeros(40, dtype=torch.float64)
    bias[3] = -math.inf
    out, lse, *grads = run(kernels, case, [bias])
    assert (out[:, :, 3] == 0).all()
    assert (lse[:, :, 3] == -math.inf).all()
    assert all(torch.isfinite(x).all() for x in grads)


def test_what_is_kept_stays_in_its_bounds():
    case = banded(64, 64)
    kernels, tables, _ = drawn("alibi", case, 0, 0)
    assert kernels.nbytes == kernels.schedule.nbytes
    run(kernels, case, tables)
    kept = kernels.nbytes - kernels.schedule.nbytes
    assert 0 < kept <= real_evaluation._KEPT_BYTES
    run(kernels, case, tables)
    assert kernels.nbytes - kernels.schedule.nbytes == kept


@pytest.mark.parametrize(
    "shape", [(0, 2, 5, 6, 4), (1, 2, 0, 6, 4), (1, 2, 5, 0, 4), (1, 2, 5, 6, 0)]
)
@pytest.mark.parametrize("name", ["relative", "soft cap", "exp and softplus"])
def test_empty_tensors_pass_through(name: str, shape: tuple[int, ...]):
    B, H, q_len, k_len, D = shape
    q, k, v = torch.ones(B, H, q_len, D), torch.ones(B, H, k_len, D), torch.ones(B, H, k_len, 3)
    form, rng = FORMS[name], np.random.default_rng(0)
    schedule = DenseWork(np.ones((1, 1, q_len, k_len), bool)).schedule((16, 16))
    kernels = scored_blocked.BlockedScores.of(schedule, form.bound(0, {}))
    tables = made_tables(form, rng, B, H, D, (q_len, k_len), torch.float32)
    out, lse = kernels.forward(q, k, v, tables, scale=1.0)
    assert out.shape == (B, H, q_len, 3)
    given_ = q, k, v, tables, out, lse, torch.ones_like(out), None
    *grads, of_tables = kernels.backward(*given_, scale=1.0)
    assert [x.shape for x in (*grads, *of_tables)] == [x.shape for x in (q, k, v, *tables)]


def test_a_steep_bias_decides_nothing_that_products_decide():
    q, k = torch.full((1, 1, 16, 1), 20.0**0.5), torch.full((1, 1, 16, 1), -(20.0**0.5))
    k[..., 0, :] *= -1  # s = 20 for the first key, -20 for all others
    v = torch.randn(1, 1, 16, 4, generator=torch.Generator().manual_seed(0))
    steep = r.plus(S, r.times(r.Number(-4.0), r.as_real(ir.absolute(ir.sub(ir.Const(15), K)))))
    form = Form(steep, lambda a: a.s - 4.0 * (15 - a.k).abs())
    schedule = DenseWork(np.ones((1, 1, 16, 16), bool)).schedule((16, 16))
    kernels = BlockedScores.of(schedule, form.bound(0, {}))
    out, lse = kernels.forward(q, k, v, (), scale=1.0)
    mask = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    truth = oracle(form, mask, 0, q.double(), k.double(), v.double(), [], 1.0, {})
    assert torch.allclose(out.double(), truth[0], rtol=1e-5, atol=1e-6)
    assert torch.allclose(lse.double(), truth[1], rtol=1e-6)


@pytest.mark.parametrize("name", ["periodic", "int table", "relative"])
def test_blocks_that_are_computed_at_once_may_read_different_entries(name: str):
    band = np.abs(np.arange(160)[:, None] - np.arange(160)) < 12
    case = replace(banded(160, 160), masks=band[None, None])
    kernels, tables, ints = drawn(name, case, 1, 0)
    assert max(part.queries.items for part in batches_of(kernels.schedule)[0]) > 5
    assert_agrees(run(kernels, case, tables), expected(FORMS[name], case, tables, ints, 0))


def test_one_key_of_a_large_score_has_all_the_weight_backwards():
    p = attndsl.compile("attention a over k == q = score s - 50001.0")
    q, v = torch.randn(1, 2, 96, 8), torch.randn(1, 2, 96, 8, requires_grad=True)
    dout = torch.randn(1, 2, 96, 8)
    (gain,) = torch.autograd.grad(p(q, q / 8, v), v, dout)
    torch.testing.assert_close(gain, dout)
