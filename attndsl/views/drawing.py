"""Pictures as text, for a terminal, a docstring, a bug report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise, zip_longest
from math import ceil

import numpy as np

from attndsl import ir
from attndsl.schedule import Schedule

from .pictures import (
    BoolArray,
    CellArray,
    Ink,
    Picture,
    Ruler,
    mask_note,
    one_mask,
    picture_mask,
    picture_query,
    picture_tiles,
    picture_view,
    shades,
    shrink,
)


class Charset(StrEnum):
    """Characters that the reader's terminal can show."""

    UNICODE = "unicode"
    ASCII = "ascii"


SHADE_GLYPHS = {Charset.UNICODE: " ░▒▓█", Charset.ASCII: " .:*#"}
HALVES = " ▄▀█"  # indexed by 2 * upper + lower
SMALL = 24  # up to here a cell gets two characters: large and square
# The dots of a braille cell, [row, column] -> bit; rows 0 to 2 came first, row 3 was added later.
BRAILLE = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])


def charset_for(encoding: str | None) -> Charset:
    """The charset of a stream with this ``encoding``."""
    try:
        "▀█░⣿◆".encode(encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return Charset.ASCII
    return Charset.UNICODE


def draw_mask(
    mask: BoolArray,
    *,
    width: int = 64,
    height: int = 32,
    charset: Charset | str = Charset.UNICODE,
) -> str:
    """The token mask of one head: queries go down, keys go across.

    A small mask takes two characters a pair, a larger one a half block or a braille dot; what does
    not fit is shaded by density. An ASCII picture has no finer marks, so it is shaded earlier.

    Args:
        mask: bool [q, k].
        width: characters of the picture itself, without its labels.
        height: lines of the picture itself.
        charset: ``"unicode"`` or ``"ascii"``.
    """
    mask, charset = one_mask(mask), Charset(charset)
    queries, keys = mask.shape
    fine = charset is Charset.UNICODE
    if keys <= min(width // 2, SMALL if fine else width) and queries <= min(height, SMALL):
        return draw_picture(picture_mask(mask), charset=charset)
    if fine and keys <= width and queries <= 2 * height:
        lines, cell = _half_blocks(mask), (2, 1)
    elif fine and keys <= 2 * width and queries <= 4 * height:
        lines, cell = _braille(mask), (4, 2)
    else:
        step = max(shrink(keys, width), shrink(queries, 2 * height))
        lines, cell = _shaded(mask, step, charset), (2 * step, step)  # characters are tall
    rulers = Ruler("q", queries, cell[0]), Ruler("k", keys, cell[1])
    scale = f"one character is {cell[0]} × {cell[1]} pairs"
    if cell[1] > 2 or not fine:
        glyphs = SHADE_GLYPHS[charset]
        scale += f": {glyphs[1:-1]} some allowed, {glyphs[-1]} all"
    return _framed(lines, *rulers, 1, [mask_note(mask), scale], charset)


def draw_tiles(
    schedule: Schedule,
    batch: int = 0,
    head: int = 0,
    *,
    width: int = 64,
    charset: Charset | str = Charset.UNICODE,
) -> str:
    """The tiles of one (batch, head): skipped, computed, masked. Two characters a tile."""
    picture = picture_tiles(schedule, batch, head, most=width // 2)
    return draw_picture(picture, charset=charset)


def draw_view(
    seen: BoolArray,
    shape: tuple[int, ...],
    query: tuple[int, ...] | None = None,
    *,
    width: int = 64,
    charset: Charset | str = Charset.UNICODE,
) -> str:
    """Draws the keys one query sees on its own grid; the arguments are those of ``picture_view``."""
    across = max(1, width // (2 * shape[-1] + 2))
    return draw_picture(picture_view(seen, shape, query, across=across), charset=charset)


def draw_query(
    seen: BoolArray,
    space: ir.Space,
    sizes: Mapping[str, int],
    position: int | None = None,
    *,
    width: int = 64,
    charset: Charset | str = Charset.UNICODE,
) -> str:
    """Draws the keys one query sees, each segment of the keys' space on its own grid.

    Args:
        seen: bool [k], one row of the mask.
        space: where the keys live. Flat positions, and segments of more than three axes, are
            drawn as one line.
        sizes: extents by "segment.axis".
        position: the query's own, where it lives in the same space.
        width: characters of a picture, without its labels.
        charset: ``"unicode"`` or ``"ascii"``.
    """
    pictures = picture_query(seen, space, sizes, position, width=width // 2)
    drawn = ((each.title, draw_picture(each, charset=charset)) for each in pictures)
    return "\n".join(f"{name}\n{text}" if name else text for name, text in drawn)


def draw_pictures(
    pictures: Sequence[Picture],
    *,
    width: int = 100,
    charset: Charset | str = Charset.UNICODE,
) -> str:
    """Pictures side by side where they fit into ``width`` characters, under titles if they are several."""
    blocks = [draw_picture(each, charset=charset).splitlines() for each in pictures]
    if len(blocks) > 1:
        blocks = [[each.title, *block] for each, block in zip(pictures, blocks, strict=True)]
    widths = [max(map(len, block)) for block in blocks]
    if len(blocks) > 1 and sum(widths) + 3 * (len(blocks) - 1) > width:
        return "\n\n".join("\n".join(block) for block in blocks)
    rows = zip_longest(*blocks, fillvalue="")
    padded = ("   ".join(map(str.ljust, row, widths)) for row in rows)
    return "\n".join(line.rstrip() for line in padded)


def draw_picture(picture: Picture, *, charset: Charset | str = Charset.UNICODE) -> str:
    """Any picture, two characters a cell, with its rulers, its note and its legend."""
    charset = Charset(charset)

    def glyph(ink: Ink) -> str:
        return ink.glyph if charset is Charset.UNICODE else ink.ascii

    lines = _spelled(picture.cells, [glyph(ink) for ink in picture.inks].__getitem__)
    legend = "   ".join(f"{glyph(ink).strip()} {ink.label}" for ink in picture.legend)
    return _framed(lines, picture.rows, picture.columns, 2, [picture.note, legend], charset)


def _half_blocks(mask: BoolArray) -> list[str]:
    upper, lower = _padded(mask, 2, 1)[0::2], _padded(mask, 2, 1)[1::2]
    return _spelled(2 * upper.astype(np.uint8) + lower, HALVES.__getitem__)


def _braille(mask: BoolArray) -> list[str]:
    dots = _padded(mask, 4, 2)
    rows, columns = dots.shape[0] // 4, dots.shape[1] // 2
    cells = dots.reshape(rows, 4, columns, 2).transpose(0, 2, 1, 3)
    codes = (cells * BRAILLE).sum(axis=(2, 3)).astype(np.uint8)
    return _spelled(codes, lambda code: chr(0x2800 + code) if code else " ")


def _shaded(mask: BoolArray, step: int, charset: Charset) -> list[str]:
    glyphs = SHADE_GLYPHS[charset]
    return _spelled(shades(mask, (2 * step, step), len(glyphs)), glyphs.__getitem__)


def _padded(mask: BoolArray, rows: int, columns: int) -> BoolArray:
    return np.pad(mask, ((0, -mask.shape[0] % rows), (0, -mask.shape[1] % columns)))


def _spelled(cells: CellArray, glyph: Callable[[int], str]) -> list[str]:
    return ["".join(map(glyph, row)) for row in cells.tolist()]


def _framed(
    lines: Sequence[str],
    rows: Ruler | None,
    columns: Ruler | None,
    pitch: int,
    notes: Sequence[str],
    charset: Charset,
) -> str:
    """The lines between their rulers; ``pitch`` is characters a cell."""
    labels = _row_labels(rows, len(lines)) if rows is not None else [""] * len(lines)
    corner = _corner(rows, columns)
    gutter = max([len(corner), *map(len, labels)])
    indent = gutter + (gutter > 0)
    body = [
        f"{label:>{gutter}}".ljust(indent) + line for label, line in zip(labels, lines, strict=True)
    ]
    if columns is not None:
        body.insert(0, corner.rjust(gutter).ljust(indent) + _column_labels(columns, pitch))
    words = "\n".join(note for note in notes if note)
    if charset is Charset.ASCII:
        words = words.replace("×", "x")
    return "\n".join([*(line.rstrip() for line in body), words])


def _corner(rows: Ruler | None, columns: Ruler | None) -> str:
    names = [ruler.label for ruler in (rows, columns) if ruler is not None and ruler.label]
    return "\\".join(names)


def _row_labels(ruler: Ruler, count: int) -> list[str]:
    """A number beside each line that holds a tick; a line holds ``[i * step, (i + 1) * step)``."""
    most = max(2, ceil(count / 3))
    labels = [""] * count
    for tick in reversed(ruler.ticks(most)):
        labels[tick // ruler.step] = str(tick)
    return labels


def _column_labels(ruler: Ruler, pitch: int) -> str:
    """Numbers above the columns where they hold, as many as fit with a space between."""
    cells = ceil(ruler.length / ruler.step)
    width = len(str(ruler.length)) + 1
    ticks = ruler.ticks(max(1, cells * pitch // width))
    starts = [tick // ruler.step * pitch for tick in ticks]
    gaps = [after - before for before, after in pairwise([*starts, cells * pitch])]
    return "".join(f"{tick:<{gap}}" for tick, gap in zip(ticks, gaps, strict=True)).rstrip()
