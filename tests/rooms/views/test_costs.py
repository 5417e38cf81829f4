"""Costs against counts made the slow way, tile by tile."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from attndsl.views import cost, report
from tests.rooms.views.samples import kinds, schedule_of, window

TILES = st.sampled_from([(4, 4), (3, 5), (8, 2)])
MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 20)))


@given(MASKS, TILES, st.integers(1, 3), st.integers(1, 3))
def test_tiles_pairs_and_waste(mask: np.ndarray, tile: tuple[int, int], batch: int, heads: int):
    found = cost(schedule_of([mask], [[0]], tile), 8, heads=heads, batch=batch)
    kind, copies = kinds(mask, tile), batch * heads
    assert found.full == copies * (kind == 1).sum()
    assert found.partial == copies * (kind == 2).sum()
    assert found.tiles == copies * kind.size
    assert found.pairs == copies * mask.sum()
    assert found.density == pytest.approx(mask.mean())
    computed = (kind > 0).sum() * tile[0] * tile[1]
    assert found.waste == pytest.approx(1 - mask.sum() / computed if computed else 0)


def test_causal_arithmetic_in_closed_form():
    n, b, d = 1024, 128, 64
    found = cost(schedule_of([np.tri(n, dtype=bool)], [[0]], (b, b)), d)
    rows = n // b
    assert (found.full, found.partial) == (rows * (rows - 1) // 2, rows)
    assert found.forward_flops == 4 * d * b * b * rows * (rows + 1) // 2
    assert found.backward_flops == 14 * d * b * b * rows * (rows + 1) // 2
    assert found.dense_forward_flops == 4 * d * n * n
    assert found.speedup == pytest.approx(2 * rows / (rows + 1))


def test_values_of_another_width_count_by_their_width():
    schedule = schedule_of([np.ones((16, 16), dtype=bool)], [[0]], (16, 16))
    found = cost(schedule, 10, v_dim=3)
    assert found.forward_flops == 2 * (10 + 3) * 256
    assert found.backward_flops == 2 * (4 * 10 + 3 * 3) * 256


@given(MASKS, TILES)
def test_traffic_tile_by_tile(mask: np.ndarray, tile: tuple[int, int]):
    """float16, head size 8, values 4, two query heads on one key head, three batch elements."""
    (q_len, k_len), d, v, two = mask.shape, 8, 4, 2
    found = cost(schedule_of([mask], [[0]], tile), d, v_dim=v, heads=2, kv_heads=1, batch=3)
    forward = dq = dkv = 0
    for r, c in np.argwhere(kinds(mask, tile) > 0):
        queries, keys = min(tile[0], q_len - r * tile[0]), min(tile[1], k_len - c * tile[1])
        forward += keys * (d + v) * two
        dq += keys * (d + v) * two
        dkv += queries * ((d + v) * two + 4 + 4)  # q, dO, log-sum-exp, delta
    q, o, lse, kv = q_len * d * two, q_len * v * two, q_len * 4, k_len * (d + v) * two
    assert found.forward.compulsory == 6 * (q + o + lse) + 3 * kv
    assert found.forward.streamed == 6 * (q + o + lse + forward)
    assert found.backward.compulsory == 6 * (2 * q + 2 * o + lse) + 3 * 2 * kv
    delta = 2 * o + lse
    assert found.backward.streamed == 6 * (delta + 2 * q + o + 2 * lse + dq + dkv + 2 * kv)


def test_heads_that_differ_are_weighted_by_how_many_share_a_plan():
    narrow, whole = window(32, 3), np.ones((32, 32), dtype=bool)
    schedule = schedule_of([narrow, whole], [[0, 1, 0]], (8, 8))
    found = cost(schedule, 16, heads=3, batch=2)
    assert found.pairs == 2 * (2 * narrow.sum() + whole.sum())
    assert found.full == 2 * (2 * (kinds(narrow, (8, 8)) == 1).sum() + 16)
    with pytest.raises(ValueError, match="made for heads=3, not heads=4"):
        cost(schedule, 16, heads=4)


def test_index_memory_is_what_the_arrays_hold():
    schedule = schedule_of([window(64, 9)], [[0]], (8, 8))
    (plan,) = schedule.plans
    found = cost(schedule, 16)
    indices = 4 * (plan.full.nnz + 2 * plan.partial.nnz)  # columns, and mask ids, in 32 bits
    pointers = 2 * 8 * (8 + 1)
    assert found.index_bytes == indices + pointers + schedule.plan_of.nbytes
    assert found.transpose_bytes == indices + pointers
    assert found.mask_bytes == plan.partial.nnz * 8


def test_a_pattern_without_pairs_costs_no_arithmetic():
    found = cost(schedule_of([np.zeros((9, 9), dtype=bool)], [[0]], (4, 4)), 8)
    assert found.forward_flops == found.backward_flops == found.pairs == 0
    assert found.waste == found.density == found.tile_density == 0
    assert found.forward.streamed == 9 * (8 + 8) * 2 + 9 * 4


def test_the_report_says_it_in_six_lines():
    said = report(cost(schedule_of([np.tri(1024, dtype=bool)], [[0]], (128, 128)), 64)).splitlines()
    assert said[0] == "tiles    36 of 64 live (56.25%): 28 full, 8 partial"
    assert said[3].startswith("forward  151 MFLOP, 528 kB to 1.45 MB moved")
    assert len(said) == 6
