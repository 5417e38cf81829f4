"""Real expressions that depend on no key, at every query of a call: coefficients, and mass in the denominator."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from attndsl import ir
from attndsl.backends import BoundScore, lse_dtype

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
    return _Queries(bound, q, tables).value(bound.score)


class _Queries:
    """One evaluation."""

    def __init__(self, bound: BoundScore, q: Tensor, tables: Mapping[str, Tensor]) -> None:
        batch, heads, q_len, _ = q.shape
        self._q, self._tables = q, tables
        self._wide, self._device = lse_dtype(q.dtype), q.device
        self._env = ir.Env(
            q=np.arange(q_len, dtype=np.int64) + bound.first,
            k=0,
            sizes={},
            tables=bound.tables,
            batch=np.arange(batch)[:, None, None],
            head=np.arange(heads)[:, None],
        )

    def value(self, root: ir.Node) -> Tensor:
        known: dict[ir.Node, Tensor] = {}
        for node in ir.postorder(root):
            if node.sort is ir.Sort.REAL:
                known[node] = self._step(node, known)
        return known[root]

    def _step(self, node: ir.Node, at: Mapping[ir.Node, Tensor]) -> Tensor:
        match node:
            case reals.Number(value=value):
                return torch.tensor(value, dtype=self._wide, device=self._device)
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
                return (self._vector(left) * self._vector(right)).sum(-1)
            case ir.Load(table=table, index=index, ambient=ambient):
                return self._read(table, index, ambient, 0)
            case _:
                raise AssertionError(f"no value of a query: {node}")

    def _vector(self, node: ir.Node) -> Tensor:
        if isinstance(node, reals.Own):
            return self._q.to(self._wide)
        assert isinstance(node, reals.Row), "vectors are rows or the query's own"
        return self._read(node.table, node.index, node.ambient, 1)

    def _whole(self, node: ir.Node) -> Tensor:
        return torch.from_numpy(np.array(ir.evaluate(node, self._env))).to(self._device)

    def _read(self, name: str, index: tuple[ir.Node, ...], ambient: ir.Deps, left: int) -> Tensor:
        """A table at each query, its last ``left`` dims whole; 0 where an index is outside."""
        table = self._tables[name].to(self._wide)
        places, inside = list[Tensor](), torch.ones((), dtype=torch.bool, device=self._device)
        for flag, number in ((ir.Deps.BATCH, self._env.batch), (ir.Deps.HEAD, self._env.head)):
            if ambient & flag:
                places.append(torch.from_numpy(number).to(self._device))
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
