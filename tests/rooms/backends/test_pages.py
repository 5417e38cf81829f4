"""Keys and values in pages give what they give in rows: by address on a device, page by page on a CPU."""

import math

import numpy as np
import pytest
import torch

import attndsl
from attndsl.backends import Blocked, PagedRows, Pages, Request
from attndsl.backends.pages import live_columns
from attndsl.backends.triton import INTERPRETED, Triton
from tests.support.dense_schedule import DenseWork, lowered

BACKENDS = ["blocked", "triton"]
PATTERNS = [
    "causal and (q - k < 30 or k < 3)",
    "pattern p = if head < heads // 2 then causal else causal_window(9)",
    "causal and q - k < 7 + 11 * (head // 2 + batch)",
]


def in_pages(
    rows: torch.Tensor, page: int, columns: int, like: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(pages of rows [B, H, K, D] in any order, with no number elsewhere, and their table)."""
    batch, heads, length, width = rows.shape
    make = torch.Generator().manual_seed(page)
    table = 1 + torch.randperm(batch * columns + 2, generator=make)
    table = table[: batch * columns].reshape(batch, columns)
    shape = (batch * columns + 3, heads, page, width)
    pool = torch.full(shape, math.nan, dtype=rows.dtype)
    for b in range(batch):
        for n in range(length):
            pool[table[b, n // page], :, n % page] = rows[b, :, n]
    return pool, table


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(("q_len", "page", "group"), [(3, 16, 3), (1, 256, 2), (20, 24, 2)])
def test_pages_are_rows(backend: str, pattern: str, q_len: int, page: int, group: int):
    q, k, v = (numbers(2, h, n, 16, seed=n) for h, n in ((2 * group, q_len), (2, 90), (2, 90)))
    p, fill, columns = attndsl.compile(pattern), torch.tensor([90, 61]), -(-90 // page) + 1
    (k_pool, table), (v_pool, _) = in_pages(k, page, columns), in_pages(v, page, columns)
    table = torch.where(torch.arange(columns) < (-(-fill // page))[:, None], table, -1)
    want = p(q, k, v, kv_len=fill, backend="reference", return_lse=True)
    given = {"block_table": table.to(torch.int32), "kv_len": fill, "backend": backend}
    found = p(q, k_pool, v_pool, return_lse=True, **given)
    torch.testing.assert_close(found, want, rtol=1e-5, atol=1e-5)
    # heads side by side in a page
    apart = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (k_pool, v_pool)]
    torch.testing.assert_close(p(q, *apart, return_lse=True, **given), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("q_len", [2, 20])
def test_positions_of_rows_in_pages_are_given_outright(backend: str, q_len: int):
    p, (k, v) = attndsl.compile("causal_window(40)"), numbers(2, 2, 2, 64, 16)
    q, at = numbers(2, 2, q_len, 16), torch.stack([torch.randperm(64), torch.randperm(64)])
    at[:, 50:] = torch.where(at[:, 50:] < 60, -1, at[:, 50:])  # no tokens, but NaN
    for x in (k, v):
        x.masked_fill_((at < 0)[:, None, :, None], math.nan)
    (k_pool, table), (v_pool, _) = in_pages(k, 16, 4), in_pages(v, 16, 4)
    want = p(q, k, v, k_pos=at, backend="reference")
    given = {"block_table": table, "k_pos": at, "backend": backend}
    torch.testing.assert_close(p(q, k_pool, v_pool, **given), want, rtol=1e-5, atol=1e-5)
    # rows before position 0 hold no token either
    want = p(q, k[:, :, 8:48], v[:, :, 8:48], backend="reference")
    k_pool, v_pool = (in_pages(x[:, :, :48].nan_to_num(), 16, 4)[0] for x in (k, v))
    k_pool[table[:, 0], :, :8] = v_pool[table[:, 0], :, :8] = math.nan
    want = p(*(q, k[:, :, 8:48].nan_to_num(), v[:, :, 8:48].nan_to_num()), backend="reference")
    given = {"block_table": table, "k_start": -8, "kv_len": 48, "backend": backend}
    torch.testing.assert_close(p(q, k_pool, v_pool, **given), want, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not INTERPRETED, reason="runs in Triton's interpreter")
@pytest.mark.parametrize("q_len", [1, 40])
def test_a_page_that_is_not_there_has_no_key_on_a_device(q_len: int):
    q, (k, v) = numbers(2, 4, q_len, 16), numbers(2, 2, 2, 96, 16)
    (k_pool, table), (v_pool, _) = in_pages(k, 16, 6), in_pages(v, 16, 6)
    table[1, 2:4] = torch.tensor([-1, 99])
    masks = np.ones((1, 1, q_len, 96), bool)
    masks[..., 90:] = False
    request = Request.of(q, k, v, gradient=False)
    kernels = lowered(Triton(longest=1), request, DenseWork(masks).schedule)
    pages = Pages(table, k_pool, v_pool)
    out, lse = kernels.forward(q, *pages.stand_ins(), scale=0.5, pages=pages)
    allowed = torch.ones(2, 1, q_len, 96, dtype=torch.bool)
    allowed[1, ..., 32:64] = allowed[..., 90:] = False
    want = attndsl.backends.attend(allowed, q, k, v, 0.5)
    torch.testing.assert_close((out, lse), want, rtol=1e-5, atol=1e-5)


def test_no_page_without_a_key_is_read():
    rows = numbers(1, 2, 96, 4)
    pool, table = in_pages(rows, 8, 12)
    only = PagedRows(pool, table)
    for keys in (((5, 7), (40, 57)), np.array([0, 17, 18, 95])):
        places = keys if isinstance(keys, np.ndarray) else [n for a, b in keys for n in range(a, b)]
        assert torch.equal(only.read(keys), rows[:, :, places])
        gone = [c for c in range(12) if not any(n // 8 == c for n in places)]
        torn = PagedRows(pool, table.index_fill(1, torch.tensor(gone), 1 << 40))
        assert torch.equal(torn.read(keys), rows[:, :, places])
    p = attndsl.compile("causal_window(10)")
    schedule = p.schedule(16, 96, tile=(16, 8))
    pages = Pages(table.index_fill(1, torch.arange(8), 1 << 40), pool, pool)
    k, _ = pages.rows(96, live_columns(schedule, 8))
    assert torch.equal(k[:, :, 72:], rows[:, :, 72:])
    assert not k[:, :, :64].any()


def test_gradients_and_tracers_take_a_copy_and_agree():
    p, q, (k, v) = attndsl.compile("causal"), numbers(2, 4, 3, 8), numbers(2, 2, 2, 160, 8)
    (k_pool, table), (v_pool, _) = in_pages(k, 8, 20), in_pages(v, 8, 20)
    leaves = [x.requires_grad_() for x in (q, k_pool.nan_to_num(), v_pool.nan_to_num())]
    want = p(q.detach(), k, v)
    torch.testing.assert_close(p(*leaves, block_table=table), want)
    traced = torch.compile(p, backend="eager", fullgraph=True)
    torch.testing.assert_close(traced(q.detach(), k_pool, v_pool, block_table=table), want)
    assert Blocked().reads_only_seen(Request.of(q, k, v, gradient=False))
    assert not Blocked().reads_only_seen(Request.of(q, k, v, gradient=True))


@pytest.mark.parametrize("backend", BACKENDS)
def test_pages_are_bound(backend: str):
    p, (k, v) = attndsl.compile("causal_window(40)"), numbers(2, 2, 2, 96, 16)
    q, fill = numbers(2, 4, 1, 16), torch.tensor([96, 41])
    (k_pool, table), (v_pool, _) = in_pages(k, 16, 7), in_pages(v, 16, 7)
    table[0, 6], table[1, 3:] = 1 << 40, -1
    given = {"block_table": table.clone(), "kv_len": fill.clone()}
    bound = p.bind(1, 7 * 16, 4, batch=2, backend=backend, **given)
    for x in given.values():
        x.zero_()
    want = p(q, k, v, kv_len=fill, backend="reference")
    for _ in range(2):
        torch.testing.assert_close(bound(q, k_pool, v_pool), want, rtol=1e-5, atol=1e-5)
    with pytest.raises(attndsl.AttnDslError, match="112 keys in pages of 16"):
        bound(q, k_pool[:, :, :8], v_pool[:, :, :8])
    with pytest.raises(attndsl.AttnDslError, match=r"A413.*not one of the 3 of k"):
        bound(q, k_pool[:3], v_pool[:3])


@pytest.mark.parametrize(
    ("lengths", "given", "message"),
    [
        ((1, 32), {"block_table": [[0, 1], [2, -1]]}, "page -1 of batch element 1 is negative"),
        ((1, 31), {"block_table": [[0, 1]]}, "no pages of block_table, with its 2 columns"),
        ((1, 32), {"block_table": [[0, 1]] * 3}, "a row for each batch element"),
    ],
)
def test_a_table_is_checked_where_it_is_bound(lengths: tuple, given: dict, message: str):
    with pytest.raises(attndsl.AttnDslError, match=f"A413.*{message}"):
        attndsl.compile("causal").bind(*lengths, 2, batch=2, **given)


def test_attentions_with_scores_take_pages():
    a = attndsl.compile(
        "input slope: real[head]\nattention a over causal = score s - slope[head] * (q - k)"
    )
    q, (k, v) = numbers(2, 4, 3, 8), numbers(2, 2, 2, 40, 8)
    fill = torch.tensor([40, 17])
    (k_pool, table), (v_pool, _) = in_pages(k, 16, 3), in_pages(v, 16, 3)
    given = {"kv_len": fill, "slope": torch.arange(4) / 8}
    found = a(q, k_pool, v_pool, block_table=table, **given)
    torch.testing.assert_close(found, a(q, k, v, backend="reference", **given))
