"""Whole blocks, if their tensors are finite: one call of torch's kernel for each shape, without masks or merging."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from attndsl.backends.block_rows import BlockRows, Grid, rows_of
from attndsl.backends.dtypes import lse_dtype
from attndsl.backends.heads import alike
from attndsl.backends.places import IntArray, Places, ShortArray, is_finite, with_width
from attndsl.backends.whole_strips import WholePlan
from attndsl.schedule import TokenOrder

_flash: Final = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_flash_backward: Final = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default
CACHED: Final = 1 << 18  # elements of a copy of rows: more leave the cache, fewer cost calls


@dataclass(frozen=True, slots=True, eq=False)
class DensePart:
    """Blocks of one shape: all pairs of each item, or those with key place <= query place."""

    queries: BlockRows
    keys: BlockRows
    is_causal: bool
    is_copied: bool  # whether their rows are
    is_all: bool  # whether it is one block of all rows on both sides

    @staticmethod
    def of(
        queries: BlockRows, keys: BlockRows, is_causal: bool, lengths: tuple[int, int]
    ) -> DensePart:
        """The blocks of a call with so many queries and keys."""
        is_all = (queries, keys) == (Grid.all(lengths[0]), Grid.all(lengths[1]))
        return DensePart(queries, keys, is_causal, not (queries.is_plain and keys.is_plain), is_all)


@dataclass(frozen=True, slots=True, eq=False)
class DensePlan:
    """The blocks of one distinct (batch, head) class, and whether every query and every key is in one."""

    shapes: tuple[DensePart, ...]
    has_queries: bool
    has_keys: bool

    @staticmethod
    def of(plan: WholePlan, q_len: int, k_len: int) -> DensePlan:
        """The same blocks, in places of the tensors as they are."""
        found, counts = list[DensePart](), [0, 0]
        for shape in plan.shapes:
            queries = _natural(shape.queries, plan.q_order)
            keys = _natural(shape.keys, plan.k_order)
            counts[0] += queries.size
            counts[1] += keys.size
            parts = rows_of(queries, keys)
            found += [DensePart.of(*part, shape.is_causal, (q_len, k_len)) for part in parts]
        return DensePlan(tuple(found), counts[0] == q_len, counts[1] == k_len)

    @property
    def is_copied(self) -> bool:
        """Whether some rows are."""
        return any(shape.is_copied for shape in self.shapes)

    def heads_at_once(self, elements: int) -> int:
        """How many heads a call takes, so that copies stay in the cache; by the elements of a tensor of one head."""
        return max(1, CACHED * len(self.shapes) // max(1, elements))


@dataclass(frozen=True, slots=True, eq=False)
class DenseBlocks:
    """Attention over whole blocks, no key of which is in two of its class."""

    plans: tuple[DensePlan, ...]
    plan_of: ShortArray  # [1 or batch, 1 or heads], index into plans

    @staticmethod
    def of(plans: Sequence[WholePlan], plan_of: ShortArray, q_len: int, k_len: int) -> DenseBlocks:
        """The blocks of these plans."""
        return DenseBlocks(tuple(DensePlan.of(plan, q_len, k_len) for plan in plans), plan_of)

    @property
    def masks(self) -> bool:
        """Whether a kernel reads pairs that are not live."""
        return any(shape.is_causal for plan in self.plans for shape in plan.shapes)

    @property
    def longest(self) -> int:
        """Tokens of the longest side of a block."""
        shapes = [shape for plan in self.plans for shape in plan.shapes]
        return max((max(x.queries.length, x.keys.length) for x in shapes), default=0)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, scale: float
    ) -> tuple[Tensor, Tensor] | None:
        """(out, lse), of q [B, H, Q, D], k [B, Hkv, K, D], v [B, Hkv, K, Dv]; None as of ``Square``."""
        width, widest = v.shape[3], max(1, q.shape[3], v.shape[3])
        q, k, v = with_width(q, widest), with_width(k, widest), with_width(v, widest)
        only = self._only(q, k)
        if only is not None and (only.is_all or (self.plans[0].has_queries and not only.is_copied)):
            made = _attended((q, k, v), only, scale)
            if made is None or only.is_all:
                return made if made is None or width == widest else (made[0][..., :width], made[1])
            return _joined(made[0], only.queries)[..., :width], _joined(made[1], only.queries)
        flat = _flat((q, k, v)) if self.plan_of.size == 1 else None
        if flat is not None:
            made = self.forward(flat[0], flat[1], flat[2], scale)
            if made is None:
                return None
            return made[0].view(*q.shape[:3], -1)[..., :width], made[1].view(q.shape[:3])
        out = q.new_empty((*q.shape[:3], width))
        lse = q.new_empty(q.shape[:3], dtype=lse_dtype(q.dtype))
        if not all(plan.has_queries for plan in self.plans):
            out.zero_()
            lse.fill_(-torch.inf)
        for plan, b, mine, theirs in self._units(q, k):
            given, into, level = (
                (q[b, mine], k[b, theirs], v[b, theirs]),
                out[b, mine],
                lse[b, mine],
            )
            for shape in plan.shapes:
                made = _attended(given, shape, scale)
                if made is None:
                    return None
                shape.queries.write(into, made[0][..., :width])
                shape.queries.write(level, made[1])
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
        only, plan = self._only(q, k), self.plans[0]
        if only is not None and (
            only.is_all or (plan.has_queries and plan.has_keys and not only.is_copied)
        ):
            grads = _differentiated((q, out, dout, lse), (k, v), only, scale)
            if not only.is_all:
                sides = only.queries, only.keys, only.keys
                grads = [_joined(x, rows) for x, rows in zip(grads, sides, strict=True)]
            dq, dk, dv = (x[..., :width] for x, width in zip(grads, widths, strict=True))
            return dq, dk, dv
        flat = _flat((q, k, v, out, lse, dout)) if self.plan_of.size == 1 else None
        if flat is not None:
            found = self.backward(flat[0], flat[1], flat[2], flat[3], flat[4], flat[5], scale)
            shapes = zip(found, (q, k, v), widths, strict=True)
            dq, dk, dv = (x.view(*like.shape[:3], -1)[..., :width] for x, like, width in shapes)
            return dq, dk, dv
        is_shared = q.shape[1] > k.shape[1]
        wide = lse_dtype(q.dtype) if is_shared else q.dtype
        made = [
            x.new_empty((*x.shape[:3], width), dtype=kind)
            for x, width, kind in zip((q, k, v), widths, (q.dtype, wide, wide), strict=True)
        ]
        if not all(plan.has_queries for plan in self.plans):
            made[0].zero_()
        for x in made[1:]:
            if is_shared or not all(plan.has_keys for plan in self.plans):
                x.zero_()
        for plan, b, mine, theirs in self._units(q, k):
            of_queries = q[b, mine], out[b, mine], dout[b, mine], lse[b, mine]
            of_keys, into = (k[b, theirs], v[b, theirs]), [made[0][b, mine]]
            into += [x[b, theirs] for x in made[1:]]
            for shape in plan.shapes:
                gains = _differentiated(of_queries, of_keys, shape, scale)
                gains = [x[..., :width] for x, width in zip(gains, widths, strict=True)]
                shape.queries.write(into[0], gains[0])
                shape.keys.write(into[1], gains[1], adds=is_shared)
                shape.keys.write(into[2], gains[2], adds=is_shared)
        return made[0], made[1].to(k.dtype), made[2].to(v.dtype)

    def _only(self, q: Tensor, k: Tensor) -> DensePart | None:
        """The one shape of all heads."""
        shapes = self.plans[0].shapes
        is_one = self.plan_of.size == 1 and len(shapes) == 1 and q.shape[1] == k.shape[1]
        return shapes[0] if is_one else None

    def _units(self, q: Tensor, k: Tensor) -> Iterator[tuple[DensePlan, slice, slice, slice]]:
        """(plan, batch elements, query heads, key heads): as many query heads as key heads.

        Rows that are copied are those of so many heads at a time that the copies stay in the cache.
        """
        (batch, heads), kv_heads = q.shape[:2], k.shape[1]
        group, is_copied = heads // kv_heads, any(plan.is_copied for plan in self.plans)
        is_each = is_copied or len(self.plan_of) > 1
        elements = max(q[0, 0].numel(), k[0, 0].numel())
        for b in [slice(b, b + 1) for b in range(batch)] if is_each else [slice(0, batch)]:
            row = self.plan_of[b.start if len(self.plan_of) > 1 else 0].tolist()
            for number, mine, theirs in alike(row if len(row) > 1 else row * heads, group):
                plan = self.plans[number]
                most = plan.heads_at_once(elements) if plan.is_copied else kv_heads
                step = (mine.stop - mine.start) // (theirs.stop - theirs.start)
                for low, first in itertools.product(
                    range(theirs.start, theirs.stop, most), range(mine.start, mine.start + step)
                ):
                    high, skipped = min(low + most, theirs.stop), (low - theirs.start) * step
                    some = slice(first + skipped, first + skipped + (high - low) * step, step)
                    yield plan, b, some, slice(low, high)


# ---------------------------------------------------------------------------- one shape


def _attended(
    given: Sequence[Tensor], shape: DensePart, scale: float
) -> tuple[Tensor, Tensor] | None:
    """(out, lse) of the blocks of one shape; None as of ``Square``.

    They are [B, H, N, ...] of a block of all rows, [., 1, n, ...] where rows are copied, else [B, H, items, n, ...].
    """
    q, k, v = given
    fold: _Fold | None = None
    if shape.is_copied:
        q, k, v = shape.queries.read(q), shape.keys.read(k), shape.keys.read(v)
    elif not shape.is_all:
        views = [_view(q, shape.queries), _view(k, shape.keys), _view(v, shape.keys)]
        fold, (q, k, v) = _Fold.of(views)
    if not is_finite(k):
        return None
    out, lse = _flash(q, k, v, 0.0, shape.is_causal, scale=scale)
    if not is_finite(out):
        return None
    return (out, lse) if fold is None else (fold.undone(out), fold.undone(lse))


def _differentiated(
    rows: Sequence[Tensor], columns: Sequence[Tensor], shape: DensePart, scale: float
) -> list[Tensor]:
    """(dq, dk, dv) of the blocks of one shape, likewise, of (q, out, dout, lse) and (k, v)."""
    if shape.is_all:
        (q, out, dout, lse), (k, v) = rows, columns
    elif shape.is_copied:
        q, out, dout, lse = map(shape.queries.read, rows)
        k, v = map(shape.keys.read, columns)
    else:
        given = [_view(x, shape.queries) for x in rows] + [_view(x, shape.keys) for x in columns]
        fold, (q, out, dout, lse, k, v) = _Fold.of(given)
        grads = _flash_backward(dout, q, k, v, out, lse, 0.0, shape.is_causal, scale=scale)
        return [fold.undone(x) for x in grads]
    return [*_flash_backward(dout, q, k, v, out, lse, 0.0, shape.is_causal, scale=scale)]


@dataclass(frozen=True, slots=True)
class _Fold:
    """How [B, H, items] become the two outer dims of the kernels, which write their rows outside of the second."""

    dims: tuple[int, int, int]
    sizes: tuple[int, int, int]  # in that order
    is_one: bool  # whether all three become the first
    is_item: bool = False  # whether there is one item, and the first two stay as they are

    @staticmethod
    def of(given: list[Tensor]) -> tuple[_Fold, list[Tensor]]:
        """The first way that needs no copy, and the tensors [., ., n, ...]; one of copies where none does."""
        if given[0].shape[2] == 1:
            return _ITEM, [x.squeeze(2) for x in given]
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
        if self.is_item:
            return x.unsqueeze(2)
        outer = self.sizes if self.is_one else (*self.sizes[:2], x.shape[1])
        x = x.reshape(*outer, *x.shape[2:])
        back = [self.dims.index(dim) for dim in range(3)]
        return x.permute(*back, *range(3, x.dim()))


_ITEM: Final = _Fold((0, 1, 2), (1, 1, 1), is_one=False, is_item=True)


def _flat(given: Sequence[Tensor]) -> list[Tensor] | None:
    """Tensors [B, H, ...] as [1, B * H, ...]; None where that is a copy, or nothing else."""
    if len(given[0]) == 1 or not all(_merges(x, 0) for x in given):
        return None
    return [x.flatten(0, 1)[None] for x in given]


def _merges(x: Tensor, dim: int) -> bool:
    """Whether a dim and the next are one in memory."""
    inner = x.shape[dim + 1]
    return x.shape[dim] == 1 or inner == 1 or x.stride(dim) == inner * x.stride(dim + 1)


def _view(x: Tensor, rows: BlockRows) -> Tensor:
    """Rows of x [B, H, N, ...] that have one digit of items and one of places, [B, H, items, n, ...]."""
    assert isinstance(rows, Grid), "lists are copied"
    return rows.view(x)


def _joined(x: Tensor, rows: BlockRows) -> Tensor:
    """Blocks [B, H, items, n, ...] that cover all rows, as [B, H, N, ...]."""
    assert isinstance(rows, Grid), "lists are copied"
    return (x if rows.strides[1] == 1 else x.transpose(2, 3)).flatten(2, 3)


def _natural(places: Places, order: TokenOrder | None) -> IntArray:
    """Rows of the tensors as they are, [items, n]."""
    rows = places.rows().reshape(places.items, places.length)
    return rows if order is None else order.rows[rows]
