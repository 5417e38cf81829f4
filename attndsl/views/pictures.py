"""A picture before it is ink: cells, what each kind of cell means, and rulers along the sides.

Three subjects: the token mask, the tiles of a schedule, and what one query sees. A subject that is too large
is shrunk by whole blocks, honestly: a block is drawn empty only when it is empty and full only when
it is full, so that a single stray pair among millions still shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod
from typing import Any, TypeAlias

import numpy as np

from attndsl import ir
from attndsl.schedule import Schedule

from .blocks import CountArray, tiles_in_blocks

CellArray: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

SHADES = 14  # grey levels of a shrunk mask, beside empty and full
WRAP = 64  # cells in a row of a one-dimensional view


@dataclass(frozen=True, slots=True)
class Ink:
    """One kind of cell: its words, its colour, and its glyphs, two characters wide to be square."""

    label: str
    colour: str  # "#rrggbb"
    glyph: str
    ascii: str


@dataclass(frozen=True, slots=True)
class Ruler:
    """Labels along one side: cell ``i`` stands for ``[i * step, (i + 1) * step)``, counted from ``first`` on."""

    label: str
    length: int
    step: int = 1
    first: int = 0

    def ticks(self, most: int = 6) -> range:
        """Round positions, at most ``most``: powers of two apart, as tiles and windows are."""
        gap = 1
        while ceil(self.length / gap) > most:
            gap *= 2
        return range(0, self.length, gap)


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Cells, uint8 [rows, columns], indexing ``inks``; ink 0 is the ground, that is left blank."""

    cells: CellArray
    inks: tuple[Ink, ...]
    rows: Ruler | None
    columns: Ruler | None
    note: str
    title: str = ""

    @property
    def legend(self) -> tuple[Ink, ...]:
        """The inks that need words: those that occur, one for each label."""
        present = [self.inks[index] for index in np.unique(self.cells)]
        return tuple({ink.label: ink for ink in present if ink.label}.values())


# Okabe and Ito's palette: told apart by every common kind of colour blindness, and in grey.
BLUE, ORANGE, VERMILION = "#0072b2", "#e69f00", "#d55e00"
GROUND, PAPER = "#edeff2", "#ffffff"

MASK_INKS = (Ink("not allowed", GROUND, "· ", ". "), Ink("allowed", BLUE, "██", "# "))
TILE_INKS = (
    Ink("empty: skipped", GROUND, "· ", ". "),
    Ink("full: no mask", BLUE, "██", "# "),
    Ink("partial: masked", ORANGE, "▒▒", "+ "),
)
BLOCK_INKS = (
    Ink("no tile is live", GROUND, "· ", ". "),
    Ink("every tile is full", BLUE, "██", "# "),
    Ink("some tiles are live", ORANGE, "▒▒", "+ "),
)
VIEW_INKS = (
    Ink("not seen", GROUND, "· ", ". "),
    Ink("seen", BLUE, "██", "# "),
    Ink("the query, which sees itself", VERMILION, "◆ ", "Q "),
    Ink("the query, which does not see itself", "#f3b48f", "◇ ", "q "),
    Ink("", PAPER, "  ", "  "),
)
GAP = len(VIEW_INKS) - 1  # the space between two slices


def picture_mask(mask: BoolArray, *, most: int = 512, title: str = "") -> Picture:
    """The token mask of one head.

    Args:
        mask: bool [q, k]; row ``q`` tells which keys query ``q`` sees.
        most: cells along the longer side; a longer mask is shrunk by whole blocks and shaded.
        title: a caption.
    """
    mask = one_mask(mask)
    step = shrink(max(mask.shape), most)
    cells = shades(mask, (step, step), SHADES + 2) if step > 1 else mask.astype(np.uint8)
    inks = shade_inks(SHADES) if step > 1 else MASK_INKS
    rulers = Ruler("q", mask.shape[0], step), Ruler("k", mask.shape[1], step)
    note = mask_note(mask) + (f"; a cell is {step} × {step} pairs" if step > 1 else "")
    return Picture(cells, inks, *rulers, note=note, title=title)


def picture_tiles(
    schedule: Schedule, batch: int = 0, head: int = 0, *, most: int = 512, title: str = ""
) -> Picture:
    """Picture of the tiles that one (batch, head) skips, computes, and masks.

    Args:
        schedule: of any length; the work follows its live tiles.
        batch: which batch element.
        head: which head.
        most: cells along the longer side; beyond it a cell stands for a block of tiles, and says
            whether none of them is live, some are, or every one is full.
        title: a caption.
    """
    plan, grid, tile = schedule.plan(batch, head), schedule.grid, schedule.tile
    step = shrink(max(grid), most)
    whole = range(grid[0]), range(grid[1])
    full = tiles_in_blocks(plan.full, *whole, step)
    live = full + tiles_in_blocks(plan.partial, *whole, step)
    cells = np.where(full == _area(grid, (step, step)), 1, np.where(live > 0, 2, 0))
    note = (
        f"{plan.full.nnz:,} full, {plan.partial.nnz:,} partial of {prod(grid):,} tiles"
        f" of {tile[0]} × {tile[1]}" + (f"; a cell is {step} × {step} tiles" if step > 1 else "")
    )
    rulers = (
        Ruler("q", schedule.q_len, step * tile[0]),
        Ruler("k", schedule.k_len, step * tile[1]),
    )
    inks = TILE_INKS if step == 1 else BLOCK_INKS
    return Picture(cells.astype(np.uint8), inks, *rulers, note=note, title=title)


def picture_view(
    seen: BoolArray,
    shape: tuple[int, ...],
    query: tuple[int, ...] | None = None,
    *,
    across: int = 5,
    title: str = "",
) -> Picture:
    """Picture of the keys one query sees, on the grid where they live.

    Args:
        seen: bool [k], one row of the mask; ``k == prod(shape)``.
        shape: one, two or three extents. Three make slices along the first, in reading order.
        query: the query's own coordinates on that grid, where it lives there too.
        across: slices side by side.
        title: a caption.
    """
    seen = np.asarray(seen, dtype=bool)
    if seen.shape != (prod(shape),) or not 1 <= len(shape) <= 3:
        raise ValueError(f"a row of {seen.shape} does not fill a grid of {shape}, 1 to 3 extents")
    cells = seen.astype(np.uint8).reshape(shape)
    if query is not None:
        cells[query] = 2 if cells[query] else 3
    note = f"{int(seen.sum()):,} of {seen.size:,} keys"
    match shape:
        case (length,):
            width = min(length, WRAP)
            sheet = _wrapped(cells, width)
            rows = Ruler("", length, width) if length > width else None
            return Picture(sheet, VIEW_INKS, rows, Ruler("k", width), note, title)
        case (height, width):
            return Picture(cells, VIEW_INKS, Ruler("y", height), Ruler("x", width), note, title)
        case _:
            note += f"; {shape[0]} slices of {shape[1]} × {shape[2]}, in reading order"
            return Picture(_slices(cells, across), VIEW_INKS, None, None, note, title)


def picture_query(
    seen: BoolArray,
    space: ir.Space,
    sizes: Mapping[str, int],
    position: int | None = None,
    *,
    width: int = 32,
    title: str = "",
) -> tuple[Picture, ...]:
    """Pictures of the keys one query sees, one for each segment of the keys' space, on its own grid.

    Args:
        seen: bool [k], one row of the mask.
        space: where the keys live. Flat positions, and segments of more than three axes, are one line.
        sizes: extents by "segment.axis".
        position: the query's own, where it lives in the same space.
        width: cells in a row of slices.
        title: a caption; segments add their names where there are several.
    """
    start, made = 0, list[Picture]()
    several = len(space.segments) > 1
    for name, shape in segment_shapes(space, sizes, len(seen)):
        stop = start + prod(shape)
        own = None
        if position is not None and start <= position < stop:
            own = tuple(int(i) for i in np.unravel_index(position - start, shape))
        caption = ": ".join(filter(None, (title, name if several else "")))
        across = max(1, width // (shape[-1] + 1))
        made.append(picture_view(seen[start:stop], shape, own, across=across, title=caption))
        start = stop
    return tuple(made)


def segment_shapes(
    space: ir.Space, sizes: Mapping[str, int], length: int
) -> list[tuple[str, tuple[int, ...]]]:
    """Each segment of a space, and the shape to draw it in; a space without segments is one line."""
    found = [
        (each.name, tuple(sizes[f"{each.name}.{axis.name}"] for axis in each.axes))
        for each in space.segments
    ]
    flat = [(name, shape if len(shape) <= 3 else (prod(shape),)) for name, shape in found]
    return flat or [("", (length,))]


def one_mask(mask: BoolArray) -> BoolArray:
    """The mask as bool [q, k], or a ValueError that says how to choose one."""
    mask = np.asarray(mask, dtype=bool)
    if mask.ndim != 2:
        raise ValueError(
            f"a picture shows one mask [q, k], not an array {list(mask.shape)};"
            " choose a batch element and a head: mask[b, h]"
        )
    return mask


def mask_note(mask: BoolArray) -> str:
    """Lengths, density, and the rows that see nothing."""
    pairs, blind = int(mask.sum()), int((~mask.any(axis=1)).sum())
    share = "under 0.1%" if 0 < pairs < mask.size / 1000 else f"{pairs / max(1, mask.size):.1%}"
    note = f"{mask.shape[0]:,} queries × {mask.shape[1]:,} keys, {share} allowed"
    return note + (f", {blind:,} without any key" if blind else "")


def shrink(length: int, most: int) -> int:
    """The least whole step that brings a length down to ``most`` cells."""
    return max(1, ceil(length / max(1, most)))


def shades(mask: BoolArray, block: tuple[int, int], levels: int) -> CellArray:
    """Density of each block as a level: 0 only where it is 0, ``levels - 1`` only where it is 1."""
    counts = mask.astype(np.int64)
    for axis, step in enumerate(block):
        if counts.shape[axis]:
            counts = np.add.reduceat(counts, np.arange(0, counts.shape[axis], step), axis=axis)
    area = _area(mask.shape, block)
    between = 1 + counts * (levels - 2) // np.maximum(area, 1)
    level = np.where(counts == 0, 0, np.where(counts == area, levels - 1, between))
    return level.astype(np.uint8)


def shade_inks(levels: int) -> tuple[Ink, ...]:
    """Inks for empty, ``levels`` densities, full."""
    # It starts away from the ground: next to nothing is not nothing.
    ramp = tuple(
        Ink("some allowed", _mix("#c8dcea", BLUE, i / levels), "▒▒", "+ ") for i in range(levels)
    )
    return (
        Ink("none allowed", GROUND, "· ", ". "),
        *ramp,
        Ink("all allowed", BLUE, "██", "# "),
    )


def _mix(first: str, second: str, share: float) -> str:
    channels = (
        round(int(first[i : i + 2], 16) * (1 - share) + int(second[i : i + 2], 16) * share)
        for i in (1, 3, 5)
    )
    return "#" + "".join(f"{channel:02x}" for channel in channels)


def _area(shape: tuple[int, ...], block: tuple[int, int]) -> CountArray:
    """How many cells each block holds; the last ones may be ragged."""
    rows, columns = (
        np.minimum(step, length - np.arange(0, length, step, dtype=np.int64))
        for length, step in zip(shape, block, strict=True)
    )
    return rows[:, None] * columns[None, :]


def _wrapped(cells: CellArray, width: int) -> CellArray:
    rows = ceil(len(cells) / max(1, width))
    sheet = np.full(rows * width, GAP, dtype=np.uint8)
    sheet[: len(cells)] = cells
    return sheet.reshape(rows, width)


def _slices(cells: CellArray, across: int) -> CellArray:
    """[n, y, x] as a sheet of slices, ``across`` in a row, a gap around each."""
    count, height, width = cells.shape
    across = max(1, min(across, count))
    down = ceil(count / across)
    sheet = np.full((down, across, height + 1, width + 1), GAP, dtype=np.uint8)
    sheet.reshape(-1, height + 1, width + 1)[:count, :height, :width] = cells
    joined = sheet.transpose(0, 2, 1, 3).reshape(down * (height + 1), across * (width + 1))
    return joined[:-1, :-1]
