"""Scores of their own by the GPU's kernels, interpreted: they agree with an oracle, gradients of every input too."""

import numpy as np
import pytest
import torch
from torch import Tensor

import attndsl
from attndsl.backends import Request
from attndsl.backends.configs import Config
from attndsl.backends.scores import BoundScore
from attndsl.backends.triton import INTERPRETED, Triton
from attndsl.backends.triton_scores import TritonScores
from attndsl.schedule import BoundMask, TiledMask
from attndsl.source import AttnDslError
from tests.rooms.backends.cases import Case
from tests.rooms.backends.scored_cases import FORMS, made_tables
from tests.rooms.backends.test_scored_blocked import assert_agrees, expected, run
from tests.support.dense_schedule import DenseWork

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="these run in Triton's interpreter")

TILE = 32, 32
QUICK = "query and relative", "relu power"
ALL = [
    pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
    for name in FORMS
    if name != "two vectors"
]


def kernels(
    score: BoundScore, case: Case, longest: int | None = None, *orders: np.ndarray | None
) -> TritonScores:
    request = Request.of(case.q, case.k, case.v, gradient=True)
    schedule = DenseWork(case.masks, None, *orders).schedule(TILE)
    bound = BoundMask((), schedule.plan_of, {}, range(request.q_len), range(request.k_len))
    runner = Triton(lambda *_: Config(*TILE, warps=4, stages=1), longest)
    return runner.lower_scored(TiledMask(bound, {TILE: schedule}), score, request)


def case_of(q_len: int = 40, k_len: int = 36) -> Case:
    """Two query heads on one key head; a FULL tile, a band and a query without keys."""
    make = torch.Generator().manual_seed(1)
    mask = (np.arange(q_len)[:, None] - np.arange(k_len)) % 50 < 30
    mask[:32, :32] = True
    mask[35] = False
    q, dout = torch.randn(2, 1, 2, q_len, 8, generator=make)
    k, v = torch.randn(2, 1, 1, k_len, 8, generator=make)
    return Case(mask[None, None], TILE, q, k, v, dout, torch.randn(1, 2, q_len, generator=make))


def check(name: str, *orders: np.ndarray | None, longest: int | None = None) -> list[Tensor]:
    form, rng, case = FORMS[name], np.random.default_rng(3), case_of()
    (batch, heads, q_len, width), k_len = case.q.shape, case.k.shape[2]
    ints = {"group": rng.integers(-2, 35, (batch, k_len))}
    tables = made_tables(form, rng, batch, heads, width, (q_len, k_len), torch.float32)
    made = kernels(form.bound(0, ints), case, longest, *orders)
    results = run(made, case, tables)
    assert_agrees(results, expected(form, case, tables, ints, 0), 1e-5, name)
    if longest == 1:
        for once, again in zip(results, run(made, case, tables), strict=True):
            assert torch.equal(once, again)
    return results


@pytest.mark.parametrize("name", ALL)
def test_they_agree_with_the_oracle(name: str):
    check(name)


@pytest.mark.parametrize(
    "name", ["temperature", *(pytest.param(x, marks=pytest.mark.slow) for x in ("periodic", "keys and queries"))]
)  # fmt: skip
def test_they_agree_where_tiles_are_split_and_tokens_in_another_order(name: str):
    rng = np.random.default_rng(0)
    check(name, rng.permutation(40), rng.permutation(36), longest=1)


def test_a_bias_by_distance_is_summed_along_diagonals_and_in_any_order():
    """Two ways to the same sums: blocks of tiles, and entry by entry."""
    along = check("relative")
    each = check("relative", None, np.random.default_rng(0).permutation(36))
    torch.testing.assert_close(along[-1], each[-1], rtol=1e-5, atol=1e-5)


def test_attentions_run_on_it_by_name():
    """A mass, a factor, a score of its own for each part, fewer queries than keys."""
    text = """
    input sink: real[head]
    input table: real[head, n]
    attention a over causal = (over k < 3: score 2.0 * tanh(s / 2.0)) ++ (over k >= 3: score s + table[q - k])
    attention b over causal = score s mass exp(sink[head]) factor exp2(-0.5 * (q - k))
    attention main = a - 0.5 * b
    """
    made = attndsl.compile(text)
    rng = torch.Generator().manual_seed(0)
    given = [torch.randn(1, 2, n, 8, generator=rng) for n in (20, 34, 34)]
    given += [torch.randn(2, generator=rng), torch.randn(2, 9, generator=rng)]
    found: list[list[Tensor]] = []
    for backend in ("triton", "reference"):
        q, k, v, sink, table = (x.clone().requires_grad_() for x in given)
        out = made(q, k, v, sink=sink, table=table, backend=backend)
        out.sum().backward()
        found.append([out, *(x.grad for x in (q, k, v, sink, table))])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def gradients(made: attndsl.Attention, backend: str, given: list[Tensor]) -> list[Tensor]:
    wide = torch.float64 if backend == "reference" else torch.float32
    q, k, v, b = (x.to(wide, copy=True).requires_grad_() for x in given)
    options = {"dropout_p": 0.4, "dropout_seed": 3} if made.name == "dropped" else {}
    out = made(q, k, v, b=b, backend=backend, **options)
    out.sin().sum().backward()
    return [out, *(x.grad for x in (q, k, v, b) if x.grad is not None)]


@pytest.mark.parametrize(
    "text",
    [
        "dropped over causal = score s + b[head] * (k - q)",
        "a over q - k in -4..9 = score 60.0 * b[head] * s weights columns",
    ],
)  # fmt: skip
def test_dropped_weights_and_weights_by_column_are_those_of_the_oracle(text: str):
    """Scores of columns that lie far apart, so that sums about the largest of a head have no digits."""
    made = attndsl.compile(f"input b: real[head] attention {text}")
    rng = torch.Generator().manual_seed(5)
    given = [torch.randn(1, h, n, 8, generator=rng) for h, n in ((2, 20), (1, 34), (1, 34))]
    given.append(torch.rand(2, generator=rng))
    for mine, theirs in zip(
        *(gradients(made, x, given) for x in ("triton", "reference")), strict=True
    ):
        torch.testing.assert_close(mine, theirs.float(), rtol=2e-3, atol=2e-3)


STICK = """
input b: real[head] input w: real[batch, k]
attention a over q - k in -9..30 and k != 3 = score b[head] * s + w[k] weights stick
"""


def test_sticks_are_broken_from_the_last_key_back():
    """Heads that share keys, scores that use a stick up, tiles at the edges and queries without keys."""
    made = attndsl.compile(STICK)
    rng = torch.Generator().manual_seed(1)
    given = [torch.randn(1, h, n, 8, generator=rng) for h, n in ((2, 40), (1, 35), (1, 35))]
    given += [8.0 * torch.rand(2, generator=rng), torch.randn(1, 35, generator=rng)]
    found = []
    for backend, dtype in (("triton", torch.float32), ("reference", torch.float64)):
        q, k, v, b, w = leaves = [x.to(dtype, copy=True).requires_grad_() for x in given]
        out = made(q, k, v, b=b, w=w, backend=backend)
        found.append([out, *torch.autograd.grad(out.sin().sum(), leaves)])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs.float(), rtol=1e-4, atol=1e-4)


def test_sticks_give_tables_that_are_read_at_pairs_no_gradient_by_kernels():
    made = attndsl.compile(
        "input t: real[9] attention a over causal = score s + t[q % 3 * 3 + k % 3] weights stick"
    )
    q, t = torch.randn(1, 1, 4, 8, requires_grad=True), torch.randn(9)
    with pytest.raises(AttnDslError, match="read at pairs no gradient"):
        made(q, q, q, t=t, backend="triton")
    with torch.no_grad():
        mine, theirs = (made(q, q, q, t=t, backend=x) for x in ("triton", "reference"))
    torch.testing.assert_close(mine, theirs)


def test_what_has_no_kernel_is_refused_by_name():
    made = attndsl.compile("input w: real[k, d]\nattention a over causal = score s + dot(q, w[k])")
    q = torch.randn(1, 1, 4, 8)
    with pytest.raises(AttnDslError, match="one more vector of the query"):
        made(q, q, q, w=torch.randn(4, 8), backend="triton")
    huge = attndsl.compile(
        "input w: real[9]\nattention a over causal = score s + w[9000000 * q - k]"
    )
    with pytest.raises(AttnDslError, match="reaches 16,777,216"):
        huge(q, q, q, w=torch.randn(9), backend="triton")
