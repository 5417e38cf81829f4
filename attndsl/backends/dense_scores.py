"""The oracle of attentions: every live pair is evaluated by itself, and autograd differentiates what was done.

It shares no code with schedules, derivatives or kernels, and does not try to be fast or small. Pairs that are not in a
mask are never evaluated, so that a score that is not defined there, log(q - k) at q <= k, reaches nothing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from attndsl import ir
from attndsl.backends.dtypes import lse_dtype

reals = ir.reals

BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class DensePart:
    """A part of a term with the tensors of one call.

    ``mask`` is bool [B, H, Q, K], and so is ``pairs``, of NumPy, which transforms of torch do not see. ``env`` holds
    what integer expressions read: ``q`` [Q] and ``k`` [K] are the positions of the rows, ``batch`` [B] and ``head``
    [H] their numbers, as NumPy arrays. k and v have Hkv heads.
    """

    part: ir.Scored
    mask: Tensor
    pairs: BoolArray
    env: ir.Env
    q: Tensor
    k: Tensor
    v: Tensor


def attend_scored(
    term: ir.Term, parts: Sequence[DensePart], tables: Mapping[str, Tensor], scale: float
) -> tuple[Tensor, Tensor]:
    """Computes out [B, H, Q, Dv] and lse [B, H, Q] of a term; both are differentiable, to any order.

    ``tables`` are the real inputs, [batch][head][...] as declared. The log-sum-exp of a form that has none is 0, and
    -inf where a query sees no key.
    """
    parts = [_without_unseen(part) for part in parts]
    wide = lse_dtype(parts[0].q.dtype)
    tables = {name: table.to(wide) for name, table in tables.items()}
    pairs = [_Pairs(part, tables, scale) for part in parts]
    levels = [
        each.dense(each.value(part.part.score)) for each, part in zip(pairs, parts, strict=True)
    ]
    mass = None if term.log_mass is None else _of_queries(parts[0], tables, term.log_mass)
    weights, lse = _weights(parts, pairs, levels, mass)
    out: Tensor | None = None
    for part, each, weight in zip(parts, pairs, weights, strict=True):
        if part.part.factor is not None:
            weight = weight * each.dense(each.value(part.part.factor), 0.0)
        share = _weigh(weight, part.mask, part.v.to(wide))
        out = share if out is None else out + share
    assert out is not None, "a term has parts"
    coefficient = _of_queries(parts[0], tables, term.coefficient)
    return (out * coefficient[..., None]).to(parts[0].v.dtype), lse


def _without_unseen(part: DensePart) -> DensePart:
    """The part with 0 for queries and keys of no pair, whatever they hold, and one key head a query head."""
    group = part.q.shape[1] // max(1, part.k.shape[1])
    k, v = (x.repeat_interleave(group, 1) for x in (part.k, part.v))
    rows, columns = ~part.mask.any(-1)[..., None], ~part.mask.any(-2)[..., None]
    q, k, v = (x.masked_fill(y, 0.0) for x, y in ((part.q, rows), (k, columns), (v, columns)))
    return replace(part, q=q, k=k, v=v)


# ---------------------------------------------------------------------------- expressions


class _Pairs:
    """The values of real expressions at the live pairs of a part, one number each, [pairs]."""

    def __init__(
        self,
        part: DensePart,
        tables: Mapping[str, Tensor],
        scale: float,
        at: IntArray | None = None,
    ) -> None:
        self._part, self._tables = part, tables
        places = np.argwhere(part.pairs) if at is None else at
        self._places = torch.from_numpy(places)
        self._batch, self._head, self._query, self._key = self._places.unbind(1)
        batch, head, query, key = places.T
        env = part.env
        self._env = replace(
            env,
            q=env.q[query],
            k=env.k[key] if len(env.k) else np.zeros(len(places), np.int64),
            batch=env.batch[batch],
            head=env.head[head],
        )
        self._score: Tensor | None = None
        self._scale = scale
        self._known: dict[ir.Node, Tensor] = {}

    def dense(self, values: Tensor, outside: float = -math.inf) -> Tensor:
        """The values at their places in [B, H, Q, K], another one everywhere else."""
        whole = torch.full(self._part.mask.shape, outside, dtype=values.dtype)
        return whole.index_put(tuple(self._places.unbind(1)), values)

    def value(self, root: ir.Node, score: Tensor | None = None) -> Tensor:
        """An expression, in which `Score` is ``score`` or else the scaled product of query and key."""
        known = self._known if score is None else {}
        for node in ir.postorder(root):
            if node not in known and node.sort is ir.Sort.REAL:
                known[node] = self._step(node, known, score)
        wide = lse_dtype(self._part.q.dtype)
        return known[root].to(wide).expand(len(self._places))

    def _step(  # noqa: C901 - one arm per node class
        self, node: ir.Node, known: Mapping[ir.Node, Tensor], score: Tensor | None
    ) -> Tensor:
        match node:
            case reals.Number(value=value):
                return torch.tensor(value, dtype=torch.float64).to(lse_dtype(self._part.q.dtype))
            case reals.FromInt(item=item):
                return self._integer(item).to(lse_dtype(self._part.q.dtype))
            case reals.Score():
                return self._product() if score is None else score
            case reals.Plus(items=items):
                return functools.reduce(torch.add, [known[item] for item in items])
            case reals.Times(left=left, right=right):
                return known[left] * known[right]
            case reals.Over(left=left, right=right):
                return known[left] / known[right]
            case reals.Apply(function=function, item=item):
                return _FUNCTIONS[function](known[item])
            case reals.Least(left=left, right=right):
                return torch.where(known[left] <= known[right], known[left], known[right])
            case reals.Greatest(left=left, right=right):
                return torch.where(known[left] >= known[right], known[left], known[right])
            case reals.Choose(cond=cond, yes=yes, no=no):
                return torch.where(self._integer(cond), known[yes], known[no])
            case reals.Dot(left=left, right=right):
                return (self._vector(left) * self._vector(right)).sum(-1)
            case reals.Drawn(least=least, left=left, right=right):
                return (_mixed(self._integer(left) + self._integer(right)) >= least).double()
            case ir.Load(table=table, index=index, ambient=ambient):
                return self._read(table, index, ambient, ())
            case _:
                raise AssertionError(f"not real: {node}")

    def _integer(self, node: ir.Node) -> Tensor:
        found = np.broadcast_to(ir.evaluate(node, self._env), (len(self._places),))
        return torch.from_numpy(np.array(found))

    def _vector(self, node: ir.Node) -> Tensor:
        wide = lse_dtype(self._part.q.dtype)
        match node:
            case reals.Own(side=ir.Side.QUERY):
                return self._part.q[self._batch, self._head, self._query].to(wide)
            case reals.Own():
                return self._part.k[self._batch, self._head, self._key].to(wide)
            case reals.Row(table=table, index=index, ambient=ambient):
                return self._read(table, index, ambient, (self._tables[table].shape[-1],))
            case _:
                raise AssertionError(f"no vector: {node}")

    def _product(self) -> Tensor:
        if self._score is None:
            q, k = self._part.q, self._part.k
            scores = (q @ k.transpose(-1, -2) * self._scale).to(lse_dtype(q.dtype))
            self._score = scores[tuple(self._places.unbind(1))]
        return self._score

    def _read(
        self, name: str, index: tuple[ir.Node, ...], ambient: ir.Deps, rest: tuple[int, ...]
    ) -> Tensor:
        """A table at each pair, its last dims ``rest`` whole; 0 where an index is outside."""
        table = self._tables[name]
        places = [
            x
            for x, flag in ((self._batch, ir.Deps.BATCH), (self._head, ir.Deps.HEAD))
            if flag & ambient
        ]
        inside = torch.ones(len(self._places), dtype=torch.bool)
        for node, size in zip(index, table.shape[len(places) :], strict=False):
            at = self._integer(node)
            inside &= (at >= 0) & (at < size)
            places.append(at.clamp(0, max(0, size - 1)))
        if 0 in table.shape:
            return table.new_zeros(len(self._places), *rest)
        found = table[tuple(places)] if places else table.expand(len(self._places), *rest)
        return torch.where(inside.view(-1, *[1] * len(rest)), found, 0.0)


def _mixed(x: Tensor) -> Tensor:
    """The number that `ir.reals.Drawn` says, of int64."""
    x = x * 0x7FEB352D % 2**32
    x = x - 2**32 * (x >= 2**31)
    return (
        (x ^ (x >> 15)) % 2**31 * 0x046CA68B % 2**31
    )  # the lowest bits of a product are those of its factors


_FUNCTIONS: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "exp": torch.exp,
    "exp2": torch.exp2,
    "log": torch.log,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": lambda x: -F.logsigmoid(-x),
    "relu": torch.relu,
    "sqrt": torch.sqrt,
    "abs": torch.abs,
    "sign": torch.sign,
    "step": lambda x: (x > 0).to(x.dtype),
}


def _of_queries(part: DensePart, tables: Mapping[str, Tensor], root: ir.Node) -> Tensor:
    """An expression that depends on no key, [B, H, Q]."""
    shape = part.mask.shape[:3]
    at = np.stack([each.reshape(-1) for each in np.indices((*shape, 1))], axis=1)
    return _Pairs(part, tables, 1.0, at).value(root).reshape(shape)


# ---------------------------------------------------------------------------- forms


def _weights(
    parts: Sequence[DensePart],
    pairs: Sequence[_Pairs],
    levels: Sequence[Tensor],
    mass: Tensor | None,
) -> tuple[list[Tensor], Tensor]:
    """The weights of each part, [B, H, Q, K], and the log-sum-exp of their queries."""
    form = parts[0].part.form
    if form is ir.Form.SOFTMAX:
        return _softmax(parts, levels, mass)
    (part,), (each,), (level,) = parts, pairs, levels
    keyless = ~part.mask.any(-1)
    lse = torch.zeros(keyless.shape, dtype=level.dtype).masked_fill(keyless, -math.inf)
    if form in (ir.Form.POINTWISE, ir.Form.L1):
        assert part.part.weight is not None, "the front end demands it"
        weights = each.dense(each.value(part.part.weight, each.value(part.part.score)), 0.0)
        if form is ir.Form.L1:
            whole = weights.sum(-1) + (0.0 if mass is None else mass.exp())
            is_nothing = whole.abs() < torch.finfo(whole.dtype).tiny
            weights = weights / whole.masked_fill(is_nothing, math.inf)[..., None]
        return [weights], lse
    if form is ir.Form.ENTMAX:
        return [_entmax(level, part.mask)], lse
    if form is ir.Form.STICK:
        return [_stick(level, part.mask, torch.from_numpy(part.env.k))], lse
    seen = part.mask.any(-2, keepdim=True)
    columns = torch.logsumexp(level.masked_fill(~seen, 0.0), -2, keepdim=True)
    weights = torch.exp(level - columns)
    return [weights.masked_fill(~part.mask, 0.0)], lse


def _softmax(
    parts: Sequence[DensePart], levels: Sequence[Tensor], mass: Tensor | None
) -> tuple[list[Tensor], Tensor]:
    whole = torch.cat([*levels, *([] if mass is None else [mass[..., None]])], -1)
    if not whole.shape[-1]:
        return list(levels), whole.new_full(whole.shape[:-1], -math.inf)
    empty = (whole == -math.inf).all(-1)
    lse = torch.logsumexp(whole.masked_fill(empty[..., None], 0.0), -1).masked_fill(
        empty, -math.inf
    )
    level = lse.masked_fill(empty, 0.0)[..., None]
    weights = [
        torch.exp(each - level).masked_fill(~part.mask, 0.0)  # -inf for pairs that are not live
        for part, each in zip(parts, levels, strict=True)
    ]
    return weights, lse


def _entmax(level: Tensor, mask: Tensor) -> Tensor:
    """1.5-entmax over the live keys of each query, by sorting (Peters, Niculae and Martins, 2019, algorithm 2)."""
    if not mask.shape[-1]:
        return level
    z = level.masked_fill(~mask, 0.0) / 2
    # the weights stay, and squares of large numbers have no digits to spare
    z = z - z.masked_fill(~mask, -math.inf).amax(-1, keepdim=True).nan_to_num(neginf=0.0).detach()
    ordered = z.masked_fill(~mask, -math.inf).sort(-1, descending=True).values
    count = torch.arange(1, mask.shape[-1] + 1, dtype=z.dtype)
    live = ordered > -math.inf
    known = ordered.masked_fill(~live, 0.0)
    mean, square = known.cumsum(-1) / count, (known * known).cumsum(-1) / count
    left = ((1 - count * (square - mean * mean)) / count).clamp(min=1e-30)
    tau = mean - left.sqrt()
    support = (live & (tau <= known)).sum(-1, keepdim=True).clamp(min=1)
    chosen = tau.gather(-1, support - 1)
    return (z - chosen).clamp(min=0).square().masked_fill(~mask, 0.0)


def _stick(level: Tensor, mask: Tensor, position: Tensor) -> Tensor:
    """Stick-breaking weights: each key, from the last position back, takes its share of what is left."""
    order = position.argsort(stable=True)
    t = level.masked_fill(~mask, 0.0)
    left = F.logsigmoid(-t).masked_fill(~mask, 0.0).index_select(-1, order)
    behind = F.pad(left.flip(-1).cumsum(-1).flip(-1)[..., 1:], (0, 1))
    back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
    weights = torch.exp(F.logsigmoid(t) + behind.index_select(-1, back))
    return weights.masked_fill(~mask, 0.0)


def _weigh(weights: Tensor, mask: Tensor, v: Tensor) -> Tensor:
    """Weights times values; a value that is not finite reaches the queries that see it, and no others."""
    finite = v.isfinite()
    out = weights @ v.masked_fill(~finite, 0.0)
    return out.masked_fill(mask.to(v.dtype) @ (~finite).to(v.dtype) > 0, math.nan)
