"""Pictures as text, compared with pictures."""

from textwrap import dedent

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from attndsl import ir
from attndsl.views import charset_for, draw_mask, draw_query, draw_tiles, draw_view
from tests.rooms.views.samples import schedule_of, window


def picture(text: str) -> str:
    return dedent(text).strip("\n")


def test_a_small_mask_is_large_and_square():
    assert draw_mask(window(5, 1)) == picture("""
        q\\k 0 1 2 3 4
          0 ████· · ·
            ██████· ·
            · ██████·
            · · ██████
          4 · · · ████
        5 queries × 5 keys, 52.0% allowed
        · not allowed   ██ allowed
        """)


def test_ascii_is_ascii():
    drawn = draw_mask(window(4, 0), charset="ascii")
    assert drawn == picture("""
        q\\k 0 1 2 3
          0 # . . .
            . # . .
          2 . . # .
            . . . #
        4 queries x 4 keys, 25.0% allowed
        . not allowed   # allowed
        """)
    for large in (window(200, 9), window(3000, 100)):
        assert draw_mask(large, charset="ascii").isascii()
    assert draw_view(np.ones(8, dtype=bool), (2, 2, 2), (0, 1, 0), charset="ascii").isascii()
    assert draw_tiles(schedule_of([window(64, 9)], [[0]], (8, 8)), charset="ascii").isascii()


def test_rows_without_keys_are_counted():
    mask = window(6, 0)
    mask[2:4] = False
    assert "6 queries × 6 keys, 11.1% allowed, 2 without any key" in draw_mask(mask)


def body(drawn: str) -> list[str]:
    """The lines of the picture itself: the ruler has `k` at its corner, the notes follow."""
    head, *lines = drawn.splitlines()
    start = head.index("k") + 2
    stop = next(i for i, line in enumerate(lines) if "queries" in line)
    return [line[start:] for line in lines[:stop]]


@given(hnp.arrays(bool, st.tuples(st.integers(1, 64), st.integers(25, 64))))
def test_half_blocks_show_every_pair(mask: np.ndarray):
    shown = np.zeros((mask.shape[0] + 1, mask.shape[1]), dtype=bool)
    for y, line in enumerate(body(draw_mask(mask))):
        for x, glyph in enumerate(line):
            shown[2 * y, x], shown[2 * y + 1, x] = glyph in "▀█", glyph in "▄█"
    assert (shown[: mask.shape[0]] == mask).all()


@given(hnp.arrays(bool, st.tuples(st.integers(1, 128), st.integers(65, 128))))
def test_braille_shows_every_pair(mask: np.ndarray):
    shown = np.zeros((mask.shape[0] + 3, mask.shape[1] + 1), dtype=bool)
    places = {
        1: (0, 0),
        2: (1, 0),
        3: (2, 0),
        4: (0, 1),
        5: (1, 1),
        6: (2, 1),
        7: (3, 0),
        8: (3, 1),
    }
    for y, line in enumerate(body(draw_mask(mask))):
        for x, glyph in enumerate(line):
            code = 0 if glyph == " " else ord(glyph) - 0x2800
            for dot, (row, column) in places.items():  # dots as Unicode numbers them, 1 to 8
                if code >> (dot - 1) & 1:
                    shown[4 * y + row, 2 * x + column] = True
    assert (shown[: mask.shape[0], : mask.shape[1]] == mask).all()
    assert shown.sum() == mask.sum()


def test_a_large_mask_is_shaded_and_one_pair_still_shows():
    mask = np.zeros((4096, 4096), dtype=bool)
    mask[1000, 3000] = True
    lines = body(draw_mask(mask))
    assert [(y, line.index("░")) for y, line in enumerate(lines) if line.strip()] == [(7, 46)]
    assert "under 0.1% allowed" in draw_mask(mask)
    assert "one character is 128 × 64 pairs" in draw_mask(mask)
    almost = ~mask
    assert body(draw_mask(almost))[7] == "█" * 46 + "▓" + "█" * 17


@pytest.mark.parametrize("shape", [(1, 100_000), (100_000, 1), (700, 90), (3, 0), (0, 3)])
@pytest.mark.parametrize("charset", ["unicode", "ascii"])
def test_any_shape_fits_the_page(shape: tuple[int, int], charset: str):
    drawn = draw_mask(np.ones(shape, dtype=bool), width=64, height=32, charset=charset).splitlines()
    assert max(map(len, drawn)) <= 64 + len("100000 ") + 30  # notes are words, and may be longer
    assert len(drawn) <= 32 + 3


def test_the_tiles_of_a_schedule():
    drawn = draw_tiles(schedule_of([window(40, 12)], [[0]], (8, 8)))
    assert drawn == picture("""
        q\\k 0   16  32
          0 ██▒▒▒▒· ·
            ▒▒██▒▒▒▒·
            ▒▒▒▒██▒▒▒▒
            · ▒▒▒▒██▒▒
         32 · · ▒▒▒▒██
        5 full, 14 partial of 25 tiles of 8 × 8
        · empty: skipped   ██ full: no mask   ▒▒ partial: masked
        """)


def test_what_a_query_sees_in_two_dimensions():
    seen = np.zeros((4, 5), dtype=bool)
    seen[0:3, 1:4] = True
    assert draw_view(seen.ravel(), (4, 5), (1, 2)) == picture("""
        y\\x 0 1 2 3 4
          0 · ██████·
            · ██◆ ██·
          2 · ██████·
            · · · · ·
        9 of 20 keys
        · not seen   ██ seen   ◆ the query, which sees itself
        """)


def test_what_a_query_sees_in_three_dimensions_and_itself_not():
    seen = np.zeros((3, 2, 2), dtype=bool)
    seen[1, :, 0] = True
    drawn = draw_view(seen.ravel(), (3, 2, 2), (1, 1, 1), width=14)
    assert drawn == picture("""
        · ·   ██·
        · ·   ██◇

        · ·
        · ·
        2 of 12 keys; 3 slices of 2 × 2, in reading order
        · not seen   ██ seen   ◇ the query, which does not see itself
        """)


def test_a_long_row_is_wrapped():
    seen = np.arange(130) % 64 == 1
    lines = draw_view(seen, (130,), (0,)).splitlines()
    assert [line.split(" ", 1)[0] for line in lines[1:4]] == ["", "", "128"]
    assert "3 of 130 keys" in lines


def test_the_terminal_decides_the_charset():
    assert charset_for("utf-8") == "unicode"
    assert charset_for("ascii") == charset_for("latin-1") == charset_for(None) == "ascii"
    assert charset_for("no such encoding") == "ascii"


def test_a_mask_of_many_heads_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"choose a batch element and a head: mask\[b, h\]"):
        draw_mask(np.ones((1, 2, 4, 4), dtype=bool))


def test_a_query_is_drawn_on_the_grid_of_each_segment():
    image = ir.Segment("image", (ir.Axis("y"), ir.Axis("x")))
    space = ir.Space("joint", (ir.Segment("text", (ir.Axis("text", 2),)), image))
    seen = np.array([True, True, False, False, True, False, True, True])
    sizes = {"text.text": 2, "image.y": 2, "image.x": 3}
    assert draw_query(seen, space, sizes, 6, charset="ascii") == picture("""
        text
        k 0 1
          # #
        2 of 2 keys
        # seen
        image
        y\\x 0 1 2
          0 . . #
          1 . Q #
        3 of 6 keys
        . not seen   # seen   Q the query, which sees itself
        """)


def test_a_query_between_flat_positions_is_one_line():
    drawn = draw_query(np.array([True, False, True]), ir.FLAT, {}, charset="ascii")
    assert drawn.splitlines()[:2] == ["k 0 1 2", "  # . #"]
