"""Calls of attentions that are bound once: lengths, int inputs and positions; real inputs may be trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, overload

import torch
from torch import Tensor

from attndsl.op.binding import copied, frozen_positions, unlike
from attndsl.op.scored_part import ScoredCall
from attndsl.op.scores import TermProgram, attend
from attndsl.source import AttnDslError, Diagnostic


@dataclass(frozen=True, slots=True, eq=False)
class BoundAttention:
    """An attention at lengths, inputs and positions that are decided, called with q, k and v.

    Int and bool inputs and positions are copies: writing to the tensors that were given changes nothing. Real inputs
    are held as they are given, so that gradients reach them, or come with each call, as keys from elsewhere do.

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
    _terms: tuple[TermProgram, ...] = field(repr=False)
    _call: ScoredCall = field(repr=False)
    _reals: frozenset[str] = field(repr=False)
    _keys: frozenset[str] = field(repr=False)

    @staticmethod
    def of(
        terms: Sequence[TermProgram],
        lengths: tuple[int, int, int, int],
        device: torch.device | str,
        call: ScoredCall,
        table: Any = None,
    ) -> BoundAttention:
        """``lengths``: batch, heads, queries, keys; ``table``: that of pages.

        Raises:
            AttnDslError: A413, a table that cannot be.
        """
        where = torch.device(device)
        parts = [part for term in terms for part in term.parts]
        reals = frozenset(each.name for part in parts for each in part.reals)
        told, rows = frozen_positions(call.positions or {}, table, lengths, where)
        held = {name: x if name in reals else copied(x) for name, x in (call.inputs or {}).items()}
        alone = tuple(term.alone() for term in terms)
        made = replace(call, inputs=held, positions=told or None)
        keys = frozenset(part.part.keys for part in parts if part.part.keys)
        return BoundAttention(*lengths, where, rows, alone, made, reals, keys)

    @overload
    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, return_lse: Literal[False] = False, **named: Any
    ) -> Tensor: ...
    @overload
    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, return_lse: Literal[True], **named: Any
    ) -> tuple[Tensor, Tensor]: ...
    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, *, return_lse: bool = False, **named: Any
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attention of q [B, H, Q, D] over k [B, Hkv, K, D] and v [B, Hkv, K, Dv]; differentiable.

        Args:
            q: Queries.
            k: Keys.
            v: Values.
            return_lse: As of a call of the attention.
            **named: Real inputs, in the place of those that were bound; keys and values from elsewhere,
                ``memory=(k, v)``.

        Raises:
            AttnDslError: A502 tensors of other lengths than it is bound for, A503 on another device; A501 an argument
                that is neither a real input nor keys; else as a call of the attention.
        """
        if (
            q.shape[:3] != (self.batch, self.heads, self.q_len)
            or k.shape[2:3] != (self._rows,)
            or q.device.type != self.device.type
        ):
            program = self._terms[0].parts[0].program
            lengths = self.batch, self.heads, self.q_len, self.k_len
            raise unlike(program, q, k, lengths, self._rows, self.device)
        out, lse = attend(self._terms, q, k, v, self._with(named), with_lse=return_lse)
        return (out, lse) if return_lse else out

    def _with(self, named: Mapping[str, Any]) -> ScoredCall:
        others = named.keys() - self._reals - self._keys
        if others:
            title = f"{min(others)!r} is no real input of the attention and names no keys"
            raise AttnDslError(Diagnostic("A501", title))
        reals = {name: x for name, x in named.items() if name in self._reals}
        keys = {name: x for name, x in named.items() if name in self._keys}
        held = {**(self._call.inputs or {}), **reals}
        missing = self._reals - held.keys()
        if missing:
            title = f"the input {min(missing)!r} is neither bound nor given"
            raise AttnDslError(Diagnostic("A501", title))
        return replace(self._call, inputs=held, keys=keys)
