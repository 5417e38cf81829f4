"""Reads of tables that are one row of entries a head, and the way back from gains to entries."""

from __future__ import annotations

import torch
from torch import Tensor


def take(table: Tensor, entries: Tensor, inside: Tensor | None) -> Tensor:
    """Rows of a table [heads or 1, size, width] at entries [items, heads or 1, n, m], zeros outside; [..., width]."""
    heads, size, width = table.shape
    items, of, n, m = entries.shape
    if not size:
        return table.new_zeros(items, max(of, heads), n, m, width)
    if of == 1:
        found = table.index_select(1, entries.reshape(-1)).reshape(heads, items, n, m, width)
        found = found.transpose(0, 1)
    else:
        flat = table.reshape(-1, width)
        found = flat[entries + _offsets(heads, size)]
    return found if inside is None else found.masked_fill(~inside[..., None], 0.0)


def give(total: Tensor, entries: Tensor, inside: Tensor | None, gain: Tensor) -> None:
    """Adds gains [items, heads, n, m, width] of rows that were taken to a table, one after the other."""
    heads, size, width = total.shape
    items, of, n, m = entries.shape
    if not size:
        return
    gain = gain if inside is None else gain.masked_fill(~inside[..., None], 0.0)
    if of == 1:
        each = gain.sum_to_size(items, heads, n, m, width).transpose(0, 1)
        each, rows = each.reshape(heads, -1, width), entries.reshape(-1)
        for head in range(heads):
            _add_rows(total[head], rows, each[head])
    else:
        rows = entries + _offsets(heads, size)
        each = gain.expand(items, of, n, m, width).reshape(-1, width)
        _add_rows(total.view(-1, width), rows.expand(items, of, n, m).reshape(-1), each)


def _add_rows(total: Tensor, rows: Tensor, each: Tensor) -> None:
    if total.shape[1] == 1:  # numbers: torch has a faster loop for them
        total.view(-1).index_add_(0, rows, each.reshape(-1))
    else:
        total.index_add_(0, rows, each)


def _offsets(heads: int, size: int) -> Tensor:
    """Where the entries of each head begin, in a table whose heads and entries are one dim."""
    return torch.arange(heads)[:, None, None] * size
