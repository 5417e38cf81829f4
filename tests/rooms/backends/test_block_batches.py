"""Strips cover each live pair once and no other, and few strips do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attndsl.backends.block_batches import BlockBatch, block_batches
from attndsl.backends.places import Index, Span
from tests.rooms.backends.cases import random_mask
from tests.support.dense_schedule import dense_schedule

TILES = st.sampled_from([16, 32, 64])


def pairs(strip: BlockBatch) -> np.ndarray:
    """Each (query, key) of a strip, [n, 2], with its repetitions."""
    shape = strip.queries.items, strip.queries.length, strip.keys.length
    queries = np.broadcast_to(strip.queries.rows().reshape(-1, shape[1], 1), shape)
    keys = np.broadcast_to(strip.keys.rows().reshape(-1, 1, shape[2]), shape)
    bits = np.uint8(255) if strip.mask is None else strip.mask
    live = np.unpackbits(np.broadcast_to(bits, (*shape[:2], -(-shape[2] // 8))), axis=-1)
    live = live[..., : shape[2]].view(bool)
    return np.stack([queries[live], keys[live]], axis=1)


def schedule_of(mask: np.ndarray, tile: tuple[int, int]):
    return dense_schedule(mask[None, None], tile)


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(1, 300), TILES, TILES)
def test_every_live_pair_is_in_one_strip(seed: int, q_len: int, k_len: int, bq: int, bk: int):
    check_strips(random_mask(np.random.default_rng(seed), q_len, k_len), (bq, bk))


def test_a_strip_is_fresh_where_no_other_has_touched_any_of_its_queries():
    q, k = position(768)  # all rows gather three keys; the last ones have a run besides
    check_strips((k % 128 == 5) & (k < 384) | (q >= 256) & (k >= 448), (64, 64))


def check_strips(mask: np.ndarray, tile: tuple[int, int]) -> None:
    counts = np.zeros(mask.shape, dtype=int)
    seen = np.zeros(len(mask), dtype=bool)
    for strip in block_batches(schedule_of(mask, tile))[0]:
        np.add.at(counts, tuple(pairs(strip).T), 1)
        rows = strip.queries.rows()
        assert len(set(rows.tolist())) == len(rows), "a query twice in one strip"
        assert strip.first_writer == (not seen[rows].any())
        seen[rows] = True
    assert np.array_equal(counts, mask.astype(int))


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(1, 7))
def test_the_pieces_of_a_strip_are_the_strip(seed: int, length: int, step: int):
    mask = random_mask(np.random.default_rng(seed), length, length)
    for strip in block_batches(schedule_of(mask, (16, 16)))[0]:
        pieces = [
            strip.cut(i, min(i + step, strip.queries.items))
            for i in range(0, strip.queries.items, step)
        ]
        assert np.array_equal(np.concatenate([pairs(p) for p in pieces]), pairs(strip))


def position(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(n)[:, None], np.arange(n)


def test_the_inside_of_a_window_is_one_strip_trimmed_to_grains():
    q, k = position(1024)
    (found,) = block_batches(schedule_of((k <= q) & (q - k < 100), (64, 64)))
    inside = max(found, key=lambda strip: strip.queries.items)
    assert inside.queries == Span(128, 64, 14, 64)
    assert inside.keys == Span(16, 64, 14, 176)  # 29 to 192, in grains of 16
    assert len(found) == 3


def test_global_keys_are_one_strip_of_those_keys():
    q, k = position(1024)
    (found,) = block_batches(schedule_of((abs(q - k) < 100) | (k < 5), (64, 64)))
    assert any(strip.keys == Span(0, 0, strip.keys.items, 5) for strip in found)
    (found,) = block_batches(schedule_of((abs(q - k) < 100) | (k % 200 == 3), (64, 64)))
    visited = sum(strip.keys.length * strip.queries.items for strip in found)
    assert visited < 1.2 * 16 * (262 + 6)


def test_global_queries_leave_the_others_alone():
    q, k = position(1024)
    (found,) = block_batches(schedule_of((abs(q - k) < 100) | (q == 3), (64, 64)))
    far = [strip for strip in found if strip.queries.length == 1]
    assert [strip.queries.start for strip in far] == [3]
    assert far[0].mask is None


def test_scattered_blocks_are_gathered_together():
    rng = np.random.default_rng(0)
    blocks = np.stack([rng.permutation(np.arange(32) < 4) for _ in range(32)])
    mask = np.kron(blocks, np.ones((32, 32), bool))
    (found,) = block_batches(schedule_of(mask, (32, 32)))
    gathered = [strip for strip in found if isinstance(strip.keys, Index)]
    assert sum(strip.queries.items for strip in gathered) >= 16
    assert len(found) <= 20


def test_short_runs_with_masks_of_their_own_are_one_strip():
    q, k = position(1024)
    random = np.random.default_rng(0).random((1024, 1024)) < 0.6
    chunks = q // 64 - k // 64
    mask = (chunks >= 0) & (chunks <= 1) & random
    check_strips(mask, (64, 64))
    first, *rest = block_batches(schedule_of(mask, (64, 64)))[0]
    assert sorted(strip.queries.items for strip in (first, *rest)) == [1, 15]


def test_long_causal_rows_share_their_parts():
    q, k = position(8192)
    (found,) = block_batches(schedule_of(k <= q, (256, 256)))
    assert max(strip.keys.length for strip in found) <= 3072
    assert max(strip.queries.items for strip in found if strip.mask is None) >= 16


@pytest.mark.parametrize("places", [Span(2, 3, 4, 7), Span(1, 9, 3, 2), Span(5, 0, 3, 4)])
def test_a_span_reads_and_adds_like_its_rows(places: Span):
    check_places(places)


@pytest.mark.parametrize("rows", [[[1, 4, 9]], [[0, 2, 3], [2, 3, 20], [5, 6, 7]]])
def test_an_index_reads_and_adds_like_its_rows(rows: list[list[int]]):
    check_places(Index(np.array(rows), 3))


def check_places(places: Span | Index) -> None:
    import torch

    x = torch.randn(2, 30, 5, dtype=torch.float64)[:, :, 1:4]
    rows = torch.from_numpy(places.rows()).reshape(-1, places.length).expand(places.items, -1)
    assert torch.equal(places.read(x), x[:, rows].transpose(0, 1))
    value = torch.randn(places.items, 2, places.length, 3, dtype=torch.float64)
    want = x.clone()
    for item in range(places.items):
        want[:, rows[item]] += value[item]
    got = x.clone()
    places.add(got, value)
    assert torch.allclose(got, want)
