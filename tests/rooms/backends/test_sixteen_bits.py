"""The kernels in bfloat16 and float16, without a GPU: they err as little from float64 as the oracle in that dtype."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("triton")

import attndsl
from attndsl.backends import Dense
from attndsl.backends.configs import Config
from attndsl.backends.triton import INTERPRETED, Triton
from tests.rooms.backends.agreement import NAMES, SCALE, both, run
from tests.rooms.backends.cases import Case, cases, laid_out, random_mask
from tests.support.bfloat16 import rounded, taught, widened
from tests.support.dense_schedule import DenseWork
from tests.support.tolerances import largest_summands

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="these run in Triton's interpreter")

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture(autouse=True, scope="module")
def bfloat16() -> Iterator[None]:
    with taught(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Triton, "supports", lambda *_: None
        )  # it refuses bfloat16 where it is interpreted
        yield


def triton(longest: int | None) -> Triton:
    return Triton(lambda *_: Config(32, 32, warps=4, stages=1), longest)


def check(results: list[torch.Tensor], case: Case) -> None:
    exact = both(Dense(case.mask), case, torch.float64)
    reference = both(Dense(case.mask), case)
    summands = largest_summands(case.q, case.k, case.v, case.dout, case.dlse, SCALE)
    assert_errs_as_little(results, exact, reference, summands)


def assert_errs_as_little(
    results: list[torch.Tensor],
    exact: list[torch.Tensor],
    reference: list[torch.Tensor],
    summands: dict[str, float],
) -> None:
    """At most twice the oracle's error in that dtype, and the rounding of the result.

    Products of 16 bits are exact, and sums are kept in float32: so a log-sum-exp is as exact as float32 is.
    """
    for name, mine, truth, theirs in zip(NAMES, results, exact, reference, strict=True):
        assert mine.dtype == theirs.dtype, name
        finite = truth.isfinite()
        assert torch.equal(mine[~finite].double(), truth[~finite]), name
        if not finite.any():
            continue
        error, own = ((x.double() - truth)[finite].abs() for x in (mine, theirs))
        allowed = torch.finfo(mine.dtype).eps * truth[finite].abs() + 2e-6 * summands[name]
        allowed += 0 if name == "lse" else 2 * own.max()
        assert (error <= allowed).all(), f"{name}: {error.max():.2e}, the oracle {own.max():.2e}"


def test_the_interpreter_rounds_as_torch_does():
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 1 << 32, 5000, dtype=np.uint32)  # every kind of them
    ties = rng.integers(0, 1 << 16, 500, dtype=np.uint32) << 16 | 0x8000
    values = np.concatenate([numbers, ties]).view(np.float32)
    mine = torch.from_numpy(widened(rounded(values)))
    torch.testing.assert_close(
        mine, torch.from_numpy(values).bfloat16().float(), rtol=0, atol=0, equal_nan=True
    )


@settings(max_examples=6)
@given(case=cases(torch.bfloat16, longest=60), longest=st.sampled_from([1, None]))
def test_random_masks(case: Case, longest: int | None):
    check(run(triton(longest), DenseWork(case.masks), case), case)


@pytest.mark.parametrize(("width", "value_width"), [(80, 40), (96, 192), (256, 256)])
def test_head_dims(width: int, value_width: int):
    rng = np.random.default_rng(1)
    tensors = [
        laid_out(rng, (1, heads, 40, d), torch.bfloat16, "plain")
        for heads, d in ((2, width), (1, width), (1, value_width), (2, value_width))
    ]
    dlse = torch.from_numpy(rng.standard_normal((1, 2, 40))).float()
    case = Case(random_mask(rng, 40, 40)[None, None], (32, 32), *tensors, dlse)
    check(run(triton(1), DenseWork(case.masks), case), case)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("program", "options", "kv_heads"),
    [
        ("pattern p = if head < heads // 2 then window(9) else k < q", {}, 1),  # masks
        ("pattern p = causal and q - k < 7 + 11 * head", {}, 2),  # a predicate for each head
        ("pattern p = window(12) or q < 3 or k < 3", {}, 1),
        ("pattern p = q // 24 == k // 24", {"layout": "residues(5)"}, 2),
        ("input doc: int[pos]\npattern p = doc[q] == doc[k] and causal", {"doc": 30}, 1),
    ],
)
def test_patterns(dtype: str, program: str, options: dict, kv_heads: int):
    p = attndsl.compile(program)
    rng = np.random.default_rng(2)
    q, k, v, dout = (
        laid_out(rng, (1, heads, 50, 16), DTYPES[dtype], "length before heads")
        for heads in (2, kv_heads, kv_heads, 2)
    )
    dlse = torch.from_numpy(rng.standard_normal((1, 2, 50))).float()
    if "doc" in options:
        options = {"doc": torch.arange(50) // options["doc"]}

    def results(backend: str, wanted: torch.dtype) -> list[torch.Tensor]:
        given = [x.detach().to(wanted).requires_grad_() for x in (q, k, v)]
        out, lse = p(*given, backend=backend, return_lse=True, scale=0.3, **options)
        sees = lse.isfinite()
        loss = (out * dout.to(out.dtype)).sum() + (lse[sees] * dlse[sees].to(lse.dtype)).sum()
        return [out.detach(), lse.detach(), *torch.autograd.grad(loss, given)]

    exact, reference = results("reference", torch.float64), results("reference", q.dtype)
    assert_errs_as_little(
        results("triton", q.dtype), exact, reference, largest_summands(q, k, v, dout, dlse, 0.3)
    )
