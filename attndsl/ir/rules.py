"""Rules of the language for names, spaces and tables that come from elsewhere than its text."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Final

from attndsl.ir.interning import Sort
from attndsl.ir.mask import Align, Axis, Mask, Space, Table

LARGEST_SPACE: Final = 1 << 40  # tokens
DIM_WORDS: Final = frozenset({"batch", "head", "pos", "q", "k"})
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LONGEST_NAME: Final = 200  # characters


def is_name(text: str) -> bool:
    """Whether it is a name as the language spells them."""
    return len(text) <= _LONGEST_NAME and _NAME.fullmatch(text) is not None


def space_fault(space: Space) -> str | None:
    """The first error of a space, if it has one."""
    if not space.segments:
        return None if not space.name else f"the space {space.name!r} has no segments"
    for segment in space.segments:
        if not segment.axes:
            return f"the segment {segment.name!r} has no axes"
        if (twice := _twice(axis.name for axis in segment.axes)) is not None:
            return f"the axis {twice!r} is declared twice"
    if (twice := _twice(segment.name for segment in space.segments)) is not None:
        return f"the segment {twice!r} is declared twice"
    names = [space.name, *(s.name for s in space.segments), *(a.name for a in _axes(space))]
    for name in names:
        if not is_name(name):
            return f"{name!r:.60} is not a name"
    for axis in _axes(space):
        if axis.name in DIM_WORDS:
            return f"an axis cannot be named {axis.name!r}, which names a dim of inputs"
        if axis.extent is not None and axis.extent < 1:
            return f"the axis {axis.name!r} has no position"
    sizes = [math.prod(axis.extent or 1 for axis in s.axes) for s in space.segments]
    return None if sum(sizes) <= LARGEST_SPACE else "a space has at most 2**40 positions"


def table_fault(table: Table) -> str | None:
    """The first error of a run-time input, if it has one."""
    if not is_name(table.name):
        return f"{table.name!r:.60} is not a name"
    order = [{"batch": 0, "head": 1}.get(str(dim), 2) for dim in table.dims]
    if not order or order != sorted(order) or order.count(0) > 1 or order.count(1) > 1:
        return "an input has dims; batch, then head, come before all others, each at most once"
    for dim in table.dims:
        if isinstance(dim, int) and dim < 1:
            return "a dim has at least one entry"
        if isinstance(dim, str) and not is_name(dim):
            return f"{dim!r:.60} is not a name"
    if not table.is_list:
        return None
    if table.kind is not Sort.INT:
        return "a list holds integers"
    return "the last dim of a list holds its slots" if table.dims[-1] in DIM_WORDS else None


def mask_fault(mask: Mask) -> str | None:
    """The first contradiction between the spaces and tables of a mask, if there is one."""
    if (twice := _twice(table.name for table in mask.tables)) is not None:
        return f"the input {twice!r} is declared twice"
    if not mask.is_rectangular:
        return None
    if mask.align is Align.END:
        return "positions in different spaces cannot be aligned at their ends"
    for segment in mask.queries.segments:
        if mask.keys.segment(segment.name) not in (None, segment):
            return (
                f"the segment {segment.name!r} of the queries has other axes than that of the keys"
            )
    for table in mask.tables:
        if "pos" in table.dims:
            return f"the input {table.name!r} is indexed by pos, but queries and keys live apart"
    return None


def _axes(space: Space) -> list[Axis]:
    return [axis for segment in space.segments for axis in segment.axes]


def _twice(names: Iterable[str]) -> str | None:
    """The first name that stands there before."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
