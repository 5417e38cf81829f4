"""Pictures side by side: before and after a layout, and a query on each of its grids."""

import io
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from attndsl import ir
from attndsl.compiler import Program
from attndsl.sources import read_mask
from attndsl.views import Sheet, fitting_tile, picture_query, sheet_of_tiles

SVG = "{http://www.w3.org/2000/svg}"
GOLDEN = Path(__file__).parents[2] / "golden" / "views"
FULL, PARTIAL = "#0072b2", "#e69f00"


def before_and_after(text: str, length: int, layout: str, tile: int, **options):
    """The sheet, and the schedules that it shows."""
    program = Program(read_mask(f"pattern p = {text}"))
    call = program.call(length, length, 1, 1, None, {})
    natural = program.schedule(call, (tile, tile))
    parts = [part.schedules[tile, tile] for part in program.tiled(call, layout, (tile, tile))]
    return sheet_of_tiles(natural, parts, title="p", **options), [natural, *parts]


def tiles_in(svg: str) -> list[tuple[int, int]]:
    """FULL and PARTIAL cells of each picture, added up from the rectangles that are painted."""
    found = []
    for panel in ET.fromstring(svg).findall(f"{SVG}g"):
        area = {FULL: 0, PARTIAL: 0}
        for path in panel.iter(f"{SVG}path"):
            for w, h in re.findall(r"h(\d+)v(\d+)h", path.get("d")) if path.get("fill") else []:
                area[path.get("fill")] += int(w) * int(h)
        if panel.find(f"{SVG}g") is not None:  # the legend has no cells
            found.append((area[FULL], area[PARTIAL]))
    return found


LAYOUTS = {
    "one order": ("q % 8 == k % 8 and window(60)", 256, "residues(8)"),
    "parts": ("strided(16)", 512, "auto"),
    "natural is best": ("window(20)", 256, "auto"),
    "blocks": ("q // 32 == k // 32 or k < 16", 250, "residues(2)"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_svg_shows_every_tile_of_every_schedule(name: str):
    sheet, schedules = before_and_after(*LAYOUTS[name], 16)
    shown = schedules[:1] if name == "natural is best" else schedules
    assert len(shown) == {"one order": 2, "parts": 3, "natural is best": 1, "blocks": 2}[name]
    assert tiles_in(sheet.svg()) == [(each.full.nnz, each.partial.nnz) for each in shown]


def test_the_text_puts_them_side_by_side_where_they_fit():
    sheet, _ = before_and_after(*LAYOUTS["one order"], 32)
    wide, narrow = sheet.text(120), sheet.text(40)
    assert "p, natural order" in wide.splitlines()[0]
    assert "residues(8)" in wide.splitlines()[0]
    assert len(narrow.splitlines()) == 2 * len(wide.splitlines()) + 1
    assert sheet.text(120, "ascii").isascii()
    assert str(sheet) == sheet.text()


def test_a_png_holds_all_pictures():
    sheet, _ = before_and_after(*LAYOUTS["parts"], 16)
    sizes = [Image.open(io.BytesIO(each.png())).size for each in map(Sheet, zip(sheet.pictures))]
    joined = Image.open(io.BytesIO(sheet.png()))
    assert joined.size == (sum(width for width, _ in sizes), sizes[0][1])
    assert sheet.png() == sheet.png()
    seen = {tuple(colour) for colour in np.asarray(joined.convert("RGB")).reshape(-1, 3).tolist()}
    assert tuple(bytes.fromhex(PARTIAL[1:])) in seen


def test_a_query_is_shown_on_the_grid_of_each_segment():
    space = ir.Space("s", (
        ir.Segment("text", (ir.Axis("n"),)),
        ir.Segment("film", (ir.Axis("t"), ir.Axis("y"), ir.Axis("x"))),
    ))  # fmt: skip
    sizes = {"text.n": 3, "film.t": 4, "film.y": 2, "film.x": 5}
    seen = np.zeros(43, dtype=bool)
    seen[[0, 5, 41]] = True
    text, film = picture_query(seen, space, sizes, 5, title="query 5")
    assert (text.title, film.title) == ("query 5: text", "query 5: film")
    assert text.cells.tolist() == [[1, 0, 0]]
    assert film.cells.shape == (2, 4 * 6 - 1)  # a row of four slices
    assert film.cells[0, 2] == 2  # the query sees itself
    assert film.cells[1, 18 + 3] == 1


@pytest.mark.parametrize(
    ("length", "tile"), [(8, 4), (64, 4), (512, 32), (8192, 128), (10**6, 128)]
)
def test_tiles_are_as_large_as_is_good_to_look_at(length: int, tile: int):
    assert fitting_tile(length) == tile


def test_the_file_is_small_and_says_what_it_shows(golden):
    sheet, _ = before_and_after("strided(16)", 256, "auto", 32)
    svg = sheet.svg()
    golden(GOLDEN / "strided.svg", svg)
    assert len(svg) < 5_000
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    title = root.find(f"{SVG}title").text
    assert title.startswith("p, natural order — 0 full, 36 partial of 64 tiles of 32 × 32; part 1")


def test_a_dark_page_gets_a_dark_picture():
    """Every colour of paper, ground and words that is used by day has another one at night."""
    sheet, _ = before_and_after("strided(16)", 256, "auto", 32)
    style = ET.fromstring(sheet.svg()).find(f"{SVG}style").text
    assert style.startswith("@media(prefers-color-scheme:dark)")
    for colour in ("#ffffff", "#edeff2", "#333a44"):
        assert f"[fill='{colour}']" in style


def test_a_notebook_shows_the_svg():
    sheet, _ = before_and_after("window(3)", 64, "natural", 16)
    assert sheet._repr_svg_() == sheet.svg()
