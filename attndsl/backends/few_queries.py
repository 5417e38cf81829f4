"""Attention of a few queries on the CPU, as in decoding: each head reads the keys that its queries see, no tiles."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from attndsl.backends.dtypes import EIGHT_BITS, lse_dtype, out_dtype
from attndsl.backends.heads import alike
from attndsl.backends.pages import PagedRows, Pages
from attndsl.backends.places import with_width
from attndsl.schedule import Keys, KeySets, key_positions, key_union

Rows: TypeAlias = Tensor | PagedRows

MOST_QUERIES = 16  # of a call; more share tiles

# The binding of the operator that `torch.ops` has, too, where each call takes 3 us longer.
_flash = torch._scaled_dot_product_flash_attention_for_cpu


@dataclass(frozen=True, slots=True, eq=False)
class FewQueriesKernels:
    """The forward over the key sets of a call; ``classes`` have a row for each of ``sets.classes``."""

    sets: KeySets
    classes: tuple[_Class, ...]

    @staticmethod
    def of(sets: KeySets) -> FewQueriesKernels:
        """Prepares the keys of each class."""
        return FewQueriesKernels(sets, tuple([_Class.of(rows) for rows in sets.classes]))

    @property
    def nbytes(self) -> int:
        """Bytes of the key sets."""
        return self.sets.nbytes

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, pages: Pages | None = None
    ) -> tuple[Tensor, Tensor]:
        """(out [B, H, Q, Dv], lse [B, H, Q])."""
        keys, values = (k, v) if pages is None else pages.sides
        if len(self.classes) == 1:
            return self.classes[0].attend(q, keys, values, scale)
        if self.sets.class_of.shape[1] == 1:
            return self._by_batch(q, keys, values, scale)
        out = q.new_empty((*q.shape[:3], v.shape[3]), dtype=out_dtype(q.dtype))
        lse = q.new_empty(q.shape[:3], dtype=lse_dtype(q.dtype))
        for number, b, mine, theirs in self._groups(q.shape[0], q.shape[1], k.shape[1]):
            given = q[b, mine], keys[b, theirs], values[b, theirs]
            out[b, mine], lse[b, mine] = self.classes[number].attend(*given, scale)
        return out, lse

    def _by_batch(self, q: Tensor, k: Rows, v: Rows, scale: float) -> tuple[Tensor, Tensor]:
        """The same, of classes that all heads share; batch elements side by side go together."""
        runs = [
            (n, len(list(run))) for n, run in itertools.groupby(self.sets.class_of[:, 0].tolist())
        ]
        counts = [count for _, count in runs]
        parts = (x.split(counts) for x in (q, k, v))
        made = [
            self.classes[number].attend(*given, scale)
            for (number, _), *given in zip(runs, *parts, strict=True)
        ]
        outs, lses = zip(*made, strict=True)
        return torch.cat(outs), torch.cat(lses)

    def _groups(
        self, batch: int, heads: int, kv_heads: int
    ) -> Iterator[tuple[int, slice, slice, slice]]:
        """(class, batch elements, query heads, key heads) of calls that are made at once."""
        class_of, group = self.sets.class_of, heads // max(1, kv_heads)
        one_batch = len(class_of) == 1
        for b in (slice(None),) if one_batch else (slice(b, b + 1) for b in range(batch)):
            row = class_of[0 if one_batch else b.start].tolist()
            row = row if len(row) > 1 else row * heads
            for number, mine, theirs in alike(row, group):
                yield number, b, mine, theirs


@dataclass(frozen=True, slots=True, eq=False)
class _Class:
    """The keys that some query of one class sees; ``seen`` tells which each one does, bool [Q, keys], None for all."""

    keys: Keys
    seen: Tensor | None
    rows: tuple[Keys, ...]

    @staticmethod
    def of(rows: tuple[Keys, ...]) -> _Class:
        if len(rows) == 1:
            return _Class(rows[0], None, rows)
        keys = key_union(rows)
        if all(
            row is rows[0] or (type(row) is type(rows[0]) is tuple and row == rows[0])
            for row in rows
        ):
            return _Class(keys, None, rows)
        places = key_positions(keys)
        seen = np.stack([np.isin(places, key_positions(row)) for row in rows])
        return _Class(keys, None if seen.all() else torch.from_numpy(seen), rows)

    def attend(self, q: Tensor, k: Rows, v: Rows, scale: float) -> tuple[Tensor, Tensor]:
        """(out, lse) of queries [B, H, Q, D] over these keys."""
        if self.seen is None:
            return attend_keys(self.keys, q, k, v, scale)
        out, lse = _attend(q, *_taken(self.keys, k, v), self.seen, scale)
        dead = ~self.seen.any(1)
        out = out.masked_fill(dead[:, None], 0.0)
        if out.isfinite().all():
            return out, lse.masked_fill(dead, -math.inf)
        # what is not finite must not reach a query that does not see it: each one alone
        each = [
            attend_keys(keys, q[:, :, [row]], k, v, scale) for row, keys in enumerate(self.rows)
        ]
        outs, lses = zip(*each, strict=True)
        return torch.cat(outs, 2), torch.cat(lses, 2)


def attend_keys(keys: Keys, q: Tensor, k: Rows, v: Rows, scale: float) -> tuple[Tensor, Tensor]:
    """(out, lse) of queries [B, H, Q, D] that all see these keys."""
    return _attend(q, *_taken(keys, k, v), None, scale)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """(out, lse) over these keys; heads that share keys are more queries of one head."""
    if q.dtype in EIGHT_BITS:
        out, lse = _attend(q.float(), k.float(), v.float(), seen, scale)
        return out.to(out_dtype(q.dtype)), lse
    batch, heads, count, head_dim = q.shape
    _, kv_heads, keys, width = v.shape
    if not (batch * heads * count and keys):
        lse = q.new_full(q.shape[:3], -math.inf, dtype=lse_dtype(q.dtype))
        return q.new_zeros((*q.shape[:3], width)), lse
    group, bias, widest = heads // kv_heads, None, max(1, head_dim, width)
    if seen is not None:
        bias = torch.zeros(seen.shape, dtype=q.dtype).masked_fill_(~seen, -math.inf)
        bias = bias.repeat(group, 1)[None, None]
    folded = q if group == 1 else q.reshape(batch, kv_heads, group * count, head_dim)
    if not head_dim == width == widest or not q.stride(-1) == k.stride(-1) == v.stride(-1) == 1:
        folded, k, v = with_width(folded, widest), with_width(k, widest), with_width(v, widest)
    out, lse = _flash(folded, k, v, attn_mask=bias, scale=scale)
    if width < widest:
        out = out[..., :width]
    if group > 1:
        out, lse = out.reshape(batch, heads, count, width), lse.reshape(batch, heads, count)
    return out, lse


def _taken(keys: Keys, k: Rows, v: Rows) -> tuple[Tensor, Tensor]:
    """The rows of k and v [B, H, K, D] of these keys; views where they are one run of tensors."""
    if isinstance(k, PagedRows):
        assert isinstance(v, PagedRows), "values lie beside keys"
        return k.read(keys), v.read(keys)
    assert isinstance(v, Tensor), "values lie beside keys"
    if not isinstance(keys, tuple):
        rows = torch.from_numpy(keys)
        return k.index_select(2, rows), v.index_select(2, rows)
    if len(keys) == 1 and keys[0][1] - keys[0][0] == k.shape[2]:
        return k, v
    some_k, some_v = [], []
    for start, stop in keys or ((0, 0),):
        some_k.append(k.narrow(2, start, stop - start))
        some_v.append(v.narrow(2, start, stop - start))
    if len(some_k) == 1:
        return some_k[0], some_v[0]
    return torch.cat(some_k, 2), torch.cat(some_v, 2)
