"""The scores of an attention as a back end is given them, and the kernels that it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from attndsl import ir


@dataclass(frozen=True, slots=True)
class BoundScore:
    """The scores of a call, and the weights that they become.

    ``score`` is a real expression over positions, batch, head, tables and `Score`, the scaled product of query and
    key; lengths, coordinates and numbers of heads are constants in it. Query row i stands at position i + ``first``,
    key row j at position j. With ``weight``, an expression in which `Score` is the value of ``score``, it is the
    weight of a pair; without, weights are the softmax of the scores.

    ``tables`` are the int and bool tables that either reads, as arrays [batch or 1][heads or 1][...] of the dims that
    ``declared`` says. ``reals`` declares the real ones, in the order in which kernels take their tensors.
    """

    score: ir.Node
    weight: ir.Node | None = None
    first: int = 0
    reals: tuple[ir.Table, ...] = ()
    declared: tuple[ir.Table, ...] = ()
    tables: Mapping[str, Any] = field(default_factory=dict, compare=False)


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
        """Computes out [B, H, Q, Dv] and lse [B, H, Q].

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
