"""Calls whose schedule is the whole square, or its lower triangle: torch's kernel does them at once, without tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from attndsl.backends.dtypes import lse_dtype
from attndsl.backends.places import IntArray, with_width
from attndsl.schedule import Runs, Schedule, Tiles

Shape: TypeAlias = Literal["full", "causal"]

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def shape_of(schedule: Schedule) -> Shape | None:
    """The shape of the pairs of a schedule; None where they are others, or taken in another order.

    The schedule is the proof: every tile is live and FULL; or those below the diagonal are, and the PARTIAL ones on
    it hold the pairs with k <= q.
    """
    if schedule.plan_of.size != 1 or not schedule.q_len or not schedule.k_len:
        return None
    plan, (rows, columns) = schedule.plans[0], schedule.grid
    if plan.q_order is not None or plan.k_order is not None:
        return None
    if plan.full.nnz == rows * columns:
        return "full"
    side, last = schedule.tile[0], schedule.q_len - schedule.tile[0] * (rows - 1)
    if schedule.q_len != schedule.k_len or schedule.tile[1] != side:
        return None
    cut = rows - (last == 1)  # a last tile of one pair is FULL
    stops = np.append(np.arange(rows - 1), rows - 1 + (last == 1))  # of the FULL tiles of each row
    on_diagonal = np.array_equal(plan.partial.rows, np.arange(cut))
    if not on_diagonal or not np.array_equal(plan.partial.indices, np.arange(cut)):
        return None
    if not _begins(plan.full, stops):
        return None
    whole, inside = np.tri(side, dtype=bool), np.arange(side)[:, None] < last
    ids, ragged = plan.mask_ids[: rows - 1], plan.mask_ids[rows - 1 :]
    alike = (schedule.masks.unpack(np.unique(ids)) == whole).all()
    ends = (schedule.masks.unpack(ragged) == whole & inside).all()
    return "causal" if alike and ends else None


def _begins(tiles: Tiles, stops: IntArray) -> bool:
    """Whether the tiles of each row are the first ones, so many."""
    if isinstance(tiles.held, Runs):
        live = np.flatnonzero(stops)
        runs = tiles.held
        return (
            np.array_equal(runs.rows, live)
            and np.array_equal(runs.stop, stops[live])
            and not runs.first.any()
        )
    are_as_many = np.array_equal(np.diff(tiles.indptr), stops)
    return are_as_many and bool((tiles.indices < stops[tiles.rows]).all())  # columns ascend


@dataclass(frozen=True, slots=True)
class DenseSquare:
    """Attention over all pairs, or those with k <= q of as many queries as keys; tensors are finite."""

    shape: Shape

    @staticmethod
    def of(schedule: Schedule) -> DenseSquare | None:
        """The calls of this schedule; None where its pairs are others."""
        shape = shape_of(schedule)
        return None if shape is None else DenseSquare(shape)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """(out, lse), of q [B, H, Q, D], k [B, Hkv, K, D], v [B, Hkv, K, Dv]."""
        width, group = v.shape[3], q.shape[1] // k.shape[1]
        widest = max(1, q.shape[3], width)
        q, k, v = (with_width(x, widest) for x in (q, k, v))
        if group == 1:
            out, lse = _flash(q, k, v, 0.0, self.shape == "causal", scale=scale)
            return out[..., :width], lse
        out = q.new_empty((*q.shape[:3], width))
        lse = q.new_empty(q.shape[:3], dtype=lse_dtype(q.dtype))
        for member in range(group):
            o, level = _flash(q[:, member::group], k, v, 0.0, self.shape == "causal", scale=scale)
            out[:, member::group], lse[:, member::group] = o[..., :width], level
        return out, lse

    def backward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        dout: Tensor,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dq, dk, dv), of the results of ``forward``; none reached the log-sum-exp."""
        widths, group = (q.shape[3], v.shape[3]), q.shape[1] // k.shape[1]
        widest = max(1, *widths)
        q, k, v, out, dout = (with_width(x, widest) for x in (q, k, v, out, dout))
        is_causal = self.shape == "causal"
        each = [
            _flash_backward(
                *(dout[:, m::group], q[:, m::group], k, v, out[:, m::group], lse[:, m::group]),
                *(0.0, is_causal),
                scale=scale,
            )
            for m in range(group)
        ]
        if group == 1:
            dq, dk, dv = each[0]
        else:
            dq = torch.stack([one[0] for one in each], 2).flatten(1, 2)
            wide = lse_dtype(q.dtype)
            dk, dv = (sum(one[i].to(wide) for one in each) for i in (1, 2))
        return (
            dq[..., : widths[0]],
            dk[..., : widths[0]].to(k.dtype),
            dv[..., : widths[1]].to(v.dtype),
        )
