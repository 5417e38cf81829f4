"""Attention over lists on the CPU: what queries see is gathered, and each query's softmaxes are merged once.

Items of equal shape (``list_batches``) go to torch's flash kernels, as many at a time as the cache holds. The parts of
a query are weighed by their log-sum-exp and summed in one pass, in a fixed order. Backward hands each item the *global*
output and log-sum-exp, and sums what comes back row by row: equal inputs give equal bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from attndsl.backends.flash_passes import (
    BUDGET,
    LEVELS,
    SIXTEEN_BITS,
    FlashPasses,
    Square,
    flash,
    flash_backward,
)
from attndsl.backends.heads import alike
from attndsl.backends.list_batches import Cells, ListBatch, ListPlan
from attndsl.schedule import BLOCK, Lists

# Elements of what one call gathers and gives: 4 MiB, past which memory is waited for.
CACHED: Final = 1 << 20
SHORTEST: Final = 128  # keys of an item, past which a flash kernel beats products of whole items
# Share of all pairs; where lists name more, long runs of tiles are read without a copy.
MOST_PAIRS: Final = 0.25

_REVERSED: Final = np.packbits(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"), axis=1
).reshape(-1)
_BIASES: Final = LEVELS[_REVERSED]  # of eight scores for each byte: first the lowest bit


def pays(lists: Lists, cells: Sequence[Sequence[Cells]]) -> bool:
    """Whether lists take less time than the tiles that hold them: clearly less, where they name most of all pairs."""
    uses = np.bincount(lists.class_of.reshape(-1), minlength=len(lists.classes))
    ours = theirs = entries = 0.0
    for count, chunks in zip(uses.tolist(), cells, strict=True):
        for each in chunks:
            mine, tiled = each.cost()
            ours, theirs = ours + count * mine, theirs + count * tiled
            entries += count * len(each.cell)
    pairs = lists.q_len * lists.k_len * lists.class_of.size
    return ours <= theirs and (1.2 * ours <= theirs or entries * BLOCK <= MOST_PAIRS * pairs)


@dataclass(frozen=True, slots=True, eq=False)
class ListKernels(FlashPasses):
    """The passes over the lists of a call; ``plans`` are those of each class, chunk by chunk."""

    lists: Lists
    plans: tuple[tuple[ListPlan, ...], ...]
    square: Square | None = None

    @staticmethod
    def of(lists: Lists) -> ListKernels | None:
        """Makes the batches of each class; None where tiles take less time."""
        cells = [[Cells.of(chunk) for chunk in one] for one in lists.classes]
        if not pays(lists, cells):
            return None
        return ListKernels(lists, tuple(tuple(map(ListPlan.of, one)) for one in cells))

    @property
    def nbytes(self) -> int:
        """Bytes of the lists and of the batches."""
        return self.lists.nbytes + sum(plan.nbytes for one in self.plans for plan in one)

    def reaches_all(self) -> bool:
        """True: what no key reaches is written, too."""
        return True

    def merges(self) -> bool:
        """False: parts are merged before they are written."""
        return False

    def attend(self, rows: Sequence[Tensor], columns: Sequence[Tensor], scale: float) -> None:
        """Chunk after chunk of the queries of heads that see the same."""
        space = _Space()
        for plans, (q, out, lse), given in self._units(rows, columns):
            keys = _Keys.of(given)
            for plan in plans:
                _attend(plan, q, out, lse, keys, scale, space)

    def differentiate(
        self, rows: Sequence[Tensor], columns: Sequence[Tensor], scale: float
    ) -> None:
        """Chunk after chunk of the queries of heads that see the same."""
        space = _Space()
        for plans, of_queries, (k, v, *sums) in self._units(rows, columns):
            keys, found = _Keys.of((k, v)), _Keys.of([torch.zeros_like(x) for x in sums]).tensors
            for plan in plans:
                _differentiate(plan, of_queries, keys, found, scale, space)
            for total, made in zip(sums, found, strict=True):
                total += made[:, : total.shape[1]]

    def _units(
        self, rows: Sequence[Tensor], columns: Sequence[Tensor]
    ) -> Iterator[tuple[tuple[ListPlan, ...], list[Tensor], list[Tensor]]]:
        """(plans, tensors by query head, tensors by key head), [heads, length, ...], of heads that see the same."""
        class_of = self.lists.class_of
        (batch, heads, _, width), kv_heads = rows[0].shape, columns[0].shape[1]
        if not batch * heads * kv_heads:
            return
        group = heads // kv_heads
        for b in range(batch):
            row = class_of[b if len(class_of) > 1 else 0].tolist()
            for number, mine, theirs in alike(row if len(row) > 1 else row * heads, group):
                plans = self.plans[number]
                most = max((plan.count for plan in plans), default=0)
                step = max(1, BUDGET // max(1, most * width * group))  # key heads at once
                for low in range(theirs.start, theirs.stop, step):
                    keys = slice(low, min(low + step, theirs.stop))
                    some = slice(
                        max(mine.start, keys.start * group), min(mine.stop, keys.stop * group)
                    )
                    yield plans, [x[b, some] for x in rows], [x[b, keys] for x in columns]


@dataclass(frozen=True, slots=True, eq=False)
class _Space:
    """Memory for what is gathered, used again and again: fresh memory is slow to write."""

    held: dict[object, Tensor] = field(default_factory=dict)

    def of(self, use: object, shape: Sequence[int], like: Tensor) -> Tensor:
        """A tensor of the shape, of the type and device of another; what it holds is whatever was there."""
        count, found = math.prod(shape), self.held.get((use, like.dtype))
        if found is None or found.numel() < count:
            found = self.held[use, like.dtype] = like.new_empty(count)
        return found[:count].view(*shape)

    def gathered(self, use: object, x: Tensor, places: Tensor) -> Tensor:
        """The rows of x [heads, N, W] at some places, [heads, places, W]: each head for itself, which is fastest."""
        found = self.of(use, (len(x), len(places), x.shape[-1]), x)
        for mine, all_ in zip(found, x, strict=True):
            torch.index_select(all_, 0, places, out=mine)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Keys:
    """Keys and values [heads, K, D], filled up to whole blocks."""

    tensors: tuple[Tensor, ...]

    @staticmethod
    def of(given: Sequence[Tensor]) -> _Keys:
        lacking = -given[0].shape[1] % BLOCK
        return _Keys(
            tuple(F.pad(x, (0, 0, 0, lacking)) if lacking else x.contiguous() for x in given)
        )

    def read(self, batch: ListBatch, space: _Space) -> list[Tensor]:
        """Gathers keys and values of each item, [items, heads, keys, D]."""
        places = torch.from_numpy(batch.units.reshape(-1))
        found = []
        for use, x in enumerate(self.tensors):
            heads, count, width = x.shape
            units = x.view(heads, count // batch.size, batch.size * width)
            taken = space.gathered(use, units, places)
            found.append(taken.view(heads, len(batch.units), -1, width).transpose(0, 1))
        return found


def _attend(
    plan: ListPlan, q: Tensor, out: Tensor, lse: Tensor, keys: _Keys, scale: float, space: _Space
) -> None:
    """Writes the outputs [heads, Q, Dv] of the queries of a plan."""
    heads, count, width = len(q), plan.count, out.shape[-1]
    parts = space.of("parts", (heads, count, width), out)
    levels = space.of("levels", (heads, count), lse)
    at = 0
    for batch in _cut(plan, heads * q.shape[-1]):
        bias, some = _bias(batch, q), slice(at, at + batch.rows.size)
        rows, given = _rows(q, batch, space, "q"), keys.read(batch, space)
        if q.dtype in SIXTEEN_BITS or given[0].shape[2] > SHORTEST:
            made, level = flash(rows, *given, 0.0, False, attn_mask=bias, scale=scale)
            parts[:, some].view(heads, *batch.rows.shape, width).copy_(
                made[..., :width].transpose(0, 1)
            )
            levels[:, some].view(heads, *batch.rows.shape).copy_(level.transpose(0, 1))
        else:
            for head in range(heads):
                key_head = head * len(keys.tensors[0]) // heads
                item = rows[:, head], given[0][:, key_head], given[1][:, key_head]
                into = parts[head, some].view(*batch.rows.shape, width)
                levels[head, some] = _softmaxes(*item, bias, scale, into, space).view(-1)
        at = some.stop
    places, bounds = torch.from_numpy(plan.parts), torch.from_numpy(plan.bounds)
    some = slice(plan.first, plan.stop)
    counts = bounds.diff()
    for head in range(heads):
        mine = levels[head].index_select(0, places)
        top = torch.segment_reduce(mine, "max", offsets=bounds, initial=-math.inf)
        top.masked_fill_(top == -math.inf, 0.0)
        shares = (mine - top.repeat_interleave(counts)).exp_()
        level = torch.segment_reduce(shares, "sum", offsets=bounds, initial=0.0).log_().add_(top)
        weights = (mine - level.repeat_interleave(counts)).exp_().to(parts.dtype)
        summed = parts[head], places, bounds, False, 0, False, weights, True
        out[head, some], lse[head, some] = torch.embedding_bag(*summed)[0], level


def _softmaxes(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    scale: float,
    out: Tensor,
    space: _Space,
) -> Tensor:
    """Writes softmax(scale q kᵀ + bias) v of each item [items, R, D] to ``out``; gives the log-sum-exp [items, R]."""
    scores = space.of("scores", (*q.shape[:2], k.shape[1]), q)
    torch.baddbmm(
        scores if bias is None else bias[:, 0], q, k.mT, beta=bias is not None, alpha=scale,
        out=scores,
    )  # fmt: skip
    top = scores.amax(-1, keepdim=True)
    total = scores.sub_(top).exp_().sum(-1, keepdim=True)
    torch.bmm(scores, v[..., : out.shape[-1]], out=out).div_(total)  # values may be filled up
    return total.log_().add_(top)


def _differentiate(
    plan: ListPlan,
    of_queries: Sequence[Tensor],
    keys: _Keys,
    sums: Sequence[Tensor],
    scale: float,
    space: _Space,
) -> None:
    """Adds the gradients of a plan to dq [heads, Q, D], and to dk and dv, filled up like the keys."""
    q, out, dout, lse, dq = of_queries
    for batch in _cut(plan, len(q) * q.shape[-1]):
        level = _rows(lse[..., None], batch, space, "lse")[..., 0]
        rows = [_rows(x, batch, space, ("row", use)) for use, x in enumerate((dout, q, out))]
        if (
            batch.idle is not None
        ):  # a level that makes every weight zero, whatever such a row holds
            idle = torch.from_numpy(batch.idle)[:, None]
            rows = [x.masked_fill(idle[..., None], 0.0) for x in rows]
            level = level.masked_fill(idle, math.inf)
        shares = flash_backward(
            *(rows[0], rows[1], *keys.read(batch, space), rows[2], level.contiguous(), 0.0, False),
            attn_mask=_bias(batch, q),
            scale=scale,
        )
        _add(dq, batch.rows, 1, shares[0])
        for total, share in zip(sums, shares[1:], strict=True):
            _add(total, batch.units, batch.size, share)


def _add(total: Tensor, places: np.ndarray, size: int, share: Tensor) -> None:
    """Adds [items, heads, n, D] to rows of ``total`` [heads, length, D], units of ``size`` rows one after the other."""
    width = total.shape[-1]
    index = torch.from_numpy(places.reshape(-1))
    for sums, part in zip(total, share[..., :width].transpose(0, 1), strict=True):
        units = sums.view(-1, size * width) if size > 1 else sums
        units.index_add_(0, index, part.reshape(len(index), -1).to(total.dtype))


def _cut(plan: ListPlan, row: int) -> Iterator[ListBatch]:
    """The batches, in calls whose temporaries stay in the cache. ``row``: elements of a row of all heads."""
    for batch in plan.batches:
        (items, height), keys = batch.rows.shape, batch.units.shape[1] * batch.size
        step = max(1, CACHED // (row * (2 * height + 2 * keys) + height * keys))
        for first in range(0, items, step):
            yield batch if step >= items else batch.cut(first, first + step)


def _rows(x: Tensor, batch: ListBatch, space: _Space, use: object) -> Tensor:
    """Rows of x [heads, Q, D] as [items, heads, R, D]."""
    taken = space.gathered(use, x, torch.from_numpy(batch.rows.reshape(-1)))
    return taken.view(len(x), *batch.rows.shape, x.shape[-1]).transpose(0, 1)


def _bias(batch: ListBatch, like: Tensor) -> Tensor | None:
    """0 or -inf by pair, [items, 1, R, keys]."""
    if batch.bits is None:
        return None
    items, height = batch.rows.shape
    levels = _BIASES.take(np.ascontiguousarray(batch.bits).view(np.uint8), axis=0)
    return torch.from_numpy(levels.reshape(items, 1, height, -1)).to(like.dtype)
