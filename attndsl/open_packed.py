"""Packed sequences whose bounds are not looked at: one sequence, with what each row is in its own as inputs.

    k <= q      -->   sequence of q[q] == sequence of k[k] and place of k[k] <= place of q[q]
    len(k)      -->   keys of q[q]

The inputs follow from the bounds, where they lie.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends import Executable, Request
from attndsl.compiler import Program
from attndsl.open_lowering import OpenExecutable, lower_open
from attndsl.passes import lower_root
from attndsl.positions import BOUNDS, hidden

_UNSOUND: Final = (
    "attndsl: bounds of packed sequences descend, or do not go from 0 to the number of tokens"
)
_OF_Q: Final = tuple(
    ir.Table(f"<{name} of q>", ir.Sort.INT, ("q",))
    for name in ("sequence", "place", "queries", "keys")
)
_OF_K: Final = tuple(
    ir.Table(f"<{name} of k>", ir.Sort.INT, ("k",)) for name in ("sequence", "place")
)


@dataclass(frozen=True, slots=True, eq=False)
class OpenPacked:
    """A call on packed sequences of which everything is decided but where each begins."""

    alone: OpenExecutable  # of one sequence
    counts: tuple[int, int]  # rows of q and of k
    is_at_end: bool  # whether it matters where queries stand, and the last of a sequence is at its last key

    @property
    def nbytes(self) -> int:
        """Bytes of what is prepared."""
        return self.alone.nbytes

    def executable(self, given: Mapping[str, Tensor]) -> Executable:
        """Binds bounds, which are checked on the device: those that make no sense stop it, by an assertion there."""
        bounds = [given[hidden(name)].detach().to(torch.int64).contiguous() for name in BOUNDS]
        sound = [
            (x[0] == 0) & (x[-1] == count) & (x.diff() >= 0).all()
            for x, count in zip(bounds, self.counts, strict=True)
        ]
        torch._assert_async(sound[0] & sound[1], _UNSOUND)
        (of_q, place), (of_k, key_place) = map(_placed, bounds, self.counts)
        queries, keys = (x.diff()[of_q] for x in bounds)
        place = place + keys - queries if self.is_at_end else place
        found = zip((*_OF_Q, *_OF_K), (of_q, place, queries, keys, of_k, key_place), strict=True)
        return self.alone.executable({table.name: x for table, x in found})


def lower_packed(
    program: Program,
    request: Request,
    shapes: Mapping[str, tuple[int, ...]],
    backend: str,
    layout: str | None,
) -> OpenPacked:
    """How a call is run whose sequences lie between bounds of these shapes; inputs beside them are read on the host.

    Raises:
        NotOpen: it is not; `lower` serves it, once its bounds are read.
        AttnDslError: as `lower_open`.
    """
    of_q, of_k = (shapes[hidden(name)] for name in BOUNDS)
    if len(shapes) > len(BOUNDS) or of_q != of_k or of_q[0] < 2:
        raise ir.NotOpen("inputs of packed sequences are read on the host")
    made, counts = _as_one(program), (request.q_len, request.k_len)
    kind = np.dtype(np.int32)  # numbers of rows
    sizes = [counts[0]] * len(_OF_Q) + [counts[1]] * len(_OF_K)
    names = [table.name for table in (*_OF_Q, *_OF_K)]
    like = {
        n: np.broadcast_to(np.zeros((), kind), (size,))
        for n, size in zip(names, sizes, strict=True)
    }
    call = made.call(*counts, request.batch, request.heads, None, like, is_open=True)
    alone = lower_open(made, call, dict.fromkeys(names, kind), request, backend, layout)
    is_at_end = program.mask.is_placed and program.mask.align is ir.Align.END
    return OpenPacked(alone, counts, is_at_end)


@functools.lru_cache(16)
def _as_one(program: Program) -> Program:
    """The program of all sequences as one, which reads what each row is in its own."""
    mask = program.mask
    if mask.tables or mask.conditions or mask.keys.segments or mask.queries.segments:
        raise ir.NotOpen("inputs, axes and a `where` of packed sequences are read on the host")
    row = {side: ir.Pos(side) for side in ir.Side}
    number, place, queries, keys = (_read(table, row[ir.Side.QUERY]) for table in _OF_Q)
    key_number, key_place = (_read(table, row[ir.Side.KEY]) for table in _OF_K)

    def rule(node: ir.Node) -> ir.Node:
        match node:
            case ir.Pos(side=side):
                return place if side is ir.Side.QUERY else key_place
            case ir.Size(name="q"):
                return queries
            case ir.Size(name="k"):
                return keys
            case ir.Size() | ir.Var(name="batch"):
                raise ir.NotOpen("the number of a sequence is read on the host")
            case _:
                return node

    root, zeros = (ir.transform(lower_root(x, mask), rule) for x in (mask.root, mask.zeros))
    if (
        mask.is_placed and mask.align is ir.Align.END
    ):  # more queries than keys: the first are no tokens
        present = ir.ge(place, ir.ZERO)
        root, zeros = ir.conj(present, root), ir.select(present, zeros, ir.ZERO)
    one = replace(mask, align=ir.Align.START, tables=(*_OF_Q, *_OF_K), zeros=zeros)
    one = one.with_root(ir.conj(ir.eq(number, key_number), root))
    return Program(one, program.layer, program.without)


def _read(table: ir.Table, row: ir.Node) -> ir.Node:
    return ir.Load(table.name, ir.Sort.INT, (row,), table.ambient)


def _placed(bounds: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(the sequence of each row, its place there), int64 [rows]."""
    rows = torch.arange(count, device=bounds.device)
    found = torch.searchsorted(bounds, rows, right=True) - 1
    found = found.clamp(0, len(bounds) - 2)
    return found, rows - bounds[found]
