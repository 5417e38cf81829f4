"""Gradients of reads at pairs: blocks of tiles that a kernel adds up, then sums of their entries.

A column by the distance q - k is the same along the diagonals of tiles: all tiles of one diagonal of the grid are
one block, and a block is summed along its own diagonals. Everything else is added up entry by entry, some tiles at a
time. The order of all sums is fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends import kernels
from attndsl.backends.arguments import (
    BackwardPairsArgs,
    BackwardPairsCall,
    Prepared,
    ScoreCall,
    strides,
)
from attndsl.backends.configs import padded
from attndsl.backends.launching import Launch
from attndsl.backends.real_evaluation import Kept
from attndsl.backends.score_tables import Layout, by_diagonal
from attndsl.backends.work_partition import IntArray, ShortArray, device_masks
from attndsl.schedule import Plan, Schedule, TokenOrder

_MOST: Final = 1 << 24  # pairs that are added up entry by entry at a time, over all heads


@dataclass(frozen=True, slots=True, eq=False)
class PairPass:
    """The pass over a schedule of square tiles; ``functions`` are its arguments about scores, ``before`` of its BEFORE.

    ``distances`` columns are read by q - k, then come ``reads``; ``env`` is what their ints are evaluated in.
    """

    schedule: Schedule
    options: Mapping[str, int]
    functions: Mapping[str, Any]
    before: int
    distances: int
    reads: tuple[ir.Load, ...]
    env: ir.Env
    first: int
    kept: Kept = field(default_factory=Kept)  # what no tensor of a call changes

    def totals(
        self,
        given: Prepared,
        read: ScoreCall,
        layouts: Sequence[Layout],
        scale: float,
        precision: str,
    ) -> list[Tensor]:
        """Sums the gains of columns by distance [B, H, Q + K - 1], and of the table of each read, as it lies."""
        run = _Run(self, given, read, scale, precision)
        ordered = any(plan.q_order or plan.k_order for plan in self.schedule.plans)
        found = [] if ordered or not self.distances else run.along_diagonals()
        entries: list[tuple[int, Target]] = []
        if ordered:
            entries += [(place, _by_distance(self, given)) for place in range(self.distances)]
        for place, (node, layout) in enumerate(
            zip(self.reads, layouts, strict=True), self.distances
        ):
            entries.append((place, _by_index(self, given, node, layout)))
        return found + [run.entry_by_entry(place, target) for place, target in entries]


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A table to be added to, and the entry of each pair: of positions of queries and keys, -1 for none."""

    total: Tensor
    entries: Callable[[IntArray, IntArray], IntArray]


def _by_distance(over: PairPass, given: Prepared) -> Target:
    (batch, heads, q_len), k_len = given.Q.shape[:3], given.K.shape[2]
    length = q_len + k_len - 1
    both = np.arange(batch * heads).reshape(batch, heads, 1, 1, 1) * length

    def entries(q: IntArray, k: IntArray) -> IntArray:
        found: IntArray = both + (q - over.first - k + k_len - 1)[None, None]
        return found

    return Target(given.Q.new_zeros((batch, heads, length), dtype=torch.float32), entries)


def _by_index(over: PairPass, given: Prepared, node: ir.Load, layout: Layout) -> Target:
    batch, heads = given.Q.shape[:2]
    element, head = (np.arange(n).reshape(-1, *[1] * rank) for n, rank in ((batch, 4), (heads, 3)))
    shape = batch if layout.ambient[0] else 1, heads if layout.ambient[1] else 1, *layout.sizes

    def entries(q: IntArray, k: IntArray) -> IntArray:
        env = replace(over.env, q=q, k=k, batch=element, head=head)
        flat: Any = np.zeros((1,) * 5, np.int64)
        inside: Any = np.ones((1,) * 5, bool)
        for number, step in ((element, layout.ambient[0]), (head, layout.ambient[1])):
            flat = flat + number * step if step else flat
        for item, size, step in zip(node.index, layout.sizes, layout.steps, strict=True):
            at = np.asarray(ir.evaluate(item, env))
            inside = inside & (at >= 0) & (at < size)
            flat = flat + at * step
        found: IntArray = np.where(inside, flat, -1)
        return found

    return Target(given.Q.new_zeros(shape, dtype=torch.float32), entries)


class _Run:
    """The pass over the tensors of one backward."""

    def __init__(
        self, over: PairPass, given: Prepared, read: ScoreCall, scale: float, precision: str
    ) -> None:
        self._over, self._given, self._read = over, given, read
        self._scale, self._precision = float(scale), precision
        schedule = over.schedule
        self._side = schedule.tile[0]
        self._masks = self._kept("masks", lambda: device_masks(schedule))
        self._plan_of = self._kept("plan_of", lambda: schedule.plan_of)
        self._tiles = [live_tiles(schedule, plan) for plan in schedule.plans]

    def _kept(self, name: Any, make: Callable[[], np.ndarray[Any, Any]]) -> Tensor:
        """An array in the memory of the device, kept as long as there is room."""
        device = self._given.Q.device
        found: tuple[Tensor] = self._over.kept(
            (name, device), lambda: (torch.from_numpy(make()).to(device),)
        )
        return found[0]

    def along_diagonals(self) -> list[Tensor]:
        """The sums by distance of all columns."""
        over, side = self._over, self._side
        rows, columns = over.schedule.grid
        count = rows + columns - 1
        sorted_tiles, bounds = [], []
        for tiles in self._tiles:
            diagonal = tiles[:, 0] - tiles[:, 1] + columns - 1
            order = np.argsort(diagonal, kind="stable")
            sorted_tiles.append(tiles[order])
            ends = np.searchsorted(diagonal[order], np.arange(count + 1))
            bounds.append(np.stack([ends[:-1], ends[1:]], axis=1))
        blocks = self._blocks(sorted_tiles, bounds, 0, over.distances)
        k_len = self._given.K.shape[2]
        first, length = columns * side - k_len, self._given.Q.shape[2] + k_len - 1
        return [by_diagonal(each)[..., first : first + length] for each in blocks]

    def entry_by_entry(self, place: int, target: Target) -> Tensor:
        """The total of a table, what each pair gains added to its entry."""
        batch, heads = self._given.Q.shape[:2]
        most = max(1, _MOST // (batch * heads * self._side**2))
        longest = max(map(len, self._tiles), default=0)
        flat = target.total.view(-1)
        for low in range(0, longest, most):
            count = min(most, longest - low)
            bounds = []
            for tiles in self._tiles:
                at = np.minimum(np.arange(low, low + count + 1), len(tiles))
                bounds.append(np.stack([at[:-1], at[1:]], axis=1))
            (blocks,) = self._blocks(self._tiles, bounds, place, 1)
            for number, mine in self._of_plans():
                tiles = self._tiles[number][low : low + count]

                def entries(number: int = number, tiles: IntArray = tiles) -> IntArray:
                    return np.array(target.entries(*self._positions(number, tiles)))

                places = self._kept(("entries", place, low, count, number), entries)
                gains = blocks[:, :, : len(tiles)]
                if len(self._tiles) == 1:
                    gains = gains.sum_to_size((*places.shape[:2], *gains.shape[2:]))
                    places = places.expand(gains.shape)
                else:
                    gains, places = gains[mine], places.expand(gains.shape)[mine]
                gains = gains.masked_fill(places < 0, 0.0)
                flat.index_put_((places.clamp(min=0),), gains, accumulate=True)
        return target.total

    def _of_plans(self) -> Iterator[tuple[int, Any]]:
        """Each plan, and the batch elements and heads that have it."""
        plan_of = np.broadcast_to(self._over.schedule.plan_of, self._given.Q.shape[:2])
        for number in range(len(self._tiles)):
            if (mine := plan_of == number).any():
                yield number, np.nonzero(mine)

    def _positions(self, number: int, tiles: IntArray) -> tuple[IntArray, IntArray]:
        """Where queries [tiles, side, 1] and keys [tiles, 1, side] stand; behind the end, where the last one does."""
        schedule, plan = self._over.schedule, self._over.schedule.plans[number]
        sides = (
            (tiles[:, :1], schedule.q_len, plan.q_order), (tiles[:, 1:2], schedule.k_len, plan.k_order)
        )  # fmt: skip
        rows = []
        for at, length, order in sides:
            places = np.minimum(at * self._side + np.arange(self._side), length - 1)
            rows.append(places if order is None else order.rows[places])
        return rows[0][:, :, None] + self._over.first, rows[1][:, None, :]

    def _order(self, side: int) -> Tensor | None:
        """The storage order of one side; None: as tokens lie."""
        schedule = self._over.schedule
        orders = [(plan.q_order, plan.k_order)[side] for plan in schedule.plans]
        if not any(orders):
            return None
        length = (schedule.q_len, schedule.k_len)[side]
        return self._kept(("order", side), lambda: _rows(orders, length, self._side))

    def _blocks(
        self, tiles: Sequence[IntArray], bounds: Sequence[IntArray], place: int, gains: int
    ) -> Tensor:
        """Blocks [gains, B, H, blocks, side, side]: tiles of each plan, and the first and last of each block."""
        given, over, device = self._given, self._over, self._given.Q.device
        batch, heads, q_len, width = given.Q.shape
        before = np.cumsum([0, *map(len, tiles)])[:-1]
        stretches = np.stack([each + start for each, start in zip(bounds, before, strict=True)])
        count = stretches.shape[1]
        blocks = given.Q.new_empty(
            (gains, batch, heads, count, self._side, self._side), dtype=torch.float32
        )
        by_batch, by_head = (int(size > 1) for size in self._plan_of.shape)
        orders = [self._order(side) for side in (0, 1)]
        args = BackwardPairsArgs(
            **strides(q=given.Q, k=given.K, v=given.V, g=given.GradOut),
            **over.functions,
            tiles=torch.from_numpy(np.concatenate([*tiles, np.zeros((1, 3))]).astype(np.int32)).to(
                device
            ),
            stretches=torch.from_numpy(stretches.astype(np.int32)).to(device),
            plan_of=self._plan_of,
            plan_batch=by_batch * self._plan_of.shape[1],
            plan_head=by_head,
            masks=self._masks,
            q_order=orders[0],
            k_order=orders[1],
            q_len=q_len,
            k_len=given.K.shape[2],
            heads=heads,
            most=count,
            batches=batch,
            blocks=count,
            GROUP=heads // given.K.shape[1],
            D=width,
            DV=given.V.shape[3],
            BD=padded(width),
            BDV=padded(given.V.shape[3]),
            BQ=self._side,
            BK=self._side,
            PRECISION=self._precision,
            Q_ORDERED=orders[0] is not None,
            K_ORDERED=orders[1] is not None,
            GAINS=gains,
            BEFORE=over.before + place,
        )
        grid = count, heads, batch
        launch = Launch(kernels.backward_pairs, grid, BackwardPairsCall, args, **over.options)
        launch(BackwardPairsCall(*given, **self._read._asdict(), Blocks=blocks, scale=self._scale))
        return blocks


def _rows(orders: Sequence[TokenOrder | None], length: int, side: int) -> ShortArray:
    """The row of each token of each plan in storage order; tiles go on behind the end."""
    table = np.zeros((len(orders), -(-length // side) * side), dtype=np.int32)
    for row, order in zip(table, orders, strict=True):
        row[:length] = np.arange(length) if order is None else order.rows
    return table


def live_tiles(schedule: Schedule, plan: Plan) -> IntArray:
    """The live tiles of a plan, [n, 3]: of queries, of keys, mask, -1 where all pairs are live."""
    full, partial = plan.full, plan.partial
    # the mask behind those of the schedule stands for FULL tiles up to the end of the keys
    ids = np.where(full.indices == schedule.grid[1] - 1, len(schedule.masks), -1)
    rows = np.concatenate([full.rows, partial.rows])
    columns = np.concatenate([full.indices, partial.indices])
    return np.stack([rows, columns, np.concatenate([ids, plan.mask_ids])], axis=1).astype(np.int64)
