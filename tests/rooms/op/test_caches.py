"""Decoding with caches of every kind gives the rows of one call on the whole sequence."""

import math

import pytest
import torch

import attndsl

LENGTH, BUFFER = 24, 30
IDS = torch.tensor([[0] * 7 + [1] * 9 + [2] * 8, [0] * 15 + [1] * 9])
PATTERNS = {
    "window and sinks": ("causal and (q - k < 5 or k < 2)", {}),
    "strided": ("strided(4)", {}),
    "documents": ("documents_causal", {"doc": IDS}),
    "rows of an image": (
        "grid image(y, x=4)\npattern p over image = k <= q and (q.y == k.y or q.x == k.x)",
        {"extents": {"y": LENGTH // 4}},
    ),
    "behind a text": (
        "space s = text(8) ++ image(y=4, x=4)\npattern p over s = k <= q and (k in text or q.x == k.x)",
        {},
    ),
    "by head and batch": ("k <= q and q - k <= 2 * head + batch", {}),
    "list": (
        "input near: list[batch, pos, slots]\npattern p = k <= q and (k in near[q] or k == q)",
        {"near": (torch.arange(LENGTH)[:, None] - torch.tensor([3, 7])).expand(2, -1, -1)},
    ),
}  # fmt: skip


def tensors(length: int = LENGTH) -> list[torch.Tensor]:
    make = torch.Generator().manual_seed(length)
    return [torch.randn(2, 2, length, 8, generator=make, dtype=torch.float64) for _ in range(3)]


def buffers(*rows: torch.Tensor) -> list[torch.Tensor]:
    """Longer ones, without numbers behind."""
    return [torch.nn.functional.pad(x, (0, 0, 0, BUFFER - LENGTH), value=math.nan) for x in rows]


def same(ours: torch.Tensor, want: torch.Tensor) -> None:
    torch.testing.assert_close(ours, want, rtol=1e-9, atol=1e-10)


@pytest.fixture(params=PATTERNS.values(), ids=PATTERNS)
def case(request):
    text, given = request.param
    p, (q, k, v) = attndsl.compile(text), tensors()
    return p, given, (q, k, v), p(q, k, v, **given)


@pytest.mark.parametrize("backend", ["blocked", "reference"])
def test_a_static_cache_gives_the_last_rows(case, backend):
    p, given, (q, k, v), whole = case
    k, v = buffers(k, v)
    for first, end in ((3, 4), (10, 11), (13, 19), (23, 24)):
        rows = slice(first, end)
        same(p(q[:, :, rows], k, v, kv_len=end, backend=backend, **given), whole[:, :, rows])
        fill = torch.tensor([end, end])
        same(p(q[:, :, rows], k, v, kv_len=fill, backend=backend, **given), whole[:, :, rows])


def test_each_element_has_its_own_fill(case):
    p, given, (q, k, v), whole = case
    k, v = buffers(k, v)
    ends = torch.tensor([9, 17])
    step = torch.stack([x[:, end - 3 : end] for x, end in zip(q, ends, strict=True)])
    want = torch.stack([x[:, end - 3 : end] for x, end in zip(whole, ends, strict=True)])
    same(p(step, k, v, kv_len=ends, **given), want)
    same(p(step, k, v, q_start=ends - 3, **{**given, "kv_len": [LENGTH, LENGTH]}), want)


def test_rows_in_any_order_stand_where_they_say(case):
    p, given, (q, k, v), whole = case
    order = torch.randperm(BUFFER, generator=torch.Generator().manual_seed(1))
    at = torch.where(order < LENGTH, order, -1)[None]
    k, v = (x[:, :, order] for x in buffers(k, v))
    some = torch.tensor([[5, -1, 21, 0]])
    out, lse = p(q[:, :, some[0]], k, v, k_pos=at, q_pos=some, return_lse=True, **given)
    same(out[:, :, [0, 2, 3]], whole[:, :, [5, 21, 0]])
    assert lse[:, :, 1].eq(-math.inf).all()


def test_chunks_make_the_whole(case):
    p, given, (q, k, v), whole = case
    chunks = [p(q[:, :, i : i + 7], k, v, q_start=i, **given) for i in range(0, LENGTH, 7)]
    same(torch.cat(chunks, 2), whole)


def test_refused_drafts_are_taken_back_by_a_number(case):
    p, given, (q, k, v), whole = case
    k, v = buffers(k, v)
    drafts = torch.randn(
        2, 2, 4, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    longer = [x.clone() for x in (k, v)]
    for x in longer:
        x[:, :, 12:16] = drafts
    before = p(q[:, :, 11:12], *longer, kv_len=12, **given)
    same(before, whole[:, :, 11:12])
    for x, y in zip(longer, (k, v), strict=True):
        x[:, :, 12] = y[:, :, 12]  # the token that was chosen instead
    same(p(q[:, :, 12:13], *longer, kv_len=13, **given), whole[:, :, 12:13])


def test_a_tree_of_drafts_sees_each_its_own_path():
    tree, causal, (q, k, v) = attndsl.compile("tree"), attndsl.compile("causal"), tensors()
    parents = [-1, 0, 0, 1, 2, 2]
    k, v = buffers(k, v)
    fill = torch.tensor([16, 21])  # with the drafts
    drafts = torch.stack([x[:, end - 6 : end] for x, end in zip(q, fill, strict=True)])
    out = tree(drafts, k, v, kv_len=fill, **attndsl.subtrees([parents, parents]))
    for b, end in enumerate(fill.tolist()):
        for node in range(6):
            path = [node]
            while parents[path[0]] >= 0:
                path.insert(0, parents[path[0]])
            rows = [*range(end - 6), *(end - 6 + n for n in path)]
            want = causal(
                drafts[b : b + 1, :, node : node + 1], k[b : b + 1, :, rows], v[b : b + 1, :, rows]
            )
            same(out[b : b + 1, :, node : node + 1], want)


def test_latents_read_one_after_the_other():
    read = attndsl.compile(
        "grid latent(g, m)\ngrid data(g, n)\npattern read over latent -> data = q.g == k.g"
    )
    q, k, v = tensors()
    sizes = {"latent.g": 3, "latent.m": 4, "data.g": 3}
    whole = read(q[:, :, :12], k, v, extents=sizes)
    for n in (0, 5, 11):
        same(read(q[:, :, n : n + 1], k, v, q_start=n, extents=sizes), whole[:, :, n : n + 1])
    # data that is not all there yet: extents say how much there will be
    k, v = (x.masked_fill(torch.arange(LENGTH)[:, None] >= 10, math.nan) for x in (k, v))
    some = read(q[:, :, :12], k, v, kv_len=10, extents=sizes | {"data.n": 8})
    same(some[:, :, :4], whole[:, :, :4])
    assert not some[:, :, 8:].any()


def test_the_gradient_of_many_elements_is_put_together_once():
    p, (q, k, v) = attndsl.compile("causal"), tensors()
    q = q.requires_grad_()
    out = p(q, k, v, kv_len=torch.tensor([9, 17]))
    todo, feeding, seen = [out.grad_fn], 0, set()
    while todo:
        node = todo.pop()
        following = [each for each, _ in node.next_functions if each is not None]
        feeding += sum(getattr(each, "variable", None) is q for each in following)
        todo += [each for each in following if each not in seen]
        seen.update(following)
    assert feeding == 1  # each of them would be a gradient as large as the whole


# ---------------------------------------------------------------------------- pages


def paged(rows: torch.Tensor, page: int, columns: int, spare: int = 3):
    """(pages without numbers but for the rows, table [batch, columns]): pages in any order, of the first one none."""
    batch, heads, length, width = rows.shape
    table = 1 + torch.randperm(
        batch * columns + spare, generator=torch.Generator().manual_seed(page)
    )
    table = table[: batch * columns].reshape(batch, columns)
    pages = torch.full(
        (batch * columns + spare + 1, heads, page, width), math.nan, dtype=rows.dtype
    )
    for b in range(batch):
        for n in range(length):
            pages[table[b, n // page], :, n % page] = rows[b, :, n]
    return pages, table


@pytest.mark.parametrize("page", [1, 4, 16])
def test_pages_are_rows_in_the_order_of_their_table(case, page):
    p, given, (q, k, v), whole = case
    columns = -(-LENGTH // page) + 1
    (k_pages, table), (v_pages, _) = paged(k, page, columns), paged(v, page, columns)
    ends = torch.tensor([9, 17])
    table[0, -(-9 // page) :] = -1  # nothing is there yet
    step = torch.stack([x[:, end - 3 : end] for x, end in zip(q, ends, strict=True)])
    want = torch.stack([x[:, end - 3 : end] for x, end in zip(whole, ends, strict=True)])
    same(p(step, k_pages, v_pages, block_table=table, kv_len=ends, **given), want)


def test_gradients_reach_the_pages_that_hold_tokens():
    p, (q, k, v) = attndsl.compile("causal"), tensors()
    (k_pages, table), (v_pages, _) = paged(k, 4, 6), paged(v, 4, 6)
    k_pages, v_pages = (x.nan_to_num(0.0).requires_grad_() for x in (k_pages, v_pages))
    rows = [x.clone().requires_grad_() for x in (k, v)]
    found = torch.autograd.grad(p(q, k_pages, v_pages, block_table=table).sum(), (k_pages, v_pages))
    want = torch.autograd.grad(p(q, *rows).sum(), rows)
    for one, other in zip(found, want, strict=True):
        same(one[table].transpose(1, 2).flatten(2, 3), other)
        assert one[0].eq(0).all()


@pytest.mark.parametrize("is_bound", [False, True], ids=["plain", "bound"])
def test_the_gradient_of_a_shared_page_is_the_sum_over_those_who_read_it(is_bound):
    p, (q, k, v) = attndsl.compile("causal_window(9)"), tensors()
    (k_pages, table), (v_pages, _) = paged(k, 4, 6), paged(v, 4, 6)
    table[1, :2] = table[0, :2]  # a common beginning; pages of the second element lie unused
    fill = torch.tensor([LENGTH, LENGTH - 3])
    pools = [x.detach().requires_grad_() for x in (k_pages, v_pages)]
    told = {"block_table": table, "kv_len": fill}
    if is_bound:
        out = p.bind(LENGTH, 24, q.shape[1], batch=2, **told)(q, *pools)
    else:
        out = p(q, *pools, **told)
    found = torch.autograd.grad(out.sin().sum(), pools)
    rows = [x[table].transpose(1, 2).flatten(2, 3).detach().requires_grad_() for x in pools]
    want = torch.autograd.grad(p(q, *rows, kv_len=fill, backend="reference").sin().sum(), rows)
    for one, other in zip(found, want, strict=True):
        pages = other.unflatten(2, (6, 4)).transpose(1, 2)  # of each column
        summed = torch.zeros_like(one).index_add(0, table.flatten(), pages.flatten(0, 1))
        same(one, summed)
        assert one[0].eq(0).all()


def test_a_traced_call_has_no_key_in_a_page_that_is_not_there():
    p, (q, k, v) = attndsl.compile("full"), tensors()
    (k_pages, table), (v_pages, _) = paged(k, 4, 6), paged(v, 4, 6)
    table[1, 2:] = torch.tensor([99, -7, 99, 1 << 40])
    traced = torch.func.vmap(lambda x: p(x, k_pages, v_pages, block_table=table))(q[None])[0]
    same(traced[0], p(q, k, v)[0])
    same(traced[1:], p(q[1:], k[1:, :, :8], v[1:, :, :8]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"block_table": [[0, 1], [2, 6]]}, "page 6 of batch element 1"),
        ({"block_table": [[0, -1], [2, 3]]}, "page -1 of batch element 0"),
        ({"block_table": [[0, 1]] * 3}, "a row for each batch element"),
        ({"block_table": [0, 1]}, "a row for each batch element"),
        ({"block_table": [[0.0, 1.0]] * 2}, "must be an integer type"),
        ({"block_table": [[0, 1]] * 2, "kv_len": 9}, "kv_len is 9, but k has 8 rows"),
    ],
)
def test_pages_that_cannot_be_are_refused(given, message):
    q, pages = torch.randn(2, 2, 1, 8), torch.randn(6, 2, 4, 8)
    with pytest.raises(attndsl.AttnDslError, match=f"A413.*{message}"):
        attndsl.compile("causal")(q, pages, pages, **given)
