"""Keys and values that lie in pages: gathered into rows by the numbers of the pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from attndsl import ir
from attndsl.op.dispatching import needs_dispatcher
from attndsl.op.rows import read_arguments
from attndsl.positions import BLOCK_TABLE, KEYS, refuse
from attndsl.source import brief


def gathered(
    mask: ir.Mask, q: Tensor, k: Tensor, v: Tensor, given: Mapping[str, Any]
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Keys and values as rows [batch, heads, rows, dim], and what is left to be said of positions.

    Args:
        mask: The pattern.
        q: Queries [batch, heads, queries, dim].
        k: Keys [pages, kv_heads, page, dim].
        v: Values [pages, kv_heads, page, value_dim].
        given: Positions; ``block_table`` int [batch or 1, columns] has the page of each run of rows. Pages may be
            shared. Entries behind the last token may be anything.

    Raises:
        AttnDslError: A413, a table or a page number that cannot be.
    """
    table = _read(given[BLOCK_TABLE], q, k, v)
    at = read_arguments({name: x for name, x in given.items() if name != BLOCK_TABLE}, q)
    pages, page = k.shape[0], k.shape[2]
    rows = table.shape[1] * page
    length = at.get(KEYS.length)
    if needs_dispatcher(q, k, v, table):
        # Numbers cannot be looked at: a page that is not there holds no token.
        is_there = ((table >= 0) & (table < pages)).repeat_interleave(page, 1)
        places = torch.arange(rows, device=q.device)[None]
        if KEYS.outright in at:
            places = at[KEYS.outright]
        elif (start := at.pop(KEYS.start, None)) is not None:
            places = places + (start[:, None] if isinstance(start, Tensor) else start)
        at[KEYS.outright] = torch.where(is_there, places, -1).clamp(min=-1)
    else:
        table, columns = _used(table, rows if length is None else length, pages, page)
        if KEYS.outright not in at and not any("k" in each.dims for each in mask.tables):
            table = table[:, :columns]
    found = table.clamp(0, max(pages - 1, 0))
    return _rows(k, found), _rows(v, found), at


def _rows(x: Tensor, table: Tensor) -> Tensor:
    """Pages [pages, heads, page, dim] as rows [batch, heads, rows, dim]."""
    batch, columns = table.shape
    some = x.transpose(0, 1).index_select(1, table.flatten())
    return some.reshape(x.shape[1], batch, columns * x.shape[2], x.shape[3]).transpose(0, 1)


def _used(table: Tensor, length: Any, pages: int, page: int) -> tuple[Tensor, int]:
    """(the table with page 0 where a batch element has no tokens, how many columns are needed)."""
    columns = table.shape[1]
    lengths = torch.as_tensor(length, device=table.device).reshape(-1, 1)
    used = torch.arange(columns, device=table.device) < (lengths + page - 1) // max(page, 1)
    wrong = (used & ((table < 0) | (table >= pages))).nonzero()
    if len(wrong):
        element, column = wrong[0].tolist()
        number = int(table[element if table.shape[0] > 1 else 0, column])
        title = f"page {number} of batch element {element} is not one of the {pages} of k"
        refuse(title, f"column {column} of {BLOCK_TABLE}, which holds tokens")
    return torch.where(used, table, 0), int(used.sum(1).max()) if used.numel() else 0


def _read(value: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    table = value if isinstance(value, Tensor) else torch.as_tensor(value, device=q.device)
    if table.dtype.is_floating_point or table.dtype.is_complex or table.dtype is torch.bool:
        refuse(f"{BLOCK_TABLE} must be an integer type, not a tensor of {table.dtype}")
    if table.device != q.device:
        refuse(f"{BLOCK_TABLE} is on {table.device}, but q is on {q.device}")
    if table.dim() != 2 or q.dim() != 4 or table.shape[0] not in (1, q.shape[0]):
        refuse(
            f"{BLOCK_TABLE} has a row for each batch element, got shape {brief(list(table.shape))}"
        )
    if k.dim() != 4 or v.dim() != 4 or k.shape[:3] != v.shape[:3]:
        shapes = f"got {list(k.shape)} and {list(v.shape)}"
        refuse(f"with {BLOCK_TABLE}, k and v are pages [pages, heads, page, dim]", shapes)
    if k.shape[0] == 0 and table.shape[1]:
        table = table[:, :0]
    return table.expand(q.shape[0], -1)
