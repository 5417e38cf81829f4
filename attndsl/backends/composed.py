"""Attention over live tiles, composed of torch's own operations: differentiable to any order, on every device.

The fast back ends have a forward and a backward. Every other derivative (forward mode, second derivatives, what
function transforms ask for) is taken of this function, which visits the same live tiles:

    w = exp(s - l)    out = Σ w v / Σ w    lse = l + log Σ w        l: the log-sum-exp of a forward, a constant

Subtracting a constant changes no derivative; this one keeps every weight at most 1. Memory follows the live pairs
where the graph is kept, and one piece of a strip where it is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from attndsl.backends.block_batches import BlockBatch, batches_of
from attndsl.backends.dtypes import lse_dtype, out_dtype
from attndsl.backends.places import IntArray
from attndsl.cache import bytes_of
from attndsl.schedule import Schedule

_PAIRS = 1 << 22  # of one product, over all heads: 16 MB in float32

# From the tensors of some queries [heads, items, n, ...], of their keys [heads, items, m, ...] and the live pairs
# (bool [items or 1, n, m], None: all) to what these queries gain: [heads, items, n, ...] each.
_Gains = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | None], Sequence[Tensor]]


@dataclass(frozen=True, slots=True)
class Composed:
    """A call, but for its tensors.

    ``level``: the log-sum-exp of a forward [B, H, Q], -inf where a query sees nothing. ``zeros``: how many zero keys
    each query sees, int [B or 1, H or 1, Q].
    """

    schedules: Sequence[Schedule]  # of disjoint pairs
    zeros: Tensor | None = None
    level: Tensor = field(default_factory=lambda: torch.empty(0))
    scale: float = 1.0

    @property
    def nbytes(self) -> int:
        """Bytes of the schedules."""
        return bytes_of((*self.schedules, self.zeros))

    def around(self, level: Tensor, scale: float) -> Composed:
        """The same around the log-sum-exp of a forward."""
        return replace(self, level=level, scale=scale)

    def outputs(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """(out [B, H, Q, Dv], lse [B, H, Q]), as a back end gives them."""
        dtype = lse_dtype(q.dtype)

        def gains(
            rows: Sequence[Tensor], columns: Sequence[Tensor], live: Tensor | None
        ) -> list[Tensor]:
            (q, level), (k, v) = rows, columns
            weights = self._weights(q, k, level, live)
            return [weights @ v, weights.sum(-1)]

        sides = [q.to(dtype), self._level()], [k.to(dtype), v.to(dtype)]
        total, mass = self._summed(*sides, gains, [(v.shape[3],), ()])
        mass, empty = self._whole(mass)
        lse = (self._level() + mass.log()).masked_fill(empty, -math.inf)
        return (total / mass[..., None]).to(out_dtype(q.dtype)), lse

    def tangents(
        self, q: Tensor, k: Tensor, v: Tensor, dq: Tensor, dk: Tensor, dv: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The derivatives of ``outputs`` along (dq, dk, dv), in one pass.

        With ds = scale (dq k + q dk): dlse = Σ w ds / Σ w and dout = Σ w (dv + ds v) / Σ w - dlse out.
        """
        dtype = lse_dtype(q.dtype)

        def gains(
            rows: Sequence[Tensor], columns: Sequence[Tensor], live: Tensor | None
        ) -> list[Tensor]:
            (q, dq, level), (k, v, dk, dv) = rows, columns
            weights = self._weights(q, k, level, live)
            change = (dq @ k.mT + q @ dk.mT) * self.scale
            moved = weights * (change if live is None else change.masked_fill(~live, 0.0))
            return [weights @ v, weights.sum(-1), weights @ dv + moved @ v, moved.sum(-1)]

        rows, columns = ([x.to(dtype) for x in side] for side in ((q, dq), (k, v, dk, dv)))
        width = (v.shape[3],)
        sums = self._summed([*rows, self._level()], columns, gains, [width, (), width, ()])
        total, mass, moved_total, moved_mass = sums
        mass, _ = self._whole(mass)
        out, dlse = total / mass[..., None], moved_mass / mass
        dout = moved_total / mass[..., None] - dlse[..., None] * out
        return dout.to(out_dtype(q.dtype)), dlse

    def _level(self) -> Tensor:
        return self.level.masked_fill(self.level == -math.inf, 0.0)

    def _weights(self, q: Tensor, k: Tensor, level: Tensor, live: Tensor | None) -> Tensor:
        scores = (q @ k.mT) * self.scale
        if live is not None:
            scores = scores.masked_fill(~live, -math.inf)
        return torch.exp(scores - level[..., None])

    def _whole(self, mass: Tensor) -> tuple[Tensor, Tensor]:
        """The mass with that of the zero keys, 1 where there is none; and where that is."""
        if self.zeros is not None:
            mass = mass + torch.exp(self.zeros.to(mass.dtype).log() - self._level())
        empty = self.level == -math.inf
        return mass.masked_fill(empty, 1.0), empty

    def _summed(
        self,
        of_queries: Sequence[Tensor],
        of_keys: Sequence[Tensor],
        gains: _Gains,
        shapes: Sequence[tuple[int, ...]],
    ) -> list[Tensor]:
        """Sums over all keys of each query, [B, H, Q, *shape] each."""
        batch, heads, q_len = of_queries[0].shape[:3]
        key_heads, k_len = of_keys[0].shape[1:3]
        group = heads // max(1, key_heads)
        queries = [x.flatten(0, 1) for x in of_queries]
        keys = [x.repeat_interleave(group, 1).flatten(0, 1) for x in of_keys]
        sums = [queries[0].new_zeros(batch * heads, q_len, *shape) for shape in shapes]
        if sums[0].shape[0] and k_len:
            for schedule in self.schedules:
                gained = _of_schedule(schedule, (batch, heads), queries, keys, gains, sums)
                sums = [total + gain for total, gain in zip(sums, gained, strict=True)]
        return [x.reshape(batch, heads, *x.shape[1:]) for x in sums]


def _of_schedule(
    schedule: Schedule,
    counts: tuple[int, int],
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    gains: _Gains,
    like: Sequence[Tensor],
) -> list[Tensor]:
    """Plan by plan, with the heads of all batch elements that share it; [heads, Q, ...] each."""
    plan_of = np.broadcast_to(schedule.plan_of, counts).reshape(-1)
    parts, members = [], []
    for number, block_batches in enumerate(batches_of(schedule)):
        mine = np.flatnonzero(plan_of == number)
        if not len(mine):
            continue
        plan, (rows, columns) = schedule.plans[number], (queries, keys)
        if len(mine) < len(plan_of):
            rows, columns = ([_taken(x, 0, mine) for x in side] for side in (rows, columns))
        if plan.q_order is not None:
            rows = [_taken(x, 1, plan.q_order.rows) for x in rows]
        if plan.k_order is not None:
            columns = [_taken(x, 1, plan.k_order.rows) for x in columns]
        sums = _of_strips(block_batches, rows, columns, gains, [x[: len(mine)] for x in like])
        if plan.q_order is not None:
            sums = [_taken(x, 1, plan.q_order.places) for x in sums]
        parts.append(sums)
        members.append(mine)
    if len(parts) == 1:
        return parts[0]
    back = np.argsort(np.concatenate(members))
    return [_taken(torch.cat(same), 0, back) for same in zip(*parts, strict=True)]


def _of_strips(
    block_batches: Sequence[BlockBatch],
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    gains: _Gains,
    like: Sequence[Tensor],
) -> list[Tensor]:
    sums = [torch.zeros_like(x) for x in like]
    for strip in block_batches:
        size = queries[0].shape[0] * strip.queries.length * strip.keys.length
        step = max(1, _PAIRS // size)
        for first in range(0, strip.queries.items, step):
            part = strip.cut(first, min(first + step, strip.queries.items))
            rows = part.queries.rows().reshape(-1, part.queries.length)
            read, live = [_read(x, rows) for x in queries], _live(part, queries[0].device)
            columns = [_read(x, part.keys.rows().reshape(-1, part.keys.length)) for x in keys]
            if live is not None:  # what a query without keys here holds reaches none of them
                dead = ~live.any(-1)
                read = [x.masked_fill(dead[..., None] if x.dim() == 4 else dead, 0.0) for x in read]
            index = torch.from_numpy(rows.reshape(-1)).to(queries[0].device)
            for place, gain in enumerate(gains(read, columns, live)):
                sums[place] = sums[place].index_add(1, index, gain.flatten(1, 2))
    return sums


def _live(strip: BlockBatch, device: torch.device) -> Tensor | None:
    """The live pairs, bool [items or 1, queries, keys]; None: all."""
    if strip.mask is None:
        return None
    bits = np.unpackbits(strip.mask, axis=-1, count=strip.keys.length)
    return torch.from_numpy(bits.astype(bool)).to(device)


def _read(x: Tensor, rows: IntArray) -> Tensor:
    """Rows [items, n] of x [heads, length, ...], [heads, items, n, ...]."""
    taken = _taken(x, 1, rows.reshape(-1))
    return taken.reshape(len(taken), *rows.shape, *taken.shape[2:])


def _taken(x: Tensor, dim: int, places: IntArray) -> Tensor:
    return x.index_select(dim, torch.from_numpy(places).to(x.device))
