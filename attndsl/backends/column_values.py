"""Real expressions at rows of a call, one number a row, by torch: differentiable.

Coefficients and mass in the denominator depend on the query alone; so do parts of scores, on the key, or on q - k.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from attndsl import ir
from attndsl.backends.dtypes import lse_dtype
from attndsl.backends.places import IntArray
from attndsl.backends.scores import BoundScore

reals = ir.reals

_FUNCTIONS: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "exp": torch.exp,
    "exp2": torch.exp2,
    "log": torch.log,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": lambda x: -logsigmoid(-x),
    "relu": torch.relu,
    "sqrt": torch.sqrt,
    "abs": torch.abs,
    "sign": torch.sign,
    "step": lambda x: (x > 0).to(x.dtype),
}


def query_values(bound: BoundScore, q: Tensor, tables: Mapping[str, Tensor]) -> Tensor:
    """Evaluates ``bound.score`` at the queries q [B, H, Q, D], broadcastable to [B, H, Q]; differentiable.

    ``tables`` are the real inputs by name, [batch][head][...] as declared.
    """
    batch, heads, q_len, _ = q.shape
    rows = Rows.of(bound, batch, heads, np.arange(q_len, dtype=np.int64) + bound.first, 0)
    return ColumnValues(rows, tables, {ir.Side.QUERY: q}, q.dtype, q.device).value(bound.score)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows [B, H, N] and what ints are at them; ``kept`` are values of ints that were met, which never change."""

    env: ir.Env
    kept: MutableMapping[ir.Node, Tensor] = field(default_factory=dict)

    @staticmethod
    def of(bound: BoundScore, batch: int, heads: int, q: IntArray, k: IntArray | int) -> Rows:
        """Rows at the positions q and k [N], of all batch elements and query heads."""
        sizes = {"batch": batch, "head": heads}
        tables = {}
        for table in bound.declared:
            given = np.asarray(bound.tables[table.name])
            ambient = [sizes[str(dim)] for dim in table.dims if dim in sizes]
            tables[table.name] = np.broadcast_to(given, (*ambient, *given.shape[len(ambient) :]))
        env = ir.Env(
            q=q,
            k=k,
            sizes={},
            tables=tables,
            batch=np.arange(batch)[:, None, None],
            head=np.arange(heads)[:, None],
        )
        return Rows(env)


@dataclass(frozen=True, slots=True)
class ColumnValues:
    """The values of expressions at rows. ``own`` are the vectors of the rows, [B, H, N, D], where they are read."""

    rows: Rows
    tables: Mapping[str, Tensor]
    own: Mapping[ir.Side, Tensor]
    dtype: torch.dtype
    device: torch.device

    @property
    def _wide(self) -> torch.dtype:
        return lse_dtype(self.dtype)

    def value(self, root: ir.Node) -> Tensor:
        """The value of a real expression, broadcastable to [B, H, N]."""
        known: dict[ir.Node, Tensor] = {}
        for node in ir.postorder(root):
            if node.sort is ir.Sort.REAL:
                known[node] = self._step(node, known)
        return known[root]

    def _step(self, node: ir.Node, at: Mapping[ir.Node, Tensor]) -> Tensor:
        match node:
            case reals.Number(value=value):
                return torch.tensor(value, dtype=self._wide, device=self.device)
            case reals.FromInt(item=item):
                return self._whole(item).to(self._wide)
            case reals.Plus(items=items):
                return functools.reduce(torch.add, [at[item] for item in items])
            case reals.Times(left=left, right=right):
                return at[left] * at[right]
            case reals.Over(left=left, right=right):
                return at[left] / at[right]
            case reals.Apply(function=function, item=item):
                return _FUNCTIONS[function](at[item])
            case reals.Least(left=left, right=right):
                return torch.where(at[left] <= at[right], at[left], at[right])
            case reals.Greatest(left=left, right=right):
                return torch.where(at[left] >= at[right], at[left], at[right])
            case reals.Choose(cond=cond, yes=yes, no=no):
                return torch.where(self._whole(cond), at[yes], at[no])
            case reals.Dot(left=left, right=right):
                return (self.vector(left) * self.vector(right)).sum(-1)
            case ir.Load(table=table, index=index, ambient=ambient):
                return self._read(table, index, ambient, 0)
            case _:
                raise AssertionError(f"no value of a query: {node}")

    def vector(self, node: ir.Node) -> Tensor:
        """An operand of an inner product at each row, broadcastable to [B, H, N, width]."""
        if isinstance(node, reals.Own):
            return self.own[node.side].to(self._wide)
        assert isinstance(node, reals.Row), "vectors are rows or the query's own"
        return self._read(node.table, node.index, node.ambient, 1)

    def _whole(self, node: ir.Node) -> Tensor:
        if node not in self.rows.kept:
            found = torch.from_numpy(np.array(ir.evaluate(node, self.rows.env)))
            self.rows.kept[node] = found.to(self.device)
        return self.rows.kept[node]

    def _read(self, name: str, index: tuple[ir.Node, ...], ambient: ir.Deps, left: int) -> Tensor:
        """A table at each query, its last ``left`` dims whole; 0 where an index is outside."""
        table = self.tables[name].to(self._wide)
        places, inside = list[Tensor](), torch.ones((), dtype=torch.bool, device=self.device)
        for flag, number in (
            (ir.Deps.BATCH, self.rows.env.batch),
            (ir.Deps.HEAD, self.rows.env.head),
        ):
            if ambient & flag:
                places.append(torch.from_numpy(number).to(self.device))
        for node, size in zip(index, table.shape[len(places) :], strict=False):
            place = self._whole(node)
            inside = inside & (place >= 0) & (place < size)
            places.append(place.clamp(0, max(0, size - 1)))
        if not places:
            return table
        if 0 in table.shape:
            return table.new_zeros((1,) * 3 + table.shape[table.dim() - left :])
        found = table[tuple(places)]
        return torch.where(inside[(..., *[None] * left)], found, 0.0)
