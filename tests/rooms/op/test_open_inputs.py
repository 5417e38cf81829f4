"""Inputs that are scheduled where they lie: results are exact, and nothing that they hold is read to the host."""

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import attndsl
from attndsl.backends import Request, protocol
from attndsl.backends.launching import Launch
from attndsl.backends.triton import INTERPRETED
from attndsl.op.contents import stamp_on_device
from attndsl.op.planning import Options
from attndsl.op.rows import Tokens, rows_with_tokens
from tests.support.tolerances import assert_close

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="these run in Triton's interpreter")

INPUTS = """
input doc: int[batch, pos]
input keep: bool[batch, pos]
input reach: int[head]
input own: int[batch, head, q]
"""
ASKING = """
input doc: int[batch, pos]
input most: int[batch, head]
pattern p where 0 <= most <= len(k), all i in 0..3: doc[i] <= doc[i + 1] = doc[q] == doc[k] and q - k <= most
"""
ROOTS = {
    "documents": "doc[q] == doc[k]",
    "documents_causal": "causal and doc[q] == doc[k]",
    "padding": "causal and keep[k]",
    "reach of a head": "causal and q - k <= reach and doc[q] <= doc[k]",
    "own to each head": "k <= own[q] or q - k == 2",
    "heads that differ": "q - k <= head * 20 + 5 and doc[q] == doc[k]",
    "all pairs, in tiles that are cut": "keep[k] or doc[q] >= 0",
    "zero keys that inputs count": "k < q - 2 and doc[q] == doc[k] zeros if keep[q] then 2 else doc[q]",
    "zero keys of heads": "k < q and doc[q] == doc[k] zeros if head > 1 then head + batch else 0",
    "a zero key of each query": "k < q and doc[q] == doc[k] and doc[k] > 0 zeros 1",
}
BATCH, HEADS = 2, 4


@pytest.fixture(autouse=True)
def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the CPU for a device whose contents cost much to read."""
    monkeypatch.setattr(protocol, "SCHEDULING", {"cpu", "cuda"})


def given(pattern: attndsl.Pattern, q_len: int, k_len: int) -> dict[str, Tensor]:
    torch.manual_seed(3)
    all_of_them = {
        "doc": torch.randint(0, 3, (BATCH, k_len)).sort(1).values,
        "keep": torch.rand(BATCH, k_len) < 0.7,
        "reach": torch.tensor([3, 30, 70, 0]),
        "own": torch.randint(-2, k_len, (BATCH, HEADS, q_len)),
    }
    return {table.name: all_of_them[table.name] for table in pattern.ir.tables}


def tensors(
    q_len: int, k_len: int, kv_heads: int, dtype: torch.dtype = torch.float32
) -> list[Tensor]:
    torch.manual_seed(4)
    shapes = (HEADS, q_len), (kv_heads, k_len), (kv_heads, k_len)
    return [torch.randn(BATCH, *shape, 16, dtype=dtype).requires_grad_() for shape in shapes]


def results(call, qkv: list[Tensor], **options) -> list[Tensor]:
    out, lse = call(*qkv, return_lse=True, **options)
    seen = lse.masked_fill(lse.isinf(), -50.0)  # told from one zero key, whose log-sum-exp is 0
    torch.manual_seed(5)
    loss = (out * torch.randn(out.shape).to(out.dtype)).sum() + seen.sum()
    return [out, seen, *torch.autograd.grad(loss, qkv)]


def opened(pattern: attndsl.Pattern, q: Tensor, k: Tensor, inputs: dict[str, Tensor], **options):
    """(request, tables, options) of a call, as the planner takes them."""
    asked = {"names": tuple(sorted(inputs)), "axes": (), "extents": (), "layout": ""} | options
    made = Options(**asked, backend="triton", scale=0.25)
    return Request.of(q, k, k, gradient=True), [inputs[n] for n in made.names], made


CASES = {name: (root, 45, 70, 2) for name, root in ROOTS.items()} | {
    "whole tiles, one key head": (ROOTS["documents_causal"], 64, 64, 1),
    "as many key heads": (ROOTS["heads that differ"], 40, 40, 4),
    "queries that are no tokens have no zero keys": (ROOTS["a zero key of each query"], 50, 30, 2),
}


# Cases that read inputs in ways of their own; the rest is run where there is time.
OFTEN = set(CASES) - {"documents", "padding", "reach of a head", "as many key heads"}
EACH = [
    pytest.param(*case, id=name, marks=[] if name in OFTEN else pytest.mark.slow)
    for name, case in CASES.items()
]


@pytest.mark.parametrize(("root", "q_len", "k_len", "kv_heads"), EACH)
def test_forward_and_backward_are_those_of_the_reference(root, q_len, k_len, kv_heads):
    p = attndsl.compile(f"{INPUTS}pattern p = {root}")
    inputs, qkv = given(p, q_len, k_len), tensors(q_len, k_len, kv_heads)
    assert p._planner.is_open(*opened(p, qkv[0], qkv[1], inputs))
    mine = results(p, qkv, backend="triton", **inputs)
    wide = tensors(q_len, k_len, kv_heads, torch.float64)
    for x, y in zip(wide, qkv, strict=True):
        x.data.copy_(y.data)
    exact = results(p, wide, backend="reference", **inputs)
    theirs = results(p, qkv, backend="reference", **inputs)
    names = "out", "lse", "dq", "dk", "dv"
    for name, a, truth, b in zip(names, mine, exact, theirs, strict=True):
        assert_close(a, truth, b, summand=8.0, terms=k_len, dtype=torch.float32, what=name)


PLACED = {
    "starts and lengths": ("causal", {"q_start": [10, -3], "kv_len": [30, 64]}),
    "what is left of a window": ("window(7, 2)", {"q_len": [20, 0], "k_start": [-4, 1]}),
    "a ring": ("causal and k < len(k) // 2 or q - k <= 4", {"k_pos": None}),
    "documents of a cache": ("doc[q] == doc[k]", {"kv_len": [30, 64]}),
    "zero keys of a cache": ("doc[q] == doc[k] and k < q zeros doc[q]", {"kv_len": [30, 64]}),
}


@pytest.mark.parametrize(("root", "at"), PLACED.values(), ids=PLACED)
def test_positions_are_not_read_either(root, at, monkeypatch):
    p = attndsl.compile(f"{INPUTS}pattern p = {root}")
    inputs, qkv = given(p, 20, 64), tensors(20, 64, 2)
    ring = torch.stack([torch.arange(64).roll(9) + 5, torch.arange(64).roll(30) - 1])
    told = {name: ring if x is None else torch.tensor(x) for name, x in at.items()}
    rows = rows_with_tokens(p._program, tuple(qkv), None, None, inputs, told)
    assert p._planner.is_open(*opened(p, rows.q, rows.k, rows.inputs, **numbers(rows)))
    theirs = results(p, qkv, backend="reference", **inputs, **told)
    for mine, truth in zip(
        results(p, qkv, backend="triton", **inputs, **told), theirs, strict=True
    ):
        assert torch.allclose(mine, truth, atol=2e-5)

    monkeypatch.setattr(Launch, "__call__", lambda self, call: None)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        told = {name: mode.from_tensor(x) for name, x in told.items()}
        fakes = tuple(mode.from_tensor(x.detach()) for x in qkv)
        rows = rows_with_tokens(p._program, fakes, None, None, inputs, told)
        found = p._planner.executable(*opened(p, rows.q, rows.k, rows.inputs, **numbers(rows)))
        out, lse = found.forward(rows.q, rows.k, rows.v, scale=0.25)
        found.backward(rows.q, rows.k, rows.v, out, lse, out, lse, scale=0.25)


def numbers(rows: Tokens) -> dict[str, tuple]:
    """The extents of a call on such rows, as options."""
    found = rows.extents or {}
    return {"axes": tuple(found), "extents": tuple(found.values())}


@pytest.mark.parametrize(
    "at",
    [{"kv_len": [20, 41]}, {"q_start": [0, 1 << 41]}, {"k_pos": [[3] * 40]}, {"kv_len": [-1, 2]}],
)
def test_positions_that_make_no_sense_stop_the_call(at):
    q, k, v = tensors(40, 40, 4)
    told = {name: torch.tensor(x) for name, x in at.items()}
    with pytest.raises(RuntimeError, match="numbers that the pattern cannot take"):
        attndsl.compile("causal")(q, k, v, backend="triton", **told)


PACKED = {
    "causal": ("causal", [0, 20, 20, 50], [0, 20, 20, 50]),
    "full": ("full", [0, 20, 20, 50], [0, 8, 20, 40]),
    "ends that differ": ("causal_window(7) or k == 0", [0, 9, 9, 25, 50], [0, 12, 15, 28, 40]),
    "lengths, from the start": (
        "align start = q + len(k) // 3 >= k and k < len(q) zeros len(k) % 3",
        [0, 9, 25, 25, 50],
        [0, 12, 12, 28, 40],
    ),
    "zero keys, queries ahead of all": ("= k <= q zeros 2", [0, 9, 25, 50], [0, 5, 20, 48]),
    "documents": ("doc[q] == doc[k] and k <= q", [0, 9, 9, 25, 50], [0, 12, 15, 28, 40]),
    "inputs of sequences, and of tokens by themselves": (
        "align start = doc[q] >= doc[k] or keep[k] and k < reach zeros if keep[q] then 1 else reach + batch",
        [0, 9, 25, 25, 40],
        [0, 12, 30, 35, 50],
    ),
}
OF_SEQUENCES = """
input doc: int[batch, pos]
input keep: bool[batch, pos]
input reach: int[batch]
"""


@pytest.mark.parametrize(("root", "of_q", "of_k"), PACKED.values(), ids=PACKED)
def test_bounds_of_packed_sequences_are_not_read_either(root, of_q, of_k, monkeypatch):
    p = attndsl.compile(OF_SEQUENCES + ("pattern p " if "zeros" in root else "pattern p = ") + root)
    everything = {
        "doc": torch.randint(-1, 2, (of_k[-1],)),
        "keep": torch.rand(of_k[-1]) < 0.6,
        "reach": torch.arange(len(of_k) - 1, dtype=torch.int32),
    }
    own = {table.name: everything[table.name] for table in p.ir.tables}
    call, bounds = attndsl.varlen(p), [torch.tensor(x) for x in (of_q, of_k)]
    lengths = of_q[-1], of_k[-1], of_k[-1]
    given = [x[0].transpose(0, 1).detach() for x in tensors(max(lengths), max(lengths), 2)]
    qkv = [x[:n].clone().requires_grad_() for x, n in zip(given, lengths, strict=True)]
    told = own | {"cu_seqlens_q": bounds[0], "cu_seqlens_k": bounds[1]}
    theirs = results(call, qkv, backend="reference", **told)
    mine = results(call, qkv, backend="triton", **told)
    for a, b in zip(mine, theirs, strict=True):
        assert torch.allclose(a, b, atol=2e-5)
    monkeypatch.setattr(Launch, "__call__", lambda self, call: None)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        inputs = {
            f"<cu_seqlens_{side}>": mode.from_tensor(x)
            for side, x in zip("qk", bounds, strict=True)
        } | {name: mode.from_tensor(x) for name, x in own.items()}
        q, k, v = (x.detach().transpose(0, 1)[None] for x in qkv)
        found = p._planner.executable(*opened(p, q, k, inputs))
        out, lse = found.forward(q, k, v, scale=0.25)
        found.backward(q, k, v, out, lse, out, lse, scale=0.25)


@pytest.mark.parametrize("bounds", [[0, 30, 20, 40], [1, 40], [0, 30]])
def test_bounds_that_make_no_sense_stop_the_call(bounds):
    q, k, v = (x[0].transpose(0, 1) for x in tensors(40, 40, 4))
    with pytest.raises(RuntimeError, match="bounds of packed sequences"):
        attndsl.varlen("causal")(q, k, v, torch.tensor(bounds), backend="triton")


def test_queries_that_read_no_entry_of_their_sequence_stop_the_call():
    q, k, v = (x[0].transpose(0, 1) for x in tensors(40, 40, 4))
    p = attndsl.compile(f"{INPUTS}pattern p align start = doc[q] == doc[k]")
    told = {"cu_seqlens_q": torch.tensor([0, 30, 40]), "cu_seqlens_k": torch.tensor([0, 20, 40])}
    with pytest.raises(RuntimeError, match="fewer entries than queries read"):
        attndsl.varlen(p)(q, k, v, doc=torch.zeros(40, dtype=torch.int64), **told, backend="triton")


def test_new_contents_are_scheduled_anew():
    p = attndsl.compile("documents_causal")
    q, k, v = tensors(70, 70, 4)
    doc = torch.zeros(BATCH, 70, dtype=torch.int64)
    first = p(q, k, v, doc=doc, backend="triton")
    doc[:, 30:] = 1
    again = p(q, k, v, doc=doc, backend="triton")
    assert torch.equal(first[:, :, :30], again[:, :, :30])
    assert not torch.allclose(first[:, :, 30:], again[:, :, 30:])


@pytest.mark.parametrize("root", ROOTS.values(), ids=ROOTS)
def test_nothing_is_read_to_the_host(root, monkeypatch):
    """Fake tensors hold nothing: whatever looks at a value, or makes a shape of one, fails."""
    p, launched = attndsl.compile(f"{INPUTS}pattern p = {root}"), []
    monkeypatch.setattr(Launch, "__call__", lambda self, call: launched.append(self))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        inputs = {name: mode.from_tensor(x) for name, x in given(p, 200, 300).items()}
        q, k = torch.empty(BATCH, HEADS, 200, 16), torch.empty(BATCH, 2, 300, 16)
        found = p._planner.executable(*opened(p, q, k, inputs))
        out, lse = found.forward(q, k, k, scale=0.25)
        grads = found.backward(q, k, k, out, lse, out, lse, scale=0.25)
        assert [x.shape for x in grads] == [q.shape, k.shape, k.shape]
        with pytest.raises(RuntimeError):
            inputs[p.ir.tables[0].name].sum().item()
    assert len(launched) >= 4


def test_the_way_from_inputs_to_lists_is_traced(monkeypatch):
    p, lists = attndsl.compile("documents_causal"), []
    monkeypatch.setattr(Launch, "__call__", lambda self, call: lists.extend(self._given))
    q, k, _ = tensors(200, 200, 2)
    inputs = given(p, 200, 200)
    p._planner.executable(*opened(p, q, k, inputs))  # what follows from shapes is found before

    def run(doc: Tensor) -> list[Tensor]:
        lists.clear()
        found = p._planner.executable(*opened(p, q, k, {"doc": doc}))
        out, lse = found.forward(q.detach(), k.detach(), k.detach(), scale=0.25)
        found.backward(q.detach(), k.detach(), k.detach(), out, lse, out, lse, scale=0.25)
        return [x for x in lists if isinstance(x, Tensor)]

    graph = make_fx(run)(inputs["doc"])
    called = {str(node.target) for node in graph.graph.nodes}
    assert not {"aten._local_scalar_dense.default", "aten.nonzero.default"} & called
    other = torch.arange(200).expand(BATCH, 200) // 37
    for mine, theirs in zip(graph(other), run(other), strict=True):
        assert torch.equal(mine, theirs)


def test_gradients_are_those_of_the_forward():
    p = attndsl.compile("documents_causal")
    q, k, v = tensors(70, 70, 4)
    doc = given(p, 70, 70)["doc"]
    exact = results(p, [q, k, v], backend="triton", doc=doc)
    out, lse = p(q, k, v, doc=doc, backend="triton", return_lse=True)
    doc.zero_()
    torch.manual_seed(5)
    loss = (out * torch.randn(out.shape)).sum() + lse.sum()
    for mine, theirs in zip(torch.autograd.grad(loss, (q, k, v)), exact[2:], strict=True):
        assert torch.equal(mine, theirs)


def test_a_derivative_of_other_contents_is_refused():
    p = attndsl.compile("documents_causal")
    q, k, v = tensors(40, 40, 4)
    doc = given(p, 40, 40)["doc"]
    out = p(q, k, v, doc=doc, backend="triton")
    (dq,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    (again,) = torch.autograd.grad(dq.square().sum(), k, retain_graph=True)
    assert again.isfinite().all()
    doc.zero_()
    with pytest.raises((attndsl.AttnDslError, RuntimeError), match="written to between"):
        torch.autograd.grad(out.square().sum(), q, create_graph=True)
    (under,) = torch.func.vjp(lambda x: p(x, k, v, doc=doc, backend="triton"), q)[1](out.detach())
    assert under.shape == q.shape


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        ("documents", {"doc": torch.full((BATCH, 40), 1 << 62)}),
        ("padding", {"keep": torch.full((BATCH, 40), 2)}),
        (
            f"{INPUTS}pattern p = doc[q] == doc[k] zeros doc[q]",
            {"doc": torch.full((BATCH, 40), -1)},
        ),
    ],
)
def test_numbers_that_a_pattern_cannot_take_stop_the_call(text, inputs):
    q, k, v = tensors(40, 40, 4)
    with pytest.raises(RuntimeError, match="numbers that the pattern cannot take"):
        attndsl.compile(text)(q, k, v, backend="triton", **inputs)


def test_what_a_query_of_zero_keys_alone_holds_reaches_nothing():
    p = attndsl.compile(f"{INPUTS}pattern p = k < q and doc[q] == doc[k] zeros 1")
    q, k, v = tensors(40, 40, 2)
    q.data[:, :, 0] = torch.nan  # the first sees no key
    found = results(p, [q, k, v], backend="triton", **given(p, 40, 40))
    assert all(x.isfinite().all() for x in found)


def asking(doc: Tensor, most: Tensor, **options):
    q, k, v = tensors(40, 40, 2)
    return attndsl.compile(ASKING)(q, k, v, doc=doc, most=most, **options)


def test_what_a_pattern_asks_of_its_inputs_is_judged_on_the_device(monkeypatch):
    p, (q, k, _) = attndsl.compile(ASKING), tensors(40, 40, 2)
    inputs = given(attndsl.compile("documents"), 40, 40)
    inputs["most"] = torch.randint(0, 41, (BATCH, HEADS))
    assert p._planner.is_open(*opened(p, q, k, inputs))
    theirs = asking(**inputs, backend="reference")
    assert torch.allclose(asking(**inputs, backend="triton"), theirs, atol=1e-5)
    for name, place, value in (("most", (1, 2), 41), ("most", (0, 0), -1), ("doc", (1, 0), 9)):
        wrong = inputs[name].clone()
        wrong[place] = value
        with pytest.raises(RuntimeError, match="numbers that the pattern cannot take"):
            asking(**inputs | {name: wrong}, backend="triton")
    monkeypatch.setattr(Launch, "__call__", lambda self, call: None)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fakes = {name: mode.from_tensor(x) for name, x in inputs.items()}
        p._planner.executable(*opened(p, q, k, fakes))


def test_what_a_pattern_asks_at_positions_is_judged_on_the_host():
    doc, most = torch.arange(40).expand(BATCH, 40), torch.full((BATCH, HEADS), 20)
    fill = torch.tensor([9, 30])
    with pytest.raises(attndsl.AttnDslError, match="A507"):
        asking(doc, most, kv_len=fill, backend="triton")
    made = [asking(doc, most.clamp(max=9), kv_len=fill, backend=b) for b in ("triton", "reference")]
    assert torch.allclose(*made, atol=1e-5)


def test_stamps_tell_contents_and_their_places_apart():
    tables = [torch.arange(50), torch.zeros(3, 4, dtype=torch.bool)]
    stamp = stamp_on_device(tables)
    assert torch.equal(stamp, stamp_on_device([x.clone() for x in tables]))
    for where, value in ((3, 4), (4, 3), (0, 1 << 40), (49, -1)):
        other = tables[0].clone()
        other[where] = value
        assert torch.equal(stamp, stamp_on_device([other, tables[1]])) == (where == value)
    swapped = tables[0].clone()
    swapped[[3, 9]] = swapped[[9, 3]]
    assert not torch.equal(stamp, stamp_on_device([swapped, tables[1]]))


def test_what_cannot_be_scheduled_so_is_read_on_the_host():
    p = attndsl.compile(
        "input past: int[q, n]\npattern p = not any j in 0..len(past.n): past[q, j] == k"
    )
    q, k, v = tensors(40, 40, 4)
    inputs = {"past": torch.randint(-1, 40, (40, 3))}
    assert not p._planner.is_open(*opened(p, q, k, inputs))
    exact = p(q, k, v, backend="reference", inputs=inputs)
    assert torch.allclose(p(q, k, v, backend="triton", inputs=inputs), exact, atol=1e-5)
