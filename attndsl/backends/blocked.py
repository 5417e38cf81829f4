"""The CPU backend: live tiles only, by torch's own flash kernels.

A plan becomes strips (``block_batches.py``): batched calls on strided views or gathered keys. Forward merges
the strips of a query by log-sum-exp. Backward hands each strip the *global* output and log-sum-exp:
the kernel then returns exactly that strip's share of every gradient, and shares add up.
The order of strips is fixed and nothing is atomic: equal inputs give equal bits. Sets that differ from query to query
are computed over their lists instead (``listed.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attndsl.backends.block_batches import BlockBatch, InStrips, batches_of
from attndsl.backends.cells import BoolArray
from attndsl.backends.dense_blocks import DenseBlocks
from attndsl.backends.dense_square import square_of
from attndsl.backends.dtypes import EIGHT_BITS
from attndsl.backends.few_queries import MOST_QUERIES, FewQueriesKernels, attend_keys
from attndsl.backends.heads import evenly_alike
from attndsl.backends.keys_in_order import KeysInOrder
from attndsl.backends.listed import ListKernels
from attndsl.backends.pages import Pages, live_columns
from attndsl.backends.pairs_kernels import PairsKernels
from attndsl.backends.places import IntArray
from attndsl.backends.protocol import Kernels, Request, Tile
from attndsl.backends.scored_blocked import BlockedScores
from attndsl.backends.scored_stick import StickScores
from attndsl.backends.scores import BoundScore
from attndsl.backends.strip_passes import HeadGroup, StripPasses
from attndsl.backends.whole_strips import WholeStrips
from attndsl.schedule import KeySets, Lists, Schedule, TiledMask, Whole

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
TILE = 64  # larger ones waste pairs at the edges of a window, smaller ones starve the kernels


class Blocked:
    """Attention over live tiles on the CPU, in bounded temporary memory.

    A key or value that is not finite makes the queries that see it NaN, and no others.
    """

    name = "blocked"

    def supports(self, request: Request) -> str | None:
        """CPU tensors of float64, float32, bfloat16 or float16; forward, 8-bit ones in float32."""
        if request.device.type != "cpu":
            return f"it runs on the CPU, and the tensors are on {request.device.type}"
        return (
            None
            if request.dtype in (*DTYPES, *EIGHT_BITS)
            else f"it has no kernel for {request.dtype}"
        )

    def takes_key_sets(self, request: Request) -> bool:
        """Whether such a call is of so few queries that tiles would be mostly air; of forwards alone."""
        return request.q_len <= MOST_QUERIES and not request.gradient

    def reads_only_seen(self, request: Request) -> bool:
        """Where each head reads the keys that its queries see."""
        return self.takes_key_sets(request) and not self.takes_pairs(request)

    def lower_key_sets(self, sets: KeySets) -> FewQueriesKernels:
        """Attention over the keys that each query sees."""
        return FewQueriesKernels.of(sets)

    attend_keys = staticmethod(attend_keys)

    def takes_pairs(self, request: Request) -> bool:
        """Whether a tile or two a side hold all pairs of a batch element, so that they need not be searched for."""
        return max(request.q_len, request.k_len) <= 2 * TILE

    def lower_pairs(self, pairs: BoolArray, request: Request) -> PairsKernels:
        """Attention of all batch elements at once, each over its own pairs."""
        return PairsKernels.of(pairs, request.q_len)

    def lower_lists(self, lists: Lists, request: Request) -> Kernels | None:
        """Attention over the lists, where tiles would be more work."""
        made = ListKernels.of(lists)
        return made if made is None or lists.order is None else KeysInOrder.of(made, lists.order)

    def lower_whole(self, whole: Whole, request: Request) -> BlockedKernels | None:
        """Attention of whole blocks at once, where that is less work than tiles."""
        strips = WholeStrips.of(whole)
        if strips is None:
            return None
        lengths = strips.q_len, strips.k_len
        of_plans = strips.plans, strips.plan_of, *lengths
        blocks = DenseBlocks.of(*of_plans) if strips.is_apart else None
        return BlockedKernels(strips, blocks)

    def lower_scored_whole(
        self, whole: Whole, score: BoundScore, request: Request
    ) -> BlockedScores | None:
        """The same with scores of their own; triangles are taken in tiles, which waste less of them."""
        strips = WholeStrips.of(whole)
        if strips is None or strips.has_triangles:
            return None
        return BlockedScores.of(strips, score, request.gradient)

    def tiles(self, request: Request) -> tuple[Tile, ...]:
        """One for both passes."""
        return (best_tile(request.q_len, request.k_len),)

    def lower(self, part: TiledMask, request: Request) -> BlockedKernels:
        """Strips of its one schedule."""
        schedule = part.schedules[self.tiles(request)[0]]
        return BlockedKernels(schedule, square_of(schedule) if request.whole else None)

    def lower_scored(self, part: TiledMask, score: BoundScore, request: Request) -> BlockedScores:
        """Strips of its one schedule, with scores of their own."""
        return BlockedScores.of(part.schedules[self.tiles(request)[0]], score, request.gradient)

    def lower_stick(self, part: TiledMask, score: BoundScore, request: Request) -> StickScores:
        """Strips from the last key back, in order."""
        return StickScores.of(part.schedules[self.tiles(request)[0]], score)


@dataclass(frozen=True, slots=True, eq=False)
class BlockedKernels(StripPasses):
    """A schedule, by the strips of each of its plans or, where its pairs are whole blocks, at once."""

    schedule: Schedule | InStrips
    square: DenseBlocks | None = None

    @property
    def batches(self) -> tuple[tuple[BlockBatch, ...], ...]:
        """The strips of each plan."""
        return batches_of(self.schedule)

    @property
    def nbytes(self) -> int:
        """Bytes of the schedule."""
        return self.schedule.nbytes

    def rows_in(self, pages: Pages, count: int) -> tuple[Tensor, Tensor]:
        """Keys and values of pages with a live tile, and 0 for others."""
        schedule, page = self.schedule, pages.page
        if isinstance(schedule, Schedule):
            return pages.rows(count, live_columns(schedule, page))
        return pages.rows(count, np.unique(schedule.live_keys() // page))

    def reaches_all(self) -> bool:
        """Whether every query is written to."""
        return all(_reaches_all(plan, self.schedule.q_len) for plan in self.batches)

    def head_groups(
        self, of_queries: Sequence[Tensor], of_keys: Sequence[Tensor], results: tuple[int, int]
    ) -> Iterator[HeadGroup]:
        """The heads of all batch elements, those of one plan together."""
        plan_of = self.schedule.plan_of
        batch, heads = of_queries[0].shape[:2]
        group = heads // max(1, of_keys[0].shape[1])
        if batch * heads * group == 0:
            return
        if plan_of.size == 1 and all(_folds(x) for x in (*of_queries, *of_keys)):
            folded = [[x.flatten(0, 1) for x in side] for side in (of_queries, of_keys)]
            yield from self._stored(0, folded[0], folded[1], results)
            return
        for b in range(batch):
            row = plan_of[b if len(plan_of) > 1 else 0].tolist()
            for plan, mine, theirs in evenly_alike(row if len(row) > 1 else row * heads, group):
                queries, keys = [x[b, mine] for x in of_queries], [x[b, theirs] for x in of_keys]
                yield from self._stored(plan, queries, keys, results)

    def _stored(
        self, number: int, queries: list[Tensor], keys: list[Tensor], results: tuple[int, int]
    ) -> Iterator[HeadGroup]:
        """One unit, its tensors in the storage order of its plan while it is worked on."""
        plan = self.schedule.plans[number]
        sides = (queries, plan.q_order, results[0]), (keys, plan.k_order, results[1])
        taken = [
            tensors if order is None else _rows(tensors, order.rows) for tensors, order, _ in sides
        ]
        yield HeadGroup(self.batches[number], *taken)
        for (tensors, order, count), stored in zip(sides, taken, strict=True):
            if order is None:
                continue
            places = torch.from_numpy(order.places)
            for x, moved in list(zip(tensors, stored, strict=True))[len(tensors) - count :]:
                torch.index_select(moved, 1, places, out=x)


# ---------------------------------------------------------------------------- units


def _reaches_all(plan: Sequence[BlockBatch], q_len: int) -> bool:
    """True if every query is written. Queries of first writers are distinct, so counting them is enough."""
    written = (part.queries.items * part.queries.length for part in plan if part.first_writer)
    return sum(written) == q_len


def _rows(tensors: Sequence[Tensor], rows: IntArray) -> list[Tensor]:
    index = torch.from_numpy(rows)
    return [x.index_select(1, index) for x in tensors]


def _folds(x: Tensor) -> bool:
    """Whether batch and heads are one dimension in memory."""
    return x.shape[0] == 1 or x.stride(0) == x.shape[1] * x.stride(1)


# ---------------------------------------------------------------------------- tensors


def best_tile(q_len: int, k_len: int) -> Tile:
    """The tile to schedule with: (queries, keys). Measured: neither width nor dtype moves it."""
    return _power_of_two(q_len), _power_of_two(k_len)


def _power_of_two(length: int) -> int:
    return min(TILE, max(16, 1 << (length - 1).bit_length()))
