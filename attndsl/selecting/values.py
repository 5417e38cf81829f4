"""Values of the real expressions of a selection for a strip of queries, float64 [B, H, rows, units].

Each dim is 1 where a value does not depend on it; that of heads may be that of key heads, too. A value is kept for each
node and the units it is of, as folds over other units have expressions of their own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from attndsl import ir

from .summaries import normal
from .unit_counts import Units, counted, overlaps
from .vectors import Summaries

reals, sel = ir.reals, ir.selection
Key: TypeAlias = tuple[ir.Node, Units]

_AT_ONCE: Final = 1 << 18  # scores of queries that are folded: with temporaries some 16 MB

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
}


@dataclass(slots=True)
class Values:
    """The values of one strip: ``numbers`` are its queries, or units of them, rows ``first`` and on of the call.

    ``rows`` are the units that the numbers count, None of queries. Only the units from ``least`` up to ``most`` are
    scored, which serves scores that fold no units.
    """

    made: Summaries
    numbers: np.ndarray
    first: int
    rows: Units | None = None
    most: int = 1 << 62  # the unit behind the last one that is looked at
    least: int = 0  # and the first one
    memo: dict[Key, Tensor] = field(default_factory=dict)
    indices: dict[int, int] = field(default_factory=dict)

    def __call__(self, node: ir.Node, units: Units) -> Tensor:
        """The value of a real expression of these units."""
        key = node, units
        if key in self.memo:
            return self.memo[key]
        found = self._step(node, units)
        if not self.indices:  # in a sum, values change with its variable
            self.memo[key] = found
        return found

    def width(self, units: Units) -> int:
        """How many of these units there are values of."""
        return len(self._span(units))

    def _span(self, units: Units) -> range:
        stop = min(self.most, counted(units, self.made.env))
        return range(min(self.least, stop), stop)

    def _looked_at(self, x: Tensor, units: Units) -> Tensor:
        """The vectors of these units [B, H, 1, units, width], of those of all."""
        span = self._span(units)
        return x[:, :, None, span.start : span.stop]

    def whole(self, node: ir.Node, units: Units) -> Tensor:
        """An int or bool expression, as a tensor."""
        env = self.made.env
        span = self._span(units)
        at = np.arange(span.start, span.stop)[None, None, None, :]
        env = replace(env, q=self.numbers[None, None, :, None], k=at, indices=self.indices)
        reals_in = [each for each in ir.postorder(node) if isinstance(each, sel.Exceeds)]
        known: dict[ir.Node, np.ndarray] = {
            each: self._exceeds(each, units).numpy(force=True) for each in reals_in
        }
        found = np.asarray(ir.evaluate(node, env, known))
        found = found.reshape((1,) * (4 - found.ndim) + found.shape)
        return torch.from_numpy(np.ascontiguousarray(found)).to(self.made.q.device)

    def _step(self, node: ir.Node, units: Units) -> Tensor:  # noqa: C901 - one arm per node class
        match node:
            case reals.Number(value=value):
                return self._number(value)
            case reals.FromInt(item=item):
                return self.whole(item, units).double()
            case sel.Scale():
                return self._number(self.made.scale)
            case reals.Plus(items=items):
                total = self(items[0], units)
                for item in items[1:]:
                    total = torch.add(*self._joint(total, self(item, units)))
                return total
            case reals.Times(left=left, right=right):
                return torch.mul(*self._joint(self(left, units), self(right, units)))
            case reals.Over(left=left, right=right):
                return torch.div(*self._joint(self(left, units), self(right, units)))
            case reals.Least(left=left, right=right):
                return torch.minimum(*self._joint(self(left, units), self(right, units)))
            case reals.Greatest(left=left, right=right):
                return torch.maximum(*self._joint(self(left, units), self(right, units)))
            case reals.Apply(function=function, item=item):
                return _FUNCTIONS[function](self(item, units))
            case reals.Choose(cond=cond, yes=yes, no=no):
                each = self._joint(self.whole(cond, units), self(yes, units), self(no, units))
                return torch.where(each[0], each[1], each[2])
            case reals.Dot(left=left, right=right):
                return self._inner(self._vector(left, units), self._vector(right, units))
            case sel.Bound(units=own):
                return self._bound(own)
            case sel.Antidiagonal(units=own):
                return self._inner(
                    self._rows(self.made.laid_out(ir.Side.QUERY, own)), self._columns(own)
                )
            case ir.Load():
                return self._read(node, units)[..., 0]
            case sel.Series():
                return self._series(node, units)
            case sel.Reduced(units=sel.Shared() as shared):
                return self._over_heads(self(node.item, units), node.how, shared)
            case sel.Reduced(how=sel.Fold.SOFTMAX):
                return self._softmax(node, units)
            case sel.Reduced():
                return self._over_units(node, units)
            case sel.RowFold():
                return self._over_row(node)
            case sel.QueryFold():
                return self._over_queries(node, units)
            case _:
                raise AssertionError(f"{type(node).__name__} has no value in a selection")

    def _exceeds(self, node: ir.selection.Exceeds, units: Units) -> Tensor:
        left, right = self._joint(self(node.left, units), self(node.right, units))
        found = left >= right if node.or_equal else left > right
        groups = self.made.k.shape[1]
        return self._spread(found) if found.shape[1] == groups > 1 else found

    def _spread(self, x: Tensor) -> Tensor:
        """Values of key heads as those of query heads."""
        return x.repeat_interleave(self.made.group, 1)

    def _number(self, value: float) -> Tensor:
        return torch.full((1, 1, 1, 1), value, dtype=torch.float64, device=self.made.q.device)

    def _joint(self, *values: Tensor) -> tuple[Tensor, ...]:
        """Values whose heads broadcast: those of key heads become those of query heads where others have these."""
        heads, groups = self.made.q.shape[1], self.made.k.shape[1]
        if all(x.shape[1] != heads for x in values) or groups in (1, heads):
            return values
        return tuple(self._spread(x) if x.shape[1] == groups else x for x in values)

    # ------------------------------------------------------------------ vectors

    def _vector(self, node: ir.Node, units: Units) -> Tensor:
        """Vectors [B, H, rows or 1, units or 1, width]."""
        match node:
            case sel.Pooled(side=ir.Side.KEY):
                return self._looked_at(self.made.pooled(node), units)
            case sel.Pooled():
                return self._rows(self.made.pooled(node))
            case reals.Own(side=ir.Side.KEY):
                return self._looked_at(self.made.tokens(ir.Side.KEY), units)
            case reals.Own():
                return self._rows(self.made.tokens(ir.Side.QUERY))
            case sel.Unit(item=item):
                return normal(self._vector(item, units))
            case _:
                return self._read(node, units)

    def _columns(self, units: ir.selection.Units) -> Tensor:
        return self._looked_at(self.made.laid_out(ir.Side.KEY, units), units)

    def _rows(self, x: Tensor) -> Tensor:
        return x[:, :, self.first : self.first + len(self.numbers), None]

    def _inner(self, left: Tensor, right: Tensor) -> Tensor:
        """Inner products; of queries and units one matrix product for each key head."""
        if left.shape[2] == 1 < right.shape[2] or right.shape[3] == 1 < left.shape[3]:
            left, right = right, left
        if left.shape[3] != 1 or right.shape[2] != 1:
            left, right = self._joint(left, right)
            return (left * right).sum(-1)
        a, b = left[:, :, :, 0], right[:, :, 0]
        groups = b.shape[1]
        if a.shape[1] > groups > 1:
            split = a.reshape(a.shape[0], groups, -1, a.shape[3])
            found = split @ b.mT
            return found.reshape(found.shape[0], *a.shape[1:3], -1)
        a, b = self._joint(a, b)
        return a @ b.mT

    def _bound(self, units: ir.selection.Groups) -> Tensor:
        low, high = (
            self._looked_at(self.made.pooled(sel.Pooled(how, ir.Side.KEY, units, False)), units)
            for how in (sel.Pool.MIN, sel.Pool.MAX)
        )
        q = self._rows(self.made.tokens(ir.Side.QUERY))
        found = self._inner(q.clamp(min=0), high) + self._inner(q.clamp(max=0), low)
        odd = ~(low.isfinite() & high.isfinite()).all(-1).flatten(0, 2).all(0)
        if bool(odd.any()):  # 0 * inf is no product of theirs: channel by channel
            each = self._joint(q, low[..., odd, :], high[..., odd, :])
            found[..., odd] = torch.maximum(each[0] * each[1], each[0] * each[2]).sum(-1)
        return found

    def _read(self, node: ir.Node, units: Units) -> Tensor:
        """A real table at indices, or rows of it, [B, H, rows, units, width]; 0 where an index is outside."""
        assert isinstance(node, ir.Load | reals.Row)
        if any(index.deps & ir.Deps.PAIR for index in node.index):
            return self._looked_up(node, units)
        key = node, tuple(self.indices.items())  # the same for all strips
        if key not in self.made.known:
            self.made.known[key] = self._looked_up(node, units)
        return self.made.known[key]

    def _looked_up(self, node: ir.Load | reals.Row, units: Units) -> Tensor:
        table = self.made.reals[node.table]
        if isinstance(node, ir.Load):
            table = table[..., None]
        held = [node.ambient & flag for flag in (ir.Deps.BATCH, ir.Deps.HEAD)]
        for place, flag in enumerate(held):
            table = table if flag else table.unsqueeze(place)
        if table.shape[1] == 1 < self.made.q.shape[1] and held[1]:
            table = table.expand(-1, self.made.q.shape[1], *table.shape[2:])
        batch = torch.arange(table.shape[0], device=table.device)[:, None, None, None]
        heads = torch.arange(table.shape[1], device=table.device)[None, :, None, None]
        inside, places = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=table.device), []
        for index, size in zip(node.index, table.shape[2:], strict=False):
            at = self.whole(index, units)
            inside = inside & (at >= 0) & (at < size)
            places.append(at.clamp(0, max(0, size - 1)))
        if 0 in table.shape:
            return table.new_zeros(1, 1, 1, 1, table.shape[-1])
        found = table[(batch, heads, *places)]
        return torch.where(inside[..., None], found, 0.0)

    # ------------------------------------------------------------------ folds

    def _series(self, node: ir.selection.Series, units: Units) -> Tensor:
        """A sum over its variable; products of a number of the row and one of the unit are one matrix product."""
        env, body = self.made.env, node.body
        start, stop = (int(ir.evaluate(each, env)) for each in (node.start, node.stop))
        total, outer = self._number(0.0), list[tuple[Tensor, Tensor]]()
        for index in range(start, stop):
            self.indices[node.level] = index
            if isinstance(body, reals.Times):
                pair = self._joint(self(body.left, units), self(body.right, units))
                pair = pair if pair[0].shape[3] == 1 else pair[::-1]
                if pair[0].shape[3] == pair[1].shape[2] == 1:
                    outer.append((pair[0], pair[1]))
                    continue
                term = pair[0] * pair[1]
            else:
                term = self(body, units)
            total = torch.add(*self._joint(total, term))
        self.indices.pop(node.level, None)
        if outer:
            of_row, of_unit = (
                torch.cat(x, d) for x, d in zip(zip(*outer, strict=True), (3, 2), strict=True)
            )
            total = torch.add(*self._joint(total, of_row @ of_unit))
        return total

    def _over_heads(self, x: Tensor, how: ir.selection.Fold, shared: ir.selection.Shared) -> Tensor:
        heads = self.made.q.shape[1]
        size = self.made.group if shared is sel.Shared.GROUP else heads
        if x.shape[1] != heads:  # the same for some heads: each counts
            whole = x.repeat_interleave(heads // x.shape[1], 1)
        else:
            whole = x
        total = whole[:, ::size]
        for member in range(1, size):
            part = whole[:, member::size]
            total = total + part if how is sel.Fold.SUM else torch.maximum(total, part)
        return total

    def _softmax(self, node: ir.selection.Reduced, units: Units) -> Tensor:
        value, where = self._joint(self(node.item, units), self.whole(node.where, units))
        width = counted(units, self.made.env)
        shape = (*np.broadcast_shapes(value.shape[:3], where.shape[:3]), width)
        value, where = value.expand(shape), where.expand(shape)
        if not width:
            return value
        value = value.masked_fill(~where, -math.inf)
        most = value.amax(-1, keepdim=True)
        found = torch.exp(value - torch.where(most == -math.inf, 0.0, most))
        total = found.sum(-1, keepdim=True)
        return found / torch.where(total == 0, 1.0, total)

    def _over_units(self, node: ir.selection.Reduced, units: Units) -> Tensor:
        """Sums or maxima over those of other units that overlap each of these."""
        assert isinstance(node.units, sel.Units)
        assert isinstance(units, sel.Units), "what overlaps are tokens"
        value, where = self._joint(self(node.item, node.units), self.whole(node.where, node.units))
        nothing = 0.0 if node.how is sel.Fold.SUM else -math.inf
        value = torch.where(where, value, nothing)
        length = self.made.env.sizes["k"]
        total = value.new_full((*value.shape[:3], units.count(length)), nothing)
        if not total.numel():
            return total
        for which, share in overlaps(units, node.units, length):
            part = value.expand(*value.shape[:3], node.units.count(length))
            inside = torch.from_numpy(share > 0).to(value.device)
            part = part[..., torch.from_numpy(which).to(value.device)]
            if node.by_share:
                part = part * torch.from_numpy(share).to(value.device)
            part = torch.where(inside, part, nothing)
            total = total + part if node.how is sel.Fold.SUM else torch.maximum(total, part)
        return total

    def _over_row(self, node: ir.selection.RowFold) -> Tensor:
        """The sum, maximum or log-sum-exp over all units."""
        value, where = self._joint(self(node.item, node.units), self.whole(node.where, node.units))
        value = torch.where(where, value, 0.0 if node.how is sel.Fold.SUM else -math.inf)
        value = value.expand(*value.shape[:3], self.width(node.units))
        if node.how is sel.Fold.SUM:
            return value.sum(-1, keepdim=True)
        if not value.shape[-1]:
            return value.new_full((*value.shape[:3], 1), -math.inf)
        fold = value.amax if node.how is sel.Fold.MAX else value.logsumexp
        return fold(-1, keepdim=True)

    def _over_queries(self, node: ir.selection.QueryFold, units: Units) -> Tensor:
        """The sum or maximum over the queries of each unit of queries, some at once."""
        outer, size = self.rows, node.rows.size
        assert isinstance(outer, sel.Units), "the front end demands it"
        shift, width = self.made.shift, self.width(units)
        end = shift + self.made.q.shape[2]
        step = max(1, _AT_ONCE // max(1, width * self.made.q.shape[0] * self.made.q.shape[1]))
        found = []
        for number in self.numbers.tolist():
            low, high = max(number * outer.size, shift), min((number + 1) * outer.size, end)
            stop = -(-high // size)
            parts = [
                self._part(node, units, np.arange(at, min(at + step, stop)))
                for at in range(low // size, stop, step)
            ]
            heads = max((part.shape[1] for part in parts), default=1)
            none = self._number(0.0 if node.how is sel.Fold.SUM else -math.inf)
            total = none.expand(1, heads, 1, width)
            for part in parts:
                fold = torch.add if node.how is sel.Fold.SUM else torch.maximum
                total = fold(*self._joint(total, part))
            found.append(total)
        batch, heads = (max((x.shape[i] for x in found), default=1) for i in (0, 1))
        parts = [x.expand(batch, heads, 1, width) for x in found]
        return torch.cat(parts, 2) if parts else self._number(0.0).expand(1, 1, 0, width)

    def _part(self, node: ir.selection.QueryFold, units: Units, rows: np.ndarray) -> Tensor:
        """The fold over some queries, [B, H, 1, units]."""
        none = 0.0 if node.how is sel.Fold.SUM else -math.inf
        first = int(rows[0]) - self.made.shift // node.rows.size
        inner = Values(self.made, rows, first, node.rows, self.most, indices=self.indices)
        value, where = self._joint(inner(node.item, units), inner.whole(node.where, units))
        value = torch.where(where, value, none)
        value = value.expand(*value.shape[:2], len(rows), self.width(units))
        if node.by_distance:
            distance = np.arange(value.shape[3])
            key = torch.from_numpy(rows[:, None] - distance[None]).to(value.device)
            there = (key >= 0) & (key < value.shape[3])
            moved = value.gather(3, key.clamp(0, value.shape[3] - 1).expand(value.shape))
            value = torch.where(there, moved, none)
        return (
            value.sum(2, keepdim=True) if node.how is sel.Fold.SUM else value.amax(2, keepdim=True)
        )
