"""PNG and SVG, read back by other people's readers and compared cell by cell."""

import io
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from attndsl.views import Picture, encode_png, encode_svg, picture_mask, picture_tiles, picture_view
from tests.rooms.views.samples import schedule_of, window

SVG = "{http://www.w3.org/2000/svg}"
MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 20)))


def colours(picture: Picture) -> np.ndarray:
    """The colour of each cell, uint8 [rows, columns, 3]."""
    table = np.array([list(bytes.fromhex(ink.colour[1:])) for ink in picture.inks], dtype=np.uint8)
    return table[picture.cells]


def read_png(data: bytes) -> np.ndarray:
    Image.open(io.BytesIO(data)).verify()  # every checksum
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@given(MASKS, st.integers(1, 12))
def test_a_png_has_the_colour_of_every_cell(mask: np.ndarray, scale: int):
    picture = picture_mask(mask)
    pixels = read_png(encode_png(picture, scale=scale, margin=3))
    inner = pixels[4:-4, 4:-4]
    assert (inner[::scale, ::scale] == colours(picture)).all()
    side = slice(0, scale - (scale >= 10))  # hairlines only where there is room
    assert (inner[side, side] == inner[0, 0]).all()
    assert (pixels[:3] == 255).all()


@pytest.mark.parametrize(("length", "side"), [(16, 401), (300, 318), (2000, 518)])
def test_a_png_aims_for_five_hundred_pixels(length: int, side: int):
    assert read_png(encode_png(picture_mask(window(length, 3)))).shape == (side, side, 3)


def painted(svg: str, picture: Picture) -> np.ndarray:
    """The cells as the paths of the SVG paint them."""
    colour_of = {ink.colour: index for index, ink in enumerate(picture.inks)}
    shown = np.zeros(picture.cells.shape, dtype=int)
    for path in ET.fromstring(svg).iter(f"{SVG}path"):
        if (colour := path.get("fill")) is not None:
            for x, y, w, h in re.findall(r"M(\d+) (\d+)h(\d+)v(\d+)h-\3z", path.get("d")):
                area = shown[int(y) : int(y) + int(h), int(x) : int(x) + int(w)]
                assert area.shape == (int(h), int(w))
                assert not area.any(), "painted twice"
                area[:] = colour_of[colour]
    return shown


@given(MASKS)
def test_an_svg_paints_every_cell_once(mask: np.ndarray):
    picture = picture_mask(mask)
    assert (painted(encode_svg(picture), picture) == picture.cells).all()


def test_an_svg_paints_tiles_and_names_their_colours():
    picture = picture_tiles(schedule_of([window(100, 20, 3)], [[0]], (8, 8)), title="a < b & c")
    svg = encode_svg(picture)
    assert (painted(svg, picture) == picture.cells).all()
    words = [element.text for element in ET.fromstring(svg).iter(f"{SVG}text")]
    assert {"a < b & c", picture.note, "full: no mask", "partial: masked", "q", "k"} <= set(words)


def test_a_view_in_slices_leaves_paper_between():
    seen = np.zeros((7, 6, 5), dtype=bool)
    picture = picture_view(seen.ravel(), seen.shape, (3, 2, 2))
    assert (painted(encode_svg(picture), picture) == picture.cells).all()
    assert (read_png(encode_png(picture, scale=2, margin=0))[1:-1, 1:-1][::2, 10] == 255).all()


def test_the_same_picture_is_the_same_file():
    first, second = (picture_mask(window(90, 7, 2), title="twice") for _ in range(2))
    assert encode_png(first) == encode_png(second)
    assert encode_svg(first) == encode_svg(second)


def test_a_picture_of_nothing_is_still_a_file():
    picture = picture_mask(np.ones((0, 4), dtype=bool))
    assert ET.fromstring(encode_svg(picture)) is not None
    assert read_png(encode_png(picture)).size > 0
