"""Work lists of open masks: made from the states of their tiles by operations of torch, where the inputs lie.

    PassOrder   the candidates of one pass in the order in which its tiles meet them; all of it follows from shapes
    deal        states of the candidates -> the lists that kernels walk

No value is looked at on the way, and every shape is one of the pass: there is room for all candidates. Kernels read
where the entries of a tile begin and end, so the room that is left over is never visited.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from attndsl.backends.work_partition import head_classes
from attndsl.schedule import FULL, PARTIAL, Candidates, OpenMask

IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True, eq=False)
class PassOrder:
    """The candidates of one pass, by class of heads, then by tile, then by what the tile meets."""

    source: Tensor  # int64 [n]: which candidate of the mask
    entry: Tensor  # int32 [n]: the tile that is met, as kernels count it
    edge: Tensor  # bool [n]: whether that is the last one, and cut
    starts: Tensor  # int64 [classes * tiles + 1]: the first candidate of each tile
    class_of: Tensor  # int32 [1 or batch, 1 or heads]
    plan_of_class: Tensor  # int64 [classes]
    tiles: int  # of each class
    longest: int  # tiles of an item
    items: int  # room for those of all classes
    width: int  # the most items of a class
    splits: int  # room for the split tiles of all classes
    most_splits: int  # of a class
    slots: int  # of a class


class Dealt(NamedTuple):
    """The lists of one pass, by the names of the kernels."""

    items: Tensor
    first_items: Tensor
    full: Tensor
    partial: Tensor
    splits: Tensor
    first_splits: Tensor


def by_query(mask: OpenMask, found: Candidates, longest: int, device: torch.device) -> PassOrder:
    """The key tiles of each query tile."""
    plans = _of_plans(mask, found)
    source = [first + np.arange(len(rows)) for first, rows, _ in plans]
    owner = [rows for _, rows, _ in plans]
    entry = [columns for _, _, columns in plans]
    is_cut = len(mask.keys) % found.tile[1] != 0
    edge = [(columns == found.grid[1] - 1) & is_cut for columns in entry]
    classes = [(plan,) for plan in range(len(plans))]
    lists = source, owner, entry, edge
    return _pass_order(lists, found.grid[0], classes, mask.plan_of, longest, device)


def by_key(
    mask: OpenMask, found: Candidates, group: int, longest: int, device: torch.device
) -> PassOrder:
    """The query tiles of each key tile, for all ``group`` query heads of a key head: query tile * group + head."""
    plans = _of_plans(mask, found)
    classes, class_of = head_classes(mask.plan_of, group)
    is_cut = len(mask.queries) % found.tile[0] != 0
    source, owner, entry, edge = (list[IntArray]() for _ in range(4))
    for one in classes:
        first, rows, columns = plans[one[0]]
        order = np.lexsort((rows, columns)).repeat(group)
        source.append(first + order)
        owner.append(columns[order])
        entry.append(rows[order] * group + np.tile(np.arange(group), len(rows)))
        edge.append((rows[order] == found.grid[0] - 1) & is_cut)
    lists = source, owner, entry, edge
    return _pass_order(lists, found.grid[1], classes, class_of, longest, device)


def is_joined(mask: OpenMask, group: int) -> bool:
    """Whether the query heads of each key head have one plan, so that a key tile meets them in one walk."""
    return all(len(set(one)) == 1 for one in head_classes(mask.plan_of, group)[0])


def _of_plans(mask: OpenMask, found: Candidates) -> list[tuple[int, IntArray, IntArray]]:
    """(number of the first candidate, rows, columns) of each plan."""
    made, first = [], 0
    for piece, (rows, columns) in zip(mask.pieces, found.tiles, strict=True):
        for _ in piece.batch:
            made.append((first, rows, columns))
            first += len(rows)
    return made


def _pass_order(
    lists: tuple[Sequence[Any], Sequence[Any], Sequence[Any], Sequence[Any]],
    tiles: int,
    classes: Sequence[tuple[int, ...]],
    class_of: Any,
    longest: int,
    device: torch.device,
) -> PassOrder:
    source, owner, entry, edge = lists
    count = np.concatenate([np.bincount(x, minlength=tiles) for x in owner])
    pieces = np.maximum(1, -(-count // longest)).reshape(len(classes), tiles)
    several = pieces > 1

    def sent(values: Any, dtype: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=dtype)).to(device)

    return PassOrder(
        sent(np.concatenate(source), np.int64),
        sent(np.concatenate(entry), np.int32),
        sent(np.concatenate(edge), bool),
        sent(np.concatenate([[0], np.cumsum(count)]), np.int64),
        sent(class_of, np.int32),
        sent([one[0] for one in classes], np.int64),
        tiles,
        longest,
        items=int(pieces.sum()),
        width=int(pieces.sum(axis=1).max()),
        splits=int(several.sum()),
        most_splits=int(several.sum(axis=1).max()),
        slots=int((pieces * several).sum(axis=1).max()),
    )


def deal(taken: PassOrder, states: Tensor) -> Dealt:
    """The lists of one pass over candidates in these states, EMPTY, PARTIAL or FULL."""
    state = states[taken.source]
    # FULL tiles of the last, ragged column become PARTIAL: the unmasked loop then needs no bounds
    is_full = (state == FULL) & ~taken.edge
    is_partial = (state == PARTIAL) | ((state == FULL) & taken.edge)
    full, full_starts = _packed(is_full, taken.entry, taken.starts)
    partial, partial_starts = _packed(is_partial, taken.entry, taken.starts)
    n_full, n_partial = full_starts.diff(), partial_starts.diff()
    total = n_full + n_partial
    pieces = ((total + (taken.longest - 1)) // taken.longest).clamp(min=1)
    ends = pieces.cumsum(0)
    number = torch.arange(taken.items, device=ends.device)
    tile = torch.searchsorted(ends, number, right=True).clamp(max=len(ends) - 1)
    piece = number - (ends - pieces)[tile]
    low, high = total[tile] * piece // pieces[tile], total[tile] * (piece + 1) // pieces[tile]
    # slots count within a class
    is_split = pieces > 1
    slots = (pieces * is_split).view(-1, taken.tiles).cumsum(1).flatten()
    columns = [tile % taken.tiles]
    for start, count, before in (
        (full_starts, n_full, 0),
        (partial_starts, n_partial, n_full[tile]),
    ):
        most = count[tile]
        columns += [start[tile] + (end - before).clamp(min=0).minimum(most) for end in (low, high)]
    columns.append(torch.where(is_split[tile], (slots - pieces)[tile] + piece, -1))
    # by class, longest first; items that do not exist come last
    order = (tile // taken.tiles * (taken.longest + 1) + taken.longest - (high - low)).masked_fill(
        number >= ends[-1], torch.iinfo(torch.int64).max
    )
    items = torch.stack(columns, 1)[order.argsort(stable=True)].int()
    split = torch.stack([tile_numbers(ends, taken.tiles), slots - pieces, slots], 1)
    place, first_splits = _places(is_split), _before(is_split)
    splits = torch.empty_like(split).index_copy(0, place, split)[: taken.splits].int()
    by_class = torch.arange(0, len(ends) + 1, taken.tiles, device=ends.device)
    first_items = torch.cat([ends.new_zeros(1), ends])[by_class].int()
    first = first_splits[by_class].int()
    return Dealt(items, first_items, full, partial, splits, first)


def tile_numbers(like: Tensor, tiles: int) -> Tensor:
    """The number of each tile within its class."""
    return torch.arange(len(like), device=like.device) % tiles


def _before(kept: Tensor) -> Tensor:
    """How many are kept before each place, and of all, int64 [n + 1]."""
    return torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.cumsum(0)])


def _places(kept: Tensor) -> Tensor:
    """The permutation that brings what is kept to the front, in order, and the rest behind it."""
    before = _before(kept)
    number = torch.arange(len(kept), device=kept.device)
    return torch.where(kept, before[:-1], before[-1] + number - before[:-1])


def _packed(kept: Tensor, values: Tensor, starts: Tensor) -> tuple[Tensor, Tensor]:
    """(the values that are kept, and room for the others; the first one of each tile)."""
    found = values.new_zeros(len(values) + 1)  # one more, which kernels read ahead
    return found.index_copy(0, _places(kept), values), _before(kept)[starts]
