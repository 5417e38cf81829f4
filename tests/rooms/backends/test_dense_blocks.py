"""Squares, triangles and blocks are told from other schedules, and computed whole."""

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attndsl
from attndsl.arguments import read_call
from attndsl.backends import Blocked, Request, whole_strips
from attndsl.backends.dense_square import shape_of
from attndsl.backends.work_counts import work_counts
from attndsl.lowering import timed
from attndsl.schedule import Blocks, Whole
from tests.rooms.backends.agreement import assert_agrees, both
from tests.rooms.backends.cases import LAYOUTS, Case, laid_out
from tests.support.blocks import drawn_blocks, drawn_staircase, mask_of
from tests.support.dense_schedule import DenseWork
from tests.support.torch_calls import flash_calls

NEAR = [
    "true", "k <= q", "k < q", "k <= q + 1", "k <= q and k != 3", "k <= q or q == 5", "q >= k or k == 70",
    "k >= q", "q - k >= 0 and q - k < 64", "k <= q and q != 40", "k < 64 or k <= q", "not (q < k)", "k < 100",
]  # fmt: skip


@settings(max_examples=70, deadline=None)
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
    (plan,) = kernels.square.plans
    assert [each.is_causal for each in plan.shapes] == [shape == "causal"]
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


# ---------------------------------------------------------------------------- blocks

Draw: TypeAlias = Callable[[np.random.Generator, int, int], tuple[Blocks, ...]]
DTYPES = [torch.float64, torch.float64, torch.float32, torch.bfloat16, torch.float16]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from(DTYPES), st.sampled_from(LAYOUTS), st.booleans())
def test_blocks_agree_with_the_oracle(seed: int, dtype: torch.dtype, layout: str, with_lse: bool):
    assert_blocks_agree(np.random.default_rng(seed), drawn_blocks, dtype, layout, with_lse)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 30), st.sampled_from(DTYPES), st.sampled_from(LAYOUTS), st.booleans())
def test_staircases_and_blocks_that_are_merged_agree_with_the_oracle(
    seed: int, dtype: torch.dtype, layout: str, with_lse: bool
):
    with pytest.MonkeyPatch.context() as patched:
        for name, value in (("LEAST_PAIRS", 1), ("LEAST_MERGED", 0), ("LEAST_STRETCH", 16)):
            patched.setattr(whole_strips, name, value)
        rng = np.random.default_rng(seed)
        assert assert_blocks_agree(rng, drawn_staircase, dtype, layout, with_lse)


def assert_blocks_agree(
    rng: np.random.Generator, draw: Draw, dtype: torch.dtype, layout: str, with_lse: bool
) -> bool:
    """Holds drawn blocks of one class or many against the oracle; False where tiles are taken instead."""
    q_len, k_len = rng.integers(20, 90, 2)
    k_len = q_len if rng.random() < 0.6 else k_len
    batch, kv_heads, group = (int(x) for x in rng.integers(1, (3, 5, 3)))
    heads = kv_heads * group
    shape = (batch if rng.random() < 0.3 else 1), (heads if rng.random() < 0.3 else 1)
    class_of = np.arange(shape[0] * shape[1], dtype=np.int32).reshape(shape)
    if class_of.size > 1 and rng.random() < 0.6:
        class_of = rng.integers(0, 2, shape, dtype=np.int32)
    drawn = [draw(rng, q_len, k_len) for _ in range(class_of.size)]
    masks = np.stack([mask_of(each, q_len, k_len) for each in drawn])[class_of]
    d, dv = rng.integers(1, 12, 2)
    sizes = (heads, q_len, d), (kv_heads, k_len, d), (kv_heads, k_len, dv), (heads, q_len, dv)
    q, k, v, dout = (laid_out(rng, (batch, *size), dtype, layout) for size in sizes)
    dlse = torch.from_numpy(rng.standard_normal(q.shape[:3])) if with_lse else None
    case = Case(masks, (64, 64), q, k, v, dout, dlse)
    whole = Whole(int(q_len), int(k_len), tuple(drawn), class_of)
    kernels = Blocked().lower_whole(whole, Request.of(q, k, v, gradient=True))
    if kernels is None:  # blocks of too few pairs
        return False
    assert_agrees(both(kernels, case), case)
    assert np.array_equal(whole.keyless(), ~case.masks.any(-1))
    return True


SPREAD = {
    "windows": ("q // 32 == k // 32", ""),
    "residues": ("q % 4 == k % 4", ""),
    "triangles": ("q // 32 == k // 32", " and k <= q"),
    "neighbours": ("q // 32 - k // 32 <= 1 and k // 32 <= q // 32", ""),
    "turned": ("q // 32 + k // 32 == 2", ""),
    "turned neighbours": ("1 <= q // 32 + k // 32 <= 2", ""),
    "prefix": ("true", " and (k < 32 or k <= q)"),
    "staircase": ("k % 16 >= 12 and q // 32 == k // 32", " and k <= q"),
    "uneven": ("q // 32 == k // 32 and q // 32 != 1", ""),
}


@pytest.mark.parametrize("body", SPREAD.values(), ids=list(SPREAD))
@pytest.mark.parametrize(
    ("name", "value"),
    [("q", math.nan), ("k", math.inf), ("k", -math.inf), ("v", math.inf), ("dout", math.nan)],
)
def test_what_is_not_finite_reaches_what_sees_it_and_no_others(
    body, name: str, value: float, monkeypatch: pytest.MonkeyPatch
):
    for least in ("LEAST_MERGED", "LEAST_PAIRS"):
        monkeypatch.setattr(whole_strips, least, 0)
    blocks, within = body
    drawn = torch.randn(4, 1, 2, 96, 8, dtype=torch.float64, generator=torch.manual_seed(0))
    named = dict(zip(("q", "k", "v", "dout"), drawn.clone(), strict=True))
    clean = run_of(blocks + within, named)
    named[name][0, 1, 33, 2] = value
    found = run_of(blocks + within, named)
    tiled = run_of(blocks + within, named, ["whole"])
    for mine, theirs in zip(found[:2], tiled[:2], strict=True):
        assert torch.equal(mine.isfinite(), theirs.isfinite())
    pairs = attndsl.compile(f"pattern p = {blocks}").mask(96)[0, 0]
    queries = pairs[:, 33] if name in "kv" else torch.arange(96) == 33
    keys = pairs[queries].any(0)
    for place, (mine, before) in enumerate(zip(found, clean, strict=True)):
        apart = ~(keys if place > 2 else queries)
        torch.testing.assert_close(mine[0, 1, apart], before[0, 1, apart])
        torch.testing.assert_close(mine[0, 0], before[0, 0])


def run_of(
    body: str, named: dict[str, torch.Tensor], without: Sequence[str] = ()
) -> list[torch.Tensor]:
    p = attndsl.compile(f"pattern p = {body}", without=without)
    q, k, v = (named[name].detach().requires_grad_() for name in "qkv")
    out, lse = p(q, k, v, backend="blocked", return_lse=True)
    return [x.detach() for x in (out, lse, *torch.autograd.grad(out, (q, k, v), named["dout"]))]


def test_equal_blocks_are_one_call_without_a_copy_and_blocks_of_two_lengths_are_two():
    q, k, v = torch.randn(3, 2, 2, 600, 8).unbind()
    for ids, calls in (((200, 200, 200), [200]), ((100, 200, 100, 200), [100, 200])):
        doc = torch.repeat_interleave(torch.arange(len(ids)), torch.tensor(ids))[None]
        p = attndsl.compile("documents_causal").bind(600, heads=2, batch=2, doc=doc)
        assert flash_calls(lambda p=p: p(q, k, v)) == [("forward", n) for n in calls]


def test_blocks_can_be_switched_off_by_name():
    q, k, v = torch.randn(3, 1, 1, 600, 8).unbind()
    for body in ("k <= q", "q // 200 == k // 200", "q * 7 % 600 // 200 == k * 7 % 600 // 200"):
        whole, tiles = (
            attndsl.compile(f"pattern p = {body}", without=without) for without in ((), ("whole",))
        )
        assert len(flash_calls(lambda p=whole: p(q, k, v))) == 1
        assert len(flash_calls(lambda p=tiles: p(q, k, v))) > 1
        torch.testing.assert_close(whole(q, k, v), tiles(q, k, v))


@pytest.mark.parametrize(
    ("body", "calls"),
    [
        ("q // 512 == k // 512", 1),
        ("q // 700 == k // 700 and k <= q", 2),
        ("q // 64 % 3 == k // 64 % 3", 4),
        ("k // 256 <= q // 256", 8),
        ("k < 500 or k <= q", 2),
        ("k <= q and (if head % 2 == 0 then k // 128 == q // 128 else k % 128 >= 120)", 3),
    ],
)
def test_predictions_count_the_calls_that_run(body: str, calls: int):
    p = attndsl.compile(f"pattern p = {body}")
    (strips,) = timed(p._program, read_call(p._program, 2048, None, 6), 64, None)
    told = work_counts(strips, 64, heads=6)
    q, k, v = torch.randn(3, 1, 6, 2048, 64).unbind()
    ran = flash_calls(lambda: p(q, k, v))
    assert told[0].calls == told[1].calls == len(ran) == calls
    assert told[0].weights >= 6 * int(p.mask(2048).sum())
    assert p.predict(2048, heads=6).forward > 0


def test_a_key_whose_weights_are_zero_by_what_is_not_finite_is_found():
    q, k, v = torch.randn(3, 1, 1, 96, 8, generator=torch.manual_seed(0)).unbind()
    k[0, 0, 40, 2] = math.inf
    out = attndsl.compile("pattern p = q // 32 == k // 32")(-q.abs(), k, v)
    assert torch.equal(out[0, 0].isnan().all(-1), torch.arange(96) // 32 == 1)
