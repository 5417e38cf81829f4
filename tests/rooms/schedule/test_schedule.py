"""Schedules of random relations: every pair and no other, no tile in vain."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attndsl import ir
from attndsl.compiler import Program
from attndsl.passes import normalise
from attndsl.schedule import Call, plan
from attndsl.source import AttnDslError
from attndsl.sources import read_mask
from tests.support import expressions as ex
from tests.support.work import in_memory

ERRORS = Path(__file__).parents[2] / "golden" / "errors" / "A4"
LENGTH = st.integers(1, 70)
TILE = st.sampled_from([(4, 4), (8, 16), (16, 8)])


def check(schedule, dense):
    bq, bk = schedule.tile
    for batch, head in np.ndindex(dense.shape[:2]):
        truth, found = dense[batch, head], schedule.plan(batch, head)
        assert np.array_equal(schedule.cover(batch, head), truth)
        for tiles, is_full in ((found.full, True), (found.partial, False)):
            for row, column in tiles:
                part = truth[row * bq : (row + 1) * bq, column * bk : (column + 1) * bk]
                assert part.any()
                assert part.all() == is_full
        back = found.transpose
        assert sorted((c, r) for r, c in found.full) == list(back.full)
        there = {(c, r): i for (r, c), i in zip(found.partial, found.mask_ids, strict=True)}
        assert there == dict(zip(back.partial, back.mask_ids, strict=True))
        assert list(back.transpose.partial) == list(found.partial)
        assert np.array_equal(back.transpose.mask_ids, found.mask_ids)


@settings(max_examples=100)
@given(ex.relations(), LENGTH, LENGTH, TILE, st.integers(1, 3), st.sampled_from(list(ir.Align)))
def test_random_relations(expression, q_len, k_len, tile, heads, align):
    mask = ex.mask(expression.root, align)
    sizes = {"q": q_len, "k": k_len}
    call = Call(q_len, k_len, 2, heads, 0, sizes, ex.TABLES)
    schedule = plan(normalise(mask), call, tile)
    check(schedule, ex.dense(mask, q_len, k_len, heads))
    assert 0 <= schedule.density <= 1


@settings(max_examples=60)
@given(ex.bools(3), ex.bools(3), st.integers(0, 20), LENGTH, LENGTH, TILE)
def test_random_relations_within_a_window(near, far, width, q_len, k_len, tile):
    """Roots like those of patterns: causal, near the diagonal one thing, far from it another."""
    gap = ir.sub(ex.Q, ex.K)
    root = ir.conj(ir.le(ir.ZERO, gap), ir.select(ir.lt(gap, ir.Const(width)), near.root, far.root))
    mask = ex.mask(root)
    call = Call(q_len, k_len, 2, 2, 0, {"q": q_len, "k": k_len}, ex.TABLES)
    check(plan(normalise(mask), call, tile), ex.dense(mask, q_len, k_len, 2))


@pytest.mark.parametrize(
    ("name", "text", "length", "tile"),
    [
        ("too_many_tokens", "pattern p = q == k", 1 << 40, 128),
        ("too_many_tiles", "pattern p = causal", 1 << 28, 128),
    ],
)
def test_what_does_not_fit_into_memory_is_refused_at_once(
    name: str, text: str, length: int, tile: int, golden: Callable[[Path, str], None]
):
    program = Program(read_mask(text))
    call = program.call(length, length, 1, 1, None, {})
    with pytest.raises(AttnDslError) as caught:
        in_memory(100 << 20, lambda: program.schedule(call, (tile, tile)))
    golden(ERRORS / f"{name}.err", f"{caught.value}\n")
