"""The whole form is that of the dense mask, and is found where a pattern is one."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attndsl
from attndsl.arguments import read_call
from attndsl.schedule import Whole

BLOCKS = [
    "k % 64 // 8 == 0 and q // 64 == k // 64 and q % 64 >= 8 and k <= q",  # blocks below the diagonal
    "true", "k <= q", "q // {a} == k // {a}", "q % {a} == k % {a}", "q // {a} == k // {a} and k <= q",
    "q // {a} == k // {a} and q % 2 == k % 2", "(q // {a} + k // {a}) % 2 == 0", "q < {a} and k < {a}",
    "abs(q // {a} - k // {a}) <= 1", "k // {a} <= q // {a}",
    "q - k < 400 and k <= q", "not (q // {a} != k // {a})", "q // {a} == k // {a} and q // {a} != 1",
    "(q + {b}) // {a} == (k + {b}) // {a}", "k < {a} or q >= {a}", "if head < 1 then k <= q else q // {a} == k // {a}",
    "q // {a} - k // {a} == 1 and k <= q", "k <= q or k < {a}", "k <= q or q // {a} == k // {a}",
    "k <= q and k % {a} >= {a} - 3", "k <= q and (q // {a} == k // {a} or k % {a} == 1)",
    "q // {a} - k // {a} <= 1 and k <= q", "q // {a} <= k // {a} and k <= q", "k <= q and k % 2 == q % 2 or k < 3",
]  # fmt: skip
OTHERS = [
    "k < q", "k <= q + 1", "q - k < {a} and k <= q", "q // {a} == k // {a} and k <= q and k % 3 != 0",
    "k <= q and k != {a}", "q * k % 5 == 0", "k >= q", "q // {a} == k // {a} and not (k <= q)",
    "if q // {a} == k // {a} then not (k <= q) else k <= q",
]  # fmt: skip


def cover(whole: Whole) -> np.ndarray:
    """The pairs of the blocks, [1 or batch, 1 or heads, q_len, k_len], each at most once."""
    found = np.zeros((len(whole.classes), whole.q_len, whole.k_len), int)
    for pairs, blocks in zip(found, whole.classes, strict=True):
        for part in blocks:
            for mine, theirs in zip(part.queries, part.keys, strict=True):
                assert (np.diff(mine) > 0).all()
                assert (np.diff(theirs) > 0).all()
                shape = len(mine), len(theirs)
                if part.seen is not None:
                    pairs[np.ix_(mine, theirs)] += np.arange(shape[1]) < part.seen[:, None]
                else:
                    pairs[np.ix_(mine, theirs)] += (
                        np.tri(*shape, dtype=int) if part.is_causal else 1
                    )
    assert found.max(initial=0) <= 1
    return found[whole.class_of].astype(bool)


def whole_of(
    text: str, q_len: int, k_len: int, heads: int | None = None, **given
) -> tuple[Whole | None, np.ndarray]:
    p = attndsl.compile(text)
    call = read_call(p._program, q_len, k_len, heads, **given)
    return p._program.whole(call), p.mask(q_len, k_len, heads=heads, **given).numpy()


@settings(max_examples=70, deadline=None)
@given(
    st.sampled_from(BLOCKS + OTHERS), st.sampled_from([8, 12, 20, 33]), st.integers(2, 9),
    st.integers(0, 130), st.integers(0, 130), st.booleans(),
)  # fmt: skip
def test_it_is_the_dense_mask(body: str, a: int, b: int, q_len: int, k_len: int, is_square: bool):
    lengths = (q_len, q_len) if is_square else (q_len, k_len)
    whole, mask = whole_of(f"pattern p = {body.format(a=a, b=b)}", *lengths, heads=2)
    if whole is not None:
        assert np.array_equal(np.broadcast_to(cover(whole), mask.shape), mask)


@pytest.mark.parametrize("body", BLOCKS)
def test_patterns_of_blocks_have_one(body: str):
    whole, mask = whole_of(f"pattern p = {body.format(a=16, b=4)}", 128, 128, heads=2)
    assert whole is not None
    assert np.array_equal(np.broadcast_to(cover(whole), mask.shape), mask)


@pytest.mark.parametrize("body", OTHERS)
def test_other_patterns_have_none(body: str):
    assert whole_of(f"pattern p = {body.format(a=16, b=4)}", 128, 128, heads=2)[0] is None


def test_documents_of_few_lengths_have_a_shape_each():
    ids = [
        np.repeat(np.arange(len(lengths)), lengths) for lengths in ((30, 50, 30, 10), (40, 40, 40))
    ]
    whole, mask = whole_of("documents_causal", 120, 120, doc=torch.from_numpy(np.stack(ids)))
    assert np.array_equal(cover(whole), mask)
    shapes = [[part.queries.shape for part in blocks] for blocks in whole.classes]
    assert shapes == [[(2, 30), (1, 50), (1, 10)], [(3, 40)]]


def test_positions_are_those_of_the_tokens():
    text = "pattern p = q // 20 == k // 20 and k <= q"
    for at in ({"q_start": 40}, {"q_start": 7}, {"q_start": 0, "kv_len": 60}):
        whole, mask = whole_of(text, 40, 80, **at)
        assert whole is not None
        assert np.array_equal(np.broadcast_to(cover(whole), mask.shape), mask)
    assert whole_of("pattern p = q // 20 == k // 20", 40, 80, q_start=40)[0] is not None


def test_few_evaluations_tell_what_is_none():
    p = attndsl.compile("causal_window", w=64)
    assert p._program.whole(read_call(p._program, 1 << 20, None, None)) is None
    assert (
        p._program.whole(read_call(p._program, 60, None, None)) is not None
    )  # all keys before are near
