"""Calls of few queries agree with the dense meaning, and read no key that no query sees."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attndsl
from attndsl.backends import Dense
from attndsl.backends.few_queries import FewQueriesKernels
from attndsl.schedule import KeySets
from tests.rooms.backends.cases import Case, cases
from tests.support.tolerances import assert_close, largest_summands
from tests.support.torch_calls import flash_calls

SCALE = 0.3
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn]


def sets_of(masks: np.ndarray) -> KeySets:
    """The keys of masks bool [1 or B, 1 or H, Q, K], a class for each of these."""
    rows = masks.reshape(-1, *masks.shape[2:])
    classes = tuple(tuple(np.flatnonzero(row) for row in one) for one in rows)
    class_of = np.arange(len(rows), dtype=np.int32).reshape(masks.shape[:2])
    return KeySets(classes, class_of)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_it_agrees_with_the_oracle(dtype: torch.dtype, data: st.DataObject):
    wide = torch.float32 if dtype.itemsize == 1 else dtype
    case: Case = data.draw(cases(wide, longest=60))
    given = [x.to(dtype) for x in (case.q, case.k, case.v)]
    exact = Dense(case.mask).forward(*(x.double() for x in given), scale=SCALE)
    reference = Dense(case.mask).forward(*given, scale=SCALE)
    results = FewQueriesKernels.of(sets_of(case.masks)).forward(*given, scale=SCALE)
    summands = largest_summands(*(x.float() for x in given), case.dout, None, SCALE)
    for name, mine, truth, theirs in zip(("out", "lse"), results, exact, reference, strict=True):
        assert mine.dtype == theirs.dtype
        finest = mine.dtype if dtype.itemsize == 1 else dtype
        allowed = {"summand": summands[name], "terms": case.masks.shape[3], "dtype": finest}
        assert_close(mine, truth, theirs, **allowed, what=name)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize(
    "text",
    [
        "causal_window(9) or k < 2",
        "if head % 2 == 0 then causal else k % 5 == q % 5 and k <= q",
        "doc[q] == doc[k] and k <= q",
        "k > q + 100",
    ],
)
def test_the_last_queries_of_a_call_are_those_of_decoding(text: str, count: int, kv_heads: int):
    declared = "input doc: int[batch, pos]\n" if "doc" in text else ""
    p = attndsl.compile(f"{declared}pattern p = {text}")
    make = torch.Generator().manual_seed(0)
    q = torch.randn(2, 4, 50, 8, dtype=torch.float64, generator=make)
    k, v = torch.randn(2, 2, kv_heads, 50, 8, dtype=torch.float64, generator=make)
    doc = torch.stack([torch.arange(50) // 7, torch.arange(50) // 20])
    given = {"doc": doc} if "doc" in text else {}
    whole, levels = p(q, k, v, return_lse=True, backend="reference", **given)
    out, lse = p(q[:, :, -count:], k, v, return_lse=True, **given)
    torch.testing.assert_close(out, whole[:, :, -count:])
    torch.testing.assert_close(lse, levels[:, :, -count:])


def test_a_key_that_is_not_finite_reaches_only_the_queries_that_see_it():
    p = attndsl.compile("pattern p = k <= q and q - k < 3")
    q, k, v = torch.randn(3, 1, 2, 12, 8)
    k[0, 0, 5], v[0, 1, 7, 2] = math.nan, math.inf
    out, lse = p(q, k, v, return_lse=True)
    exact, levels = p(q, k, v, return_lse=True, backend="reference")
    assert torch.equal(out.isfinite(), exact.isfinite())
    assert torch.equal(lse.isfinite(), levels.isfinite())
    spoilt = ~exact.isfinite().all(-1)
    torch.testing.assert_close(out[~spoilt], exact[~spoilt])


def test_keys_that_no_query_sees_are_not_read():
    p = attndsl.compile("causal_window(64) or k < 4")
    q, k, v = (torch.randn(1, 2, n, 8) for n in (1, 5000, 5000))
    assert flash_calls(lambda: p(q, k, v)) == [("forward", 68)]


def test_a_call_that_wants_a_gradient_takes_tiles():
    p = attndsl.compile("causal")
    q, k, v = torch.randn(3, 1, 2, 9, 8, dtype=torch.float64)
    leaves = [x.requires_grad_() for x in (q, k, v)]
    mine_and_right = (
        torch.autograd.grad(p(*leaves, backend=backend).sin().sum(), leaves)
        for backend in ("auto", "reference")
    )
    for mine, right in zip(*mine_and_right, strict=True):
        torch.testing.assert_close(mine, right)


@pytest.mark.parametrize("shape", [(0, 2, 3, 6), (1, 2, 0, 6), (1, 2, 3, 0)])
def test_empty_tensors_pass_through(shape: tuple[int, ...]):
    batch, heads, q_len, k_len = shape
    q, k, v = (
        torch.ones(batch, heads, n, width) for n, width in ((q_len, 4), (k_len, 4), (k_len, 3))
    )
    out, lse = attndsl.compile("pattern p = true")(q, k, v, return_lse=True)
    assert out.shape == (batch, heads, q_len, 3)
    assert (lse == -math.inf).all() == (k_len == 0 or not lse.numel())


def test_head_dims_may_be_0():
    out, lse = attndsl.compile("causal")(
        torch.ones(1, 1, 2, 0), torch.ones(1, 1, 2, 0), torch.ones(1, 1, 2, 3), return_lse=True
    )
    assert torch.equal(out, torch.ones(1, 1, 2, 3))
    torch.testing.assert_close(lse, torch.tensor([[[0.0, math.log(2)]]]))


def test_keys_of_one_query_may_be_runs_and_those_of_another_positions():
    p = attndsl.compile("pattern p align start = any v in 0..3: q + k % 3 == 0")
    x = [torch.randn(1, 1, n, 4, generator=torch.Generator().manual_seed(n)) for n in (2, 1)]
    ours, theirs = (p(x[0], x[1], x[1], backend=name) for name in ("blocked", "reference"))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("layout", ["nonsense", "residues(0)", "sorted(doc)"])
def test_a_layout_is_checked_however_few_the_queries_are(layout: str):
    q, k, v = torch.randn(3, 1, 1, 8, 8)
    with pytest.raises(attndsl.AttnDslError, match="A41"):
        attndsl.compile("causal")(q, k, v, layout=layout)
