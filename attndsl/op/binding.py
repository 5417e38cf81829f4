"""Calls that are bound once: lengths, inputs and positions are decided, tensors may differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, overload

import torch
from torch import Tensor

from attndsl.compiler import Program
from attndsl.op.attention import attention
from attndsl.op.checks import in_the_call
from attndsl.op.contents import stamp_of
from attndsl.op.dispatching import needs_dispatcher
from attndsl.op.pages import BoundTable
from attndsl.op.planning import Planner
from attndsl.op.rows import Tokens, rows_with_tokens
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
    _cut: _Rows | None = field(repr=False)
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
        where = torch.device(device)
        frozen = {name: copied(x) for name, x in sorted(inputs.items())}
        told, rows = frozen_positions(positions, table, lengths, where)
        # tensors that say where tokens stand become inputs of each call, which then has a stamp of its own
        stamp = _stamp(frozen) if not told else None
        cut = _Rows.of(planner, lengths, frozen, told, options)
        options = options | {"positions": told}
        alone = planner.alone()
        return BoundCall(*lengths, where, rows, planner, options, frozen, stamp, cut, alone)

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
            lengths = self.batch, self.heads, self.q_len, self.k_len
            raise unlike(self._planner.program, q, k, lengths, self._rows, self.device)
        if self._cut is not None and not needs_dispatcher(q, k, v):
            out, lse = self._cut.attention(self._planner, q, k, v)
        else:
            given = {"inputs": self._inputs, "stamp": self._stamp, **self._options}
            out, lse = attention(self._planner, q, k, v, **given)
        return (out, lse) if return_lse else out


def frozen_positions(
    positions: Mapping[str, Any],
    table: Any,
    lengths: tuple[int, int, int, int],
    device: torch.device,
) -> tuple[dict[str, Any], int]:
    """Copies of positions on the device, a table of pages among them, and the rows of k that a call then has.

    Raises:
        AttnDslError: A413, a table that cannot be.
    """
    told: dict[str, Any] = {
        name: copied(x).to(device) if isinstance(x, Tensor) else x for name, x in positions.items()
    }
    if table is None:
        return told, lengths[3]
    bound = BoundTable.of(table, lengths[0], lengths[3], told.get(KEYS.length), device)
    told[BLOCK_TABLE] = bound
    return told, lengths[3] // max(1, bound.table.shape[1])


def unlike(
    program: Program,
    q: Tensor,
    k: Tensor,
    lengths: tuple[int, int, int, int],
    rows: int,
    device: torch.device,
) -> AttnDslError:
    """The error of tensors for which a call is not bound; ``lengths``: batch, heads, queries, keys."""
    batch, heads, q_len, k_len = lengths
    bound = f"q: [{batch}, {heads}, {q_len}, D], k: {k_len} keys"
    bound += f" in pages of {rows}" * (rows != k_len)
    given = f"q: {list(q.shape)} on {q.device}, k: {list(k.shape)}"
    notes = (*in_the_call(program), f"bound for {bound}, on {device}", given)
    code = "A503" if q.device.type != device.type else "A502"
    return AttnDslError(Diagnostic(code, "the call is bound for other tensors", notes=notes))


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """The rows that hold tokens, where numbers say so: they are cut off as ``rows_with_tokens`` once found."""

    tokens: Tokens
    of_q: tuple[int, int]  # the first row, and how many
    of_k: tuple[int, int]
    options: Mapping[str, Any]  # of ``attention``

    @staticmethod
    def of(
        planner: Planner,
        lengths: tuple[int, int, int, int],
        inputs: Mapping[str, Tensor],
        told: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> _Rows | None:
        """None where nothing is said of rows, or by tensors, or each row has a scale of its own."""
        scale = options.get("scale")
        if not told or any(type(x) is not int for x in told.values()) or isinstance(scale, Tensor):
            return None
        batch, _, q_len, k_len = lengths
        # rows that are numbered by where they lie in memory
        q, k = (torch.empty(n).as_strided((batch, 1, n, 1), (0, 0, 1, 1)) for n in (q_len, k_len))
        rows = rows_with_tokens(
            planner.program, (q, k, k), None, options.get("extents"), inputs, told
        )
        held = dict(sorted(rows.inputs.items()))
        decided = {"extents": rows.extents, "inputs": held, "stamp": _stamp(held)}
        of_q, of_k = ((int(x.storage_offset()), x.shape[2]) for x in (rows.q, rows.k))
        return _Rows(rows, of_q, of_k, {**options, **decided})

    def attention(self, planner: Planner, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Attention over the rows that hold tokens, and the results for all rows."""
        q, k, v = q.narrow(2, *self.of_q), k.narrow(2, *self.of_k), v.narrow(2, *self.of_k)
        return self.tokens.restored(*attention(planner, q, k, v, **self.options))


def _stamp(inputs: Mapping[str, Tensor]) -> bytes | None:
    """The stamp of inputs that do not change; None without inputs."""
    return stamp_of(tuple(inputs), tuple(inputs.values()))[0] if inputs else None


def copied(value: Any) -> Tensor:
    """A tensor of its own with the same numbers."""
    return torch.as_tensor(value).detach().clone()
