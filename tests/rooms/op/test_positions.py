"""Where the tokens of a call stand: what calls and methods take, and what they refuse."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import attndsl

GOLDEN = Path(__file__).parents[2] / "golden" / "errors" / "A4"
CAUSAL = attndsl.compile("causal")
GRID = attndsl.compile("grid image(y, x)\npattern p over image = q.y == k.y and k <= q")


def tensors(q_len: int, k_len: int, batch: int = 2) -> list[torch.Tensor]:
    make = torch.Generator().manual_seed(q_len + k_len)
    shapes = [(batch, 2, n, 8) for n in (q_len, k_len, k_len)]
    return [torch.randn(shape, generator=make, dtype=torch.float64) for shape in shapes]


def seen(p: attndsl.Pattern, *lengths: int, **told) -> torch.Tensor:
    """The dense mask, which is also what is scheduled."""
    mask = p.mask(*lengths, **told)
    schedule = p.schedule(*lengths, tile=(2, 4), **told)
    for b, h in np.ndindex(*mask.shape[:2]):
        assert np.array_equal(schedule.cover(b, h), mask[b, h])
    return mask


# ---------------------------------------------------------------------------- meaning


def test_a_buffer_is_read_as_far_as_it_is_filled():
    assert torch.equal(seen(CAUSAL, 2, 9, kv_len=5)[..., :5], seen(CAUSAL, 2, 5))
    assert not seen(CAUSAL, 2, 9, kv_len=5)[..., 5:].any()


def test_the_rows_of_a_chunk_are_those_of_the_whole():
    whole = seen(GRID, 12, extents={"x": 4})
    assert torch.equal(seen(GRID, 3, 12, q_start=5, extents={"x": 4}), whole[:, :, 5:8])
    # the space is known by its extents, of which not all tokens exist yet
    filled = seen(GRID, 3, 12, q_start=5, kv_len=8, extents={"y": 3, "x": 4})
    assert torch.equal(filled[..., :8], whole[:, :, 5:8, :8])


def test_keys_between_which_positions_are_missing_stand_where_they_say():
    window = attndsl.compile("window(3, 0)")
    at = torch.tensor([[9, 4, -1, 7]])
    assert seen(window, 1, 4, k_pos=at).flatten().tolist() == [
        True,
        False,
        False,
        True,
    ]  # the query is at 9
    assert seen(window, 1, 4, k_pos=at, q_start=6).flatten().tolist() == [False, True, False, False]


def test_lengths_are_one_past_the_last_token():
    last = attndsl.compile("k >= len(k) - 2")
    found = seen(last, 1, 6, kv_len=[3, 5])[:, 0, 0].int().tolist()
    assert found == [[0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0]]


def test_an_input_by_position_may_be_longer_than_the_tokens():
    p = attndsl.compile(
        "input doc: int[batch, pos]\npattern p = doc[q] == doc[k] and doc[k + 1] == 0"
    )
    doc = torch.tensor([[1, 1, 1, 0, 0, 0]] * 2)
    found = seen(p, 1, 4, kv_len=[2, 3], doc=doc)[:, 0, 0].int().tolist()
    # behind the last token there is nothing, whatever the tensor holds
    assert found == [
        [0, 1, 0, 0],
        [0, 0, 1, 0],
    ]


def test_an_input_over_queries_has_an_entry_for_each_row():
    p = attndsl.compile("input own: int[batch, q]\npattern p = own[q] <= k and k <= q")
    own = torch.tensor([[1, 0, 2], [4, 3, 9]])
    lows = seen(p, 3, 7, q_start=[2, 4], own=own).int().argmax(3)[:, 0]
    assert lows[:, :2].tolist() == [[1, 0], [4, 3]]
    assert torch.equal(
        seen(p, 3, 7, kv_len=[5, 7], own=own), seen(p, 3, 7, q_start=[2, 4], kv_len=[5, 7], own=own)
    )


def test_a_row_of_a_list_without_a_token_is_empty():
    p = attndsl.compile("input near: list[batch, q, n]\npattern p = k in near[q - 1]")
    near = torch.tensor([[[0], [1], [2]]])
    assert seen(p, 3, 5, q_start=1, q_used=[3], near=near)[0, 0].nonzero().tolist() == [
        [1, 0],
        [2, 1],
    ]
    at = torch.tensor([[3, -1, 1]])
    assert not seen(p, 3, 5, q_pos=at, near=near).any()  # no query stands at 2 or 0


def test_zero_keys_are_counted_at_positions():
    p = attndsl.compile("pattern p = 0 <= q - k <= 3 zeros 4 - inside(q - 3, 4, len(k))")
    assert p.zero_keys(2, 8, q_start=[0, 5], kv_len=7)[:, 0].tolist() == [[3, 2], [0, 0]]
    assert p.zero_keys(2, 8, q_start=[-1, 5], kv_len=7)[:, 0].tolist() == [[0, 3], [0, 0]]


@pytest.mark.parametrize("is_outright", [False, True], ids=["lengths", "positions"])
@pytest.mark.parametrize("backend", ["blocked", "reference", "triton"])
def test_what_is_no_token_reaches_nothing(backend, is_outright):
    q, k, v = (x.float() for x in tensors(6, 20))
    fill, used = torch.tensor([9, 17]), torch.tensor([6, 4])
    for b in range(2):
        q[b, :, used[b] :], k[b, :, fill[b] :], v[b, :, fill[b] :] = (math.nan,) * 3
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    told = {"kv_len": fill, "q_len": used}
    if is_outright:
        at = {
            "q_pos": torch.arange(6) + (fill - used)[:, None],
            "k_pos": torch.arange(20).expand(2, -1),
        }
        told = {n: x.where(x < fill[:, None], -1) for n, x in at.items()}
    out, lse = CAUSAL(*leaves, **told, return_lse=True, backend=backend)
    assert out[1, :, 4:].eq(0).all()
    assert lse[1, :, 4:].eq(-math.inf).all()
    upstream = torch.ones_like(out)
    upstream[1, :, 4:] = math.nan  # of what is no token, nobody may ask
    grads = torch.autograd.grad(out, leaves, upstream)
    for grad, counts in zip(grads, (used, fill, fill), strict=True):
        for b in range(2):
            assert grad[b, :, : counts[b]].isfinite().all()
            assert grad[b, :, counts[b] :].eq(0).all()


def test_what_is_no_token_has_no_second_derivative():
    (q, k, v), at = tensors(6, 6), torch.tensor([[0, 1, 2, -1, -1, 5]])
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    upstream = torch.ones_like(q).masked_fill(at[0, :, None] < 0, math.nan)
    first = torch.autograd.grad(CAUSAL(*leaves, q_pos=at), leaves, upstream, create_graph=True)
    second = torch.autograd.grad(first[0].square().sum(), leaves)
    assert all(x.isfinite().all() for x in (*first, *second))
    assert not second[0][:, :, 3:5].any()


def test_rows_that_numbers_leave_out_are_not_looked_at():
    q, k, v = tensors(3, 20)
    want = CAUSAL(q, k[:, :, :7], v[:, :, :7])
    k[:, :, 7:] = v[:, :, 7:] = math.nan
    assert torch.equal(CAUSAL(q, k, v, kv_len=7), want)
    padded = torch.cat([torch.full_like(q, math.nan), q], 2)
    out, lse = CAUSAL(padded, k, v, q_start=1, kv_len=7, return_lse=True)
    torch.testing.assert_close(out[:, :, 3:], want)
    assert not lse[:, :, 3:].isinf().any()


def test_gradients_reach_the_rows_that_a_number_leaves():
    p, (q, k, v) = attndsl.compile("documents_causal"), tensors(5, 20)
    doc = torch.arange(20).expand(2, -1) // 3
    leaves = [x.requires_grad_() for x in (q, k, v)]
    found, want = (
        torch.autograd.grad(out.sin().sum(), leaves)
        for out in (p(q, k, v, kv_len=7, doc=doc), p(q, k[:, :, :7], v[:, :, :7], doc=doc[:, :7]))
    )
    for one, other in zip(found, want, strict=True):
        torch.testing.assert_close(one, other)
    assert found[1][:, :, :7].any()


def test_heads_of_a_rank_stand_where_they_stand():
    p = attndsl.compile("k <= q and q - k <= head")
    whole = p.mask(2, 8, heads=4, kv_len=[5, 8])
    given = {"heads": 4, "head_start": 2, "kv_len": [5, 8]}
    assert torch.equal(p.mask(2, 8, **given), whole[:, 2:])
    q, k, v = tensors(2, 8)
    q, k, v = (torch.cat([x, x + 1], 1) for x in (q, k, v))
    fill = torch.tensor([5, 8])
    want = p(q, k, v, kv_len=fill)[:, 2:]
    held = [x[:, 2:] for x in (q, k, v)]
    torch.testing.assert_close(p(*held, heads=4, head_start=2, kv_len=fill), want)


def test_methods_say_what_calls_do():
    told = {"kv_len": [5, 8], "q_used": [2, 1]}
    assert CAUSAL.schedule(2, 8, tile=(2, 2), **told).cover(1).sum() == 8
    assert CAUSAL.predict(2, 8, **told).forward > 0
    assert "after set_positions" in CAUSAL.explain(2, 8, **told)
    assert CAUSAL.draw(2, 8, **told)


def test_the_picture_of_a_query_is_drawn_by_position():
    sizes = {"y": 3, "x": 4}
    want = GRID.draw(12, query=6, extents=sizes)
    at = torch.tensor([[9, 0, 4, 6, 5, -1, 1, 2, 3, 7, 8, 10, 11]])
    assert GRID.draw(2, 13, query=1, q_start=5, k_pos=at, extents=sizes) == want
    assert GRID.picture(2, 13, query=1, q_start=5, k_pos=at, extents=sizes).svg()


# ---------------------------------------------------------------------------- refusals


def beyond_the_buffer():
    q, k, v = tensors(1, 8)
    CAUSAL(q, k, v, kv_len=torch.tensor([4, 9]))


def told_twice():
    CAUSAL.mask(1, 8, q_start=3, q_pos=torch.tensor([[3]]))


def two_at_one_position():
    CAUSAL.mask(1, 4, k_pos=[[0, 1, 1, -1]])


def past_the_space():
    GRID.mask(1, 12, q_start=12, extents={"y": 3, "x": 4})


MISTAKES = [beyond_the_buffer, told_twice, two_at_one_position, past_the_space]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_explained(mistake, golden):
    with pytest.raises(attndsl.AttnDslError) as caught:
        mistake()
    golden(GOLDEN / f"{mistake.__name__}.err", str(caught.value) + "\n")


BAD = {
    "a negative length": {"kv_len": -1},
    "more than there are": {"kv_len": 9},
    "more queries than there are": {"q_len": 3},
    "a negative length of an element": {"kv_len": [4, -1]},
    "a fraction": {"q_start": 1.5},
    "a truth value": {"q_start": True},
    "a tensor of fractions": {"kv_len": torch.tensor([1.0, 2.0])},
    "a tensor of truth values": {"kv_len": torch.tensor([True, False])},
    "a word": {"k_start": "3"},
    "another batch": {"kv_len": torch.tensor([1, 2, 3])},
    "too many dims": {"kv_len": torch.tensor([[1, 2]])},
    "too far": {"q_start": 1 << 41},
    "positions in one dim": {"k_pos": torch.arange(8)},
    "positions of other rows": {"k_pos": torch.arange(7)[None]},
    "positions of another batch": {"k_pos": torch.arange(8).expand(3, 8)},
    "positions below -1": {"k_pos": torch.arange(8)[None] - 2},
    "positions too far": {"k_pos": torch.arange(8)[None] + (1 << 41)},
    "a number for positions": {"q_pos": 4},
    "twice": {"k_start": 2, "k_pos": torch.arange(8)[None]},
    "a repetition": {"q_pos": torch.tensor([[4, 4]])},
}


@pytest.mark.parametrize("given", BAD.values(), ids=BAD)
def test_calls_and_methods_refuse(given):
    q, k, v = tensors(2, 8)
    with pytest.raises(attndsl.AttnDslError, match="A413"):
        CAUSAL(q, k, v, **given)
    told = {"q_used" if name == "q_len" else name: x for name, x in given.items()}
    with pytest.raises(attndsl.AttnDslError, match="A413"):
        CAUSAL.mask(2, 8, batch=2, **told)


def test_positions_on_another_device_are_refused():
    q, k, v = tensors(2, 8)
    with pytest.raises(attndsl.AttnDslError, match="kv_len is on meta"):
        CAUSAL(q, k, v, kv_len=torch.zeros(2, dtype=torch.int64, device="meta"))


def test_claims_and_facts_are_of_whole_sequences():
    for method in (CAUSAL.facts, CAUSAL.claims):
        with pytest.raises(attndsl.AttnDslError, match="A413"):
            method(8, kv_len=4)


def test_an_input_over_rows_has_as_many_entries_as_there_are_rows():
    p = attndsl.compile("input keep: bool[batch, k]\npattern p = keep[k] and causal")
    q, k, v = tensors(1, 8)
    keep = torch.ones(2, 8, dtype=torch.bool)
    assert torch.equal(
        p(q, k, v, keep=keep, kv_len=5), p(q, k[:, :, :5], v[:, :, :5], keep=keep[:, :5])
    )
    for fill in (5, torch.tensor([5, 5])):
        with pytest.raises(attndsl.AttnDslError, match="but k has 8 rows"):
            p(q, k, v, keep=keep[:, :5], kv_len=fill)


def test_none_says_nothing():
    q, k, v = tensors(2, 8)
    assert torch.equal(CAUSAL(q, k, v, kv_len=None, q_pos=None), CAUSAL(q, k, v))
    assert np.array_equal(CAUSAL.mask(2, 8, kv_len=None), CAUSAL.mask(2, 8))
