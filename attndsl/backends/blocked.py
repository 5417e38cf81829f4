"""The CPU backend: live tiles only, by torch's own flash kernels.

A plan becomes strips (``block_batches.py``): batched calls on strided views or gathered keys. Forward merges
the strips of a query by log-sum-exp. Backward hands each strip the *global* output and log-sum-exp:
the kernel then returns exactly that strip's share of every gradient, and shares add up.
The order of strips is fixed and nothing is atomic: equal inputs give equal bits. Sets that differ from query to query
are computed over their lists instead (``listed.py``).
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from attndsl.backends.block_batches import BlockBatch, BoolArray, InStrips, batches_of, packed
from attndsl.backends.dense_blocks import DenseBlocks
from attndsl.backends.dense_square import square_of
from attndsl.backends.dtypes import EIGHT_BITS
from attndsl.backends.few_queries import MOST_QUERIES, FewQueriesKernels
from attndsl.backends.flash_passes import BUDGET, LEVELS, FlashPasses, flash, flash_backward
from attndsl.backends.heads import alike
from attndsl.backends.listed import ListKernels
from attndsl.backends.merging import merged
from attndsl.backends.pages import Pages, live_columns
from attndsl.backends.places import Elements, Index, IntArray, with_width
from attndsl.backends.protocol import Request, Tile
from attndsl.backends.scored_blocked import BlockedScores
from attndsl.backends.scored_stick import StickScores
from attndsl.backends.scores import BoundScore
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

    def takes_pairs(self, request: Request) -> bool:
        """Whether a tile or two a side hold all pairs of a batch element, so that they need not be searched for."""
        return max(request.q_len, request.k_len) <= 2 * TILE

    def lower_pairs(self, pairs: BoolArray, request: Request) -> PairsKernels:
        """Attention of all batch elements at once, each over its own pairs."""
        return PairsKernels.of(pairs, request.q_len)

    def lower_lists(self, lists: Lists, request: Request) -> ListKernels | None:
        """Attention over the lists, where tiles would be more work."""
        return ListKernels.of(lists)

    def lower_whole(self, whole: Whole, request: Request) -> BlockedKernels | None:
        """Attention of whole blocks at once, where that is less work than tiles."""
        strips = WholeStrips.of(whole)
        if strips is None:
            return None
        blocks = DenseBlocks(strips.plans, strips.plan_of) if strips.is_apart else None
        return BlockedKernels(strips, blocks)

    def lower_scored_whole(
        self, whole: Whole, score: BoundScore, request: Request
    ) -> BlockedScores | None:
        """The same with scores of their own; triangles are taken in tiles, which waste less of them."""
        strips = WholeStrips.of(whole)
        if strips is None or strips.has_triangles:
            return None
        return BlockedScores.of(strips, score)

    def tiles(self, request: Request) -> tuple[Tile, ...]:
        """One for both passes."""
        return (best_tile(request.q_len, request.k_len),)

    def lower(self, part: TiledMask, request: Request) -> BlockedKernels:
        """Strips of its one schedule."""
        schedule = part.schedules[self.tiles(request)[0]]
        return BlockedKernels(schedule, square_of(schedule) if request.whole else None)

    def lower_scored(self, part: TiledMask, score: BoundScore, request: Request) -> BlockedScores:
        """Strips of its one schedule, with scores of their own."""
        return BlockedScores.of(part.schedules[self.tiles(request)[0]], score)

    def lower_stick(self, part: TiledMask, score: BoundScore, request: Request) -> StickScores:
        """Strips from the last key back, in order."""
        return StickScores.of(part.schedules[self.tiles(request)[0]], score)


class _StripPasses(FlashPasses):
    """The passes over strips that lie ready."""

    __slots__ = ()

    @property
    @abc.abstractmethod
    def batches(self) -> tuple[tuple[BlockBatch, ...], ...]:
        """The strips of each plan."""

    @abc.abstractmethod
    def head_groups(
        self, of_queries: Sequence[Tensor], of_keys: Sequence[Tensor], results: tuple[int, int]
    ) -> Iterator[HeadGroup]:
        """The heads of all batch elements, those that go together in one piece.

        The last ``results`` tensors of either side are written to.
        """

    def merges(self) -> bool:
        """Whether a query is in several strips."""
        return any(not strip.first_writer for plan in self.batches for strip in plan)

    def attend(self, rows: Sequence[Tensor], columns: Sequence[Tensor], scale: float) -> None:
        """Strip after strip."""
        for unit in self.head_groups(rows, columns, results=(2, 0)):
            forward_unit(unit, scale)

    def differentiate(
        self, rows: Sequence[Tensor], columns: Sequence[Tensor], scale: float
    ) -> None:
        """Strip after strip."""
        for unit in self.head_groups(rows, columns, results=(1, 2)):
            backward_unit(unit, scale)


@dataclass(frozen=True, slots=True, eq=False)
class BlockedKernels(_StripPasses):
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
            for plan, mine, theirs in alike(row if len(row) > 1 else row * heads, group):
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


@dataclass(frozen=True, slots=True, eq=False)
class PairsKernels(_StripPasses):
    """Few pairs of each batch element, which a mask holds: all elements at once."""

    pairs: BoolArray  # [batch, heads or 1, queries or 1, keys]
    q_len: int
    square: PairsSquare

    @staticmethod
    def of(pairs: BoolArray, q_len: int) -> PairsKernels:
        """From the pairs of each element and head, which may be those of all queries."""
        dead = ~pairs.any(-1)
        square = PairsSquare(
            torch.from_numpy(pairs), torch.from_numpy(dead) if dead.any() else None, q_len
        )
        return PairsKernels(pairs, q_len, square)

    @property
    def batches(self) -> tuple[tuple[BlockBatch, ...], ...]:
        """One strip, whose queries and keys are batch elements."""
        batch, heads, _, k_len = self.pairs.shape
        whole = np.broadcast_to(self.pairs, (batch, heads, self.q_len, k_len))
        mask = packed(whole[:, 0] if heads == 1 else whole)
        rows, columns = Elements(0, batch, self.q_len), Elements(0, batch, k_len)
        return ((BlockBatch(rows, columns, mask, first_writer=True),),)

    @property
    def nbytes(self) -> int:
        """Bytes of the mask, and of a bias in float32."""
        return 5 * int(self.pairs.nbytes)

    def reaches_all(self) -> bool:
        """True where there are pairs."""
        return bool(self.pairs.shape[-1])

    def head_groups(
        self, of_queries: Sequence[Tensor], of_keys: Sequence[Tensor], results: tuple[int, int]
    ) -> Iterator[HeadGroup]:
        """All at once."""
        if all(x.numel() for x in (of_queries[0], of_keys[0])):
            yield HeadGroup(self.batches[0], list(of_queries), list(of_keys))


@dataclass(frozen=True, slots=True, eq=False)
class PairsSquare:
    """The same where all tensors are finite: one call of a kernel, whose results are those of the pass."""

    masks: ClassVar[bool] = True
    pairs: Tensor  # bool [B, H or 1, Q or 1, K]
    dead: Tensor | None  # queries without a key, bool [B, H or 1, Q or 1]; None: there is none
    q_len: int
    biases: dict[torch.dtype, Tensor] = field(default_factory=dict)  # made once

    @property
    def longest(self) -> int:
        """Tokens of the longer side."""
        return max(self.q_len, self.pairs.shape[-1])

    def forward(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """(out, lse), of q [B, H, Q, D], k [B, Hkv, K, D], v [B, Hkv, K, Dv]."""
        width, widest = v.shape[3], max(q.shape[3], v.shape[3])
        given = (with_width(x, widest) for x in (q, k, v))
        bias, dead = self._bias(q), self.dead
        out, lse = flash(*given, 0.0, False, attn_mask=bias, scale=scale)
        if dead is not None:
            _clear(out, dead)
            lse = lse.masked_fill_(dead, -math.inf)
        return out[..., :width], lse

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
        widths = q.shape[3], k.shape[3], v.shape[3]
        q, k, v, out, dout = (with_width(x, max(widths)) for x in (q, k, v, out, dout))
        bias, dead = self._bias(q), self.dead
        if dead is not None:  # a level that makes every weight zero
            lse = lse.masked_fill(dead, math.inf)
        grads = flash_backward(*(dout, q, k, v, out, lse, 0.0, False), attn_mask=bias, scale=scale)
        dq, dk, dv = (x[..., :width] for x, width in zip(grads, widths, strict=True))
        return dq, dk, dv

    def _bias(self, q: Tensor) -> Tensor:
        """0 or -inf by pair, [B, H or 1, Q, K]."""
        bias = self.biases.get(q.dtype)
        if bias is None:
            bias = q.new_zeros(self.pairs.shape).masked_fill_(~self.pairs, -math.inf)
            self.biases[q.dtype] = bias
        return bias.expand(-1, -1, q.shape[2], -1)


def _clear(out: Tensor, dead: Tensor) -> None:
    """Writes 0 for the queries [B, H or 1, Q or 1] that are dead: whole rows of memory, where it holds them so."""
    rows = out.transpose(1, 2)
    if dead.shape[1] > 1 or not rows.is_contiguous():
        out.masked_fill_(dead[..., None], 0.0)
        return
    which = dead[:, 0].expand(rows.shape[:2]).flatten().nonzero()[:, 0]
    rows.flatten(0, 1).index_fill_(0, which, 0.0)


@dataclass(frozen=True, slots=True)
class HeadGroup:
    """Heads that share a plan: tensors by query head and by key head, [heads, length, ...].

    Where items are batch elements, [batch, heads, length, ...].
    """

    block_batches: tuple[BlockBatch, ...]
    of_queries: list[Tensor]
    of_keys: list[Tensor]


def forward_unit(unit: HeadGroup, scale: float) -> None:
    (q, out, lse), (k, v) = unit.of_queries, unit.of_keys
    for part, bias, dead in _calls(unit, q, per_key=0):
        queries, keys = part.queries, part.keys
        o, level = flash(
            queries.read(q), keys.read(k), keys.read(v), 0.0, False, attn_mask=bias, scale=scale
        )
        o = o[..., : out.shape[-1]]
        if dead is not None:  # whatever such a query holds
            o = o.masked_fill(dead[..., None], 0.0)
            level = level.masked_fill(dead, -math.inf)
        if not part.first_writer:
            o, level = merged(queries.read(out), queries.read(lse), o, level)
        queries.write(out, o)
        queries.write(lse, level)


def backward_unit(unit: HeadGroup, scale: float) -> None:
    (q, out, dout, lse, dq), (k, v, dk, dv) = unit.of_queries, unit.of_keys
    for part, bias, dead in _calls(unit, q, per_key=2):
        queries, keys = part.queries, part.keys
        rows, level = [queries.read(x) for x in (dout, q, out)], queries.read(lse)
        if dead is not None:  # whatever such a query holds: a level that makes every weight zero
            rows = [x.masked_fill(dead[..., None], 0.0) for x in rows]
            level = level.masked_fill(dead, math.inf)
        shares = flash_backward(
            *(rows[0], rows[1], keys.read(k), keys.read(v), rows[2], level),
            0.0,
            False,
            attn_mask=bias,
            scale=scale,
        )
        for places, total, share in zip((queries, keys, keys), (dq, dk, dv), shares, strict=True):
            places.add(total, share[..., : total.shape[-1]])


def _calls(
    unit: HeadGroup, q: Tensor, per_key: int
) -> Iterator[tuple[BlockBatch, Tensor | None, Tensor | None]]:
    """Strips in pieces of bounded size, each with its mask as a bias, and the queries it empties.

    ``per_key``: tensors as large as the keys that the kernel returns; gathered keys are two more.
    """
    for strip in unit.block_batches:
        shared = strip.mask is None or len(strip.mask) == 1
        step = at_once(strip, q.shape[-3], q.shape[-1], per_key)
        bias = _bias(strip, q) if shared else (None, None)
        for first in range(0, strip.queries.items, step):
            part = strip.cut(first, min(first + step, strip.queries.items))
            yield part, *(bias if shared else _bias(part, q))


def at_once(strip: BlockBatch, heads: int, width: int, per_key: int) -> int:
    """How many items of a strip one kernel call takes, so that its temporaries stay in the budget."""
    of_keys = per_key + 2 * isinstance(strip.keys, Index)
    item = width * (strip.queries.length + of_keys * strip.keys.length)
    shared = strip.mask is None or len(strip.mask) == 1
    own_mask = 0 if shared else strip.queries.length * strip.keys.length
    return max(1, BUDGET // (heads * item + own_mask))


def _bias(strip: BlockBatch, like: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """0 or -inf by pair [items or 1, heads or 1, queries, keys], and the queries without a key, if any."""
    if strip.mask is None:
        return None, None
    # NumPy: these arrays are small, and waking torch's threads for them costs more than the work.
    levels = LEVELS.take(strip.mask, axis=0).reshape(*strip.mask.shape[:-1], -1)
    bias, dead = levels[..., : strip.keys.length], ~np.asarray(strip.mask.any(-1))
    if strip.mask.ndim == 3:  # one for all heads
        bias, dead = bias[:, None], dead[:, None]
    return torch.from_numpy(bias).to(like.dtype), torch.from_numpy(dead) if dead.any() else None


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
