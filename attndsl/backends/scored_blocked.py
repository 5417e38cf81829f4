"""Attention with scores of its own on the CPU, from the strips of a schedule (``block_batches.py``).

t = score(s) with s = scale * (query . key), and weights P = exp(t - L), or P = weight(t) without a normaliser:

    dt = P * (dout vᵀ - rowsum(dout * out) + dL)       ds = dt * ∂t/∂s       dx = Σ dt * ∂t/∂x, x an entry of a table

A score ``s + b`` runs through torch's flash kernel with b as a bias; all others, and gradients of b, are products of
pieces that stay in the cache. Pieces come in a fixed order and nothing is atomic: equal inputs give equal bits.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends.block_batches import InStrips
from attndsl.backends.dtypes import EIGHT_BITS, lse_dtype
from attndsl.backends.places import with_finite, with_width
from attndsl.backends.real_evaluation import Kept
from attndsl.backends.scored_flash import forward_by_flash
from attndsl.backends.scored_products import backward_by_products, forward_by_products
from attndsl.backends.scored_program import Program
from attndsl.backends.scored_strips import KnownStrips, Pairs, Unit, reaches_all, strips, units
from attndsl.backends.scored_whole import FoldedBlocks
from attndsl.backends.scored_work import Work, Workspace
from attndsl.backends.scores import BoundScore
from attndsl.backends.undifferentiated import undifferentiated
from attndsl.backends.whole_strips import WholeStrips
from attndsl.schedule import Schedule

reals = ir.reals


@dataclass(frozen=True, slots=True, eq=False)
class BlockedScores:
    """Attention over live tiles on the CPU with scores of its own, in bounded temporary memory.

    A key, a value or a score that is not finite makes the queries that see it NaN, and no others; a score of -inf is
    a weight of 0.
    """

    schedule: Schedule | InStrips
    bound: BoundScore
    program: Program
    kept: Kept = field(default_factory=Kept)
    known: KnownStrips = field(default_factory=dict)
    folded: dict[int, FoldedBlocks] = field(default_factory=dict)  # by the count of batch elements
    is_wide: bool = False  # a gradient of a table adds up what rounding takes from the output

    @staticmethod
    def of(
        schedule: Schedule | InStrips, bound: BoundScore, gradient: bool = False
    ) -> BlockedScores:
        """The kernels of a call."""
        is_wide = gradient and bool(bound.reals)
        return BlockedScores(schedule, bound, Program.of(bound), is_wide=is_wide)

    @property
    def nbytes(self) -> int:
        """Bytes of the schedule and of what is kept of the scores."""
        return self.schedule.nbytes + self.kept.nbytes

    @undifferentiated
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, tables: Sequence[Tensor], *, scale: float
    ) -> tuple[Tensor, Tensor]:
        """(out [B, H, Q, Dv], lse [B, H, Q]), unrounded: a backward multiplies what rounding takes from out."""
        if q.dtype in EIGHT_BITS or (self.is_wide and q.dtype != lse_dtype(q.dtype)):
            return self.forward(q.float(), k.float(), v.float(), tables, scale=scale)
        wide = lse_dtype(q.dtype)
        out = q.new_empty((*q.shape[:3], v.shape[3]), dtype=wide)
        lse = q.new_empty(q.shape[:3], dtype=wide)
        columns = with_finite(k), with_finite(v)
        self._attend((q, *columns), tables, out, lse, scale)
        if columns[0] is not k or columns[1] is not v:
            self._spread_nan(q, k, v, out, lse)
        return out, lse

    def _attend(
        self,
        qkv: tuple[Tensor, Tensor, Tensor],
        tables: Sequence[Tensor],
        out: Tensor,
        lse: Tensor,
        scale: float,
    ) -> None:
        """Writes out and lse, of finite keys and values."""
        (q, *columns), wide = qkv, out.dtype
        is_partial = not self.program.is_softmax or not reaches_all(self.schedule)
        if is_partial:
            out.zero_()
            lse.fill_(-math.inf)
        is_flash = self.program.bias is not None
        if is_flash:
            width = max(1, q.shape[3], out.shape[3])
            sides = [with_width(q, width), out, lse], [with_width(x, width) for x in columns]
        else:
            sides = [q.to(wide), out, lse], [x.to(wide) for x in columns]
        step = forward_by_flash if is_flash else forward_by_products
        reach = functools.cache(lambda: _reach(q, columns[0], scale))
        for unit in self._units(*sides, (2, 0), (0.0, -math.inf) if is_partial else None):
            for work in self._works(unit, tables, q, reach=reach):
                step(work, scale)

    @undifferentiated
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
        sums = [
            torch.zeros_like(x, dtype=wide, memory_format=torch.contiguous_format)
            for x in (q, k, v)
        ]
        totals = [
            torch.zeros_like(x, dtype=wide, memory_format=torch.contiguous_format) for x in tables
        ]
        q_, k_, v_, dout_ = (x.to(wide) for x in (q, with_finite(k), with_finite(v), dout))
        dlse = dlse if self.program.is_softmax else None
        empty = lse == -math.inf
        dout_ = dout_.masked_fill(empty[..., None], 0.0)
        offset = (out.to(wide) * dout_).sum(-1)
        offset = offset if dlse is None else offset - dlse
        level = lse.masked_fill(empty, math.inf)
        offset = offset.masked_fill(empty, 0.0)
        sides = [q_, dout_, level, offset, sums[0]], [k_, v_, *sums[1:]]
        for unit in self._units(*sides, (1, 2), (0.0,)):
            for work in self._works(unit, tables, q, totals):
                backward_by_products(work, scale)
        grads = [
            total.to(x.dtype) for total, x in zip((*sums, *totals), (q, k, v, *tables), strict=True)
        ]
        return grads[0], grads[1], grads[2], grads[3:]

    def _spread_nan(self, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor) -> None:
        """NaN for what sees a key or value that is not finite: the marked share of plain means."""
        marks = torch.cat([~v.isfinite(), ~k.isfinite().all(-1, keepdim=True)], -1)
        q, k = (torch.zeros_like(x, dtype=torch.float32) for x in (q, k))
        plain = BlockedScores.of(self.schedule, BoundScore(reals.SCORE))
        shares, _ = plain.forward(q, k, marks.float(), (), scale=1.0)
        sees_value, sees_key = shares[..., :-1] > 0, shares[..., -1] > 0
        out.masked_fill_(sees_value | sees_key[..., None], math.nan)
        if self.program.is_softmax:
            lse.masked_fill_(sees_key, math.nan)

    def _units(
        self,
        of_queries: Sequence[Tensor],
        of_keys: Sequence[Tensor],
        results: tuple[int, int],
        empty: Sequence[float] | None,
    ) -> Iterator[Unit]:
        """The units of tensors; ``empty`` as of ``FoldedBlocks.unit``."""
        schedule, sides = self.schedule, (of_queries, of_keys)
        (batch, heads), kv_heads = of_queries[0].shape[:2], of_keys[0].shape[1]
        is_one = isinstance(schedule, WholeStrips) and schedule.plan_of.size == 1
        if not is_one or self.program.reads_batch or not batch * heads * kv_heads:
            yield from units(schedule, self.program.is_alike, *sides, results=results)
            return
        assert isinstance(schedule, WholeStrips)
        if batch not in self.folded:
            self.folded[batch] = FoldedBlocks.of(schedule, batch)
        yield from self.folded[batch].unit(*sides, results, empty)

    def _works(
        self,
        unit: Unit,
        tables: Sequence[Tensor],
        like: Tensor,
        totals: Sequence[Tensor] = (),
        reach: Callable[[], float] | None = None,
    ) -> Iterator[Work]:
        """The strips of a unit, each for all of its batch elements."""
        wide, width, space = lse_dtype(like.dtype), like.shape[3], Workspace()
        for strip in strips(unit, self.bound, self.program, self.known):
            pairs = Pairs.of(strip.batch, wide)
            for place, b in enumerate(unit.batches):
                sides = unit.tensors[place]
                given = self._tables(unit, b, [x.to(wide) for x in tables])
                gained = self._tables(unit, b, totals) if totals else {}
                tensors = *sides, given, gained
                yield Work(strip, b, pairs, *tensors, self.kept, wide, width, space, reach)

    def _tables(self, unit: Unit, b: int, tables: Sequence[Tensor]) -> dict[str, Tensor]:
        """The real tables of the heads of a unit, [heads or 1, ...]."""
        found = {}
        for declared, table in zip(self.bound.reals, tables, strict=True):
            x = table[b] if "batch" in declared.dims else table
            found[declared.name] = x[unit.heads] if "head" in declared.dims else x[None]
        return found


def _reach(q: Tensor, k: Tensor, scale: float) -> float:
    """A bound of all scaled products, by the lengths of vectors; NaN where q is not finite."""
    if not q.numel() or not k.numel():
        return 0.0
    longest = [torch.linalg.vector_norm(x, dim=-1, dtype=lse_dtype(x.dtype)).amax() for x in (q, k)]
    return 1.01 * abs(scale) * float(longest[0] * longest[1])
