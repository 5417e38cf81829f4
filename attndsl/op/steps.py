"""Calls of few queries on a CPU, as in decoding: the short way, on which little is asked and no contents are kept.

Each token makes a call of another length, so that what is decided for one length serves once. Here everything is
decided for all lengths; what is left is arithmetic on the length, a look at a row of each table, and one kernel. A call
that is not obviously plain is left to the long way, which says what is wrong, if anything is.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends import WHOLE, Request
from attndsl.lowering import FewQueries, lower_few_queries
from attndsl.op.checks import check_tensors
from attndsl.op.dispatching import eager_only
from attndsl.op.legacy_vmap import is_mapped
from attndsl.op.planning import Planner
from attndsl.positions import KEYS
from attndsl.schedule import Keys

MOST_QUERIES: Final = 64  # beyond, no back end takes key sets: nothing more is asked of the call
_INTEGERS: Final = frozenset({torch.int64, torch.int32})
_WIDENED: Final = frozenset({torch.int32, torch.int16, torch.int8})
_ANY: Final = 1 << 62  # entries of a table
_LONG: Final = "the long way"
_MOST_KINDS: Final = 64  # that a pattern remembers


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
    """(out, lse) of a call of few queries without a gradient; None: it goes the long way. Tensors are plain, of 4 dims.

    Raises:
        AttnDslError: A503, q, k and v are of no floating dtype; A52x for the back end.
    """
    batch, heads, q_len, width = q.shape
    k_batch, kv_heads, rows, k_width = k.shape
    v_batch, v_heads, v_rows, value_dim = v.shape
    fits = batch == k_batch == v_batch and rows == v_rows and width == k_width
    shares = kv_heads == v_heads and kv_heads and heads % kv_heads == 0
    dtype = q.dtype
    if not fits or not shares or dtype is not k.dtype or dtype is not v.dtype:
        return None
    if rows < q_len or q_len > MOST_QUERIES or torch._C._is_any_autocast_enabled():
        return None
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return None
    k_lens = _lengths(positions, (q_len, rows), batch) if positions else (rows,)
    if not k_lens or backend in WHOLE or not (scale is None or type(scale) is float):
        return None
    kind = dtype, batch, heads, kv_heads, q_len, width, value_dim, backend
    found = planner.steps.get(kind) or _lowered(planner, kind, q, k, v)
    if isinstance(found, str):
        return None
    tables = None
    if inputs or found.rule.mask.tables:
        entries = max(k_lens), _ANY if positions else rows
        tables = _tables(found.rule.mask.tables, inputs or {}, (batch, heads), *entries)
        if tables is None:
            return None
    factor = found.scale if scale is None else scale
    out, lse = _attended(planner, found, kind, k_lens, tables or {}, q, k, v, factor)
    return out.contiguous(), lse.contiguous()


@eager_only
def _lowered(
    planner: Planner, kind: tuple[Any, ...], q: Tensor, k: Tensor, v: Tensor
) -> FewQueries | str:
    check_tensors(planner.program, q, k, v)
    request = Request.of(q, k, v, gradient=False)
    found = lower_few_queries(planner.program, request, kind[-1]) or _LONG
    if len(planner.steps) >= _MOST_KINDS:
        planner.steps.clear()
    planner.steps[kind] = found
    return found


def _attended(
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
    """(out, lse) over the keys that each query sees; each function less is felt in a decoded token."""
    # layers ask for the same; where tables decide, they are looked at instead, as anybody may write to them
    rule, (batch, heads, q_len, _) = found.rule, q.shape
    if found.has_one_set and len(k_lens) == 1:
        is_kept = rule.is_costly and not tables
        keys: Keys | None = planner.memo.get((kind, k_lens)) if is_kept else None
        if keys is None:
            keys = rule.keys(0, 1, k_lens[0], (0, 0, heads), tables)
            if is_kept:
                planner.memo.keep((kind, k_lens), keys)
        return found.runner.attend_keys(keys, q, k, v, scale)
    kernels = functools.partial(found.kernels, q_len, k_lens, batch, heads, tables)
    made = kernels() if tables else planner.memo((kind, k_lens), kernels)
    return made.forward(q, k, v, scale=scale)


def _is_strided(x: Tensor) -> bool:
    """Whether it is neither sparse nor nested, nor has a dim that is hidden."""
    return x.layout is torch.strided and not x.is_nested and not is_mapped(x)


def _lengths(positions: Mapping[str, Any], among: tuple[int, int], batch: int) -> tuple[int, ...]:
    """How many keys each batch element has, or all; none where more is said than that, or otherwise.

    ``among``: the least and the most that there may be.
    """
    told = positions.get(KEYS.length)
    if len(positions) > 1:
        return ()
    if type(told) is int:
        found = [told]
    elif (
        type(told) is Tensor
        and told.is_cpu
        and told.dtype in _INTEGERS
        and told.dim() == 1
        and _is_strided(told)
        and len(told) in (1, batch)
    ):
        found = told.tolist()
    else:
        return ()
    least, most = among
    return tuple(found) if found and least <= min(found) <= max(found) <= most else ()


def _tables(
    declared: Sequence[ir.Table],
    inputs: Mapping[str, Any],
    sizes: tuple[int, int],
    least: int,
    most: int,
) -> dict[str, Any] | None:
    """The tables as arrays, not copied where they are int64 or bool; None where they are not plainly as declared.

    ``sizes``: batch elements and heads. Along positions there are ``least`` to ``most`` entries; so many are taken.
    """
    if len(inputs) != len(declared):
        return None
    found = {}
    for table in declared:
        array = _array(inputs.get(table.name), table.kind)
        if array is None or array.ndim != len(table.dims):
            return None
        *leading, length = array.shape
        for size, dim in zip(leading, table.dims, strict=False):
            if size != 1 and size != sizes[dim == "head"]:
                return None
        if not least <= length <= most:
            return None
        found[table.name] = array if length == least else array[..., :least]
    return found


def _array(value: Any, kind: ir.Sort) -> Any:
    """Integers as int64, truth values as bool; None where it is something else, or no plain tensor or array."""
    if type(value) is Tensor:
        if not value.is_cpu or value.layout is not torch.strided:
            return None
        if value.is_nested or is_mapped(value):
            return None
        wanted = torch.int64 if kind is ir.Sort.INT else torch.bool
        if value.dtype is not wanted:
            if kind is not ir.Sort.INT or value.dtype not in _WIDENED:
                return None
            value = value.to(wanted)
        return value.numpy()
    if not isinstance(value, np.ndarray) or value.dtype.kind != (
        "i" if kind is ir.Sort.INT else "b"
    ):
        return None
    return value.astype(np.int64, copy=False) if kind is ir.Sort.INT else value
