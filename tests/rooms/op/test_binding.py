"""A bound call gives what the pattern gives at the same lengths, inputs and positions, and looks at nothing twice."""

import gc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attndsl
from attndsl.op import binding, planning
from attndsl.source import AttnDslError
from tests.support.work import calls_of


def tensors(batch: int, heads: int, kv_heads: int, q_len: int, k_len: int, dim: int = 8):
    make = torch.Generator().manual_seed(0)
    shapes = (heads, q_len), (kv_heads, k_len), (kv_heads, k_len)
    made = (
        torch.randn(batch, *shape, dim, dtype=torch.float64, generator=make) for shape in shapes
    )
    return [x.requires_grad_() for x in made]


def both_passes(call, args) -> list[torch.Tensor]:
    out, lse = call(*args, return_lse=True)
    finite = lse.masked_fill(lse.isinf(), 0.0)
    return [out, lse, *torch.autograd.grad((out.sin().sum() + finite.cos().sum()), args)]


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 3), st.sampled_from([(2, 2), (4, 2), (3, 1)]), st.integers(1, 40),
    st.integers(1, 40), st.integers(0, 99),
)  # fmt: skip
def test_it_is_the_call_of_the_pattern(batch, heads, q_len, k_len, seed):
    p = attndsl.compile(
        "input doc: int[batch, pos]\npattern p = doc[q] == doc[k] and k <= q or k < 2"
    )
    doc = torch.randint(0, 3, (batch, k_len), generator=torch.Generator().manual_seed(seed))
    args = tensors(batch, *heads, q_len, k_len)
    bound = p.bind(q_len, k_len, heads[0], batch=batch, doc=doc)
    found = both_passes(bound, args)
    exact = both_passes(lambda *x, **o: p(*x, doc=doc, backend="reference", **o), args)
    for mine, right in zip(found, exact, strict=True):
        torch.testing.assert_close(mine, right)


@pytest.mark.parametrize(
    "at",
    [
        {"q_start": torch.tensor([7, 2]), "kv_len": torch.tensor([12, 9])},
        {"q_start": 5, "kv_len": 9},
        {"q_start": -2, "k_start": -3},
        {"k_start": 4},
        {"k_pos": torch.randperm(16)[None], "q_pos": torch.tensor([[3, 9, 15, -1]])},
    ],
    ids=["each its own", "numbers", "before the first", "a window that slides", "given outright"],
)
def test_positions_are_bound(at: dict):
    p = attndsl.compile("causal_window(6) or k < 2")
    args = tensors(2, 2, 2, 4, 16)
    told = {name: x.clone() if isinstance(x, torch.Tensor) else x for name, x in at.items()}
    bound = p.bind(4, 16, 2, batch=2, **told)
    for x in told.values():
        if isinstance(x, torch.Tensor):
            x.zero_()
    torch.testing.assert_close(bound(*args), p(*args, **at, backend="reference"))


def test_heads_of_a_rank_and_extents_are_bound():
    p = attndsl.compile(
        "grid g(y, x)\npattern p over g = q.y == k.y and (head < heads - 1 or q.x == k.x)"
    )
    whole = tensors(1, 4, 4, 12, 12)
    extents = {"y": 3, "x": 4}
    bound = p.bind(12, heads=4, head_start=2, head_count=2, extents=extents)
    exact = p(*whole, extents=extents, backend="reference")
    torch.testing.assert_close(bound(*(x[:, 2:] for x in whole)), exact[:, 2:])


def test_what_is_written_to_an_input_afterwards_changes_nothing():
    p, doc = attndsl.compile("documents_causal"), torch.arange(40)[None] // 9
    args = tensors(1, 2, 2, 40, 40)
    exact = both_passes(lambda *x, **o: p(*x, doc=doc.clone(), **o), args)
    bound = p.bind(40, heads=2, doc=doc)
    doc.numpy()[:] = 0
    for mine, right in zip(both_passes(bound, args), exact, strict=True):
        assert torch.equal(mine, right)


def test_contents_are_looked_at_once():
    p, doc = attndsl.compile("documents_causal"), torch.arange(40)[None] // 9
    args = tensors(1, 2, 2, 40, 40)
    bound = p.bind(40, heads=2, doc=doc)
    first = both_passes(bound, args)
    work = calls_of(lambda: both_passes(bound, args))
    for other in range(70):  # other calls do not crowd it out
        p(*args, doc=doc + other)
    assert calls_of(lambda: both_passes(bound, args)) < 1.1 * work
    for mine, right in zip(both_passes(bound, args), first, strict=True):
        assert torch.equal(mine, right)


def test_it_is_traced_with_the_pattern_in_one_graph():
    torch._dynamo.reset()
    p, doc = attndsl.compile("documents_causal"), torch.arange(40)[None] // 9
    args = tensors(1, 2, 2, 40, 40)
    bound = p.bind(40, heads=2, doc=doc)
    del p
    gc.collect()
    traced = torch.compile(bound, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(traced(*args), bound(*args))
    found = torch.autograd.grad(traced(*args).sum(), args)
    torch.testing.assert_close(found, torch.autograd.grad(bound(*args).sum(), args))


@pytest.mark.parametrize(
    ("shapes", "code"),
    [((1, 2, 2, 8, 8), "A502"), ((2, 3, 3, 8, 8), "A502"), ((2, 2, 2, 7, 8), "A502"), ((2, 2, 2, 8, 9), "A502")],
)  # fmt: skip
def test_tensors_of_other_lengths_are_refused(shapes, code):
    bound = attndsl.compile("causal").bind(8, heads=2, batch=2)
    with pytest.raises(AttnDslError, match="bound for other tensors") as caught:
        bound(*tensors(*shapes))
    assert caught.value.code == code
    assert "bound for q: [2, 2, 8, D], k: 8 keys" in str(caught.value)


def test_tensors_on_another_device_are_refused():
    bound = attndsl.compile("causal").bind(8, heads=2, batch=2, device="meta")
    with pytest.raises(AttnDslError, match="on meta") as caught:
        bound(*tensors(2, 2, 2, 8, 8))
    assert caught.value.code == "A503"


@pytest.mark.parametrize(
    "wrong",
    [{"doc": torch.zeros(1, 3)}, {"dco": torch.zeros(1, 8)}, {}, {"doc": torch.zeros(1, 8, dtype=int), "kv_len": 9}],
)  # fmt: skip
def test_what_is_wrong_is_said_when_it_is_bound(wrong: dict):
    with pytest.raises(AttnDslError):
        attndsl.compile("documents_causal").bind(8, heads=2, **wrong)


@pytest.mark.parametrize("queries", [1, 4])
def test_rows_that_numbers_leave_out_are_decided_once(
    queries: int, monkeypatch: pytest.MonkeyPatch
):
    p, doc = attndsl.compile("documents_causal"), torch.arange(16)[None] // 5
    q, k, v = (x.detach() for x in tensors(2, 2, 2, queries, 16))
    k[:, :, 13:] = torch.nan
    want = p(q, k, v, kv_len=13, doc=doc, backend="reference")
    bound = p.bind(queries, 16, 2, batch=2, kv_len=13, doc=doc)
    bound(q, k, v)
    for name in ("stamp_of", "lower", "Call"):
        monkeypatch.setattr(planning, name, None)
    monkeypatch.setattr(planning.Contents, "stamp", None)
    monkeypatch.setattr(binding, "rows_with_tokens", None)
    torch.testing.assert_close(bound(q, k, v), want)
