"""Masks by the arguments of other kernels, against loops over rows, columns and entries in plain NumPy."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

import attndsl

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Case:
    """A call of a pattern, and the dense mask [batch, heads, queries, keys] that a loop makes of its inputs."""

    pattern: str
    lengths: tuple[int, int]
    inputs: dict[str, Array]
    expected: Array
    values: dict[str, object] = field(default_factory=dict)


def filled(shape: tuple[int, ...], rule: Callable[..., bool]) -> Array:
    mask = np.zeros(shape, dtype=bool)
    for place in np.ndindex(shape):
        mask[place] = rule(*place)
    return mask


def offsets(lengths: list[int]) -> Array:
    return np.array([sum(lengths[:i]) for i in range(len(lengths) + 1)])


# ---------------------------------------------------------------------------- packed and padded batches


def packed(
    q_lengths: list[int], k_lengths: list[int], left: int | None, right: int | None
) -> Array:
    """Sequence by sequence: query i of m stands where key i + n - m of n does."""
    mask = np.zeros((1, 1, sum(q_lengths), sum(k_lengths)), dtype=bool)
    row = column = 0
    for m, n in zip(q_lengths, k_lengths, strict=True):
        for i, j in itertools.product(range(m), range(n)):
            ahead = j - (i + n - m)
            above = left is None or ahead >= -left
            mask[0, 0, row + i, column + j] = above and (right is None or ahead <= right)
        row, column = row + m, column + n
    return mask


def varlen_cases() -> Iterator[Case]:
    batches = [([3, 5, 1, 4], [3, 5, 1, 4]), ([2, 1, 0, 6, 3], [4, 7, 3, 0, 1]), ([9], [4])]
    for q_lengths, k_lengths in batches:
        inputs = {"cu_seqlens_q": offsets(q_lengths), "cu_seqlens_k": offsets(k_lengths)}
        at = (sum(q_lengths), sum(k_lengths))
        for left, right in [(None, None), (2, None), (None, 0), (1, 2), (0, 0)]:
            values = {"left": -1 if left is None else left, "right": -1 if right is None else right}
            yield Case("varlen", at, inputs, packed(q_lengths, k_lengths, left, right), values)
        yield Case("varlen_causal", at, inputs, packed(q_lengths, k_lengths, None, 0))
        yield Case("varlen_causal", at, inputs, packed(q_lengths, k_lengths, 3, 0), {"left": 3})


def padded(q_used: list[int], k_used: list[int], shape: tuple[int, int], *window: int) -> Array:
    mask = np.zeros((len(k_used), 1, *shape), dtype=bool)
    for b, (m, n) in enumerate(zip(q_used, k_used, strict=True)):
        bounds = [None if side == -1 else side for side in window]
        mask[b, 0, :m, :n] = packed([m], [n], *bounds)[0, 0]
    return mask


def used_cases() -> Iterator[Case]:
    keys, queries = [11, 0, 4, 7], [5, 2, 0, 3]
    for window in [(-1, -1), (-1, 0), (2, 1)]:
        values = {"left": window[0], "right": window[1]}
        inputs = {"seqused_k": np.array(keys)}
        yield Case("used", (5, 11), inputs, padded([5] * 4, keys, (5, 11), *window), values)
        inputs = inputs | {"seqused_q": np.array(queries)}
        yield Case("used_pairs", (5, 11), inputs, padded(queries, keys, (5, 11), *window), values)


def window_cases() -> Iterator[Case]:
    for left, right in itertools.product((-1, 0, 3), repeat=2):
        sides = [None if side == -1 else side for side in (left, right)]
        for m, n in [(9, 9), (4, 9)]:
            values = {"left": left, "right": right}
            yield Case("flash_window", (m, n), {}, packed([m], [n], *sides), values)


# ---------------------------------------------------------------------------- columns, slices


def columns(bounds: Array, rows: int, causal: bool) -> Array:
    """Column by column: everything is seen, then intervals of rows are taken away."""
    batch, heads, length, count = bounds.shape
    mask = np.ones((batch, heads, rows, length), dtype=bool)
    for b, h, j in np.ndindex(batch, heads, length):
        column, given = mask[b, h, :, j], [int(x) for x in bounds[b, h, j]]
        if causal:
            column[: max(0, j - (length - rows))] = False
            column[given[0] : given[1] if count == 2 else rows] = False
        elif count == 2:
            column[given[0] :] = False
            column[: given[1]] = False
        else:
            column[given[0] : given[1]] = False
            column[given[2] : given[3]] = False
    return mask


def flashmask_cases() -> Iterator[Case]:
    random = np.random.default_rng(0)
    for (causal, count), (m, n) in itertools.product(
        [(True, 1), (True, 2), (False, 2), (False, 4)], [(10, 10), (6, 9)]
    ):
        bounds = random.integers(0, m + 1, (2, 2, n, count))
        inputs, values = {"startend_row_indices": bounds}, {"causal": causal}
        yield Case("flashmask", (m, n), inputs, columns(bounds, m, causal), values)


def sliced(q_ranges: Array, k_ranges: Array, kinds: Array, shape: tuple[int, int]) -> Array:
    """Slice by slice, each drawn as the lower right or upper left triangle of its rectangle, or both."""
    mask = np.zeros((1, 1, *shape), dtype=bool)
    for (top, bottom), (first, last), kind in zip(q_ranges, k_ranges, kinds, strict=True):
        m, n = bottom - top, last - first
        for i, j in itertools.product(range(m), range(n)):
            lower = (m - 1 - i) <= (n - 1 - j)
            upper = j >= i
            seen = [True, lower, upper, lower and upper][kind]
            mask[0, 0, top + i, first + j] |= seen
    return mask


def slice_cases() -> Iterator[Case]:
    random = np.random.default_rng(1)
    for count, shape in [(0, (5, 5)), (1, (6, 9)), (5, (12, 12)), (40, (30, 24))]:
        ranges = [np.sort(random.integers(0, n + 1, (count, 2)), axis=1) for n in shape]
        kinds = random.integers(0, 4, count)
        inputs = {"q_ranges": ranges[0], "k_ranges": ranges[1], "attn_type_map": kinds}
        yield Case("slices", shape, inputs, sliced(*ranges, kinds, shape))
    tall, wide = np.array([[0, 5], [0, 2]]), np.array([[0, 2], [0, 5]])
    for kind in range(4):  # the two shapes that the kinds are told by
        for q_range, k_range in itertools.product((tall[:1], tall[1:]), (wide[:1], wide[1:])):
            inputs = {"q_ranges": q_range, "k_ranges": k_range, "attn_type_map": np.array([kind])}
            yield Case("slices", (5, 5), inputs, sliced(q_range, k_range, np.array([kind]), (5, 5)))


# ---------------------------------------------------------------------------- blocks


def block_cases() -> Iterator[Case]:
    random = np.random.default_rng(2)
    m, n, bq, bk = 11, 14, 4, 3  # the last block of each side is cut off
    rows, cells = 3, 5
    marks = random.random((2, 2, rows, cells)) < 0.4
    expected = filled((2, 2, m, n), lambda b, h, i, j: marks[b, h, i // bq, j // bk])
    values: dict[str, object] = {"bq": bq, "bk": bk}
    yield Case("block_bitmap", (m, n), {"block_mask": marks}, expected, values)
    counts, places = (
        marks.sum(-1),
        np.argsort(~marks, axis=-1, kind="stable"),
    )  # the rest is ignored
    inputs = {"kv_num_blocks": counts, "kv_indices": places}
    yield Case("block_lists", (m, n), inputs, expected, values)
    one = marks[:1, :1]
    inputs = {"indptr": offsets(list(one[0, 0].sum(-1))), "indices": np.nonzero(one[0, 0])[1]}
    yield Case("block_rows", (m, n), inputs, expected[:1, :1], values)


# ---------------------------------------------------------------------------- trees


def ancestry(parents: list[list[int]], queries: int, keys: int) -> Array:
    """Walks from each node to the root."""
    nodes = len(parents[0])
    first = keys - nodes
    mask = np.zeros((len(parents), 1, queries, keys), dtype=bool)
    for b, i in itertools.product(range(len(parents)), range(queries)):
        position = i + keys - queries
        mask[b, 0, i, : min(first, position + 1)] = True
        node = position - first
        while node >= 0:
            mask[b, 0, i, first + node] = True
            node = parents[b][node]
    return mask


def tree_cases() -> Iterator[Case]:
    medusa = [[-1, 0, 0, 0, 1, 1, 2, 4], [-1, 0, 1, 2, 3, 4, 5, 6]]
    forest = [[2, -1, -1, 0, 0, 1, 3, -1]]  # children may stand before their parents
    for parents in (medusa, forest, [[-1]]):
        nodes = len(parents[0])
        inputs = attndsl.subtrees(parents)
        for queries, keys in [(nodes, nodes), (nodes, nodes + 6), (nodes + 3, nodes + 3)]:
            yield Case("tree", (queries, keys), inputs, ancestry(parents, queries, keys))


CASES = [
    *varlen_cases(), *used_cases(), *window_cases(), *flashmask_cases(), *slice_cases(), *block_cases(),
    *tree_cases(),
]  # fmt: skip
BY_PATTERN = {case.pattern: [c for c in CASES if c.pattern == case.pattern] for case in CASES}


@pytest.mark.parametrize("name", BY_PATTERN)
def test_the_mask_is_that_of_the_loop(name: str):
    for case in BY_PATTERN[name]:
        pattern = attndsl.compile(name, values=case.values)
        found = pattern.mask(*case.lengths, inputs=case.inputs, heads=case.expected.shape[1])
        assert np.array_equal(found.numpy(), case.expected), case


@pytest.mark.parametrize("name", BY_PATTERN)
def test_outputs_and_gradients_are_those_of_the_loop(name: str):
    for case in BY_PATTERN[name]:
        check(case, "blocked")
    check(BY_PATTERN[name][-1], "triton")
    check(BY_PATTERN[name][-1], "reference")


def check(case: Case, backend: str) -> None:
    batch, heads, m, n = case.expected.shape
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, heads, length, 16) for length in (m, n, n, m)]
    q, k, v, d_out = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
    for x in (q, k, v):
        x.requires_grad_()
    scores = (q @ k.mT / 4).masked_fill(~torch.from_numpy(case.expected), -1e30)
    weights = torch.softmax(scores, -1) * torch.from_numpy(case.expected)
    wanted = weights @ v
    gradients = torch.autograd.grad(wanted, (q, k, v), d_out)
    pattern = attndsl.compile(case.pattern, values=case.values)
    given = [x.detach().float().requires_grad_() for x in (q, k, v)]
    inputs = {name: torch.from_numpy(array) for name, array in case.inputs.items()}
    out = pattern(*given, backend=backend, inputs=inputs)
    found = torch.autograd.grad(out, given, d_out.float())
    # float32: sums of at most 40 products of numbers below 10, each rounded to 2**-24 of its magnitude
    for one, other in zip((out, *found), (wanted, *gradients), strict=True):
        assert (one - other).abs().max() < 2e-5, (case, backend)


def test_subtrees_are_numbered_in_preorder():
    found = attndsl.subtrees([[-1, 0, 0, 1, 2], [3, 3, -1, -1, 1]])
    assert found["order"].tolist() == [[0, 1, 3, 2, 4], [2, 3, 0, 1, 4]]
    assert found["end"].tolist() == [[5, 3, 5, 3, 5], [3, 5, 1, 5, 5]]
    assert attndsl.subtrees([])["end"].shape == (1, 0)
    chain = attndsl.subtrees(np.arange(-1, 4999))  # deeper than Python's stack
    assert chain["end"].max() == chain["end"].min() == 5000


@pytest.mark.parametrize(
    ("parents", "said"),
    [
        ([-1, 2, 3, 1], "batch element 0: 1 -> 2 -> 3 -> 1"),
        ([[-1, 0], [-1, 1]], "batch element 1: 1 -> 1"),
        ([-1, 0, 7], "batch element 0: node 2 has parent 7"),
        ([0.5], "parents are integers"),
        ([[[0]]], "parents are integers"),
    ],
)
def test_parents_that_are_no_trees_are_refused_with_the_place(parents: list[Any], said: str):
    with pytest.raises(attndsl.AttnDslError, match=said) as caught:
        attndsl.subtrees(parents)
    assert caught.value.diagnostics[0].code == "A501"
