"""Rows of blocks that are apart, of one shape: views of a tensor where they lie like digits, else lists.

Windows of images and videos, axes, stripes, grids and residues are digits: item i and place j of it are each a few
digits, and a row is a sum of digits times strides. Such rows are read and written by one strided copy, which torch
shares out over threads.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar, Final, TypeAlias

import numpy as np
import torch
from torch import Tensor

from attndsl.backends.places import IntArray, take_rows

# Ways to lie of blocks of one shape: each is a call of a kernel.
MOST_PARTS: Final = 9


@dataclass(frozen=True, slots=True)
class Grid:
    """Rows as a view; the digits of items and then those of places, the outermost first."""

    start: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]  # in rows, positive
    items: int
    length: int  # rows of an item
    is_plain: bool  # whether items and places have one digit at most

    @staticmethod
    def of(rows: IntArray) -> Grid | None:
        """Rows [items, n]; None where they are no digits."""
        first = rows[:, 0]
        if len(rows) == 1 and (np.diff(rows[0]) == 1).all():  # most blocks that differ in size
            length = rows.shape[1]
            return Grid(int(first[0]), (1, length), (1, 1), 1, length, is_plain=True)
        if not np.array_equal(
            rows - first[:, None], np.broadcast_to(rows[0] - first[0], rows.shape)
        ):
            return None
        items, places = _digits(first), _digits(rows[0])
        if items is None or places is None:
            return None
        digits = items or ((1, 1),), places or ((1, 1),)
        sizes, strides = zip(*digits[0], *digits[1], strict=True)
        is_plain = len(digits[0]) == len(digits[1]) == 1
        return Grid(int(first[0]), sizes, strides, len(rows), rows.shape[1], is_plain)

    @staticmethod
    def all(length: int) -> Grid:
        """All rows, as one block."""
        return Grid(0, (1, length), (1, 1), 1, length, is_plain=True)

    def view(self, x: Tensor) -> Tensor:
        """Rows of x [B, H, N, ...], [B, H, *sizes, ...]."""
        batch, head, row, *rest = x.stride()
        strides = [row * stride for stride in self.strides]
        sizes = (*x.shape[:2], *self.sizes, *x.shape[3:])
        return x.as_strided(
            sizes, (batch, head, *strides, *rest), x.storage_offset() + self.start * row
        )

    def read(self, x: Tensor) -> Tensor:
        """Rows of x [B, H, N, ...], block after block, [B * H * items, 1, n, ...]; copied where they must be."""
        return self.view(x).reshape(-1, 1, self.length, *x.shape[3:])

    def write(self, x: Tensor, value: Tensor, adds: bool = False) -> None:
        """Writes or adds what ``read`` gives."""
        into = self.view(x)
        value = value.reshape(into.shape)
        into.add_(value) if adds else into.copy_(value)


@dataclass(frozen=True, eq=False)
class Listed:
    """Rows that lie anywhere, as of ``Grid``."""

    rows: IntArray  # [items * n], distinct
    length: int
    is_plain: ClassVar[bool] = False

    @property
    def items(self) -> int:
        """How many items there are."""
        return len(self.rows) // self.length

    @functools.cached_property
    def _index(self) -> Tensor:
        return torch.from_numpy(self.rows)

    @functools.cached_property
    def _places(self) -> Tensor:
        """Where each row is in the list, if all are."""
        return torch.from_numpy(np.argsort(self.rows))

    def read(self, x: Tensor) -> Tensor:
        """Same as ``Grid.read``, copied."""
        return take_rows(x, self.rows).reshape(-1, 1, self.length, *x.shape[3:])

    def write(self, x: Tensor, value: Tensor, adds: bool = False) -> None:
        """Same as ``Grid.write``."""
        value = value.reshape(*x.shape[:2], len(self.rows), *x.shape[3:])
        if adds:
            x.index_add_(2, self._index, value.to(x.dtype))
        elif len(self.rows) == x.shape[2] and x.is_contiguous():
            torch.index_select(value.flatten(0, 1), 1, self._places, out=x.flatten(0, 1))
        else:
            x.index_copy_(2, self._index, value)


BlockRows: TypeAlias = Grid | Listed


def rows_of(queries: IntArray, keys: IntArray) -> list[tuple[BlockRows, BlockRows]]:
    """Rows of blocks, queries [items, n] and keys [items, m]: as they are if that is a view, or in a few parts."""
    mine = Grid.of(queries)
    whole = mine, mine if np.array_equal(queries, keys) else Grid.of(keys)
    if whole[0] is not None and whole[1] is not None:
        return [(whole[0], whole[1])]
    inside = np.concatenate([queries - queries[:, :1], keys - keys[:, :1]], axis=1)
    kinds, kind_of = np.unique(inside, axis=0, return_inverse=True)
    found = list[tuple[BlockRows, BlockRows]]()
    left = np.ones(len(queries), bool)
    for kind in range(len(kinds)) if len(kinds) <= MOST_PARTS else ():
        some = kind_of.reshape(-1) == kind
        mine, theirs = Grid.of(queries[some]), Grid.of(keys[some])
        if mine is not None and theirs is not None:
            found.append((mine, theirs))
            left &= ~some
    if left.any():
        rest = (Listed(rows[left].reshape(-1), rows.shape[1]) for rows in (queries, keys))
        found.append((next(rest), next(rest)))
    return found


def _digits(rows: IntArray) -> tuple[tuple[int, int], ...] | None:
    """Rows as sums of digits: (size, stride) of each, the outermost first; None where they are none."""
    found = list[tuple[int, int]]()
    while len(rows) > 1:
        steps = np.diff(rows)
        stride, others = int(steps[0]), np.flatnonzero(steps != steps[0])
        run = int(others[0]) + 1 if len(others) else len(rows)
        if stride <= 0 or len(rows) % run:
            return None
        table = rows.reshape(-1, run)
        if (table[:, 1:] - table[:, :-1] != stride).any():
            return None
        found.insert(0, (run, stride))
        rows = table[:, 0]
    return tuple(found)
