"""Emitted files take positions as calls do: rows see what their tokens see, laid out in order."""

import types
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings

import attndsl
from tests.laws.test_positions import Case, cases, compiled, expected, given_to, refused
from tests.rooms.emission import outside
from tests.rooms.emission.dense import keywords, pairs

TILE = (16, 32)


def loaded(p: attndsl.Pattern) -> types.ModuleType:
    """Its file, but for kernels: those are read from files."""
    module = types.ModuleType("emitted")
    exec(compile(p.emit(), "emitted", "exec"), module.__dict__)
    return module


def found(module: types.ModuleType, case: Case, p: attndsl.Pattern, **more) -> np.ndarray:
    """The pairs of the case, by the file."""
    sizes = case.q.count, case.k.count, len(case.lengths), case.program.heads
    inputs = {x: torch.as_tensor(array) for x, array in given_to(p, case.tables).items()}
    told = {name: torch.as_tensor(x) for name, x in case.told.items()}
    given = {
        **inputs,
        **keywords(module, case.extents),
        "positions": module.Positions(**told, **more),
    }
    return pairs(module, *sizes, tile=TILE, **given)


@settings(max_examples=12)
@given(cases())
def test_rows_see_what_their_tokens_see(case):
    p = compiled(case)
    if refused(p, case):
        return
    want = expected(p, case)
    assert np.array_equal(found(loaded(p), case, p), want)


SLOPED = """
input doc: int[batch, pos]
input near: int[head]
pattern p = doc[q] == doc[k] and 0 <= q - k <= near[head] + heads
"""
DOC = torch.tensor([[0] * 9 + [1] * 31, [0] * 20 + [2] * 20])


@pytest.fixture(scope="module")
def sloped(tmp_path_factory: pytest.TempPathFactory) -> types.ModuleType:
    path = tmp_path_factory.mktemp("emitted") / "sloped.py"
    Path(path).write_text(attndsl.compile(SLOPED).emit(), encoding="utf-8")
    return outside.loaded(path)


TOLD = {
    "buffers": {"kv_len": torch.tensor([17, 33]), "q_len": torch.tensor([5, 3])},
    "a chunk": {"q_start": 9, "kv_len": 14},
    "a ring": {"k_pos": torch.arange(40)[None].roll(7, 1), "q_start": torch.tensor([30, 35])},
    "half of the heads": {"kv_len": 21, "head_start": 2, "heads": 4},
}


@pytest.mark.parametrize("told", TOLD.values(), ids=TOLD)
def test_attention_and_its_gradients_are_those_of_the_package(told, sloped):
    make = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(2, 2, n, 16, generator=make) for n in (5, 40, 40))
    lengths = [
        torch.as_tensor(told.get(name, n)).expand(2) for name, n in (("q_len", 5), ("kv_len", 40))
    ]
    for b, (fill_q, fill_k) in enumerate(zip(*lengths, strict=True)):
        q[b, :, fill_q:], k[b, :, fill_k:], v[b, :, fill_k:] = (torch.nan,) * 3
    inputs = {"doc": DOC, "near": torch.tensor([1, 4, 9, 2])[: told.get("heads", 2)]}
    ours, theirs = [], []
    p = attndsl.compile(SLOPED)
    for call, into in ((sloped.attention, ours), (p, theirs)):
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        out, lse = call(*leaves, **inputs, **told, return_lse=True)
        dout = torch.full_like(out, torch.nan)
        for b, fill in enumerate(lengths[0]):
            dout[b, :, :fill] = out.detach()[b, :, :fill].cos()
        into += [out, lse, *torch.autograd.grad(out, leaves, dout)]
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert ours[0].any()


def test_inputs_may_have_entries_for_the_heads_of_the_call_alone(sloped):
    x = torch.randn(2, 2, 40, 16)
    given = {"doc": DOC, "head_start": 1, "heads": 3}
    near = torch.tensor([1, 4, 9])
    held, whole = (sloped.attention(x, x, x, **given, near=n) for n in (near[1:], near))
    assert torch.equal(held, whole)


WRONG = {
    "twice": {"q_start": 1, "q_pos": torch.arange(5)[None]},
    "beyond": {"kv_len": 41},
    "another batch": {"kv_len": torch.tensor([1, 2, 3])},
    "not integers": {"q_start": 1.5},
    "needs the shape": {"k_pos": torch.arange(7)[None]},
    "one position to two rows": {"q_pos": torch.tensor([[3, 3, 1, 2, 4]])},
    "at most 65536": {"head_start": 1},
    "unexpected keyword": {"kvlen": 7},
    "fewer than": {"q_start": (1 << 27) - 2},
}


@pytest.mark.parametrize("said", WRONG)
def test_what_cannot_be_is_refused(said, sloped):
    x = torch.zeros(2, 2, 40, 16)
    words = {"beyond": "not from 0 to 40", "another batch": "each of the 2 batch"}
    with pytest.raises((ValueError, TypeError), match=words.get(said, said)):
        sloped.attention(x[:, :, :5], x, x, doc=DOC, near=torch.tensor([1, 2]), **WRONG[said])


def test_schedules_are_kept_for_positions_that_do_not_change(sloped):
    made, inner = [], sloped.schedule_of
    x, near, fill = torch.zeros(2, 2, 40, 16), torch.tensor([1, 2]), torch.tensor([8, 7])
    given = {"doc": torch.zeros(2, 400, dtype=torch.int64), "near": near, "kv_len": fill}
    sloped.schedule_of = lambda *given: made.append(1) or inner(*given)
    for start, length in (("300", 8), ("300", 8), ("300", 9), ("301", 9)):
        if int(fill[0]) != length:
            fill[0] = length
        sloped.attention(x, x, x, **given, q_start=int(start))
    sloped.schedule_of = inner
    assert len(made) == 3


@pytest.mark.parametrize("told", [{"q_start": [2, 4]}, {"kv_len": [5, 7]}], ids=["start", "fill"])
def test_an_input_over_queries_has_an_entry_for_each_row(told):
    p = attndsl.compile("input own: int[batch, q]\npattern p = own[q] <= k and k <= q")
    own = torch.tensor([[1, 0, 2], [4, 3, 1]])
    module = loaded(p)
    positions = module.Positions(**{name: torch.tensor(x) for name, x in told.items()})
    mine = pairs(module, 3, 7, 2, 1, tile=TILE, own=own, positions=positions)
    assert np.array_equal(mine, p.mask(3, 7, own=own, **told).numpy())
    assert mine.any()


def test_only_what_a_window_can_reach_is_evaluated():
    module = loaded(attndsl.compile("window(3, 2)"))
    told = module.Positions(q_start=torch.tensor([50, 70]), k_start=torch.tensor([-10, 0]))
    schedule = module.schedule_of(32, 128, 2, 1, torch.device("cpu"), told)
    assert (schedule.pattern.back, schedule.pattern.ahead, schedule.pattern.q_start) == (3, 12, 60)
