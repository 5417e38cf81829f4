"""Blocks whose tensors are finite, at once: one call of torch's kernel for each shape, without masks or merging."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from attndsl.backends.dtypes import lse_dtype
from attndsl.backends.heads import alike
from attndsl.backends.places import Places, ShortArray, Span, take_rows, with_width
from attndsl.backends.whole_strips import DenseBatch, WholePlan
from attndsl.schedule import TokenOrder

_flash: Final = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_flash_backward: Final = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default
CACHED: Final = 1 << 19  # elements of one copy of a tensor in another order


@dataclass(frozen=True, slots=True, eq=False)
class DenseBlocks:
    """Attention over whole blocks, no key of which is in two of its class; tensors are finite."""

    plans: tuple[WholePlan, ...]
    plan_of: ShortArray  # [1 or batch, 1 or heads], index into plans

    @property
    def masks(self) -> bool:
        """Whether a kernel reads pairs that are not live."""
        return any(shape.is_causal for plan in self.plans for shape in plan.shapes)

    @property
    def longest(self) -> int:
        """Tokens of the longest side of a block."""
        shapes = [shape for plan in self.plans for shape in plan.shapes]
        return max((max(x.queries.length, x.keys.length) for x in shapes), default=0)

    def forward(self, q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """(out, lse), of q [B, H, Q, D], k [B, Hkv, K, D], v [B, Hkv, K, Dv]."""
        width, widest = v.shape[3], max(1, q.shape[3], v.shape[3])
        q, k, v = (with_width(x, widest) for x in (q, k, v))
        if self._is_copied and (flat := _flat((q, k, v))) is not None:
            out, lse = self.forward(flat[0], flat[1], flat[2], scale)
            return out.view(*q.shape[:3], -1)[..., :width], lse.view(q.shape[:3])
        only = self._only(q, k)
        if only is not None:
            out, lse = _attended((q, k, v), only, scale)
            return _rows_of(out, only.queries)[..., :width], _rows_of(lse, only.queries)
        out = q.new_empty((*q.shape[:3], width))
        lse = q.new_empty(q.shape[:3], dtype=lse_dtype(q.dtype))
        for plan, b, mine, theirs in self._units(q, k):
            columns = [_stored(x[b, theirs], plan.k_order) for x in (k, v)]
            rows = _stored(q[b, mine], plan.q_order)
            queries = [shape.queries for shape in plan.shapes]
            made = [
                _Result.of(out[b, mine], plan.q_order, queries),
                _Result.of(lse[b, mine], plan.q_order, queries, empty=-torch.inf),
            ]
            for shape in plan.shapes:
                o, level = _attended((rows, *columns), shape, scale)
                made[0].take(shape.queries, o)
                made[1].take(shape.queries, level)
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
        widths = q.shape[3], k.shape[3], v.shape[3]
        q, k, v, out, dout = (with_width(x, max(1, *widths)) for x in (q, k, v, out, dout))
        if self._is_copied and (flat := _flat((q, k, v, out, lse, dout))) is not None:
            grads = self.backward(flat[0], flat[1], flat[2], flat[3], flat[4], flat[5], scale)
            shapes = zip(grads, (q, k, v), widths, strict=True)
            dq, dk, dv = (x.view(*like.shape[:3], -1)[..., :width] for x, like, width in shapes)
            return dq, dk, dv
        only, given = self._only(q, k), (q, out, dout, lse)
        if only is not None and _covers([only.keys], k.shape[2]):
            gains = _differentiated(given, (k, v), only, scale)
            sides = only.queries, only.keys, only.keys
            dq, dk, dv = (
                _rows_of(x, places)[..., :width]
                for x, places, width in zip(gains, sides, widths, strict=True)
            )
            return dq, dk, dv
        is_shared = q.shape[1] > k.shape[1]
        wide = lse_dtype(q.dtype) if is_shared else q.dtype
        made = [
            x.new_empty((*x.shape[:3], width), dtype=kind)
            for x, width, kind in zip((q, k, v), widths, (q.dtype, wide, wide), strict=True)
        ]
        for x in made[1:] if is_shared else ():
            x.zero_()
        for plan, b, mine, theirs in self._units(q, k):
            columns = [_stored(x[b, theirs], plan.k_order) for x in (k, v)]
            rows = [_stored(x[b, mine], plan.q_order) for x in given]
            queries = [shape.queries for shape in plan.shapes]
            keys = [shape.keys for shape in plan.shapes]
            results = [_Result.of(made[0][b, mine], plan.q_order, queries)]
            results += [_Result.of(x[b, theirs], plan.k_order, keys, is_shared) for x in made[1:]]
            for shape in plan.shapes:
                gains = _differentiated(rows, columns, shape, scale)
                sides = shape.queries, shape.keys, shape.keys
                for result, places, gain in zip(results, sides, gains, strict=True):
                    result.take(places, gain)
        return made[0], made[1].to(k.dtype), made[2].to(v.dtype)

    @property
    def _is_copied(self) -> bool:
        """Whether tokens are taken in another order, that of all heads and batch elements."""
        plan = self.plans[0]
        return self.plan_of.size == 1 and (plan.q_order is not None or plan.k_order is not None)

    def _only(self, q: Tensor, k: Tensor) -> DenseBatch | None:
        """The one shape of all heads that has every query, in natural order."""
        plan = self.plans[0]
        if self.plan_of.size > 1 or q.shape[1] != k.shape[1] or len(plan.shapes) != 1:
            return None
        queries = plan.shapes[0].queries
        is_plain = plan.q_order is None and plan.k_order is None
        return plan.shapes[0] if is_plain and _covers([queries], q.shape[2]) else None

    def _units(self, q: Tensor, k: Tensor) -> Iterator[tuple[WholePlan, slice, slice, slice]]:
        """(plan, batch elements, query heads, key heads): as many query heads as key heads.

        Tokens in another order are copied, of so many heads at a time that the copies stay in the cache.
        """
        (batch, heads), kv_heads = q.shape[:2], k.shape[1]
        group, copied = heads // kv_heads, any(p.q_order or p.k_order for p in self.plans)
        is_each = copied or len(self.plan_of) > 1
        most = max(1, CACHED // max(q[0, 0].numel(), k[0, 0].numel())) if copied else kv_heads
        for b in [slice(b, b + 1) for b in range(batch)] if is_each else [slice(0, batch)]:
            row = self.plan_of[b.start if len(self.plan_of) > 1 else 0].tolist()
            for number, mine, theirs in alike(row if len(row) > 1 else row * heads, group):
                step = (mine.stop - mine.start) // (theirs.stop - theirs.start)
                for low, first in itertools.product(
                    range(theirs.start, theirs.stop, most), range(mine.start, mine.start + step)
                ):
                    high, skipped = min(low + most, theirs.stop), (low - theirs.start) * step
                    some = slice(first + skipped, first + skipped + (high - low) * step, step)
                    yield self.plans[number], b, some, slice(low, high)


@dataclass(slots=True, eq=False)
class _Result:
    """Rows [B, H, N, ...] that a unit writes or adds to, shape after shape, in storage order until all are there."""

    given: Tensor
    order: TokenOrder | None
    left: int  # shapes that are still to come
    is_one: bool  # whether the first has every row
    adds: bool
    stored: Tensor | None

    @staticmethod
    def of(
        given: Tensor,
        order: TokenOrder | None,
        places: Sequence[Places],
        adds: bool = False,
        empty: float = 0.0,
    ) -> _Result:
        covers = _covers(places, given.shape[2])
        is_one = covers and len(places) == 1 and order is not None
        stored = None if is_one else given if order is None else torch.empty_like(given)
        if stored is not None and not covers and not (adds and order is None):
            stored.fill_(empty)
        return _Result(given, order, len(places), is_one, adds, stored)

    def take(self, places: Places, value: Tensor) -> None:
        """Takes the rows of the next shape, [B, H, items, n, ...]."""
        value = value if value.dim() == 4 else value[..., : self.given.shape[-1]]
        self.left -= 1
        if self.is_one:
            self.stored = _rows_of(value, places)
        elif self.adds and self.order is None:
            _blocks(self.given, places).add_(value)
        else:
            assert self.stored is not None
            _blocks(self.stored, places).copy_(value)
        if self.order is not None and not self.left:
            assert self.stored is not None
            natural_places, given = self.order.places, self.given
            if not self.adds and given.is_contiguous():
                stored, into = self.stored.flatten(0, 1), given.flatten(0, 1)
                torch.index_select(stored, 1, torch.from_numpy(natural_places), out=into)
                return
            natural = take_rows(self.stored, natural_places)
            given.add_(natural) if self.adds else given.copy_(natural)


# ---------------------------------------------------------------------------- one shape


def _attended(given: Sequence[Tensor], shape: DenseBatch, scale: float) -> tuple[Tensor, Tensor]:
    """(out, lse) of the blocks of one shape, [B, H, items, n, ...], of tensors in storage order."""
    sides = shape.queries, shape.keys, shape.keys
    fold, folded = _Fold.of([_blocks(x, at) for x, at in zip(given, sides, strict=True)])
    out, lse = _flash(*folded, 0.0, shape.is_causal, scale=scale)
    return fold.undone(out), fold.undone(lse)


def _differentiated(
    rows: Sequence[Tensor], columns: Sequence[Tensor], shape: DenseBatch, scale: float
) -> list[Tensor]:
    """(dq, dk, dv) of the blocks of one shape, of (q, out, dout, lse) and (k, v)."""
    given = [_blocks(x, shape.queries) for x in rows] + [_blocks(x, shape.keys) for x in columns]
    fold, (q, out, dout, lse, k, v) = _Fold.of(given)
    grads = _flash_backward(dout, q, k, v, out, lse, 0.0, shape.is_causal, scale=scale)
    return [fold.undone(x) for x in grads]


@dataclass(frozen=True, slots=True)
class _Fold:
    """How [B, H, items] become the two outer dims of the kernels, which write their rows outside of the second."""

    dims: tuple[int, int, int]
    sizes: tuple[int, int, int]  # in that order
    is_one: bool  # whether all three become the first

    @staticmethod
    def of(given: list[Tensor]) -> tuple[_Fold, list[Tensor]]:
        """The first way that needs no copy, and the tensors [., ., n, ...]; one of copies where none does."""
        for dims in ((0, 1, 2), (0, 2, 1)):
            turned = [x.permute(*dims, *range(3, x.dim())) for x in given]
            if all(_merges(x, 0) for x in turned):
                break
        else:
            dims, turned = (0, 1, 2), [x.contiguous() for x in given]
        is_one = dims == (0, 1, 2) and all(_merges(x, 1) for x in turned)
        sizes = turned[0].shape[0], turned[0].shape[1], turned[0].shape[2]
        fold = _Fold(dims, sizes, is_one)
        return fold, [x.flatten(0, 2)[:, None] if is_one else x.flatten(0, 1) for x in turned]

    def undone(self, x: Tensor) -> Tensor:
        """[., ., n, ...] as [B, H, items, n, ...], a view."""
        outer = self.sizes if self.is_one else (*self.sizes[:2], x.shape[1])
        x = x.reshape(*outer, *x.shape[2:])
        back = [self.dims.index(dim) for dim in range(3)]
        return x.permute(*back, *range(3, x.dim()))


def _flat(given: Sequence[Tensor]) -> list[Tensor] | None:
    """Tensors [B, H, ...] as [1, B * H, ...]; None where that is a copy, or nothing else."""
    if len(given[0]) == 1 or not all(_merges(x, 0) for x in given):
        return None
    return [x.flatten(0, 1)[None] for x in given]


def _merges(x: Tensor, dim: int) -> bool:
    """Whether a dim and the next are one in memory."""
    inner = x.shape[dim + 1]
    return x.shape[dim] == 1 or inner == 1 or x.stride(dim) == inner * x.stride(dim + 1)


def _blocks(x: Tensor, places: Places) -> Tensor:
    """A view of x [B, H, N, ...] as [B, H, items, n, ...]."""
    assert isinstance(places, Span), "blocks that are apart are spans"
    batch, head, row, *rest = x.stride()
    return x.as_strided(
        (*x.shape[:2], places.items, places.length, *x.shape[3:]),
        (batch, head, places.step * row, places.stride * row, *rest),
        x.storage_offset() + places.start * row,
    )


def _rows_of(x: Tensor, places: Places) -> Tensor:
    """Blocks [B, H, items, n, ...] that cover all rows, as [B, H, N, ...]."""
    assert isinstance(places, Span)
    return (x if places.stride == 1 else x.transpose(2, 3)).flatten(2, 3)


def _covers(places: Sequence[Places], length: int) -> bool:
    """Whether places that are apart are all rows."""
    return sum(each.items * each.length for each in places) == length


def _stored(x: Tensor, order: TokenOrder | None) -> Tensor:
    return x if order is None else take_rows(x, order.rows)
