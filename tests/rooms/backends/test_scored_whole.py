"""Scores over whole blocks agree with the oracle, gradients of every input among them."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attndsl
from attndsl.backends import Blocked, Request
from attndsl.schedule import Whole
from tests.rooms.backends.cases import LAYOUTS, Case, laid_out
from tests.rooms.backends.scored_cases import FORMS, made_tables
from tests.rooms.backends.test_scored_blocked import assert_agrees, expected, run
from tests.support.blocks import drawn_blocks, mask_of


def drawn_case(rng: np.random.Generator, layout: str, dtype: torch.dtype = torch.float64):
    """Blocks without triangles, of one class or of several, and tensors."""
    q_len, k_len = (int(x) for x in rng.integers(30, 80, 2))
    k_len = q_len if rng.random() < 0.6 else k_len
    batch, kv_heads, group = (int(x) for x in rng.integers(1, 3, 3))
    heads, (d, dv) = kv_heads * group, rng.integers(1, 8, 2)
    shape = (batch, heads) if rng.random() < 0.2 else (1, 1)
    blocks = [
        tuple(
            dataclasses.replace(part, is_causal=False) for part in drawn_blocks(rng, q_len, k_len)
        )
        for _ in range(shape[0] * shape[1])
    ]
    masks = np.stack([mask_of(each, q_len, k_len) for each in blocks]).reshape(*shape, q_len, k_len)
    sizes = (heads, q_len, d), (kv_heads, k_len, d), (kv_heads, k_len, dv), (heads, q_len, dv)
    tensors = [laid_out(rng, (batch, *size), dtype, layout) for size in sizes]
    dlse = (
        torch.from_numpy(rng.standard_normal((batch, heads, q_len))) if rng.random() < 0.3 else None
    )
    class_of = np.arange(len(blocks), dtype=np.int32).reshape(shape)
    return Case(masks, (64, 64), *tensors, dlse), Whole(q_len, k_len, tuple(blocks), class_of)


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 1 << 30), layout=st.sampled_from(LAYOUTS), first=st.sampled_from([0, 5]))
def test_it_agrees_with_the_oracle(name: str, seed: int, layout: str, first: int):
    rng, form = np.random.default_rng(seed), FORMS[name]
    case, whole = drawn_case(rng, layout)
    (batch, heads, q_len, width), k_len = case.q.shape, case.k.shape[2]
    ints = {"group": rng.integers(-2, 35, (batch, k_len))}
    tables = made_tables(form, rng, batch, heads, width, (q_len, k_len), torch.float64)
    request = Request.of(case.q, case.k, case.v, gradient=True)
    kernels = Blocked().lower_scored_whole(whole, form.bound(first, ints), request)
    if kernels is None:  # blocks of too few pairs
        return
    results = run(kernels, case, tables)
    assert_agrees(results, expected(form, case, tables, ints, first), what=name)
    for once, again in zip(results, run(kernels, case, tables), strict=True):
        assert torch.equal(once, again)  # with what was kept


@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_shifted_windows_agree_with_the_reference(shift: int, dtype: torch.dtype):
    make = torch.Generator().manual_seed(0)
    swin = attndsl.compile("swin_v1", m=7, r=shift)
    tensors = [torch.randn(2, 2, 15 * 18, 8, generator=make).to(dtype) for _ in range(4)]
    table = torch.randn(2, 13 * 13, generator=make)
    found = []
    for backend in ("blocked", "reference"):
        wide = torch.float64 if backend == "reference" else dtype
        q, k, v, dout = (x.to(wide).requires_grad_() for x in tensors)
        given_table = table.to(wide if wide == torch.float64 else torch.float32).requires_grad_()
        out = swin(q, k, v, table=given_table, extents={"y": 15, "x": 18}, backend=backend)
        found.append([out.detach(), *torch.autograd.grad(out, (q, k, v, given_table), dout)])
    within = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(
            mine.double(), theirs, rtol=within, atol=within * float(theirs.abs().max())
        )


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_what_is_not_finite_reaches_what_sees_it_and_no_others(name: str):
    text = "pattern p = q // 32 == k // 32\nattention a over p = score s - 0.1 * abs(q - k)"
    a = attndsl.compile(text, entry="a")
    named = dict(
        zip("qkv", torch.randn(3, 2, 2, 96, 8, generator=torch.manual_seed(0)), strict=True)
    )
    named[name][1, 0, 40, 3] = torch.inf
    out = a(**named)
    touched = torch.zeros(2, 2, 96, dtype=torch.bool)
    touched[1, 0, slice(40, 41) if name == "q" else slice(32, 64)] = True
    assert torch.equal(~out.isfinite().all(-1), touched)


@pytest.mark.parametrize("pattern", ["causal and q - k < 100", "q // 64 == k // 64"])
@pytest.mark.parametrize(
    "form", ["score s + bias[q - k + 600] weights sigmoid", "score 5.0 * tanh((s + bias[q - k + 600]) / 5.0)"]
)  # fmt: skip
def test_a_table_that_all_strips_read_alike_gains_from_each_where_the_slope_follows_the_score(
    pattern: str, form: str
):
    a = attndsl.compile(
        f"input bias: real[head, n]\npattern p = {pattern}\nattention a over p = {form}", entry="a"
    )
    make = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 600, 8, generator=make, dtype=torch.float64)
    bias = torch.randn(2, 1200, generator=make, dtype=torch.float64)
    found = []
    for backend in ("blocked", "reference"):
        leaves = [x.clone().requires_grad_() for x in (q, k, v, bias)]
        out = a(*leaves[:3], bias=leaves[3], backend=backend)
        found.append(torch.autograd.grad(out.sin().sum(), leaves))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)


def test_sums_of_terms_of_different_sides_agree_with_the_reference():
    x = attndsl.compile(
        """input a: real[q]
        input h: real[head]
        input t: real[q, k]
        pattern p = k <= q
        attention x over p = score s + 2.0 * a[q] + h * a[k] + 3.0 * t[q, k] + h + a[q] * h""",
        entry="x",
    )
    make = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 40, 8, generator=make, dtype=torch.float64)
    a, h, t = (
        torch.randn(size, generator=make, dtype=torch.float64, requires_grad=True)
        for size in (40, 3, (40, 40))
    )
    found = [
        torch.autograd.grad(x(q, k, v, a=a, h=h, t=t, backend=backend).sin().sum(), (a, h, t))
        for backend in ("blocked", "reference")
    ]
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)
