"""The very kernels, run by Triton's interpreter, agree with the oracle and give the same bits twice."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attndsl
from attndsl.backends import EIGHT_BITS, Blocked, Dense, Request, choose
from attndsl.backends.configs import Config
from attndsl.backends.standalone import precision, reachable
from attndsl.backends.triton import INTERPRETED, Triton
from attndsl.schedule import MaskTable
from tests.rooms.backends.agreement import assert_agrees, both, plain_case, run
from tests.rooms.backends.cases import Case, cases
from tests.support.dense_schedule import DenseWork, lowered
from tests.support.tolerances import assert_close, largest_summands

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="these run in Triton's interpreter")

DTYPES = torch.float32, torch.float16
TILES = [(16, 32), (32, 32), (32, 64), (64, 32)]


def triton(tile: tuple[int, int], longest: int | None = None) -> Triton:
    return Triton(lambda *_: Config(*tile, warps=4, stages=1), longest)


@settings(max_examples=14)
@given(data=st.data())
def test_it_agrees_with_the_oracle(data: st.DataObject):
    case = data.draw(cases(data.draw(st.sampled_from(DTYPES)), longest=80))
    backend = triton(data.draw(st.sampled_from(TILES)), data.draw(st.sampled_from([1, 2, None])))
    assert_agrees(run(backend, DenseWork(case.masks), case), case)


@pytest.mark.parametrize("backend", [triton((32, 32), 2), Blocked()], ids=["triton", "blocked"])
@pytest.mark.parametrize("dtype", EIGHT_BITS)
@settings(max_examples=6)
@given(case=cases(torch.float32, longest=70), scale=st.sampled_from([0.2, -0.2]))
def test_the_forward_takes_eight_bits(backend, dtype: torch.dtype, case: Case, scale: float):
    given = [x.to(dtype) for x in (case.q, case.k, case.v)]
    exact = Dense(case.mask).forward(*(x.double() for x in given), scale=scale)
    reference = Dense(case.mask).forward(*given, scale=scale)
    request = Request.of(*given, gradient=False)
    kernels = lowered(backend, request, DenseWork(case.masks).schedule)
    results = kernels.forward(*given, scale=scale)
    wide = [x.float() for x in given]
    summands = largest_summands(*wide, case.dout, None, abs(scale))
    finest = {"out": torch.bfloat16, "lse": torch.float32}  # products of 8 bits are exact
    for name, mine, truth, theirs in zip(finest, results, exact, reference, strict=True):
        assert mine.dtype == theirs.dtype == finest[name]
        allowed = {"summand": summands[name], "terms": case.masks.shape[3], "dtype": finest[name]}
        assert_close(mine, truth, theirs, **allowed, what=name)


@settings(max_examples=6)
@given(case=cases(torch.float32, longest=70), ordered=st.sampled_from(["q", "k", "qk"]))
def test_it_agrees_in_any_order_of_tokens(case: Case, ordered: str):
    rng = np.random.default_rng(0)
    q_len, k_len = case.masks.shape[2:]
    orders = [rng.permutation(n) if s in ordered else None for s, n in (("q", q_len), ("k", k_len))]
    work = DenseWork(case.masks, None, *orders)
    assert_agrees(run(triton((32, 32), 1), work, case), case)


def test_heads_that_share_keys_may_order_their_tokens_differently():
    case = plain_case(np.random.default_rng(0).random((2, 40, 50)) < 0.3, torch.float32)
    case = replace(case, k=case.k[:, :1], v=case.v[:, :1])
    mine, theirs = (
        DenseWork(
            case.masks[:, [head]], (32, 32), None, np.random.default_rng(head).permutation(50)
        )
        for head in (0, 1)
    )
    one, other = (work.schedule((32, 32)) for work in (mine, theirs))
    ids = other.plans[0].mask_ids + len(one.masks)
    joined = replace(
        one,
        plans=(one.plans[0], replace(other.plans[0], mask_ids=ids)),
        plan_of=np.array([[0, 1]], np.int32),
        masks=MaskTable(np.concatenate([one.masks.packed, other.masks.packed]), (32, 32)),
    )
    request = Request.of(case.q, case.k, case.v, gradient=True)
    kernels = lowered(triton((32, 32)), request, lambda tile: joined)
    assert_agrees(both(kernels, case), case)


@pytest.mark.parametrize("longest", [1, None])
def test_equal_inputs_give_equal_bits(longest: int | None):
    case = plain_case(np.random.default_rng(0).random((50, 70)) < 0.4, torch.float32)
    first, second = (run(triton((32, 32), longest), DenseWork(case.masks), case) for _ in "ab")
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("width", "value_width"),
    [(16, 16), (30, 30), (72, 72), (80, 40), (96, 192), (192, 128), (256, 256)],
)
def test_it_takes_every_head_dim(width: int, value_width: int):
    make = torch.Generator().manual_seed(1)
    q, k = (torch.randn(1, 2, 40, width, generator=make) for _ in "qk")
    v, dout = (torch.randn(1, 2, 40, value_width, generator=make) for _ in "vo")
    case = Case(np.tri(40, dtype=bool)[None, None], (32, 32), q, k, v, dout, None)
    assert_agrees(run(triton((32, 32)), DenseWork(case.masks), case), case)


@pytest.mark.parametrize("setting", ["ieee", "tf32"])
def test_products_are_as_exact_as_torchs_newer_setting_says(setting: str):
    case = plain_case(np.tri(40, dtype=bool), torch.float32)
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = setting
    try:
        assert_agrees(run(triton((32, 32)), DenseWork(case.masks), case), case)
        assert [precision(x) for x in (torch.float32, torch.float16)] == [setting, "ieee"]
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


@pytest.mark.parametrize("scale", [-0.5, 0.0])
def test_a_scale_may_be_negative_or_zero(scale: float):
    case = plain_case(np.tri(40, 50, dtype=bool), torch.float32)
    args = case.q, case.k, case.v
    kernels = DenseWork(case.masks).lowered(triton((32, 32)), *args)
    out, lse = kernels.forward(*args, scale=scale)
    exact = attndsl.backends.attend(case.mask, *(x.double() for x in args), scale)
    torch.testing.assert_close((out.double(), lse.double()), exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lengths", [(64, 128), (70, 128), (64, 100), (3, 128)])
def test_lengths_that_fill_their_tiles_need_no_edge(lengths: tuple[int, int]):
    p = attndsl.compile("pattern p = 0 <= q - k < 50 and k % 7 != 3")
    q_len, k_len = lengths
    sizes = (q_len, k_len, k_len)
    leaves = [torch.randn(1, 2, n, 16, dtype=torch.float32, requires_grad=True) for n in sizes]
    found = []
    for backend in ("triton", "reference"):
        out = p(*leaves, backend=backend, scale=-0.3)
        with torch.no_grad():
            alone = p(*leaves, backend=backend, scale=-0.3)
        found.append([alone, out, *torch.autograd.grad(out.square().sum(), leaves)])
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_a_query_without_a_key_is_zero_whatever_gradient_reaches_it():
    mask = np.tri(40, 50, dtype=bool)
    mask[[0, 7, 39]] = False
    case = plain_case(mask, torch.float32)
    case.dout[:, :, 7] = case.q[:, :, 7] = math.nan
    out, lse, dq, dk, dv = run(triton((32, 32)), DenseWork(case.masks), case)
    empty = torch.tensor([0, 7, 39])
    assert (out[:, :, empty] == 0).all()
    assert (lse[:, :, empty] == -math.inf).all()
    assert (dq[:, :, empty] == 0).all()
    assert all(torch.isfinite(x).all() for x in (dq, dk, dv))


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_what_is_not_finite_reaches_queries_that_see_it_or_share_a_tile_with_its_value():
    mask = np.tri(96, dtype=bool)
    case = plain_case(mask, torch.float32)
    kernels = DenseWork(case.masks).lowered(triton((32, 32)), case.q, case.k, case.v)
    plain = kernels.forward(case.q, case.k, case.v, scale=1.0)
    case.k[0, :, 40] = math.nan  # reaches queries 40 ...
    case.v[1, :, 40] = math.inf  # and 32 ..., the first of the tile
    out, lse = kernels.forward(case.q, case.k, case.v, scale=1.0)
    for batch, first in ((0, 40), (1, 32)):
        assert torch.equal(out[batch, :, :first], plain[0][batch, :, :first])
        assert not out[batch, :, first:].isfinite().any()
    assert torch.equal(lse[1], plain[1][1])


@pytest.mark.parametrize(
    "shape", [(0, 2, 5, 6, 4), (1, 0, 5, 6, 4), (1, 2, 0, 6, 4), (1, 2, 5, 0, 4)]
)
def test_empty_tensors_pass_through(shape: tuple[int, ...]):
    B, H, Q, K, D = shape
    q, k, v = torch.ones(B, H, Q, D), torch.ones(B, max(H, 1), K, D), torch.ones(B, max(H, 1), K, 3)
    kernels = DenseWork(np.ones((1, 1, Q, K), bool)).lowered(triton((32, 32)), q, k, v)
    out, lse = kernels.forward(q, k, v, scale=1.0)
    assert torch.equal(out, torch.full_like(out, float(K > 0)))
    assert torch.allclose(lse, torch.full_like(lse, K or 0).log() + D)
    gradients = kernels.backward(q, k, v, out, lse, torch.ones_like(out), None, scale=1.0)
    assert [x.shape for x in gradients] == [q.shape, k.shape, v.shape]


@pytest.mark.parametrize(
    ("program", "options"),
    [
        ("pattern p = if head < heads // 2 then window(9) else k < q", {}),  # masks
        ("pattern p = causal and q - k < 7 + 11 * head", {}),  # numbers of each head
        ("pattern p = window(12) or q < 3 or k < 3", {}),
        ("pattern p = q // 24 == k // 24", {"layout": "residues(5)"}),
        ("input doc: int[batch, pos]\npattern p = doc[q] == doc[k] and causal", {"doc": True}),
    ],
)
@pytest.mark.parametrize(("q_len", "kv_heads"), [(70, 2), (90, 1)])
def test_patterns_run_on_it_by_name(program: str, options: dict, q_len: int, kv_heads: int):
    p = attndsl.compile(program)
    make = torch.Generator().manual_seed(2)
    q = torch.randn(2, 2, q_len, 16, generator=make).requires_grad_()
    k, v = (torch.randn(2, kv_heads, 80, 16, generator=make).requires_grad_() for _ in "kv")
    if "doc" in options:
        options = {"doc": torch.stack([torch.arange(80) // 30, torch.arange(80) // 17])}
    results = []
    for backend in ("triton", "reference"):
        out, lse = p(q, k, v, backend=backend, return_lse=True, **options)
        loss = out.square().sum() + lse[lse.isfinite()].sin().sum()
        results.append((out, lse, *torch.autograd.grad(loss, (q, k, v))))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_rows_further_apart_than_32_bits_reach_are_copied():
    usual = torch.empty_strided((1, 1, 4, 4), (0, 0, 1 << 20, 1), device="meta")
    assert reachable(usual) is usual
    for strides in ((0, 0, 1 << 25, 1), (0, 0, 1, 1 << 24)):
        far = torch.empty_strided((1, 1, 4, 4), strides, device="meta")
        assert reachable(far).stride() == (16, 16, 4, 1)


def test_it_says_what_it_cannot_do():
    def reason(device: str = "cpu", dtype: torch.dtype = torch.float32, width: int = 64) -> str:
        return Triton().supports(Request(torch.device(device), dtype, width, 64)) or ""

    assert not reason()  # interpreted
    assert "meta" in reason("meta")
    assert "float64" in reason(dtype=torch.float64)
    assert "float8_e5m2, not for" in reason(dtype=torch.float8_e4m3fnuz)
    assert "interpreter" in reason(dtype=torch.bfloat16)
    assert "1 to 256, not 257" in reason(width=257)


def test_calls_on_the_cpu_reach_the_interpreter_by_name_only():
    request = Request(torch.device("cpu"), torch.float32, 64, 64)
    assert choose(request).name == "blocked"
    assert choose(request, "triton").name == "triton"
