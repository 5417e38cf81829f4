"""The passes of the CPU back end over strips: head group after head group, strip after strip."""

from __future__ import annotations

import abc
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attndsl.backends.block_batches import BlockBatch
from attndsl.backends.flash_passes import BUDGET, LEVELS, FlashPasses, flash, flash_backward
from attndsl.backends.merging import merged
from attndsl.backends.places import Index


class StripPasses(FlashPasses):
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

    def side(self, q_len: int, k_len: int) -> int:
        """The same: the shorter side of strips, up to which half of all pairs are in theirs."""
        if self.square is not None:
            return super().side(q_len, k_len)
        pairs: Counter[int] = Counter()
        for strip in itertools.chain.from_iterable(self.batches):
            sides = strip.queries.length, strip.keys.length
            pairs[min(sides)] += strip.queries.items * math.prod(sides)
        below, all_of_them = 0, pairs.total()
        for side in sorted(pairs):
            below += pairs[side]
            if 2 * below >= all_of_them:
                return side
        return 0

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


def clear(out: Tensor, dead: Tensor) -> None:
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
        given = queries.read(q), keys.read(k), keys.read(v)
        o, level = flash(*given, 0.0, part.is_causal, attn_mask=bias, scale=scale)
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
            part.is_causal,
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
