"""The scores of an attention as a back end is given them, and the kernels that it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends.dtypes import lse_dtype
from attndsl.backends.merging import merged
from attndsl.backends.protocol import Request
from attndsl.schedule import TiledMask, Whole


@dataclass(frozen=True, slots=True)
class BoundScore:
    """The scores of a call, and the weights that they become.

    ``score`` is a real expression over positions, batch, head, tables and `Score`, the scaled product of query and
    key; lengths, coordinates and numbers of heads are constants in it. Query row i stands at position i + ``first``,
    key row j at position j. With ``weight``, an expression in which `Score` is the value of ``score``, it is the
    weight of a pair; without, weights are the softmax of the scores, or with ``breaks`` by stick-breaking. A softmax
    may have a ``factor`` of its weights, in which no gradient and no score is.

    ``tables`` are the int and bool tables that either reads, as arrays [batch or 1][heads or 1][...] of the dims that
    ``declared`` says. ``reals`` declares the real ones, in the order in which kernels take their tensors.
    """

    score: ir.Node
    weight: ir.Node | None = None
    first: int = 0
    reals: tuple[ir.Table, ...] = ()
    declared: tuple[ir.Table, ...] = ()
    tables: Mapping[str, Any] = field(default_factory=dict, compare=False)
    breaks: bool = False
    factor: ir.Node | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the weights are those of a pattern."""
        is_changed = self.weight is not None or self.factor is not None or self.breaks
        return self.score is ir.reals.SCORE and not is_changed


class ScoredKernels(Protocol):
    """Attention over the pairs of a mask with scores of its own; gradients are deterministic, without atomics.

    ``tables`` are the real inputs, in the order of ``BoundScore.reals``: float32, or float64 where q is, with an entry
    for each batch element and each query head where those dims are declared.
    """

    @property
    def nbytes(self) -> int:
        """Bytes of what it holds."""
        ...

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, tables: Sequence[Tensor], *, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Computes out [B, H, Q, Dv], in the dtype of q or that of lse, and lse [B, H, Q].

        Weights without a normaliser are summed with the values as they are; lse is then -inf for queries without
        keys, 0 for all others. Queries without a key have out 0 and lse -inf.
        """
        ...

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
        """(dq, dk, dv, those of the tables), from what ``forward`` returned and the gradients that reached it."""
        ...


@runtime_checkable
class TakesScores(Protocol):
    """A back end that runs attention with scores of its own."""

    def lower_scored(self, part: TiledMask, score: BoundScore, request: Request) -> ScoredKernels:
        """Its passes over a mask that is scheduled in the tiles it named."""


@runtime_checkable
class TakesWholeScores(Protocol):
    """A back end that computes whole blocks with scores of their own, without tiles."""

    def lower_scored_whole(
        self, whole: Whole, score: BoundScore, request: Request
    ) -> ScoredKernels | None:
        """Its passes over the blocks; None where tiles are less work."""


@runtime_checkable
class BreaksSticks(Protocol):
    """A back end that runs attention by stick-breaking."""

    def lower_stick(self, part: TiledMask, score: BoundScore, request: Request) -> ScoredKernels:
        """Its passes over a mask in natural order, scheduled in the tiles it named."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoredExecutable:
    """Kernels of one part of an attention, over disjoint sets of pairs that together are those of its pattern.

    Parts of a softmax are merged by log-sum-exp, weights without a normaliser are added. The order is fixed, so equal
    inputs give equal bits.
    """

    parts: tuple[ScoredKernels, ...]
    adds: bool  # whether the weights have no normaliser

    @property
    def nbytes(self) -> int:
        """Bytes of what it holds."""
        return sum(part.nbytes for part in self.parts)

    @torch.no_grad()
    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, tables: Sequence[Tensor], *, scale: float
    ) -> tuple[Tensor, Tensor]:
        """Computes out and lse as ``ScoredKernels.forward``, over the union of the parts."""
        first, *rest = self.parts
        out, lse = first.forward(q, k, v, tables, scale=scale)
        for part in rest:
            more, more_lse = part.forward(q, k, v, tables, scale=scale)
            out, more = out.to(lse.dtype), more.to(lse.dtype)
            if self.adds:
                out, lse = out + more, torch.maximum(lse, more_lse)
            else:
                out, lse = merged(out, lse, more, more_lse)
        return out, lse

    @torch.no_grad()
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
        """Computes gradients as ``ScoredKernels.backward``: each part is handed the output and lse of all."""
        first, *rest = self.parts
        given = q, k, v, tables, out, lse, dout, dlse
        dq, dk, dv, dtables = first.backward(*given, scale=scale)
        if not rest:
            return dq, dk, dv, dtables
        sums = [grad.to(lse_dtype(grad.dtype)) for grad in (dq, dk, dv, *dtables)]
        for part in rest:
            *shares, of_tables = part.backward(*given, scale=scale)
            sums = [a + b for a, b in zip(sums, (*shares, *of_tables), strict=True)]
        made = [total.to(x.dtype) for total, x in zip(sums, (q, k, v, *tables), strict=True)]
        return made[0], made[1], made[2], made[3:]
