"""Stick-breaking attention by the kernels of the GPU back end, in natural order.

A backward holds two numbers of each query for each live tile of 32 keys: a sixteenth of the pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from torch import Tensor

from attndsl.backends import kernels
from attndsl.backends.arguments import strides
from attndsl.backends.configs import Config, architecture, options, padded
from attndsl.backends.launching import Launch
from attndsl.backends.pass_launches import also_in
from attndsl.backends.protocol import Request
from attndsl.backends.score_blocks import live_tiles
from attndsl.backends.scores import BoundScore
from attndsl.backends.standalone import on_device, precision, reachable
from attndsl.backends.stick_arguments import (
    StickBackwardKeysArgs,
    StickBackwardKeysCall,
    StickBackwardQueriesArgs,
    StickBackwardQueriesCall,
    StickForwardArgs,
    StickForwardCall,
)
from attndsl.backends.triton_scores import Read, ScoreKernel, refused, through
from attndsl.backends.work_partition import device_masks
from attndsl.schedule import Schedule, TiledMask

# Small tiles: running sums along keys take registers, and at head dim 128 larger ones spill.
CONFIG: Final = Config(32, 32, warps=4, stages=1)
_Arrays: TypeAlias = tuple[np.ndarray[Any, Any], ...]  # of integers
_ROWS: Final = {"queries": 0, "keys": 1}  # columns of tiles


@dataclass(frozen=True, slots=True, eq=False)
class TritonStick:
    """The passes over a schedule in natural order."""

    schedule: Schedule
    kernel: ScoreKernel
    request: Request
    kept: dict[str, tuple[Tensor, ...]] = field(default_factory=dict)  # lists and masks, by name

    @staticmethod
    def of(part: TiledMask, bound: BoundScore, request: Request) -> TritonStick:
        """The kernels of a call.

        Raises:
            AttnDslError: A520, some part of the scores has no kernel, or reads at pairs would get a gradient.
        """
        kernel = ScoreKernel.of(bound, request)
        at_pairs = [
            *kernel.functions.of_distance[: kernel.functions.gains[2]],
            *kernel.functions.reads,
        ]
        if request.gradient and at_pairs:
            raise refused("weights `stick` give tables that are read at pairs no gradient")
        schedule = also_in(part, CONFIG.tile).schedules[CONFIG.tile]
        return TritonStick(schedule, kernel, request)

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept."""
        return sum(x.nbytes for x in self.kernel.kept.values())

    @torch.no_grad()
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, tables: Sequence[Tensor], *, scale: float
    ) -> tuple[Tensor, Tensor]:
        """(out [B, H, Q, Dv], lse [B, H, Q]): 0, and -inf for queries without keys."""
        read = self.kernel.read(q, k, tables, scale)
        q, k, v = map(reachable, (q, k, v))
        out = q.new_empty((*q.shape[:3], v.shape[3]))
        lse = q.new_empty(q.shape[:3], dtype=torch.float32)
        if lse.numel():
            told = self._told(q, k, v, "queries")
            given = StickForwardArgs(**told, SCORE=self.kernel.loaded["SCORE"])
            call = StickForwardCall(q, k, v, out, lse, *read.call, float(scale))
            self._launch(kernels.stick_forward, call, given)
        return out, lse

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
        if lse.numel() == 0 or k.numel() == 0:
            dq, dk, dv, *others = (torch.zeros_like(x) for x in (q, k, v, *tables))
            return dq, dk, dv, others
        leaves = [x.detach().requires_grad_() for x in (q, k, *tables)]
        with torch.enable_grad():
            read = self.kernel.read(leaves[0], leaves[1], leaves[2:], scale)
        with torch.no_grad():
            (dq, dk, dv), shares = self._passes((q, k, v), read, out, lse, dout, scale)
        targets = [*zip(read.targets(), shares, strict=False)]  # none at pairs
        more_dq, more_dk, *of_tables = through(targets, leaves)
        dq = dq if more_dq is None else (dq + more_dq).to(dq.dtype)
        dk = dk if more_dk is None else (dk + more_dk).to(dk.dtype)
        gains = [
            torch.zeros_like(x) if gain is None else gain
            for gain, x in zip(of_tables, tables, strict=True)
        ]
        return dq, dk, dv, gains

    def _passes(
        self,
        qkv: tuple[Tensor, Tensor, Tensor],
        read: Read,
        out: Tensor,
        lse: Tensor,
        dout: Tensor,
        scale: float,
    ) -> tuple[list[Tensor], list[Tensor]]:
        """The gradients of q, k and v, and of the columns of queries and keys."""
        q, k, v, dout = map(reachable, (*qkv, dout))
        dout = dout.masked_fill((lse == -torch.inf)[..., None], 0.0)
        whole = (out.float() * dout.float()).sum(-1)
        gains, heads = self.kernel.functions.gains[:2], q.shape[1]
        dq = torch.empty_like(q, memory_format=torch.contiguous_format)
        dk, dv = (x.new_empty((x.shape[0], heads, *x.shape[2:])) for x in (k, v))
        dx, dy = (
            q.new_empty((*q.shape[:2], x.shape[2], count), dtype=torch.float32)
            for x, count in zip((q, k), gains, strict=True)
        )
        shape = (*q.shape[:2], max(1, self._most()), self.schedule.tile[0])
        rest, before = (q.new_empty(shape, dtype=torch.float32) for _ in range(2))
        shared = strides(g=dout) | {
            "most": shape[2],
            "DERIVATIVES": self.kernel.loaded["DERIVATIVES"],
        }
        mine = self._told(q, k, v, "queries") | shared | _columns(dx)
        theirs = self._told(q, k, v, "keys") | shared | _columns(dy)
        behind = rest, before, *read.call, float(scale)
        self._launch(
            kernels.stick_backward_queries,
            StickBackwardQueriesCall(q, k, v, dout, whole, dq, dx, *behind),
            StickBackwardQueriesArgs(**mine),
        )
        self._launch(
            kernels.stick_backward_keys,
            StickBackwardKeysCall(q, k, v, dout, whole, dk, dv, dy, *behind),
            StickBackwardKeysArgs(**theirs, PRECEDING=gains[0]),
        )
        group = heads // k.shape[1]
        summed = [
            each.unflatten(1, (-1, group)).sum(2, dtype=torch.float32).to(x.dtype)  # type: ignore[no-untyped-call]
            for each, x in ((dk, k), (dv, v))
        ]
        return [dq, *summed], [*dx.unbind(-1), *dy.unbind(-1)]

    def _told(self, q: Tensor, k: Tensor, v: Tensor, owners: str) -> dict[str, Any]:
        """Arguments that all passes take besides their tensors, tiles in the order of those who own the results."""
        tiles, stretches, plan_of = self._kept(owners, lambda: self._lists(_ROWS[owners]))
        (masks,) = self._kept("masks", lambda: (device_masks(self.schedule),))
        bq, bk = self.schedule.tile
        loaded = {name: self.kernel.loaded[name] for name in ("NUMBERS", "OF_QUERY", "OF_KEY")}
        by_batch, by_head = (int(size > 1) for size in plan_of.shape)
        return {
            **strides(q=q, k=k, v=v), "tiles": tiles, "stretches": stretches, "plan_of": plan_of,
            "plan_batch": by_batch * plan_of.shape[1], "plan_head": by_head, "masks": masks,
            "q_len": q.shape[2], "k_len": k.shape[2], "heads": q.shape[1], "count": stretches.shape[1],
            "GROUP": q.shape[1] // k.shape[1], "D": q.shape[3], "DV": v.shape[3], "BD": padded(q.shape[3]),
            "BDV": padded(v.shape[3]), "BQ": bq, "BK": bk, "PRECISION": precision(q.dtype), **loaded,
        }  # fmt: skip

    def _launch(self, kernel: Any, call: Any, given: Any) -> None:
        """Runs a pass: a program for each tile of its owners, head and batch element."""
        q = call.Q
        chosen = options(architecture(q.device), CONFIG, is_bound=True)
        with on_device(q):
            Launch(kernel, (given.count, *q.shape[1::-1]), type(call), given, **chosen)(call)

    def _most(self) -> int:
        return max(
            len(plan.full.indices) + len(plan.partial.indices) for plan in self.schedule.plans
        )

    def _lists(self, side: int) -> _Arrays:
        """Tiles of all plans, those of one owner together, from the last key back; stretches; who has which plan."""
        blocks = self.schedule.grid[side]
        found, bounds, before = [], [], 0
        for plan in self.schedule.plans:
            tiles = live_tiles(self.schedule, plan)
            tiles = np.concatenate([tiles, np.arange(len(tiles))[:, None]], axis=1)
            order = np.lexsort((-tiles[:, 1] if side == 0 else tiles[:, 0], tiles[:, side]))
            found.append(tiles[order])
            ends = np.searchsorted(tiles[order][:, side], np.arange(blocks + 1)) + before
            bounds.append(np.stack([ends[:-1], ends[1:]], axis=1))
            before += len(tiles)
        tiles = np.concatenate([*found, np.zeros((1, 4), np.int64)])
        return tiles, np.stack(bounds), self.schedule.plan_of

    def _kept(self, name: str, make: Callable[[], _Arrays]) -> tuple[Tensor, ...]:
        """Arrays in the memory of the device, made once."""
        if name not in self.kept:
            arrays = (np.ascontiguousarray(x) for x in make())
            made = (torch.from_numpy(x.astype(np.int32)) for x in arrays)
            self.kept[name] = tuple(x.to(self.request.device) for x in made)
        return self.kept[name]


def _columns(gained: Tensor) -> dict[str, int]:
    """How many columns gain in a pass, and the power of two that holds them."""
    count = gained.shape[3]
    return {"GAINS": count, "WIDE": 1 << max(0, count - 1).bit_length()}
