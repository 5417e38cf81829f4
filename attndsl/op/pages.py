"""Keys and values that lie in pages: the table of a call, checked, and rows where nobody reads them in their pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends import PagedRows, Pages
from attndsl.op.dispatching import needs_dispatcher
from attndsl.op.rows import read_arguments
from attndsl.positions import BLOCK_TABLE, KEYS, refuse
from attndsl.source import brief


@dataclass(frozen=True, slots=True, eq=False)
class BoundTable:
    """The table of a bound call, looked at when it was bound: ``most`` is the largest page of a token.

    None: it lies on a device whose numbers are not looked at. There a page that is not there has no key.
    """

    table: Tensor
    most: int | None

    @staticmethod
    def of(
        value: Any, batch: int, k_len: int, length: Any, device: torch.device | str
    ) -> BoundTable:
        """The table of a call with so many rows of k. ``length``: how many of them hold tokens, None for all.

        Raises:
            AttnDslError: A413, a table that cannot be, or a negative page where there are tokens.
        """
        table = _table(value, batch)
        columns = table.shape[1]
        if k_len % columns if columns else k_len:
            title = f"k has {k_len} rows, which are no pages of {BLOCK_TABLE}, with its {columns} columns"
            refuse(title, "where a call is bound, k_len is the rows of all columns: columns * page")
        if table.device.type != "cpu":
            return BoundTable(table.detach().clone(), None)
        page = k_len // max(1, columns)
        used = _used(table, k_len if length is None else length, None, page)
        clean = torch.where(used, table, 0)
        most = int(clean.max()) if clean.numel() else 0
        return BoundTable(clean.to(device), most)


def paged(
    mask: ir.Mask | None,
    qkv: tuple[Tensor, Tensor, Tensor],
    given: Mapping[str, Any],
    *,
    by_address: bool,
) -> tuple[Tensor, Tensor, dict[str, Any], Pages | None]:
    """Keys and values [batch, heads, rows, dim], what is left to be said of positions, and where the rows lie.

    Args:
        mask: The pattern, by which columns without a token may be left out; None: none is.
        qkv: Queries [batch, heads, queries, dim], keys [pages, kv_heads, page, dim] and values likewise.
        given: Positions; ``block_table`` int [batch or 1, columns] has the page of each run of rows. Pages may be
            shared. Entries behind the last token may be anything.
        by_address: Whether rows are read in their pages by whoever runs the call. The keys and values that are
            returned only have the shape then. Else they are copied.

    Raises:
        AttnDslError: A413, a table or a page number that cannot be.
    """
    q, k, v = qkv
    told = given[BLOCK_TABLE]
    table = _read(told.table if isinstance(told, BoundTable) else told, q, k, v)
    at = read_arguments({name: x for name, x in given.items() if name != BLOCK_TABLE}, q)
    pages, page = k.shape[0], k.shape[2]
    is_there = None  # for all of the table, None where it is known to be
    if needs_dispatcher(q, k, v, table) or (isinstance(told, BoundTable) and told.most is None):
        is_there = (table >= 0) & (table < pages)
        table = torch.where(is_there, table, -1)
    elif isinstance(told, BoundTable):
        if pages and (told.most or 0) >= pages:
            refuse(f"page {told.most} of {BLOCK_TABLE} is not one of the {pages} of k")
    else:
        length = at.get(KEYS.length, table.shape[1] * page)
        used = _used(table, length, pages, page)
        table = torch.where(used, table, 0)
        reads_rows = mask is None or any("k" in each.dims for each in mask.tables)
        if KEYS.outright not in at and not reads_rows:
            table = table[:, : int(used.sum(1).max()) if used.numel() else 0]
    lie = Pages(table, k, v)
    if by_address:
        return *lie.stand_ins(), at, lie
    if is_there is not None:
        at = _without(~is_there.repeat_interleave(page, 1), at)
    found = table.clamp(0, max(pages - 1, 0))
    keys, values = (PagedRows(x, found).all_of(0, found.shape[1]) for x in (k, v))
    return keys, values, at, None


def _without(absent: Tensor, at: Mapping[str, Any]) -> dict[str, Any]:
    """The positions, with no token in rows that are absent, bool [batch, rows]."""
    at = dict(at)
    places = torch.arange(absent.shape[1], device=absent.device)[None]
    if KEYS.outright in at:
        places = at[KEYS.outright]
    elif (start := at.pop(KEYS.start, None)) is not None:
        places = places + (start[:, None] if isinstance(start, Tensor) else start)
    at[KEYS.outright] = torch.where(absent, -1, places).clamp(min=-1)
    return at


def _used(table: Tensor, length: Any, pages: int | None, page: int) -> Tensor:
    """The columns that hold tokens, bool [batch, columns]; ``pages``: how many there are, where that is known."""
    columns = torch.arange(table.shape[1], device=table.device)
    lengths = torch.as_tensor(length, device=table.device).reshape(-1, 1)
    used = (columns < (lengths + page - 1) // max(page, 1)).expand(table.shape)
    is_wrong = table < 0 if pages is None else (table < 0) | (table >= pages)
    wrong = (used & is_wrong).nonzero()
    if len(wrong):
        element, column = wrong[0].tolist()
        known = "is negative" if pages is None else f"is not one of the {pages} of k"
        refuse(
            f"page {int(table[element, column])} of batch element {element} {known}",
            f"column {column} of {BLOCK_TABLE}, which holds tokens",
        )
    return used


def _table(value: Any, batch: int, device: torch.device | None = None) -> Tensor:
    table = value if isinstance(value, Tensor) else torch.as_tensor(value, device=device)
    if table.dtype.is_floating_point or table.dtype.is_complex or table.dtype is torch.bool:
        refuse(f"{BLOCK_TABLE} must be an integer type, not a tensor of {table.dtype}")
    if table.dim() != 2 or table.shape[0] not in (1, batch):
        shape = brief(list(table.shape))
        refuse(f"{BLOCK_TABLE} has a row for each batch element, got shape {shape}")
    return table.to(torch.int64).expand(batch, -1)


def _read(value: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    table = _table(value, q.shape[0] if q.dim() == 4 else -1, q.device)
    if table.device != q.device:
        refuse(f"{BLOCK_TABLE} is on {table.device}, but q is on {q.device}")
    if k.dim() != 4 or v.dim() != 4 or k.shape[:3] != v.shape[:3]:
        shapes = f"got {list(k.shape)} and {list(v.shape)}"
        refuse(f"with {BLOCK_TABLE}, k and v are pages [pages, heads, page, dim]", shapes)
    if k.shape[0] == 0 and table.shape[1]:
        table = table[:, :0]
    return table
