"""A window on a mask is what a dense mask shows there."""

import numpy as np
import pytest

from attndsl import views
from attndsl.compiler import Program
from attndsl.sources import read_mask

PATTERNS = ["causal and q - k < 70", "q % 3 == k % 5", "causal", "q - k == 200 or k < 9", "q < 0"]
LENGTHS = [(300, 300), (130, 401)]


def schedule_of(text: str, lengths: tuple[int, int], tile: int = 32):
    program = Program(read_mask(text))
    call = program.call(*lengths, 1, 1, None, None)
    return program.schedule(call, (tile, tile)), program.dense(call)[0, 0]


def levels(mask, window):
    """0 where a cell is empty, 2 where it is full, 1 between."""
    found = np.zeros(window.shape, dtype=int)
    for i, row in enumerate(range(window.rows.start, window.rows.stop, window.step)):
        for j, column in enumerate(range(window.columns.start, window.columns.stop, window.step)):
            cell = mask[row : row + window.step, column : column + window.step]
            found[i, j] = int(cell.any()) + int(cell.all())
    return found


@pytest.mark.parametrize("text", PATTERNS)
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("most", [8, 40, 512])
def test_a_window_shows_the_pairs_of_the_dense_mask(text, lengths, most):
    schedule, dense = schedule_of(text, lengths)
    for rows, columns in ((range(lengths[0]), range(lengths[1])), (range(37, 99), range(60, 128))):
        picture, window = views.picture_pairs(schedule, rows, columns, most=most)
        assert picture.cells.shape == window.shape
        assert max(window.shape) <= most
        assert window.rows.start <= rows.start
        assert window.columns.start <= columns.start
        top = len(picture.inks) - 1
        if window.step == 1:
            shown = dense[
                window.rows.start : window.rows.stop, window.columns.start : window.columns.stop
            ]
            assert np.array_equal(picture.cells == 1, shown)
        else:
            kinds = np.where(picture.cells == 0, 0, np.where(picture.cells == top, 2, 1))
            assert np.array_equal(kinds, levels(dense, window))


@pytest.mark.parametrize("text", PATTERNS)
def test_a_line_of_a_schedule_is_the_line_of_the_dense_mask(text):
    schedule, dense = schedule_of(text, (130, 401))
    for query in (0, 31, 32, 129):
        assert np.array_equal(views.keys_seen(schedule, query), dense[query])
    for key in (0, 63, 250, 400):
        assert np.array_equal(views.queries_seeing(schedule, key), dense[:, key])


def test_kinds_of_tiles_in_a_window_are_those_of_the_whole_picture():
    schedule, _ = schedule_of("causal and q - k < 70", (300, 300))
    whole = views.picture_tiles(schedule)
    picture, window = views.picture_kinds(schedule, range(64, 200), range(32, 300))
    assert np.array_equal(picture.cells, whole.cells[2:7, 1:])
    assert window.step == 32
