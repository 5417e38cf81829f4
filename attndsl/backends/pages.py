"""Keys and values in the pages of a pool: read where they lie, or gathered into rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from attndsl.backends.places import IntArray
from attndsl.schedule import Keys, Schedule


@dataclass(frozen=True, slots=True, eq=False)
class PagedRows:
    """Rows [batch, kv_heads, rows, dim] of one tensor, page after page of a pool [pages, all heads, page, dim]."""

    pool: Tensor
    table: Tensor  # int64 [batch, columns]: the page of each run of rows
    heads: slice = field(default_factory=lambda: slice(None))  # of the pool

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """[batch, kv_heads, rows, dim]."""
        _, every, page, dim = self.pool.shape
        heads = len(range(every)[self.heads])
        return self.table.shape[0], heads, self.table.shape[1] * page, dim

    def __getitem__(self, at: tuple[slice, slice]) -> PagedRows:
        """The rows of some batch elements and, of all heads, some; nothing is read."""
        elements, heads = at
        return PagedRows(self.pool, self.table[elements], heads)

    def split(self, counts: Sequence[int]) -> list[PagedRows]:
        """The same for so many batch elements at a time."""
        return [replace(self, table=table) for table in torch.split(self.table, list(counts))]

    def read(self, keys: Keys) -> Tensor:
        """A copy of the rows of these keys, in order; no page without one is touched."""
        if isinstance(keys, np.ndarray):
            row, page = torch.from_numpy(keys), self.pool.shape[2]
            return self._taken(self.table[:, row // page], row % page)
        parts = [self._run(start, stop) for start, stop in keys]
        return parts[0] if len(parts) == 1 else torch.cat([self.all_of(0, 0), *parts], 2)

    def all_of(self, first: int, last: int) -> Tensor:
        """A copy of the rows of some columns of the table."""
        return self._taken(self.table[:, first:last], None)

    def _run(self, start: int, stop: int) -> Tensor:
        page = self.pool.shape[2]
        first = start // page
        return self.all_of(first, -(-stop // page))[
            :, :, start - first * page : stop - first * page
        ]

    def _taken(self, pages: Tensor, place: Tensor | None) -> Tensor:
        """Whole pages, [batch, columns]; or of each its row at a place, [columns]."""
        pool, (batch, heads, _, dim) = self.pool, self.shape
        every, count = pool.shape[1], pages.shape[1] * (pool.shape[2] if place is None else 1)
        if pool.is_contiguous():  # a page of a head, or a row, is one index of one dim: the fastest
            of_heads = torch.arange(every, device=pool.device)[self.heads, None]
            index, unit = pages[:, None] * every + of_heads, pool.flatten(0, 1)
            if place is not None:
                index, unit = index * pool.shape[2] + place, unit.flatten(0, 1)
            return unit.index_select(0, index.flatten()).reshape(batch, heads, count, dim)
        rows = pool[:, self.heads]
        if place is not None:
            return rows[pages, :, place].transpose(1, 2)
        return rows[pages].transpose(1, 2).reshape(batch, heads, count, dim)


@dataclass(frozen=True, slots=True, eq=False)
class Pages:
    """Where the keys and values of a call lie. Tensors of their shape stand for them where only that is asked for.

    No number of the table is wrong, but -1, on devices whose numbers are not looked at: such a page has no key.
    """

    table: Tensor  # int64 [batch, columns]
    k: Tensor  # [pages, kv_heads, page, dim]
    v: Tensor  # [pages, kv_heads, page, value_dim]

    @property
    def page(self) -> int:
        """Rows of a page."""
        return self.k.shape[2]

    def numbers(self) -> Tensor:
        """The table as kernels on a device take it, int32 and contiguous."""
        return self.table.to(torch.int32).contiguous()

    @property
    def sides(self) -> tuple[PagedRows, PagedRows]:
        """Rows of keys and of values."""
        return PagedRows(self.k, self.table), PagedRows(self.v, self.table)

    def stand_ins(self) -> tuple[Tensor, Tensor]:
        """Tensors of the shape of keys and values, of one number."""
        k, v = (x.pool.new_empty(1).expand(x.shape) for x in self.sides)
        return k, v

    def split(self, counts: Sequence[int]) -> list[Pages]:
        """The same for so many batch elements at a time."""
        return [replace(self, table=table) for table in torch.split(self.table, list(counts))]

    def rows(self, count: int, live: IntArray | None = None) -> tuple[Tensor, Tensor]:
        """The first so many keys and values, [batch, kv_heads, count, dim]: copied from these columns, 0 elsewhere."""
        chosen = torch.arange(self.table.shape[1]) if live is None else torch.from_numpy(live)
        k, v = (_some_columns(x, chosen)[:, :, :count] for x in self.sides)
        return k, v


def _some_columns(x: PagedRows, live: Tensor) -> Tensor:
    """All rows, copied from these columns of the table, 0 in others."""
    columns = x.table.shape[1]
    live = live[live < columns]
    if len(live) == columns:
        return x.all_of(0, columns)
    batch, heads, rows, dim = x.shape
    made = x.pool.new_zeros(batch, heads, columns, rows // max(1, columns), dim)
    taken = PagedRows(x.pool, x.table[:, live]).all_of(0, len(live))
    made[:, :, live] = taken.reshape(batch, heads, len(live), -1, dim)
    return made.flatten(2, 3)


def live_columns(schedule: Schedule, page: int) -> IntArray:
    """The runs of ``page`` keys that some live tile of the schedule touches, ascending."""
    tile, k_len = schedule.tile[1], schedule.k_len
    is_live = np.zeros(k_len, bool)
    for plan in schedule.plans:
        columns = np.unique(np.concatenate([plan.full.indices, plan.partial.indices]))
        rows = (columns[:, None].astype(np.int64) * tile + np.arange(tile)).ravel()
        rows = rows[rows < k_len]
        is_live[rows if plan.k_order is None else plan.k_order.rows[rows]] = True
    return np.unique(np.flatnonzero(is_live) // page)
