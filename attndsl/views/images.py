"""Pictures as files: PNG for anywhere, SVG with rulers and a legend. Standard library only."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any, TypeAlias
from xml.sax.saxutils import escape

import numpy as np

from .pictures import PAPER, CellArray, Picture, Ruler

Rectangle: TypeAlias = tuple[int, int, int, int]  # x, y, width, height, in cells
Bits: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

SIDE = 512  # pixels that the longer side aims for
LINED = 10  # from this many pixels a cell on, hairlines set the cells apart
INK_OF_WORDS, INK_OF_FRAME = "#333a44", "#9aa3ad"
FONT = "font-family='system-ui, sans-serif' font-size='12'"


def encode_png(picture: Picture, *, scale: int | None = None, margin: int = 8) -> bytes:
    """The cells as a crisp indexed PNG.

    Args:
        picture: what to show; titles and legends are words, and words are for the SVG.
        scale: pixels a cell, whole; by default whatever makes the longer side about 512.
        margin: white pixels around, so that the picture stands on a dark page too.
    """
    scale = scale or _scale(picture)
    paper, frame = len(picture.inks), len(picture.inks) + 1
    pixels = picture.cells.repeat(scale, axis=0).repeat(scale, axis=1)
    if scale >= LINED:
        pixels[scale - 1 :: scale, :] = paper
        pixels[:, scale - 1 :: scale] = paper
        pixels = pixels[:-1, :-1]
    pixels = np.pad(np.pad(pixels, 1, constant_values=frame), margin, constant_values=paper)
    colours = [*(ink.colour for ink in picture.inks), PAPER, INK_OF_FRAME]
    return _png(pixels, b"".join(bytes.fromhex(colour[1:]) for colour in colours))


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


def encode_svg(picture: Picture, *, scale: int | None = None) -> str:
    """The picture with its title, rulers, note and legend, as a self-contained SVG text."""
    scale = scale or _scale(picture)
    height, width = (side * scale for side in picture.cells.shape)
    left, top = 52 if picture.rows is not None else 12, 44 if picture.title else 26
    legend, tall = _legend(picture, max(width, 300), top + height + 38)
    wide, high = left + max(width, 300) + 16, top + height + 38 + tall
    size = f"viewBox='0 0 {wide} {high}' width='{wide}' height='{high}'"
    words = escape(" — ".join(filter(None, (picture.title, picture.note))))
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' {size} {FONT} fill='{INK_OF_WORDS}' role='img'>",
        f"<title>{words}</title>",
        f"<rect width='100%' height='100%' fill='{PAPER}'/>",
        f"<text x='{left}' y='18' font-weight='600'>{escape(picture.title)}</text>",
        f"<g transform='translate({left} {top})'>",
        *_cells(picture, scale),
        *_rulers(picture, scale),
        "</g>",
        f"<text x='{left}' y='{top + height + 20}'>{escape(picture.note)}</text>",
        f"<g transform='translate({left} 0)'>",
        *legend,
        "</g>",
        "</svg>",
    ]
    return "\n".join(part for part in parts if "></text>" not in part) + "\n"


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
            yield f"<text x='{x}' y='-6'>{tick:,}</text>"
        yield _name(columns, width, -6)
    if (rows := picture.rows) is not None:
        for tick, y in _places(rows, scale, height - 24):
            yield f"<text x='-6' y='{y + 11}' text-anchor='end'>{tick:,}</text>"
        yield _name(rows, -6, height)


def _places(ruler: Ruler, scale: int, room: int) -> Iterator[tuple[int, int]]:
    """Ticks and their pixels, but for those that would run into the ruler's name."""
    for tick in ruler.ticks():
        pixel = round(tick / ruler.step * scale)
        if tick == 0 or pixel <= room:
            yield tick, pixel


def _name(ruler: Ruler, x: int, y: int) -> str:
    return f"<text x='{x}' y='{y}' text-anchor='end' font-style='italic'>{ruler.label}</text>"


def _legend(picture: Picture, width: int, top: int) -> tuple[list[str], int]:
    """The legend's elements, wrapped to the width, and its height."""
    x, y, parts = 0, 0, list[str]()
    for ink in picture.legend:
        advance = 30 + round(6.6 * len(ink.label))  # a mean glyph of a 12 px sans serif
        if x and x + advance > width:
            x, y = 0, y + 20
        parts.append(
            f"<rect x='{x}' y='{top + y}' width='12' height='12' fill='{ink.colour}'"
            f" stroke='{INK_OF_FRAME}'/>"
            f"<text x='{x + 18}' y='{top + y + 10}'>{escape(ink.label)}</text>"
        )
        x += advance
    return parts, y + 24
