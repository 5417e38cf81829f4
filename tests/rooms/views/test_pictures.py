"""A cell is drawn empty only if empty, and full only if full, however far it is shrunk."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from attndsl.views import Ruler, picture_mask, picture_tiles, picture_view
from tests.rooms.views.samples import kinds, schedule_of, window

MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 40), st.integers(1, 40)))


@given(MASKS, st.integers(1, 50))
def test_a_mask_picture_tells_empty_some_and_all(mask: np.ndarray, most: int):
    picture = picture_mask(mask, most=most)
    step = picture.rows.step
    assert max(picture.cells.shape) <= most
    for (y, x), cell in np.ndenumerate(picture.cells):
        block = mask[y * step : (y + 1) * step, x * step : (x + 1) * step]
        assert (cell == 0) == (not block.any())
        assert (cell == len(picture.inks) - 1) == block.all()


def test_shades_grow_with_density():
    mask = np.tri(64, dtype=bool)  # blocks of a row fill up towards the diagonal
    stripes = np.zeros((8, 64), dtype=bool)
    for i in range(8):
        stripes[: i + 1, 8 * i : 8 * i + 8] = True
    levels = picture_mask(np.pad(stripes, ((0, 56), (0, 0))), most=8).cells[0]
    assert (np.diff(levels.astype(int)) > 0).all()
    assert len(np.unique(picture_mask(mask, most=8).cells)) == 3


@given(MASKS, st.sampled_from([(4, 4), (3, 5), (8, 2)]), st.integers(1, 12))
def test_a_tile_picture_tells_empty_partial_and_full(
    mask: np.ndarray, tile: tuple[int, int], most: int
):
    picture = picture_tiles(schedule_of([mask], [[0]], tile), most=most)
    step = picture.rows.step // tile[0]
    assert picture.columns.step == step * tile[1]
    for (y, x), cell in np.ndenumerate(picture.cells):
        block = kinds(mask, tile)[y * step : (y + 1) * step, x * step : (x + 1) * step]
        assert cell == (1 if (block == 1).all() else 2 if block.any() else 0)
    assert ("tiles" in picture.inks[2].label) == (step > 1)


def test_each_head_has_its_own_tiles():
    schedule = schedule_of([window(32, 4), window(32, 31)], [[0, 1]], (8, 8))
    assert picture_tiles(schedule, head=1).note.startswith("16 full, 0 partial of 16 tiles")
    assert picture_tiles(schedule, head=0).note.startswith("0 full, 10 partial of 16 tiles")


@given(st.data())
def test_a_view_puts_every_key_at_its_coordinates(data: st.DataObject):
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple))
    seen = data.draw(hnp.arrays(bool, shape))
    query = data.draw(st.tuples(*(st.integers(0, n - 1) for n in shape)))
    cells = picture_view(seen.ravel(), shape, query, across=2).cells
    for at in np.ndindex(shape):
        *outer, x = at
        match outer:
            case []:
                y = 0
            case [y]:
                pass
            case [z, y]:  # two slices in a row, a gap of one between
                x, y = x + z % 2 * (shape[2] + 1), y + z // 2 * (shape[1] + 1)
        expected = (3 - seen[at]) if at == query else seen[at]
        assert cells[y, x] == expected
    assert (cells < 4).sum() == seen.size


def test_a_legend_has_what_occurs_and_nothing_else():
    assert [ink.label for ink in picture_mask(window(4, 9)).legend] == ["allowed"]
    labels = [ink.label for ink in picture_mask(window(64, 9), most=16).legend]
    assert labels == ["none allowed", "some allowed", "all allowed"]


@pytest.mark.parametrize("length", [0, 1, 5, 6, 7, 1000, 1_000_000])
def test_ticks_are_few_and_start_at_zero(length: int):
    ticks = Ruler("k", length).ticks(6)
    assert len(ticks) <= 6
    assert list(ticks[:1]) == [0][:length]


def test_a_grid_that_the_row_does_not_fill_is_refused():
    with pytest.raises(ValueError, match="does not fill a grid"):
        picture_view(np.ones(5, dtype=bool), (2, 3))
    with pytest.raises(ValueError, match="1 to 3 extents"):
        picture_view(np.ones(16, dtype=bool), (2, 2, 2, 2))
