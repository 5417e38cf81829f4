"""Calls of few queries: the short way gives what the oracle gives, at every length, and keeps nothing of contents."""

import gc
import resource

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attndsl
from attndsl.compiler import Program
from attndsl.source import AttnDslError
from tests.support.functions import functions_of

TEXTS = [
    "causal_window(9) or k < 2",
    "causal and (q - k < 7 or k % 16 == 15)",
    "causal and doc[k] == doc[q]",
    "keep[k] and k <= q or not keep[k] and q - k == 3",
    "if head < heads // 2 then causal else k <= q and q // 5 == k // 5",
    "k <= q and doc[q + 1] == 0 and (doc[k] <= 1 or len(k) - k < 3)",
    "q - k < 6 and batch == 1 or k == q",
]
DECLARED = "input doc: int[batch, pos]\ninput keep: bool[pos]\n"


def pattern(text: str, align: str = "") -> attndsl.Pattern:
    used = [line for line in DECLARED.splitlines() if line.split()[1].rstrip(":") in text]
    return attndsl.compile("\n".join([*used, f"pattern p{align} = {text}"]))


def drawn(
    p: attndsl.Pattern, shape: tuple[int, int, int, int, int], seed: int, room: int
) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    batch, heads, kv_heads, q_len, k_len = shape
    make = torch.Generator().manual_seed(seed)
    sizes = (heads, q_len), (kv_heads, k_len), (kv_heads, k_len)
    qkv = [torch.randn(batch, *n, 8, dtype=torch.float64, generator=make) for n in sizes]
    doc = torch.randint(0, 3, (batch, room), generator=make)
    keep = torch.rand(room, generator=make) < 0.6
    given = {"doc": doc, "keep": keep}
    return qkv, {table.name: given[table.name] for table in p.ir.tables}


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(TEXTS), st.sampled_from(["", " align start"]), st.integers(1, 3),
    st.sampled_from([(2, 2), (4, 2), (3, 1)]), st.integers(1, 6), st.integers(1, 60),
    st.sampled_from(["none", "number", "each"]), st.integers(0, 99), st.data(),
)  # fmt: skip
def test_it_is_the_call_of_the_oracle(text, align, batch, heads, q_len, k_len, told, seed, data):
    p = pattern(text, align)
    room = k_len + data.draw(st.integers(0, 3)) if told != "none" else k_len
    qkv, tables = drawn(p, (batch, *heads, q_len, k_len), seed, room)
    at = {}
    if told == "number":
        at["kv_len"] = data.draw(st.integers(0, k_len))
    elif told == "each":
        lengths = st.lists(st.integers(0, k_len), min_size=batch, max_size=batch)
        at["kv_len"] = torch.tensor(data.draw(lengths))
    try:
        want = p(*qkv, return_lse=True, backend="reference", **tables, **at)
    except AttnDslError as error:
        with pytest.raises(AttnDslError, match=error.code):
            p(*qkv, **tables, **at)
        return
    for mine, right in zip(p(*qkv, return_lse=True, **tables, **at), want, strict=True):
        torch.testing.assert_close(mine, right)


@pytest.mark.parametrize("text", TEXTS)
def test_a_step_is_decided_for_all_lengths(text: str, monkeypatch: pytest.MonkeyPatch):
    p = pattern(text)
    qkv, tables = drawn(p, (2, 4, 2, 1, 50), 0, 50)
    whole = p(*qkv, backend="reference", **tables)
    p(*qkv, **tables)
    monkeypatch.setattr(Program, "call", None)  # what a call of one length is asked
    torch.testing.assert_close(p(*qkv, **tables), whole)
    q, k, v = qkv
    for n in (30, 41):
        fill = torch.tensor([n, n - 9])
        cut = p(q, k, v, kv_len=n, **tables)
        for each in (p(q, k, v, kv_len=fill, **tables)[0], cut[0]):
            torch.testing.assert_close(each, cut[0])


@pytest.mark.parametrize("batch", [1, 2])
def test_a_step_looks_at_the_inputs_as_they_are(batch: int):
    p = pattern(TEXTS[2])
    (q, k, v), tables = drawn(p, (batch, 4, 2, 1, 50), 0, 50)
    doc = tables["doc"]
    for write in (
        lambda: doc.fill_(1),
        lambda: doc.numpy().fill(2),
        lambda: doc.data[:, 20:].add_(1),
    ):
        write()
        torch.testing.assert_close(p(q, k, v, doc=doc), p(q, k, v, doc=doc, backend="reference"))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.int32, torch.uint8])
def test_inputs_of_other_integers_and_one_for_the_batch(dtype: torch.dtype):
    p = pattern(TEXTS[2])
    (q, k, v), tables = drawn(p, (2, 4, 2, 1, 50), 0, 50)
    doc = tables["doc"][:1].to(dtype)
    for one in (doc, doc.numpy(), doc.tolist()):
        torch.testing.assert_close(
            p(q, k, v, doc=one), p(q, k, v, doc=doc.long(), backend="reference")
        )


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"doc": torch.zeros(2, 49, dtype=torch.int64)}, "A501"),
        ({"doc": torch.zeros(3, 50, dtype=torch.int64)}, "A501"),
        ({"doc": torch.zeros(2, 50)}, "A501"),
        ({"kv_len": 51}, "A413"),
        ({"kv_len": torch.tensor([50, -1])}, "A413"),
        ({"backend": "blokced"}, "A521"),
        ({"layout": "nonsense"}, "A41"),
        ({"scale": "1"}, "A502"),
    ],
)
def test_what_is_wrong_is_refused_as_ever(change: dict, code: str):
    p = pattern(TEXTS[2])
    qkv, tables = drawn(p, (2, 4, 2, 1, 50), 0, 50)
    p(*qkv, **tables)
    with pytest.raises(AttnDslError, match=code):
        p(*qkv, **(tables | change))


@pytest.mark.parametrize("of", ["q", "k", "v"])
def test_tensors_that_do_not_fit_are_refused_as_ever(of: str):
    p = pattern(TEXTS[0])
    qkv = dict(zip("qkv", drawn(p, (2, 4, 2, 1, 50), 0, 50)[0], strict=True))
    p(**qkv)
    x = qkv[of]
    for wrong in (
        x[:1],
        x[:, :1].repeat(1, 3, 1, 1),
        x.float(),
        x.to("meta"),
        x[..., 0],
        x.tolist(),
    ):
        with pytest.raises(AttnDslError, match="A50"):
            p(**(qkv | {of: wrong}))


@pytest.mark.parametrize("text", [TEXTS[0], TEXTS[2]])
def test_a_step_of_a_new_length_passes_through_few_functions(text: str):
    p = pattern(text)
    (q, k, v), _ = drawn(p, (1, 4, 2, 1, 50), 0, 50)
    given = {"doc": torch.arange(50)[None] // 20} if p.ir.tables else {}
    p(q, k, v, **given)
    k, v = k[:, :, :49], v[:, :, :49]
    given = {name: x[:, :49] for name, x in given.items()}
    called = functions_of(lambda: p(q, k, v, **given))
    assert len(called) <= 30, called


def test_results_of_a_step_are_contiguous_and_need_no_gradient():
    q, k, v = drawn(pattern(TEXTS[0]), (2, 4, 2, 3, 50), 0, 50)[0]
    v = v[..., :5]
    for out in pattern(TEXTS[0])(q, k, v, return_lse=True):
        assert out.is_contiguous()
        assert not out.requires_grad


@pytest.mark.parametrize("lengths", [[30], [30, 21]])
def test_entries_behind_the_last_token_are_0(lengths: list[int]):
    p, batch = pattern("k <= q and doc[q + 1] == 0"), len(lengths)
    (q, k, v), _ = drawn(p, (batch, 4, 2, 1, 40), 0, 40)
    fill = torch.tensor(lengths)
    out = p(q, k, v, doc=torch.ones(batch, 40, dtype=torch.int64), kv_len=fill)
    torch.testing.assert_close(out, pattern("k <= q")(q, k, v, kv_len=fill, backend="reference"))


def test_a_step_may_be_differentiated_twice():
    p = pattern(TEXTS[0])
    leaves = [x.requires_grad_() for x in drawn(p, (1, 2, 2, 1, 7), 0, 7)[0]]
    found = []
    for backend in ("auto", "reference"):
        first = torch.autograd.grad(
            p(*leaves, backend=backend).sin().sum(), leaves, create_graph=True
        )
        found.append(torch.autograd.grad(sum((x**2).sum() for x in first), leaves))
    for mine, right in zip(*found, strict=True):
        torch.testing.assert_close(mine, right)


@pytest.mark.slow
@pytest.mark.parametrize("text", [TEXTS[0], TEXTS[2]])
def test_ten_thousand_steps_take_no_more_memory(text: str):
    p = pattern(text)
    (q, k, v), tables = drawn(p, (1, 2, 2, 1, 12_000), 0, 12_000)
    before = None
    for n in range(1, 11_001):
        p(q, k[:, :, :n], v[:, :, :n], **{name: x[..., :n] for name, x in tables.items()})
        if n == 1_000:
            gc.collect()
            before = len(gc.get_objects()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gc.collect()
    assert before is not None
    assert len(gc.get_objects()) - before[0] < 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before[1] < 16 << 10  # KiB


def test_arrays_stay_those_of_the_caller():
    p = pattern(TEXTS[2])
    (q, k, v), _ = drawn(p, (1, 2, 2, 1, 9), 0, 9)
    doc = np.zeros((1, 9), dtype=np.int64)
    doc.flags.writeable = False
    p(q, k, v, doc=doc)
    assert not doc.any()
