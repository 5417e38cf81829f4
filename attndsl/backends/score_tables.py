"""Tables that scores read at pairs: how they lie for kernels, and sums of blocks of tiles along their diagonals.

Files that ``emit`` writes hold this text, so it asks for nothing else of the package.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a table [batch or 1][heads or 1][sizes] lies among all: first entry, strides of batch, head and sizes."""

    first: int
    ambient: tuple[int, int]
    sizes: tuple[int, ...]
    steps: tuple[int, ...]


def narrowed(table: Tensor, *, by_batch: bool, by_head: bool) -> Tensor:
    """A table [batch or 1, heads or 1, ...], without what repeats an entry."""
    for axis, has in enumerate((by_batch, by_head)):
        if not has:
            table = table.unsqueeze(axis)
        elif not table.stride(axis) and table.shape[axis] > 1:
            table = table.narrow(axis, 0, 1)
    return table


def in_a_row(tables: Sequence[Tensor]) -> tuple[list[Layout], Tensor | None]:
    """Where each lies among all of them in a row, and those; each once, and without a copy where there is one."""
    known, parts, first = dict[object, Layout](), list[Tensor](), 0
    layouts = []
    for table in tables:
        place = table.data_ptr(), table.shape, table.stride()
        if place not in known:
            batch, heads, *sizes = table.shape
            steps = [1] * len(sizes)
            for axis in range(len(sizes) - 2, -1, -1):
                steps[axis] = steps[axis + 1] * sizes[axis + 1]
            whole = table[0, 0].numel()
            ambient = whole * heads * (batch > 1), whole * (heads > 1)
            known[place] = Layout(first, ambient, tuple(sizes), tuple(steps))
            parts.append(table.detach().reshape(-1))
            first += table.numel()
        layouts.append(known[place])
    return layouts, None if not parts else parts[0] if len(parts) == 1 else torch.cat(parts)


def numbers_of(sizes: Sequence[int], layouts: Sequence[Layout]) -> list[int]:
    """Lists the numbers of ``numbers``: distances, keys - 1, heads, those of all batch elements, how tables lie."""
    found = list(sizes)
    for layout in layouts:
        found += [layout.first, *layout.ambient]
        for size, step in zip(layout.sizes, layout.steps, strict=True):
            found += [size, step]
    return found


def by_diagonal(blocks: Tensor) -> Tensor:
    """Blocks [..., diagonals, side, side] as sums by distance, [..., (diagonals + 1) * side].

    Row i, turned round and moved by i, has the same distance in a column as all other rows.
    """
    side = blocks.shape[-1]
    turned = pad(blocks.flip(-1), (0, side)).flatten(-2)[..., : side * (2 * side - 1)]
    sums = turned.view(*turned.shape[:-1], side, 2 * side - 1).sum(-2)
    low, high = pad(sums, (0, 1)).view(*sums.shape[:-1], 2, side).unbind(-2)
    none = low.new_zeros((*low.shape[:-2], 1, side))
    return (torch.cat((low, none), -2) + torch.cat((none, high), -2)).flatten(-2)
