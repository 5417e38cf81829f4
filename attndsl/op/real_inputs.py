"""The real inputs of an attention, held against their declarations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends import lse_dtype
from attndsl.inputs import BROADCAST, dims_fault, entries_fault


def real_inputs(
    tables: Sequence[ir.Table],
    given: Mapping[str, Any],
    q: Tensor,
    k_len: int,
    among: tuple[int, int] | None = None,
) -> dict[str, Tensor]:
    """Real inputs of a call with the queries q [B, H, Q, D], in float32, or float64 where q is; differentiable.

    An entry along ``batch``, ``head``, ``q`` or ``k`` that serves all is repeated, without a copy. ``among`` (first,
    total): the heads of q are some of those of the whole model; an input may have an entry for each of either.

    Raises:
        AttnDslError: A501, a dtype, device or shape is another.
    """
    counts = {"batch": q.shape[0], "head": q.shape[1], "q": q.shape[2], "k": k_len}
    return {table.name: _fitted(table, given[table.name], q, counts, among) for table in tables}


def check_widths(
    products: Sequence[ir.reals.Dot],
    tables: Sequence[ir.Table],
    given: Mapping[str, Tensor],
    head_dim: int,
) -> None:
    """Checks that the vectors of inner products have one length: those of q and k have ``head_dim`` numbers.

    Raises:
        AttnDslError: A501.
    """
    known = {table.name: table for table in tables}
    for product in products:
        sides = product.left, product.right
        rows = [known[side.table] for side in sides if isinstance(side, ir.reals.Row)]
        widths = {table.name: given[table.name].shape[-1] for table in rows}
        wanted = head_dim if len(rows) < len(sides) else widths[rows[0].name]
        for table in rows:
            if widths[table.name] != wanted:
                other = "q and k" if len(rows) < len(sides) else repr(rows[0].name)
                title = f"input {table.name!r} has vectors of {widths[table.name]} numbers"
                raise ir.misfit(table, f"{title}, those of {other}, which they meet, have {wanted}")


def _fitted(
    table: ir.Table,
    value: Any,
    q: Tensor,
    counts: Mapping[str, int],
    among: tuple[int, int] | None,
) -> Tensor:
    try:
        made = value if isinstance(value, Tensor) else torch.as_tensor(value, device=q.device)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ir.misfit(table, f"input {table.name!r} cannot be read", notes=(reason,)) from error
    if made.dtype is torch.bool or made.dtype.is_complex:
        dtype = str(made.dtype).removeprefix("torch.")
        helps = (f"give floats: `{table.name}=x.float()`",) if made.dtype is torch.bool else ()
        raise ir.misfit(table, f"input {table.name!r} must hold real numbers, not {dtype}", helps)
    if made.device != q.device:
        title = f"input {table.name!r} is on {made.device}, but q is on {q.device}"
        raise ir.misfit(table, title, (f"move it: `{table.name}=x.to(q.device)`",))
    if made.dim() != len(table.dims):
        raise dims_fault(table, made.shape)
    if among is not None and "head" in table.dims:
        axis, (first, total) = table.dims.index("head"), among
        if made.shape[axis] == total != counts["head"]:
            made = made.narrow(axis, first, counts["head"])
    shape = list(made.shape)
    for axis, dim in enumerate(table.dims):
        if dim not in BROADCAST:
            continue
        wanted = counts[str(dim)]
        if shape[axis] not in (1, wanted):
            raise entries_fault(table, dim, shape[axis], wanted)
        shape[axis] = wanted
    return made.to(lse_dtype(q.dtype)).expand(shape)
