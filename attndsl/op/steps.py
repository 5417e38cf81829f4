"""Calls of few queries on a CPU, as in decoding: the short way, on which little is asked and no contents are kept.

Each token makes a call of another length, so that what is decided for one length serves once. Here everything is
decided for all lengths; what is left is arithmetic on the length, a look at a row of each table, and one kernel. A call
that is not obviously plain is left to the long way, which says what is wrong, if anything is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends import ForwardKernels, Request
from attndsl.lowering import FewQueries, lower_few_queries
from attndsl.op.checks import check_tensors, wants_gradient
from attndsl.op.dispatching import PLAIN, eager_only, has_dispatch_hooks
from attndsl.op.legacy_vmap import is_mapped
from attndsl.op.planning import Planner
from attndsl.positions import KEYS

MOST_QUERIES: Final = 64  # beyond, no back end takes key sets: nothing more is asked of the call
_INTEGERS: Final = frozenset({torch.int64, torch.int32})
_ENTRIES: Final = _INTEGERS | {torch.int16, torch.int8, torch.bool}


def step(
    planner: Planner,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: object,
    backend: str,
    inputs: Mapping[str, Any] | None,
    positions: Mapping[str, Any] | None,
) -> tuple[Tensor, Tensor] | None:
    """(out, lse) of a plain call of few queries without a gradient; None: it goes the long way.

    Raises:
        AttnDslError: A503, q, k and v are of no floating dtype; A52x for the back end.
    """
    if has_dispatch_hooks() or not (_is_plain(q) and _is_plain(k) and _is_plain(v)):
        return None
    batch, heads, q_len, width = q.shape
    k_batch, kv_heads, rows, k_width = k.shape
    v_batch, v_heads, v_rows, value_dim = v.shape
    fits = batch == k_batch == v_batch and rows == v_rows and width == k_width
    shares = kv_heads == v_heads and kv_heads and heads % kv_heads == 0
    dtype = q.dtype
    if not fits or not shares or dtype is not k.dtype or dtype is not v.dtype:
        return None
    if q_len > MOST_QUERIES or wants_gradient(q, k, v) or torch.is_autocast_enabled("cpu"):
        return None
    if scale is None:
        scale = 1.0 / math.sqrt(max(1, width))
    k_lens = _lengths(positions, rows, batch)
    if type(scale) is not float or not k_lens or min(k_lens) < q_len or backend == "reference":
        return None
    kind = dtype, batch, heads, kv_heads, q_len, width, value_dim, backend
    found = planner.memo(("few queries", kind), lambda: _lowered(planner, q, k, v, backend))
    if found is None:
        return None
    sizes = {"batch": batch, "head": heads}
    tables = _tables(found.rule.mask.tables, inputs or {}, sizes, rows, k_lens, positions)
    return None if tables is None else _run(planner, found, kind, k_lens, tables, q, k, v, scale)


@eager_only
def _lowered(planner: Planner, q: Tensor, k: Tensor, v: Tensor, backend: str) -> FewQueries | None:
    check_tensors(planner.program, q, k, v)
    return lower_few_queries(planner.program, Request.of(q, k, v, gradient=False), backend)


@eager_only
def _run(
    planner: Planner,
    found: FewQueries,
    kind: tuple[Any, ...],
    k_lens: tuple[int, ...],
    tables: Mapping[str, Any],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor]:
    def kernels() -> ForwardKernels:
        return found.kernels(q.shape[2], k_lens, q.shape[0], q.shape[1], tables)

    # layers ask for the same; where tables decide, they are looked at instead, as anybody may write to them
    made = kernels() if tables else planner.memo((kind, k_lens), kernels)
    out, lse = made.forward(q, k, v, scale=scale)
    return out.contiguous(), lse.contiguous()


def _is_plain(x: Any) -> bool:
    """Whether it is a tensor of a CPU with four dims, and nothing else that it might be."""
    return (
        type(x) in PLAIN
        and x.is_cpu
        and x.layout is torch.strided
        and not x.is_nested
        and x.dim() == 4
        and not is_mapped(x)
    )


def _lengths(positions: Mapping[str, Any] | None, rows: int, batch: int) -> tuple[int, ...]:
    """How many keys each batch element has, or all; none where more is said than that, or otherwise."""
    if not positions:
        return (rows,)
    told = positions.get(KEYS.length)
    if len(positions) > 1:
        return ()
    if type(told) is int:
        found = [told]
    elif (
        type(told) is Tensor
        and told.is_cpu
        and told.layout is torch.strided
        and not told.is_nested
        and told.dtype in _INTEGERS
        and told.dim() == 1
        and len(told) in (1, batch)
        and not is_mapped(told)
    ):
        found = told.tolist()
    else:
        return ()
    return tuple(found) if found and 0 <= min(found) <= max(found) <= rows else ()


def _tables(
    declared: Sequence[ir.Table],
    inputs: Mapping[str, Any],
    sizes: Mapping[str, int],
    rows: int,
    k_lens: Sequence[int],
    positions: Mapping[str, Any] | None,
) -> Mapping[str, Any] | None:
    """The tables as arrays, not copied where they are int64 or bool; None where they are not plainly as declared."""
    if len(inputs) != len(declared):
        return None
    found = {}
    for table in declared:
        value = inputs.get(table.name)
        if type(value) is Tensor and value.is_cpu and value.layout is torch.strided:
            if value.is_nested or is_mapped(value) or value.dtype not in _ENTRIES:
                return None
            value = value.numpy()
        if not isinstance(value, np.ndarray) or value.ndim != len(table.dims):
            return None
        if value.dtype.kind != ("i" if table.kind is ir.Sort.INT else "b"):
            return None
        *leading, length = value.shape
        if any(n not in (1, sizes[str(d)]) for n, d in zip(leading, table.dims, strict=False)):
            return None
        if length < max(k_lens) or (not positions and length != rows):
            return None
        wide = np.int64 if table.kind is ir.Sort.INT else np.bool_
        found[table.name] = value if value.dtype == wide else value.astype(wide)
    return found
