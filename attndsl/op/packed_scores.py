"""Attentions over packed sequences: those of about one length are batch elements of one call.

Law: a packed call gives, sequence by sequence, what the call on that sequence alone gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn, TypeGuard

import numpy as np
import torch
from torch import Tensor

from attndsl import ir
from attndsl.inputs import read
from attndsl.op.scored_part import ScoredCall
from attndsl.op.sequences import read_bounds as bounds_of
from attndsl.packed import IntArray, companies, read_bounds
from attndsl.positions import BOUNDS, hidden
from attndsl.source import AttnDslError, Diagnostic

Attend = Callable[[Tensor, Tensor, Tensor, ScoredCall], tuple[Tensor, Tensor]]


def attend_packed(
    parts: Sequence[ir.Scored],
    tables: Sequence[ir.Table],
    qkv: tuple[Tensor, Tensor, Tensor],
    call: ScoredCall,
    attend: Attend,
) -> tuple[Tensor, Tensor]:
    """Computes out [1, H, tokens, Dv] and lse [1, H, tokens]; ``attend`` runs the sequences of a company.

    ``tables`` are all inputs of the attention, real ones among them.

    Raises:
        AttnDslError: A413 for bounds, and for what has no meaning beside them; A501 for inputs.
    """
    q, k, v = qkv
    _check(parts, q, k)
    given = bounds_of(call.positions or {}, q)
    arrays = [read(name, given[hidden(name)]) for name in BOUNDS]
    frame = replace(parts[0].mask, tables=tuple(tables))
    inputs = {table.name: _entries(table, (call.inputs or {})[table.name]) for table in tables}
    outs, lses, places = list[Tensor](), list[Tensor](), list[IntArray]()
    for each in companies(frame, inputs, *read_bounds(q.shape[2], k.shape[2], *arrays)):
        told = {name: torch.from_numpy(x).to(q.device) for name, x in each.positions.items()}
        scale = _of_rows(call.scale, each.queries) if _is_by_row(call.scale) else call.scale
        own = replace(call, positions=told or None, inputs=each.inputs, scale=scale)
        rows = _of_rows(q, each.queries), _of_rows(k, each.keys), _of_rows(v, each.keys)
        try:
            out, lse = attend(*rows, own)
        except AttnDslError as error:
            raise each.located(error) from error
        held = torch.from_numpy(each.queries >= 0)
        outs.append(out.transpose(1, 2)[held])
        lses.append(lse.transpose(1, 2)[held])
        places.append(each.queries[each.queries >= 0])
    if not outs:
        empty = q.new_zeros((1, q.shape[1], 0, v.shape[3]))
        return empty, empty[..., 0]
    back = torch.from_numpy(np.argsort(np.concatenate(places), kind="stable")).to(q.device)
    out, lse = torch.cat(outs)[back], torch.cat(lses)[back]
    return out.transpose(0, 1)[None], lse.transpose(0, 1)[None]


def _check(parts: Sequence[ir.Scored], q: Tensor, k: Tensor) -> None:
    if any(part.keys for part in parts):
        _refuse("keys from elsewhere are not taken beside packed sequences")
    roots = [root for part in parts for root in (part.mask.root, *part.expressions())]
    nodes = (node for root in roots for node in ir.postorder(root))
    if any(isinstance(node, ir.Var) and node.name == "batch" for node in nodes):
        _refuse("an attention that reads `batch` does not take packed sequences")
    if q.shape[0] != 1 or k.shape[0] != 1:
        _refuse("packed q, k and v have one batch element")


def _entries(table: ir.Table, value: Any) -> Any:
    """An input as an array, or a real one as a tensor that stays differentiable."""
    if table.kind is not ir.Sort.REAL:
        return read(table.name, value)
    return value if isinstance(value, Tensor) else torch.as_tensor(value)


def _is_by_row(scale: object) -> TypeGuard[Tensor]:
    return isinstance(scale, Tensor) and scale.dim() > 1 and scale.shape[-2] != 1


def _of_rows(x: Tensor, rows: IntArray) -> Tensor:
    """The rows of packed [1, H, tokens, D], by sequence, [sequences, H, rows, D]; those of none are of row 0."""
    places = torch.from_numpy(np.maximum(rows, 0)).to(x.device)
    if not x.shape[2]:
        return x.new_zeros((len(rows), x.shape[1], rows.shape[1], x.shape[3]))
    return x[0][:, places].transpose(0, 1)


def _refuse(title: str) -> NoReturn:
    raise AttnDslError(Diagnostic("A413", title, notes=("each sequence has positions of its own",)))
