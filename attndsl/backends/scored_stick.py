"""Stick-breaking attention on the CPU (Tan et al., 2024): keys are taken from the last one back, strip by strip.

With t the score of a pair, s = sigmoid(t) and the keys of a query in order,

    w_j = s_j * prod_{m > j} (1 - s_m)                     log w_j = log s_j + sum_{m > j} log(1 - s_m)
    dt_m = w_m dw_m - s_m * sum_{j <= m} w_j dw_j          dw = dout vᵀ

A strip needs two numbers of each query from those behind it: the logarithm of what is left of the stick, and the sum of
w dw, whose whole is rowsum(dout * out). Strips come in a fixed order and nothing is atomic.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends.block_batches import InStrips
from attndsl.backends.dtypes import lse_dtype
from attndsl.backends.places import with_finite
from attndsl.backends.real_evaluation import Spot, Values, give_leaf
from attndsl.backends.scored_blocked import BlockedScores
from attndsl.backends.scored_program import Program
from attndsl.backends.scored_strips import Unit, units
from attndsl.backends.scored_work import PIECE, of_heads
from attndsl.backends.scores import BoundScore
from attndsl.schedule import Schedule

reals = ir.reals

# Logarithms of the least normal numbers: smaller weights are 0, and take processors a hundred times as long.
_SPENT: Final = {torch.float32: -87.0, torch.float64: -708.0}


@dataclass(frozen=True, slots=True, eq=False)
class StickScores(BlockedScores):
    """Attention by stick-breaking over live tiles in natural order, in bounded temporary memory."""

    schedule: Schedule

    @staticmethod
    def of(schedule: Schedule | InStrips, bound: BoundScore, gradient: bool = False) -> StickScores:
        """The kernels of a call, which round nothing, with a ``gradient`` or without."""
        assert isinstance(schedule, Schedule), "keys are taken in the order of tiles"
        return StickScores(schedule, bound, replace(Program.of(bound), is_softmax=False))

    def _attend(
        self,
        qkv: tuple[Tensor, Tensor, Tensor],
        tables: Sequence[Tensor],
        out: Tensor,
        lse: Tensor,
        scale: float,
    ) -> None:
        """Writes out, and lse: 0, and -inf for queries without keys."""
        (q, *columns), wide = qkv, out.dtype
        out.zero_()
        lse.fill_(-math.inf)
        sides = [q.to(wide), out, lse], [x.to(wide) for x in columns]
        for unit in units(self.schedule, self.program.is_alike, *sides, results=(2, 0)):
            for row in self._rows(unit, tables, wide):
                (own, total, level), (keys, values) = row.of_queries, row.of_keys
                rest = torch.zeros(1, dtype=wide)
                for strip in row.strips:
                    strip.mark(level[:, row.rows])
                    if _is_left(rest):
                        pairs = _Pairs.of(row, strip, own, keys, scale, rest)
                        rest = pairs.rest
                        total[:, row.rows] += pairs.weights @ row.shared(strip.read(values))

    @torch.no_grad()
    def backward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        tables: Sequence[Tensor],
        out: Tensor,
        lse: Tensor,
        dout: Tensor,
        dlse: Tensor | None,
        *,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """(dq, dk, dv, those of the tables), each in the dtype of its input."""
        wide = lse_dtype(q.dtype)
        given = q, k, v, *tables
        sums = [
            torch.zeros_like(x, dtype=wide, memory_format=torch.contiguous_format) for x in given
        ]
        dout_ = dout.to(wide).masked_fill((lse == -math.inf)[..., None], 0.0)
        whole = (out.to(wide) * dout_).sum(-1)
        k_, v_ = with_finite(k).to(wide), with_finite(v).to(wide)
        sides = [q.to(wide), dout_, whole, sums[0]], [k_, v_, sums[1], sums[2]]
        for unit in units(self.schedule, self.program.is_alike, *sides, results=(1, 2)):
            for row in self._rows(unit, tables, wide, sums[3:]):
                rest = before = torch.zeros(1, dtype=wide)
                for strip in row.strips:
                    if _is_left(rest):
                        rest, before = _backward_of_strip(row, strip, scale, rest, before)
        grads = [total.to(x.dtype) for total, x in zip(sums, given, strict=True)]
        return grads[0], grads[1], grads[2], grads[3:]

    def _rows(
        self, unit: Unit, tables: Sequence[Tensor], wide: torch.dtype, totals: Sequence[Tensor] = ()
    ) -> Iterator[_Row]:
        """The query tiles of a unit that have a live key, for some heads of each batch element."""
        tile_q, tile_k = self.schedule.tile
        given = [x.to(wide) for x in tables]
        group = len(unit.tensors[0][0][0]) // len(unit.tensors[0][1][0])
        heads = max(1, PIECE // (tile_q * tile_k * group)) * group
        for place, b in enumerate(unit.batches):
            of_queries, of_keys = unit.tensors[place]
            read, gained = self._tables(unit, b, given), {}
            if totals:
                gained = self._tables(unit, b, totals)
            for low in range(0, len(of_queries[0]), heads):
                mine = slice(low, min(low + heads, len(of_queries[0])))
                theirs = slice(mine.start // group, mine.stop // group)
                sides = [x[mine] for x in of_queries], [x[theirs] for x in of_keys]
                at = slice(unit.heads.start + mine.start, unit.heads.start + mine.stop)
                own = of_heads(read, mine), of_heads(gained, mine)
                for number in range(self.schedule.grid[0]):
                    strips = _strips(self.schedule, unit, number, mine.stop - mine.start)
                    if strips:
                        rows = slice(
                            number * tile_q, min((number + 1) * tile_q, self.schedule.q_len)
                        )
                        yield _Row(
                            self, unit, b, at, number, rows, strips, *sides, *own, wide, group
                        )


@dataclass(frozen=True, slots=True, eq=False)
class _Strip:
    """Keys of one query tile, in order, and the pairs among them that are live; None: all."""

    keys: Tensor  # int64 [m], rows
    live: Tensor | None  # bool [n, m]

    def read(self, x: Tensor) -> Tensor:
        """The rows of these keys."""
        return x.index_select(1, self.keys)

    def mark(self, level: Tensor) -> None:
        """Writes 0 for the queries [heads, n] that see one of these keys."""
        if self.live is None:
            level.zero_()
        else:
            level.masked_fill_(self.live.any(-1), 0.0)


def _is_left(rest: Tensor) -> bool:
    """Whether some stick has a rest that is a normal number; keys before have weights and gradients of 0."""
    return not float(rest.amax()) < _SPENT[rest.dtype]


def _strips(schedule: Schedule, unit: Unit, number: int, heads: int) -> list[_Strip]:
    """The strips of a query tile, from the last key back."""
    plan, (tile_q, tile_k) = schedule.plans[unit.number], schedule.tile
    full, partial = plan.full.row(number), plan.partial.row(number)
    ids = plan.mask_ids[plan.partial.indptr[number] : plan.partial.indptr[number + 1]]
    columns = np.concatenate([full, partial]).astype(np.int64)
    which = np.concatenate([np.full(len(full), -1), ids]).astype(np.int64)
    order = np.argsort(columns)
    columns, which = columns[order], which[order]
    rows = min(tile_q, schedule.q_len - number * tile_q)
    most = max(1, PIECE // (heads * tile_q * tile_k))
    made = []
    for stop in range(len(columns), 0, -most):
        some = slice(max(0, stop - most), stop)
        keys = (columns[some, None] * tile_k + np.arange(tile_k)).reshape(-1)
        inside = keys < schedule.k_len
        live = None
        if (which[some] >= 0).any():
            masks = np.ones((some.stop - some.start, tile_q, tile_k), bool)
            masks[which[some] >= 0] = schedule.masks.unpack(which[some][which[some] >= 0])
            joined = masks.transpose(1, 0, 2).reshape(tile_q, -1)[:rows, inside]
            live = torch.from_numpy(np.ascontiguousarray(joined))
        made.append(_Strip(torch.from_numpy(keys[inside]), live))
    return made


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """A query tile of one batch element, with the tensors of some heads."""

    kernels: StickScores
    unit: Unit
    b: int
    heads: slice  # of the call
    number: int
    rows: slice
    strips: list[_Strip]
    of_queries: list[Tensor]
    of_keys: list[Tensor]
    tables: Mapping[str, Tensor]
    totals: Mapping[str, Tensor]
    dtype: torch.dtype
    group: int

    def shared(self, x: Tensor) -> Tensor:
        """The rows of key heads, one for each query head."""
        return x.repeat_interleave(self.group, 0) if self.group > 1 else x

    def summed(self, x: Tensor) -> Tensor:
        """Sums over the query heads of each key head."""
        return x.reshape(-1, self.group, *x.shape[1:]).sum(1)

    def values(self, strip: _Strip, q: Tensor, k: Tensor, scale: float) -> Values:
        """Values of expressions at the pairs of a strip."""
        kernels, program = self.kernels, self.kernels.program
        first = kernels.bound.first
        places = np.arange(self.rows.start, self.rows.stop) + first, strip.keys.numpy()
        name = self.unit.number, "stick", self.heads.start, self.number, int(strip.keys[0])
        spot = Spot(
            places[0][None, None, :, None], places[1][None, None, None, :], self.b, self.heads, name
        )
        own = {ir.Side.QUERY: q[None], ir.Side.KEY: k[None]} if program.reads_own else {}
        made = Values(
            kernels.bound, spot, self.tables, kernels.kept, self.dtype, program.constants, own=own
        )
        node, factor = program.scaled
        made.memo[node] = ((q * (scale * factor)) @ k.mT)[None]
        return made


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """The pairs of a strip: scores and weights [heads, n, m], and what is left of the sticks, [heads, n]."""

    values: Values
    scores: Tensor
    weights: Tensor
    rest: Tensor  # its logarithm

    @staticmethod
    def of(row: _Row, strip: _Strip, q: Tensor, k: Tensor, scale: float, rest: Tensor) -> _Pairs:
        """``rest``: what the keys behind the strip have left."""
        queries, keys = q[:, row.rows], row.shared(strip.read(k))
        values = row.values(strip, queries, keys, scale)
        shape = 1, len(queries), queries.shape[1], keys.shape[1]
        scores = values(row.kernels.program.root).expand(shape)[0]
        dead = None if strip.live is None else ~strip.live
        scores = scores if dead is None else scores.masked_fill(dead, 0.0)
        bent = torch.exp(-scores.abs()).log1p_()  # log(1 + exp(-|t|)), of both sigmoids
        left = (-scores).clamp_(max=0.0).sub_(bent)
        left = left if dead is None else left.masked_fill_(dead, 0.0)
        whole = left.flip(-1).cumsum(-1).flip(-1)  # of a key and those behind it
        behind = torch.zeros_like(whole)
        behind[..., :-1] = whole[..., 1:]
        logs = scores.clamp(max=0.0).sub_(bent).add_(behind).add_(rest[..., None])
        weights = torch.threshold_(logs, _SPENT[logs.dtype], -math.inf).exp_()
        weights = weights if dead is None else weights.masked_fill_(dead, 0.0)
        return _Pairs(values, scores, weights, rest + whole[..., 0])


def _backward_of_strip(
    row: _Row, strip: _Strip, scale: float, rest: Tensor, before: Tensor
) -> tuple[Tensor, Tensor]:
    """Adds what a strip gives to all gains; returns what is left of the sticks, and the sum of w dw so far."""
    (q, dout, whole, dq), (k, v, dk, dv) = row.of_queries, row.of_keys
    program, rows = row.kernels.program, row.rows
    pairs = _Pairs.of(row, strip, q, k, scale, rest)
    ours, queries = dout[:, rows], q[:, rows]
    keys = row.shared(strip.read(k))
    dv.index_add_(1, strip.keys, row.summed(pairs.weights.mT @ ours))
    gain = (ours @ row.shared(strip.read(v)).mT).mul_(pairs.weights)
    suffix = gain.flip(-1).cumsum(-1).flip(-1)
    upto = whole[:, rows, None] - before[..., None] - suffix + gain  # of a key and those before it
    slope = gain - torch.sigmoid(pairs.scores) * upto
    own = {side: torch.zeros_like(x) for side, x in pairs.values.own.items()}
    for leaf, node in program.gains.items():
        each = (slope[None] * pairs.values(node))[0]
        each = each if strip.live is None else each.masked_fill(~strip.live, 0.0)
        if leaf is reals.SCORE:
            dq[:, rows] += (each @ keys) * scale
            dk.index_add_(1, strip.keys, row.summed(each.mT @ queries) * scale)
        else:
            give_leaf(pairs.values, leaf, each[None], row.totals, own)
    if own:
        dq[:, rows] += own[ir.Side.QUERY][0]
        dk.index_add_(1, strip.keys, row.summed(own[ir.Side.KEY][0]))
    return pairs.rest, before + suffix[..., 0]
