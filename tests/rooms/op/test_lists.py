"""Patterns that name keys by lists of each query: computed over the lists, equal to the dense meaning."""

from collections.abc import Iterator
from unittest import mock

import numpy as np
import pytest
import torch

import attndsl
from attndsl.backends import list_batches, listed
from attndsl.schedule import Lists

TOKENS = "input idx: list[batch, head, q, n]\npattern p = k <= q and k in idx[q]"
BLOCKS = "input idx: list[batch, head, q, n]\npattern p = k <= q and k // 16 in idx[q]"
# name: (program, dims of idx, numbers that an entry may take)
PATTERNS = {
    "tokens": (TOKENS, "bhqn", 1),
    "blocks": (BLOCKS, "bhqn", 16),
    "written out": (
        "input idx: int[q, n]\npattern p = any j in 1..len(idx.n): k // 64 == idx[q, j]", "qn", 64,
    ),
    "of query blocks": (
        "input idx: list[batch, blocks, n]\npattern p = k <= q and k // 64 in idx[q // 64]",
        "btn", 64,
    ),
    "of groups, and the own block": (
        ("input idx: list[batch, pairs, q, n]\n"
        "pattern p = k <= q and (k // 32 in idx[head // 2, q] or k // 32 == q // 32)"),
        "bpqn", 32,
    ),
    "documents in disorder": (
        ("input idx: list[q, n]\ninput doc: int[batch, pos]\n"
        "pattern p = doc[q] == doc[k] and k // 64 in idx[q] and k % 5 != 2"),
        "qn", 64,
    ),
    "with a window and sinks": (
        "input idx: list[q, n]\npattern p = k <= q and (k // 64 in idx[q] or q - k < 70 or k < 3)",
        "qn", 64,
    ),
    "from the start": (
        "input idx: list[q, n]\npattern p align start = k <= q + 5 and k // 64 in idx[q]", "qn", 64,
    ),
    "ranges": (
        ("input idx: int[q, n]\n"
        "pattern p = any j in 0..len(idx.n): 0 <= k - idx[q, j] < 10 + j and k != q"),
        "qn", 1,
    ),
}  # fmt: skip


@pytest.fixture
def over_lists(monkeypatch: pytest.MonkeyPatch) -> Iterator[mock.Mock]:
    """Lists are taken at any length, and it is seen that they are."""
    monkeypatch.setattr(listed, "pays", lambda *_: True)
    with mock.patch.object(listed, "_attend", side_effect=listed._attend) as spy:
        yield spy


def entries(dims: str, sizes: dict[str, int], unit: int, seed: int) -> torch.Tensor:
    """Entries that repeat, name no key, or lie past the last one."""
    make = torch.Generator().manual_seed(seed)
    shape = [sizes[dim] for dim in dims]
    high = -(-sizes["k"] // unit) + 2
    idx = torch.randint(-2, high, shape, generator=make)
    idx[..., -1] = idx[..., 0]
    return idx


def both(program: str, given: list[torch.Tensor], **inputs) -> list[list[torch.Tensor]]:
    """Output, log-sum-exp and gradients of the CPU back end and of the dense meaning."""
    p, found = attndsl.compile(program), []
    for backend in ("auto", "reference"):
        tracked = [x.clone().requires_grad_() for x in given]
        out, lse = p(*tracked, return_lse=True, backend=backend, **inputs)
        seen = lse > -torch.inf
        loss = (out * out.detach().cos()).sum() + torch.where(seen, lse, 0.0).sin().sum()
        found.append([out.detach(), lse.detach(), *torch.autograd.grad(loss, tracked)])
    return found


def tensors(batch: int, heads: int, kv_heads: int, q_len: int, k_len: int) -> list[torch.Tensor]:
    make = torch.Generator().manual_seed(q_len)
    shapes = [(batch, heads, q_len, 8), (batch, kv_heads, k_len, 8), (batch, kv_heads, k_len, 12)]
    return [torch.randn(shape, generator=make, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("lengths", [(300, 300), (130, 333), (333, 257)])
@pytest.mark.parametrize("name", PATTERNS)
def test_they_are_computed_as_the_dense_meaning(name: str, lengths: tuple[int, int], over_lists):
    program, dims, unit = PATTERNS[name]
    q_len, k_len = lengths
    if "doc" in program and q_len != k_len:
        pytest.skip("documents of one sequence")
    sizes = {"b": 2, "h": 4, "p": 2, "q": q_len, "k": k_len, "n": 5, "t": -(-max(lengths) // 64)}
    inputs = {"idx": entries(dims, sizes, unit, seed=q_len)}
    if "doc" in program:
        inputs["doc"] = torch.arange(2 * k_len).reshape(2, -1) * 7 % 3
    mine, dense = both(program, tensors(2, 4, 2, q_len, k_len), **inputs)
    assert over_lists.called
    for ours, theirs in zip(mine, dense, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("by_block", "most"), [(1e9, 65), (1.0, 65), (1.0, 1)])
def test_each_way_to_gather_gives_the_same(by_block: float, most: int, over_lists):
    """Keys gathered for queries, queries for blocks of keys, keys for tiles of queries."""
    sizes = {"b": 1, "h": 2, "q": 200, "k": 200, "n": 40}
    idx = entries("bhqn", sizes, 1, seed=1)
    with (
        mock.patch.object(list_batches, "BY_BLOCK", by_block),
        mock.patch.object(list_batches, "MOST", most),
        mock.patch.object(list_batches, "BY_TILE", 0.0),
        mock.patch.object(list_batches, "WIDEST", 2),
        mock.patch.object(listed, "CACHED", 1 << 12),
    ):
        mine, dense = both(TOKENS, tensors(1, 2, 2, 200, 200), idx=idx)
    for ours, theirs in zip(mine, dense, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "told",
    [
        {"q_start": 40, "kv_len": 290},
        {"q_start": torch.tensor([3, 57]), "kv_len": torch.tensor([260, 289])},
    ],
)
def test_tokens_stand_where_a_call_says(told, over_lists):
    sizes = {"b": 2, "h": 2, "q": 300, "k": 300, "n": 3}
    idx = entries("btn", {**sizes, "t": 6}, 64, seed=3)
    program, *_ = PATTERNS["of query blocks"]
    mine, dense = both(program, tensors(2, 2, 2, 200, 300), idx=idx, **told)
    assert over_lists.called
    for ours, theirs in zip(mine, dense, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-11)


def test_a_token_decoded_sees_what_the_last_row_of_prefill_sees(over_lists):
    q, k, v = tensors(1, 2, 2, 300, 300)
    idx = entries("bhqn", {"b": 1, "h": 2, "q": 300, "k": 300, "n": 5}, 16, seed=4)
    p = attndsl.compile(BLOCKS)
    whole, last = p(q, k, v, idx=idx), p(q[:, :, -1:], k, v, idx=idx[:, :, -1:])
    assert over_lists.called
    assert torch.allclose(whole[:, :, -1:], last, rtol=1e-9, atol=1e-11)


def test_what_is_not_finite_reaches_those_that_see_it(over_lists):
    q, k, v = tensors(1, 1, 1, 300, 300)
    idx = entries("bhqn", {"b": 1, "h": 1, "q": 300, "k": 300, "n": 5}, 1, seed=5)
    k[0, 0, 100], v[0, 0, 30, 2] = torch.nan, torch.inf
    out = attndsl.compile(TOKENS)(q, k, v, idx=idx)
    dense = attndsl.compile(TOKENS).mask(300, heads=1, idx=idx)[0, 0]
    assert torch.equal(out[0, 0].isnan().all(-1), dense[:, 100])
    assert torch.equal(out[0, 0, :, 2].isfinite(), ~(dense[:, 100] | dense[:, 30]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_inputs_give_equal_bits(dtype: torch.dtype, over_lists):
    given = [x.to(dtype) for x in tensors(2, 4, 2, 300, 300)]
    idx = entries("bhqn", {"b": 2, "h": 4, "q": 300, "k": 300, "n": 5}, 16, seed=6)
    p = attndsl.compile(BLOCKS)
    tracked = [x.clone().requires_grad_() for x in given]
    runs = []
    for _ in range(2):
        out = p(*tracked, idx=idx)
        runs.append([out, *torch.autograd.grad(out.float().sum(), tracked)])
    assert all(map(torch.equal, *runs))
    exact = p(*(x.double() for x in given), idx=idx, backend="reference")
    assert torch.allclose(runs[0][0].double(), exact, atol=1e-5 if dtype == torch.float32 else 0.05)


def test_memory_follows_the_lists_and_not_the_square():
    """Bytes of what a call keeps, twice the tokens for twice the length."""
    held = []
    for count in (2048, 4096):
        idx = torch.randint(0, count // 64, (count, 4), generator=torch.Generator().manual_seed(0))
        p = attndsl.compile("input idx: list[q, n]\npattern p = k <= q and k // 64 in idx[q]")
        lists = p._program.lists(p._program.call(count, count, 1, 1, None, {"idx": idx}))
        assert lists is not None
        kernels = listed.ListKernels.of(lists)
        assert kernels is not None, "lists pay"
        held.append(kernels.nbytes)
    assert held[1] < 2.3 * held[0]


@pytest.mark.parametrize(
    "program",
    [
        "input doc: int[pos]\npattern p = k <= q and doc[q] == doc[k]",  # no list: keys are compared
        "input n: int[q]\npattern p = k <= n[q]",  # a bound, and no key is named
        "input idx: list[q, n]\npattern p = not k in idx[q]",
        "input idx: int[q, n]\npattern p = any j in 0..len(idx.n): (k + j) % 7 == idx[q, j]",
        "pattern p = any j in 0..4: q - k == pow2(j)",
    ],
)
def test_other_relations_are_left_to_tiles(program: str):
    names = {"doc": (64,), "n": (64,), "idx": (64, 3)}
    p = attndsl.compile(program)
    inputs = {n: np.zeros(s, np.int64) for n, s in names.items() if f"input {n}:" in program}
    assert p._program.lists(p._program.call(64, 64, 1, 1, None, inputs)) is None


@pytest.mark.parametrize(
    "name", ["anchor_attention", "dynamic_mask", "infllm2", "moba", "nsa_selected", "tcpa"]
)
def test_lists_of_published_patterns_are_their_dense_meaning(name: str):
    example = attndsl.library.example(name)
    (batch, heads, q_len, _), k_len = example.q.shape, example.k.shape[2]
    program = example.pattern._program
    inputs = {key: x.numpy() for key, x in example.inputs.items()}
    call = program.call(q_len, k_len, batch, heads, example.extents, inputs)
    lists = program.lists(call)
    assert lists is not None
    assert np.array_equal(written_out(lists, batch, heads), program.dense(call))


def written_out(lists: Lists, batch: int, heads: int) -> np.ndarray:
    """The pairs of lists, bool [batch, heads, q_len, k_len]."""
    found = np.zeros((len(lists.classes), lists.q_len, -(-lists.k_len // 64), 64), bool)
    for seen, chunks in zip(found, lists.classes, strict=True):
        for chunk in chunks:
            bits = np.unpackbits(chunk.bits.view(np.uint8), bitorder="little")
            seen[chunk.queries, chunk.blocks] |= bits.reshape(-1, 64) != 0
    pairs = found.reshape(len(found), lists.q_len, -1)[..., : lists.k_len][lists.class_of]
    return np.broadcast_to(pairs, (batch, heads, *pairs.shape[2:]))


def test_values_narrower_than_keys_are_read_as_they_are():
    p = attndsl.compile("input near: list[batch, head, q, 4]\npattern p = k in near[q]")
    q, k, v = torch.randn(1, 1, 17, 32), torch.randn(1, 1, 8, 32), torch.randn(1, 1, 8, 16)
    near = torch.randint(-1, 8, (1, 1, 17, 4))
    out = p(q, k, v, near=near)
    expected = p(q, k, v, near=near, backend="reference")
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
