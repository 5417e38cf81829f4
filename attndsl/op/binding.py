"""Calls that are bound once: lengths, inputs and positions are decided, tensors may differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, overload

import torch
from torch import Tensor

from attndsl.op.attention import attention
from attndsl.op.checks import in_the_call
from attndsl.op.contents import stamp_of
from attndsl.op.pages import BoundTable
from attndsl.op.planning import Planner
from attndsl.positions import BLOCK_TABLE, KEYS
from attndsl.source import AttnDslError, Diagnostic


@dataclass(frozen=True, slots=True, eq=False)
class BoundCall:
    """Attention at lengths, inputs and positions that are decided, called with q, k and v.

    Inputs and positions are copies: writing to the tensors that were given changes nothing. Schedules and launches are
    made at the first call with a dtype, a head dim and a number of key heads, held as long as this object lives, and
    never looked at again. Layers of a model may share one.

    Attributes:
        batch: Batch elements of the tensors.
        heads: Heads of q.
        q_len: Queries.
        k_len: Keys.
        device: Where the tensors are.
    """

    batch: int
    heads: int
    q_len: int
    k_len: int
    device: torch.device
    _rows: int = field(repr=False)  # of k: of a page, where keys lie in pages
    _pattern: Planner = field(repr=False)  # stays alive for graphs that name it
    _options: Mapping[str, Any] = field(repr=False)
    _inputs: Mapping[str, Tensor] = field(repr=False)
    _stamp: bytes | None = field(repr=False)
    _planner: Planner = field(repr=False)

    @staticmethod
    def of(
        planner: Planner,
        lengths: tuple[int, int, int, int],
        device: torch.device | str,
        inputs: Mapping[str, Any],
        positions: Mapping[str, Any],
        table: Any = None,
        **options: Any,
    ) -> BoundCall:
        """``lengths``: batch, heads, queries, keys. ``options`` are those of ``attention``, ``table`` that of pages.

        Raises:
            AttnDslError: A413, a table that cannot be.
        """
        where, rows = torch.device(device), lengths[3]
        frozen = {name: _copied(x) for name, x in sorted(inputs.items())}
        told: dict[str, Any] = {
            name: _copied(x).to(where) if isinstance(x, Tensor) else x
            for name, x in positions.items()
        }
        if table is not None:
            length = told.get(KEYS.length)
            bound = BoundTable.of(table, lengths[0], lengths[3], length, where)
            told[BLOCK_TABLE] = bound
            rows //= max(1, bound.table.shape[1])
        # positions become inputs of each call, which then has a stamp of its own
        decided = bool(frozen) and not told
        stamp = stamp_of(tuple(frozen), tuple(frozen.values()))[0] if decided else None
        options = options | {"positions": told}
        return BoundCall(*lengths, where, rows, planner, options, frozen, stamp, planner.alone())

    @overload
    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, return_lse: Literal[False] = False
    ) -> Tensor: ...
    @overload
    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, return_lse: Literal[True]
    ) -> tuple[Tensor, Tensor]: ...
    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, return_lse: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attention of q [B, H, Q, D] over k [B, Hkv, K, D] and v [B, Hkv, K, Dv]; differentiable.

        Raises:
            AttnDslError: A502 tensors of other lengths than it is bound for, A503 on another device; else as a call
                of the pattern.
        """
        if (
            q.shape[:3] != (self.batch, self.heads, self.q_len)
            or k.shape[2:3] != (self._rows,)
            or q.device.type != self.device.type
        ):
            raise self._other(q, k)
        out, lse = attention(
            *(self._planner, q, k, v), inputs=self._inputs, stamp=self._stamp, **self._options
        )
        return (out, lse) if return_lse else out

    def _other(self, q: Tensor, k: Tensor) -> AttnDslError:
        bound = f"q: [{self.batch}, {self.heads}, {self.q_len}, D], k: {self.k_len} keys"
        bound += f" in pages of {self._rows}" * (self._rows != self.k_len)
        given = f"q: {list(q.shape)} on {q.device}, k: {list(k.shape)}"
        notes = (*in_the_call(self._planner.program), f"bound for {bound}, on {self.device}", given)
        code = "A503" if q.device.type != self.device.type else "A502"
        return AttnDslError(Diagnostic(code, "the call is bound for other tensors", notes=notes))


def _copied(value: Any) -> Tensor:
    return torch.as_tensor(value).detach().clone()
