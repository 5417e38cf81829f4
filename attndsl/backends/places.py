"""Places: which rows of a sequence the items of one batched call read, and how sums go back.

A ``Span`` is evenly spaced windows, read as an overlapping view: no copy. An ``Index`` is lists of
rows, read by copying them. Both read x [heads, length, ...] as [items, heads, n, ...]. ``Elements`` are batch elements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.nn import functional as F

IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
ShortArray: TypeAlias = np.ndarray[Any, np.dtype[np.int32]]


@dataclass(frozen=True, slots=True)
class Span:
    """Item i is ``length`` rows from start + i * step on, each ``stride`` behind the one before.

    Step 0 gives every item the same rows. Items may overlap where the stride is 1.
    """

    start: int
    step: int
    items: int
    length: int
    stride: int = 1

    @staticmethod
    def of(rows: IntArray) -> Span | None:
        """Rows [items, n] as evenly spaced windows, one at or behind the other; None where they are none."""
        items, n = rows.shape
        start, stride = int(rows[0, 0]), int(rows[0, 1] - rows[0, 0]) if n > 1 else 1
        step = int(rows[1, 0] - rows[0, 0]) if items > 1 else n * stride
        places = start + step * np.arange(items)[:, None] + stride * np.arange(n)
        if step < 0 or not np.array_equal(places, rows):
            return None
        return Span(start, step, items, n, stride)

    def cut(self, first: int, last: int) -> Span:
        """The items first <= i < last."""
        return replace(self, start=self.start + first * self.step, items=last - first)

    def part(self, low: int, high: int) -> Span:
        """The rows low <= j < high of each item."""
        return replace(self, start=self.start + low * self.stride, length=high - low)

    def rows(self) -> IntArray:
        """All rows, item by item, [items * length]."""
        starts = self.start + self.step * np.arange(self.items, dtype=np.int64)
        return (starts[:, None] + self.stride * np.arange(self.length)).reshape(-1)

    def read(self, x: torch.Tensor) -> torch.Tensor:
        """A view of x [heads, length, ...] as [items, heads, n, ...]."""
        head, row, *rest = x.stride()
        return x.as_strided(
            (self.items, x.shape[0], self.length, *x.shape[2:]),
            (self.step * row, head, self.stride * row, *rest),
            x.storage_offset() + self.start * row,
        )

    def write(self, x: torch.Tensor, value: torch.Tensor) -> None:
        """Replace; the items must not overlap."""
        self.read(x).copy_(value)

    def add(self, x: torch.Tensor, value: torch.Tensor) -> None:
        """Add, overlapping items included: in phases within which no two items meet."""
        if self.step == 0:
            replace(self, items=1).read(x).add_(value.sum(0, keepdim=True, dtype=x.dtype))
            return
        if self.stride > 1:
            self.read(x).add_(value)
            return
        for low in range(0, self.length, self.step):
            width = min(self.step, self.length - low)
            phase = replace(self, start=self.start + low, length=width)
            phase.read(x).add_(value[:, :, low : low + width])


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """Item i is the rows ``index[i]``, distinct; a single list serves all items."""

    index: IntArray  # [items or 1, n]
    items: int

    @property
    def length(self) -> int:
        """Rows of an item."""
        return int(self.index.shape[1])

    def cut(self, first: int, last: int) -> Index:
        """The items first <= i < last."""
        shared = len(self.index) == 1
        return Index(self.index if shared else self.index[first:last], last - first)

    def part(self, low: int, high: int) -> Index:
        """The rows low <= j < high of each item."""
        return Index(self.index[:, low:high], self.items)

    def rows(self) -> IntArray:
        """All rows, item by item, [lists * n]."""
        return self.index.reshape(-1)

    def read(self, x: torch.Tensor) -> torch.Tensor:
        """A copy of rows of x [heads, length, ...] as [items, heads, n, ...]."""
        flat = torch.from_numpy(self.index.reshape(-1))
        if x.is_contiguous():
            rows = x.index_select(1, flat)
        else:  # which copies all of it
            rows = torch.stack([each.index_select(0, flat) for each in x])
        taken = rows.reshape(x.shape[0], *self.index.shape, *x.shape[2:]).transpose(0, 1)
        return taken.expand(self.items, *taken.shape[1:])

    def write(self, x: torch.Tensor, value: torch.Tensor) -> None:
        """Replace; the items must not overlap."""
        flat = torch.from_numpy(self.index.reshape(-1))
        x.index_copy_(1, flat, value.transpose(0, 1).flatten(1, 2).to(x.dtype))

    def add(self, x: torch.Tensor, value: torch.Tensor) -> None:
        """Add, item after item."""
        parts = (value.sum(0, keepdim=True, dtype=x.dtype) if len(self.index) == 1 else value).to(
            x.dtype
        )
        for rows, part in zip(self.index, parts, strict=True):
            x.index_add_(1, torch.from_numpy(rows), part)


@dataclass(frozen=True, slots=True)
class Elements:
    """Item i is all rows of batch element i, of tensors that are by batch element already: no copy."""

    first: int
    items: int
    length: int

    def cut(self, first: int, last: int) -> Elements:
        """The items first <= i < last."""
        return replace(self, first=self.first + first, items=last - first)

    def rows(self) -> IntArray:
        """All rows, item by item, numbered across batch elements, [items * length]."""
        start = self.first * self.length
        return np.arange(start, start + self.items * self.length, dtype=np.int64)

    def read(self, x: torch.Tensor) -> torch.Tensor:
        """A view of x [batch, heads, length, ...] as [items, heads, length, ...]."""
        return x[self.first : self.first + self.items]

    def write(self, x: torch.Tensor, value: torch.Tensor) -> None:
        """Replace."""
        self.read(x).copy_(value)

    def add(self, x: torch.Tensor, value: torch.Tensor) -> None:
        """Add."""
        self.read(x).add_(value)


Places: TypeAlias = Span | Index | Elements


def take_rows(x: torch.Tensor, rows: IntArray) -> torch.Tensor:
    """Rows of x [B, H, N, ...], copied: in three dims or fewer where those before or behind the rows are one."""
    index = torch.from_numpy(rows)
    batch, heads = x.shape[:2]
    if batch == 1 or heads == 1 or x.stride(0) == heads * x.stride(1):
        taken = x.flatten(0, 1).index_select(1, index)
        return taken.view(batch, heads, *taken.shape[1:])
    turned = x.transpose(1, 2)
    if turned.is_contiguous():
        taken = turned.flatten(2).index_select(1, index)
        return taken.view(*taken.shape[:2], *turned.shape[2:]).transpose(1, 2)
    return x.index_select(2, index)


def with_width(x: torch.Tensor, width: int) -> torch.Tensor:
    """``x`` with rows of that width, zeros at the end; itself when the kernels can take it."""
    if x.shape[-1] < width:
        return F.pad(x, (0, width - x.shape[-1]))
    return x if x.stride(-1) == 1 else x.contiguous()


def is_finite(x: torch.Tensor) -> bool:
    """Whether all of it is finite: by the fastest look, and by one more where that may have overflowed."""
    return math.isfinite(x.sum().item()) or bool(x.isfinite().all())


def with_finite(x: torch.Tensor) -> torch.Tensor:
    """``x`` with 0 for what is not finite; itself when all is."""
    return x if is_finite(x) else x.masked_fill(~x.isfinite(), 0.0)
