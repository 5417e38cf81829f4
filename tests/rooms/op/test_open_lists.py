"""Lists that are made, inverted and walked where they lie: exact, and nothing that they hold is read to the host."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import attndsl
from attndsl.backends import Pages, Request, list_entries, protocol, triton_lists
from attndsl.backends.launching import Launch
from attndsl.backends.triton import INTERPRETED
from attndsl.op.planning import Options
from tests.support.tolerances import assert_close

pytestmark = pytest.mark.skipif(not INTERPRETED, reason="these run in Triton's interpreter")

BATCH, HEADS, KV_HEADS = 2, 2, 1
TOKENS = "input idx: list[batch, head, q, n]\npattern p = k <= q and k in idx[q]"
BLOCKS = "input idx: list[batch, head, q, n]\npattern p = k <= q and k // 64 in idx[q]"
# name: (program, dims of idx, numbers that an entry may take, queries, keys)
PATTERNS = {
    "single tokens of more queries than keys": (TOKENS, "bhqn", 1, 43, 40),
    "blocks of each head, and fewer queries": (BLOCKS, "bhqn", 64, 40, 130),
    "of groups, and the own block": (
        ("input idx: list[batch, pairs, q, n]\n"
        "pattern p = k <= q and (k // 32 in idx[1 - head, q] or k // 32 == q // 32)"),
        "bpqn", 32, 70, 70,
    ),
    "documents in disorder, of query blocks": (
        ("input idx: list[blocks, n]\ninput doc: int[batch, pos]\n"
        "pattern p = doc[q] == doc[k] and k // 48 in idx[q // 48] and k % 5 != 2"),
        "tn", 48, 70, 70,
    ),
    "with a window and sinks": (
        "input idx: list[q, n]\npattern p = k <= q and (k // 64 in idx[q] or q - k < 70 or k < 3)",
        "qn", 64, 40, 70,
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def lists_made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Takes the CPU for a device whose contents cost much to read, and notes the calls that run over lists."""
    monkeypatch.setattr(protocol, "SCHEDULING", {"cpu", "cuda"})
    monkeypatch.setattr(triton_lists, "LONGEST", 32)  # so that blocks have several items
    monkeypatch.setattr(triton_lists, "MERGED", 64)  # programs take long in the interpreter
    made, original = list[int](), list_entries.EntryMaker.entries

    def noted(self: list_entries.EntryMaker, tables: dict[str, Tensor]) -> list_entries.Entries:
        made.append(self.lists.entries)
        return original(self, tables)

    monkeypatch.setattr(list_entries.EntryMaker, "entries", noted)
    return made


def inputs_of(name: str) -> dict[str, Tensor]:
    """Entries that repeat, name no key, or lie past the last one."""
    program, dims, unit, q_len, k_len = PATTERNS[name]
    sizes = {"b": BATCH, "h": HEADS, "p": 2, "q": q_len, "n": 3, "t": -(-q_len // unit)}
    torch.manual_seed(1)
    idx = torch.randint(-1, -(-k_len // unit) + 1, [sizes[dim] for dim in dims])
    idx[..., -1] = idx[..., 0]
    doc = torch.arange(BATCH * k_len).reshape(BATCH, -1) * 7 % 3
    return {"idx": idx} | ({"doc": doc} if "doc" in program else {})


def tensors(q_len: int, k_len: int) -> list[Tensor]:
    torch.manual_seed(2)
    shapes = (HEADS, q_len, 16), (KV_HEADS, k_len, 16), (KV_HEADS, k_len, 24)
    return [torch.randn(BATCH, *shape) for shape in shapes]


def results(p, given: list[Tensor], dtype=torch.float32, **options) -> list[Tensor]:
    tracked = [x.to(dtype).requires_grad_() for x in given]
    out, lse = p(*tracked, return_lse=True, **options)
    seen = torch.where(lse > -torch.inf, lse, 0.0)
    loss = (out * torch.arange(out.numel()).view(out.shape).sin()).sum() + seen.sin().sum()
    return [out, seen, *torch.autograd.grad(loss, tracked)]


@pytest.mark.parametrize("name", PATTERNS)
def test_forward_and_backward_are_those_of_the_dense_meaning(name: str, lists_made: list[int]):
    program, *_, q_len, k_len = PATTERNS[name]
    p, inputs, given = attndsl.compile(program), inputs_of(name), tensors(q_len, k_len)
    mine = results(p, given, backend="triton", **inputs)
    assert lists_made
    exact = results(p, given, torch.float64, backend="reference", **inputs)
    theirs = results(p, given, backend="reference", **inputs)
    names = "out", "lse", "dq", "dk", "dv"
    for what, a, truth, b in zip(names, mine, exact, theirs, strict=True):
        assert_close(a, truth, b, summand=8.0, terms=k_len, dtype=torch.float32, what=what)


def test_lists_may_be_longer_than_there_are_blocks(lists_made: list[int]):
    p, given = attndsl.compile(TOKENS), tensors(8, 140)
    torch.manual_seed(5)
    idx = torch.randint(-1, 140, (BATCH, HEADS, 8, 300))
    mine = results(p, given, backend="triton", idx=idx)
    assert set(lists_made) == {3}
    for a, b in zip(mine, results(p, given, backend="reference", idx=idx), strict=True):
        assert torch.allclose(a, b, atol=1e-5)


def test_shares_that_fit_no_budget_are_made_head_by_head(monkeypatch: pytest.MonkeyPatch):
    given, idx = tensors(20, 70), torch.randint(0, 2, (BATCH, HEADS, 20, 2))
    p = attndsl.compile(BLOCKS)
    whole = results(p, given, backend="triton", idx=idx)
    monkeypatch.setattr(triton_lists, "BUDGET", 1)
    assert all(map(torch.equal, whole, results(p, given, backend="triton", idx=idx)))


def test_a_page_that_is_not_there_has_no_key(lists_made: list[int]):
    torch.manual_seed(3)
    pool = torch.randn(5, KV_HEADS, 16, 16)
    table = torch.tensor([[3, 0, -1, 4], [1, 2, 0, 4]])
    q, idx = torch.randn(BATCH, HEADS, 2, 16), torch.randint(0, 2, (BATCH, HEADS, 2, 2))
    pool[table[1, 3], :, 9:] = torch.nan  # which no query sees
    p = attndsl.compile(BLOCKS.replace("64", "32").replace("k <= q", "k < 57"))
    pages = Pages(table, pool, pool)
    request, tables, options = opened(p, q, pages.stand_ins()[0], {"idx": idx})
    found = p._planner.executable(replace(request, gradient=False), tables, options)
    out, _ = found.forward(q, *pages.stand_ins(), scale=0.25, pages=pages)
    assert lists_made
    rows = torch.cat([pool[table[:, i]] for i in range(4)], 2).nan_to_num()
    there = torch.ones(BATCH, 1, 2, 64, dtype=torch.bool)
    there[0, ..., 32:48] = False
    live = p.mask(2, 64, heads=HEADS, batch=BATCH, idx=idx) & there
    scores = (q @ rows.repeat_interleave(2, 1).mT / 4).masked_fill(~live, -torch.inf)
    expected = scores.softmax(-1).nan_to_num() @ rows.repeat_interleave(2, 1)
    assert torch.allclose(out, expected, atol=1e-5)


def opened(p, q: Tensor, k: Tensor, inputs: dict[str, Tensor]):
    """(request, tables, options) of a call, as the planner takes them."""
    names = tuple(sorted(inputs))
    options = Options(names, (), (), layout="", backend="triton", scale=0.25)
    return Request.of(q, k, k, gradient=True), [inputs[name] for name in names], options


@pytest.mark.parametrize("name", PATTERNS)
def test_nothing_is_read_to_the_host(name: str, monkeypatch: pytest.MonkeyPatch):
    """Fake tensors hold nothing: whatever looks at a value, or makes a shape of one, fails."""
    program, *_, q_len, k_len = PATTERNS[name]
    p, launched = attndsl.compile(program), list[Launch]()
    monkeypatch.setattr(Launch, "__call__", lambda self, call: launched.append(self))
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        inputs = {key: mode.from_tensor(x) for key, x in inputs_of(name).items()}
        q, k = torch.empty(BATCH, HEADS, q_len, 16), torch.empty(BATCH, KV_HEADS, k_len, 16)
        found = p._planner.executable(*opened(p, q, k, inputs))
        out, lse = found.forward(q, k, k, scale=0.25)
        grads = found.backward(q, k, k, out, lse, out, lse, scale=0.25)
    assert [x.shape for x in grads] == [q.shape, k.shape, k.shape]
    assert len(launched) == 7


def test_the_way_from_entries_to_items_is_traced(monkeypatch: pytest.MonkeyPatch):
    p, lists = attndsl.compile(BLOCKS), list[object]()
    monkeypatch.setattr(Launch, "__call__", lambda self, call: lists.extend(self._given))
    q, k, _ = tensors(40, 150)
    idx = inputs_of("blocks of each head, and fewer queries")["idx"]
    p._planner.executable(
        *opened(p, q, k, {"idx": idx})
    )  # what follows from shapes is found before

    def run(idx: Tensor) -> list[Tensor]:
        lists.clear()
        found = p._planner.executable(*opened(p, q, k, {"idx": idx}))
        found.forward(q, k, k, scale=0.25)
        return [x for x in lists if isinstance(x, Tensor)]

    graph = make_fx(run)(idx)
    called = {str(node.target) for node in graph.graph.nodes}
    assert not {"aten._local_scalar_dense.default", "aten.nonzero.default"} & called
    for mine, theirs in zip(graph(idx.flip(2)), run(idx.flip(2)), strict=True):
        assert torch.equal(mine, theirs)


def test_a_call_compiles_as_one_graph():
    given, p = tensors(20, 70), attndsl.compile(BLOCKS)
    idx = torch.randint(0, 2, (BATCH, HEADS, 20, 2))

    @torch.compile(backend="aot_eager", fullgraph=True)
    def call(q: Tensor, k: Tensor, v: Tensor, idx: Tensor) -> Tensor:
        return p(q, k, v, idx=idx, backend="triton") * 2

    assert torch.equal(call(*given, idx), p(*given, idx=idx, backend="triton") * 2)


@pytest.mark.parametrize(
    ("program", "shape"),
    [
        ("input lo: int[q, n]\npattern p = any j in 0..len(lo.n): lo[q, j] <= k <= lo[q, j] + q", (40, 2)),
        ("input idx: list[q, n]\npattern p = k % 3 == 1 and k // 64 in idx[q] or k // 64 == q // 64", (40, 2)),
    ],
)  # fmt: skip
def test_what_shapes_do_not_tell_is_read_on_the_host(
    program: str, shape: tuple[int, ...], lists_made: list[int]
):
    name = program.split("input ")[1].split(":")[0]
    inputs = {name: torch.randint(0, 40, shape)}
    p, given = attndsl.compile(program), tensors(40, 40)
    out = p(*given, backend="triton", **inputs)
    assert not lists_made
    assert torch.allclose(out, p(*given, backend="reference", **inputs), atol=1e-5)
