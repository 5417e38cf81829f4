"""Packed sequences: groups of them are read into calls, and what comes back is put where it belongs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from attndsl.backends.composed import Composed
from attndsl.backends.dtypes import lse_dtype, out_dtype
from attndsl.backends.executable import Executable
from attndsl.backends.pages import Pages
from attndsl.backends.places import IntArray
from attndsl.backends.undifferentiated import undifferentiated


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of a packed tensor [1, heads, tokens, ...] that are those of a call [sequences, heads, rows, ...].

    Neighbours are a view. Padding reads row 0.
    """

    shape: tuple[int, int]  # sequences, rows of each
    first: int  # of neighbours
    index: Tensor | None  # of others, [sequences * rows]
    held: Tensor | None  # the rows that are no padding; None for all

    @staticmethod
    def of(rows: IntArray, device: torch.device) -> Rows:
        """From the row of each row of the call, -1 for padding, [sequences, rows]."""
        flat, shape = rows.reshape(-1), (rows.shape[0], rows.shape[1])
        first = int(flat[0]) if len(flat) else 0
        if np.array_equal(flat, np.arange(first, first + len(flat))):
            return Rows(shape, first, None, None)
        is_held = flat >= 0
        held = None if is_held.all() else torch.from_numpy(np.flatnonzero(is_held)).to(device)
        return Rows(shape, 0, torch.from_numpy(np.maximum(flat, 0)).to(device), held)

    def read(self, x: Tensor) -> Tensor:
        """The rows of the call."""
        by_token = x[0].transpose(0, 1)
        if self.index is None:
            taken = by_token.narrow(0, self.first, math.prod(self.shape))
        else:
            taken = by_token.index_select(0, self.index)
        return taken.reshape(*self.shape, *taken.shape[1:]).transpose(1, 2)

    def by_token(self, x: Tensor) -> Tensor:
        """Rows of the call without padding, [tokens of it, heads, ...]."""
        flat = x.transpose(1, 2).flatten(0, 1)
        return flat if self.held is None else flat.index_select(0, self.held)


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """The rows of q, or of k and v, of each group; each row is in one."""

    rows: tuple[Rows, ...]
    back: Tensor | None  # where each row is found, group after group; None: they are in order

    @staticmethod
    def of(groups: Sequence[IntArray], device: torch.device) -> Side:
        """From the rows of each group, as ``Rows.of`` takes them."""
        flat = [rows[rows >= 0] for rows in groups]
        places = np.concatenate([np.zeros(0, np.int64), *flat])
        in_order = bool((places[1:] > places[:-1]).all())
        back = None if in_order else torch.from_numpy(np.argsort(places)).to(device)
        return Side(tuple(Rows.of(rows, device) for rows in groups), back)

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers of rows."""
        held = [x for rows in self.rows for x in (rows.index, rows.held)]
        return sum(x.nbytes for x in (*held, self.back) if x is not None)

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """Results of all groups as a packed tensor [1, heads, tokens, ...]."""
        found = [rows.by_token(part) for rows, part in zip(self.rows, parts, strict=True)]
        whole = found[0] if len(found) == 1 else torch.cat(found)
        whole = whole if self.back is None else whole.index_select(0, self.back)
        return whole.transpose(0, 1)[None]


@dataclass(frozen=True, slots=True, eq=False)
class PackedKernels:
    """The passes over packed sequences, a call for each group of them."""

    queries: Side
    keys: Side
    calls: tuple[Executable, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the calls."""
        return self.queries.nbytes + self.keys.nbytes + sum(call.nbytes for call in self.calls)

    @undifferentiated
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, pages: Pages | None = None
    ) -> tuple[Tensor, Tensor]:
        """(out [1, H, tokens, Dv], lse [1, H, tokens])."""
        assert pages is None, "tables of pages are refused where sequences are packed"
        made = [
            call.forward(rows.read(q), columns.read(k), columns.read(v), scale=scale)
            for call, rows, columns in zip(
                self.calls, self.queries.rows, self.keys.rows, strict=True
            )
        ]
        if not made:
            dtypes, shape = (out_dtype(q.dtype), lse_dtype(q.dtype)), q.shape[:3]
            return q.new_zeros((*shape, v.shape[3]), dtype=dtypes[0]), q.new_zeros(
                shape, dtype=dtypes[1]
            )
        outs, lses = zip(*made, strict=True)
        return self.queries.joined(outs), self.queries.joined(lses)

    @undifferentiated
    def backward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        out: Tensor,
        lse: Tensor,
        dout: Tensor,
        dlse: Tensor | None,
        *,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(dq, dk, dv)."""
        made = []
        for call, rows, columns in zip(self.calls, self.queries.rows, self.keys.rows, strict=True):
            given = rows.read(q), columns.read(k), columns.read(v)
            results = rows.read(out), rows.read(lse), rows.read(dout)
            own = None if dlse is None else rows.read(dlse)
            made.append(call.backward(*given, *results, own, scale=scale))
        if not made:
            return torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
        dq, dk, dv = zip(*made, strict=True)
        return self.queries.joined(dq), self.keys.joined(dk), self.keys.joined(dv)


_Pass: TypeAlias = Callable[..., tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True, eq=False)
class PackedComposed:
    """Same as ``Composed``, of packed sequences: differentiable to any order."""

    queries: Side
    keys: Side
    calls: tuple[Composed, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the calls."""
        return self.queries.nbytes + self.keys.nbytes + sum(call.nbytes for call in self.calls)

    def around(self, level: Tensor, scale: float) -> PackedComposed:
        """The same around the log-sum-exp of a forward [1, H, tokens]; padding sees nothing."""
        made = []
        for call, rows in zip(self.calls, self.queries.rows, strict=True):
            own = rows.read(level)
            if rows.held is not None:
                is_held = torch.zeros(math.prod(rows.shape), dtype=torch.bool, device=level.device)
                is_held[rows.held] = True
                own = own.masked_fill(~is_held.reshape(rows.shape)[:, None], -math.inf)
            made.append(call.around(own, scale))
        return PackedComposed(self.queries, self.keys, tuple(made))

    def outputs(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """(out [1, H, tokens, Dv], lse [1, H, tokens])."""
        return self._joined([call.outputs for call in self.calls], (q, k, v))

    def tangents(
        self, q: Tensor, k: Tensor, v: Tensor, dq: Tensor, dk: Tensor, dv: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The derivatives of ``outputs`` along (dq, dk, dv)."""
        return self._joined([call.tangents for call in self.calls], (q, k, v, dq, dk, dv))

    def _joined(self, passes: Sequence[_Pass], xs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        made = []
        for run, rows, columns in zip(passes, self.queries.rows, self.keys.rows, strict=True):
            of_queries = (0, 3)
            own = [(rows if i in of_queries else columns).read(x) for i, x in enumerate(xs)]
            made.append(run(*own))
        if not made:
            q, v = xs[0], xs[2]
            return q.new_zeros((*q.shape[:3], v.shape[3])), q.new_zeros(q.shape[:3])
        outs, lses = zip(*made, strict=True)
        return self.queries.joined(outs), self.queries.joined(lses)
