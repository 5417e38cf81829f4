"""Pictures as files: PNG for anywhere, SVG with rulers and a legend. Standard library only."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias
from xml.sax.saxutils import escape

import numpy as np

from .pictures import BLUE, GROUND, PAPER, CellArray, Ink, Picture, Ruler

Rectangle: TypeAlias = tuple[int, int, int, int]  # x, y, width, height, in cells
Bits: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

SIDE = 512  # pixels that the longer side aims for
LINED = 10  # from this many pixels a cell on, hairlines set the cells apart
INK_OF_WORDS, INK_OF_FRAME = "#333a44", "#9aa3ad"
GLYPH = 6.6  # pixels of a mean glyph of a 12 px sans serif
FONT = "font-family='system-ui, sans-serif' font-size='12'"

# On a dark page: what is light becomes dark, and the words light. Attributes are the colours of the day.
NIGHT = {PAPER: "#14171b", GROUND: "#2a3038", INK_OF_WORDS: "#d8dde3", BLUE: "#3d9ad1"}
_AT_NIGHT = "@media(prefers-color-scheme:dark){{{}}}".format(
    "".join(
        f"[fill='{day}']{{fill:{night}}}[stroke='{day}']{{stroke:{night}}}"
        for day, night in NIGHT.items()
    )
)


def encode_png(*pictures: Picture, scale: int | None = None, margin: int = 8) -> bytes:
    """The cells as a crisp indexed PNG; several pictures stand side by side.

    Args:
        *pictures: what to show; titles and legends are words, and words are for the SVG.
        scale: pixels a cell, whole; by default whatever makes the longer side about 512.
        margin: white pixels around, so that the picture stands on a dark page too.
    """
    colours = list(dict.fromkeys(ink.colour for picture in pictures for ink in picture.inks))
    colours += [PAPER, INK_OF_FRAME]
    panels = [_pixels(picture, colours, scale or _scale(picture), margin) for picture in pictures]
    height, paper = max(len(panel) for panel in panels), len(colours) - 2
    level = [
        np.pad(panel, ((0, height - len(panel)), (0, 0)), constant_values=paper) for panel in panels
    ]
    joined = np.concatenate([level[0], *(panel[:, margin:] for panel in level[1:])], axis=1)
    return _png(joined, b"".join(bytes.fromhex(colour[1:]) for colour in colours))


def _pixels(picture: Picture, colours: list[str], scale: int, margin: int) -> CellArray:
    """Pixels of one picture in its frame, as indices of the colours."""
    paper, frame = len(colours) - 2, len(colours) - 1
    index = np.array([colours.index(ink.colour) for ink in picture.inks], dtype=np.uint8)
    pixels = index[picture.cells].repeat(scale, axis=0).repeat(scale, axis=1)
    if scale >= LINED:
        pixels[scale - 1 :: scale, :] = paper
        pixels[:, scale - 1 :: scale] = paper
        pixels = pixels[:-1, :-1]
    return np.pad(np.pad(pixels, 1, constant_values=frame), margin, constant_values=paper)


def _png(pixels: CellArray, palette: bytes) -> bytes:
    """An 8-bit indexed PNG (W3C PNG, third edition): header, palette, rows with filter 0, end."""
    height, width = pixels.shape
    rows = np.pad(pixels, ((0, 0), (1, 0))).tobytes()  # each row opens with its filter type

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", palette),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, data) for kind, data in chunks)


def encode_svg(*pictures: Picture, scale: int | None = None) -> str:
    """A self-contained SVG text: pictures side by side, each with title, rulers and note, and one legend.

    It needs no plotting library, adapts to dark pages, and opens with its words for those who listen.
    """
    top = 44 if any(picture.title for picture in pictures) else 26
    panels, x, bottom = list[str](), 0, 0
    for picture in pictures:
        zoom = scale or _scale(picture)
        left = x + (52 if picture.rows is not None else 12)
        panels += _panel(picture, zoom, left, top)
        x = left + _width(picture, zoom, alone=len(pictures) == 1) + 16
        bottom = max(bottom, top + len(picture.cells) * zoom)
    left = 52 if pictures[0].rows is not None else 12
    inks = {ink.label: ink for picture in pictures for ink in picture.legend}
    legend, tall = _legend(tuple(inks.values()), x - left - 16, bottom + 38)
    size = f"viewBox='0 0 {x} {bottom + 38 + tall}' width='{x}' height='{bottom + 38 + tall}'"
    words = "; ".join(" — ".join(filter(None, (each.title, each.note))) for each in pictures)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' {size} {FONT} fill='{INK_OF_WORDS}' role='img'>",
        f"<title>{escape(words)}</title>",
        f"<style>{_AT_NIGHT}</style>",
        f"<rect width='100%' height='100%' fill='{PAPER}'/>",
        *panels,
        f"<g transform='translate({left} 0)'>",
        *legend,
        "</g>",
        "</svg>",
    ]
    return "\n".join(part for part in parts if "></text>" not in part) + "\n"


def _panel(picture: Picture, scale: int, left: int, top: int) -> Iterator[str]:
    """One picture between its title and its note."""
    under = top + len(picture.cells) * scale + 20
    yield f"<text x='{left}' y='18' font-weight='600'>{escape(picture.title)}</text>"
    yield f"<g transform='translate({left} {top})'>"
    yield from _cells(picture, scale)
    yield from _rulers(picture, scale)
    yield "</g>"
    yield f"<text x='{left}' y='{under}'>{escape(picture.note)}</text>"


def _width(picture: Picture, scale: int, *, alone: bool) -> int:
    """Room for the cells, and for the words of those that have neighbours."""
    cells = int(picture.cells.shape[1]) * scale
    longest = max(len(picture.title) * GLYPH, len(picture.note) * GLYPH)
    return max(cells, 300) if alone else max(cells, round(longest))


def _scale(picture: Picture) -> int:
    rows, columns = picture.cells.shape
    return max(1, min(24, SIDE // max(1, int(rows), int(columns))))


def _cells(picture: Picture, scale: int) -> Iterator[str]:
    height, width = picture.cells.shape
    box = f"width='{width * scale}' height='{height * scale}'"
    yield f"<rect {box} fill='{picture.inks[0].colour}'/>"
    yield f"<g transform='scale({scale})' shape-rendering='crispEdges'>"
    for index, ink in enumerate(picture.inks[1:], 1):
        path = "".join(
            f"M{x} {y}h{w}v{h}h-{w}z" for x, y, w, h in _rectangles(picture.cells == index)
        )
        if path:
            yield f"<path fill='{ink.colour}' d='{path}'/>"
    yield "</g>"
    if scale >= LINED:
        across = "".join(f"M0 {y * scale}h{width * scale}" for y in range(1, height))
        down = "".join(f"M{x * scale} 0v{height * scale}" for x in range(1, width))
        yield f"<path stroke='{PAPER}' d='{across}{down}'/>"
    yield f"<rect {box} fill='none' stroke='{INK_OF_FRAME}'/>"


def _rectangles(bits: Bits) -> Iterator[Rectangle]:
    """Runs of each row, joined downwards with equal runs of the rows below."""
    open_runs: dict[tuple[int, int], int] = {}  # (start, stop) -> first row
    edges = np.diff(np.pad(bits, ((0, 1), (1, 1))).astype(np.int8), axis=1)
    for y, row in enumerate(edges):
        runs = set(
            zip(np.flatnonzero(row > 0).tolist(), np.flatnonzero(row < 0).tolist(), strict=True)
        )
        for run in sorted(open_runs.keys() - runs):
            first = open_runs.pop(run)
            yield run[0], first, run[1] - run[0], y - first
        for run in runs:
            open_runs.setdefault(run, y)


def _rulers(picture: Picture, scale: int) -> Iterator[str]:
    height, width = (int(side) * scale for side in picture.cells.shape)
    if (columns := picture.columns) is not None:
        for tick, x in _places(columns, scale, width - 40):
            yield f"<text x='{x}' y='-6'>{columns.first + tick:,}</text>"
        yield _name(columns, width, -6)
    if (rows := picture.rows) is not None:
        for tick, y in _places(rows, scale, height - 24):
            yield f"<text x='-6' y='{y + 11}' text-anchor='end'>{rows.first + tick:,}</text>"
        yield _name(rows, -6, height)


def _places(ruler: Ruler, scale: int, room: int) -> Iterator[tuple[int, int]]:
    """Ticks and their pixels, but for those that would run into the ruler's name."""
    for tick in ruler.ticks():
        pixel = round(tick / ruler.step * scale)
        if tick == 0 or pixel <= room:
            yield tick, pixel


def _name(ruler: Ruler, x: int, y: int) -> str:
    return f"<text x='{x}' y='{y}' text-anchor='end' font-style='italic'>{ruler.label}</text>"


def _legend(inks: Iterable[Ink], width: int, top: int) -> tuple[list[str], int]:
    """The legend's elements, wrapped to the width, and its height."""
    x, y, parts = 0, 0, list[str]()
    for ink in inks:
        advance = 30 + round(GLYPH * len(ink.label))
        if x and x + advance > width:
            x, y = 0, y + 20
        parts.append(
            f"<rect x='{x}' y='{top + y}' width='12' height='12' fill='{ink.colour}'"
            f" stroke='{INK_OF_FRAME}'/>"
            f"<text x='{x + 18}' y='{top + y + 10}'>{escape(ink.label)}</text>"
        )
        x += advance
    return parts, y + 24
