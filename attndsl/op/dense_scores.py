"""Calls of the oracle of attentions: all pairs, differentiated by autograd, wherever the tokens stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attndsl import ir, passes
from attndsl.backends import DensePart, attend_scored
from attndsl.op.planning import Options
from attndsl.schedule import Call
from attndsl.scored import ScoredProgram


def attend_densely(
    term: ir.Term, parts: Sequence[Sequence[tuple[DensePart, dict[str, Tensor]]]], scale: float
) -> tuple[Tensor, Tensor]:
    """Computes out and lse of a term. Each part comes as its batch elements, or as all of them at once."""
    outs, lses = list[Tensor](), list[Tensor]()
    for element in zip(*parts, strict=True):
        tables = {name: x for _, reals in element for name, x in reals.items()}
        out, lse = attend_scored(term, [part for part, _ in element], tables, scale)
        outs.append(out)
        lses.append(lse)
    return torch.cat(outs).to(lses[0].dtype), torch.cat(lses)


def dense_parts(
    scored: ScoredProgram,
    qkv: tuple[Tensor, Tensor, Tensor],
    tables: Sequence[Tensor],
    options: Options,
    reals: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
) -> list[tuple[DensePart, dict[str, Tensor]]]:
    """A part and its real inputs: once, or for each batch element where a call says where its tokens stand.

    Raises:
        AttnDslError: A4xx for lengths and positions, A501 for inputs.
    """
    program, (q, k, v) = scored.program, qkv
    given = dict(zip(options.names, tables, strict=True))
    extents = dict(zip(options.axes, options.extents, strict=True))
    batch, heads, q_len, _ = q.shape
    call = program.call(q_len, k.shape[2], batch, heads, extents, given)
    pairs = np.broadcast_to(program.dense(call), (batch, heads, q_len, k.shape[2]))
    mask = torch.from_numpy(np.array(pairs))
    sizes = scored.sizes(call, shapes)
    if call.positions is not None:
        return _elements(scored, call, sizes, reals, (q, k, v), mask, pairs)
    env = ir.Env(
        q=np.arange(q_len) + program.mask.shift(q_len, k.shape[2]),
        k=np.arange(k.shape[2]),
        sizes=sizes,
        tables=call.tables,
        batch=np.arange(batch),
        head=np.arange(heads),
        heads=heads,
        layer=call.layer,
        queries=program.mask.queries,
        keys=program.mask.keys,
    )
    return [(DensePart(_of_heads(scored.part, call), mask, pairs, env, q, k, v), dict(reals))]


def _of_heads(part: ir.Scored, call: Call) -> ir.Scored:
    """The part, where the heads of the call are some of those of the model."""
    if call.model_heads is None:
        return part
    score, weight, factor = (
        None if each is None else passes.head_shifted(each, call.head_start, call.model_heads)
        for each in (part.score, part.weight, part.factor)
    )
    assert score is not None, "a part has a score"
    return replace(part, score=score, weight=weight, factor=factor)


def _elements(
    scored: ScoredProgram,
    call: Call,
    sizes: Mapping[str, int],
    reals: Mapping[str, Tensor],
    qkv: tuple[Tensor, Tensor, Tensor],
    mask: Tensor,
    pairs: np.ndarray[Any, np.dtype[np.bool_]],
) -> list[tuple[DensePart, dict[str, Tensor]]]:
    """The batch elements, the inputs of each laid out in order of positions."""
    made, at, mask_of = [], call.positions, scored.program.mask
    assert at is not None, "they are given"
    own = {name: n for name, n in sizes.items() if ":" in name}
    for b, element in ir.elements_at(mask_of, at, call.tables, call.batch, call.heads, call.layer):
        env = element(element.q, element.k, np.arange(call.heads))
        env = replace(env, batch=np.array([b]), sizes={**own, **env.sizes})
        rows = {"q": (at.q, element.first), "k": (at.k, 0)}
        known = {
            table.name: _laid_out(table, reals[table.name], rows, b, mask_of, env.sizes)
            for table in scored.reals
        }
        seen, q, k, v = (x[b : b + 1] for x in (mask, *qkv))
        made.append(
            (DensePart(_of_heads(scored.part, call), seen, pairs[b : b + 1], env, q, k, v), known)
        )
    return made


def _laid_out(
    table: ir.Table,
    x: Tensor,
    rows: Mapping[str, tuple[ir.Rows, int]],
    b: int,
    mask: ir.Mask,
    sizes: Mapping[str, int],
) -> Tensor:
    """A real input of one batch element, as a call on the tokens alone would be given it."""
    for axis, dim in enumerate(table.dims):
        if dim == "batch":
            x = x[b : b + 1]
        elif dim in ("q", "k"):
            of_side, first = rows[str(dim)]
            exist = torch.from_numpy(np.array(ir.of_element(of_side.exist(), b)))
            places = torch.from_numpy(np.array(ir.of_element(of_side.positions(), b))) - first
            shape = (*x.shape[:axis], sizes[str(dim)], *x.shape[axis + 1 :])
            held = x.index_select(axis, exist.nonzero()[:, 0])
            x = x.new_zeros(shape).index_add(axis, places[exist], held)
        elif isinstance(dim, str) and dim != "head":
            axes = ["k"] if dim == "pos" else ir.axes_named(mask, dim)
            x = x.narrow(axis, 0, sizes[axes[0]]) if axes else x
    return x
