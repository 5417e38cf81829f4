"""Packed sequences whose bounds are not looked at: one sequence, with what each row is in its own as inputs.

    k <= q      -->   sequence of q[q] == sequence of k[k] and place of k[k] <= place of q[q]
    len(k)      -->   keys of q[q]
    doc[k]      -->   doc of k[k]

The inputs follow from the bounds, and those of the pattern from its own, where they lie.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

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
_TOO_FEW: Final = "attndsl: an input of packed sequences has fewer entries than queries read"
_OF_Q: Final = tuple(
    ir.Table(f"<{name} of q>", ir.Sort.INT, ("q",))
    for name in ("sequence", "place", "queries", "keys")
)
_OF_K: Final = tuple(
    ir.Table(f"<{name} of k>", ir.Sort.INT, ("k",)) for name in ("sequence", "place")
)


class _Entries(NamedTuple):
    """An input of a packed call, as it is read at queries or keys; ``rows`` has the entry of each row of that side."""

    table: ir.Table
    rows: ir.Table

    @property
    def is_at_query(self) -> bool:
        """Whether a query reads the entry of the token where it stands."""
        return self.rows.dims == ("q",) and "pos" in self.table.dims

    def of_rows(self, x: Tensor, sequence: Tensor, token: Tensor) -> Tensor:
        """The entry of each row; ``sequence`` and ``token`` are those of the rows of q."""
        if self.is_at_query:
            return x[token]
        return x if "pos" in self.table.dims else x[sequence]


@dataclass(frozen=True, slots=True, eq=False)
class OpenPacked:
    """A call on packed sequences of which everything is decided but where each begins."""

    alone: OpenExecutable  # of one sequence
    reads: tuple[_Entries, ...]
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
        if any(read.is_at_query for read in self.reads):
            torch._assert_async((place < keys).all(), _TOO_FEW)
        # Queries before the first key read an entry for nothing.
        token = (bounds[1][of_q] + place).clamp(0, self.counts[1] - 1)
        found = zip((*_OF_Q, *_OF_K), (of_q, place, queries, keys, of_k, key_place), strict=True)
        own = {
            read.rows.name: read.of_rows(given[read.table.name], of_q, token) for read in self.reads
        }
        return self.alone.executable({table.name: x for table, x in found} | own)


def lower_packed(
    program: Program,
    request: Request,
    shapes: Mapping[str, tuple[int, ...]],
    types: Mapping[str, np.dtype[Any]],
    backend: str,
    layout: str | None,
) -> OpenPacked:
    """How a call is run whose sequences lie between bounds, these and its inputs of such shapes and types.

    Inputs have an entry for each sequence, or are packed themselves and read at the query or the key.

    Raises:
        NotOpen: it is not; `lower` serves it, once its bounds are read.
        AttnDslError: as `lower_open`.
    """
    of_q, of_k = (shapes[hidden(name)] for name in BOUNDS)
    if of_q != of_k or of_q[0] < 2:
        raise ir.NotOpen("bounds of another shape are checked on the host")
    (made, reads), counts = _as_one(program), (request.q_len, request.k_len)
    for table in program.mask.tables:
        if shapes[table.name] != ((of_q[0] - 1,) if table.dims == ("batch",) else counts[1:]):
            raise ir.NotOpen("inputs that are not packed are cut on the host")
    kinds = {table.name: np.dtype(np.int32) for table in (*_OF_Q, *_OF_K)}  # numbers of rows
    kinds |= {each.rows.name: types[each.table.name] for each in reads}
    sizes = {table.name: counts[table.dims == ("k",)] for table in made.mask.tables}
    like = {n: np.broadcast_to(np.zeros((), kinds[n]), (size,)) for n, size in sizes.items()}
    call = made.call(*counts, request.batch, request.heads, None, like, is_open=True)
    kinds = {name: kinds[name] for name in sizes}
    alone = lower_open(made, call, kinds, request, backend, layout)
    is_at_end = program.mask.is_placed and program.mask.align is ir.Align.END
    return OpenPacked(alone, reads, counts, is_at_end)


@functools.lru_cache(16)
def _as_one(program: Program) -> tuple[Program, tuple[_Entries, ...]]:
    """The program of all sequences as one, which reads what each row is in its own, and how it reads inputs."""
    mask = program.mask
    if mask.conditions or mask.keys.segments or mask.queries.segments:
        raise ir.NotOpen("axes and a `where` of packed sequences are read on the host")
    if any(table.dims not in (("batch",), ("batch", "pos")) for table in mask.tables):
        raise ir.NotOpen("inputs of packed sequences by head, row or list are cut on the host")
    tables, reads = {table.name: table for table in mask.tables}, dict[str, _Entries]()
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
            case ir.Var(name="batch"):
                return number
            case ir.Load(table=name, index=index) if name in tables:
                if index not in ((), (place,), (key_place,)):
                    raise ir.NotOpen("an input is read elsewhere than at the query or key")
                side = ir.Side.KEY if index == (key_place,) else ir.Side.QUERY
                own = ir.Table(f"<{name} of {side}>", node.kind, (side.value,))
                reads[own.name] = _Entries(tables[name], own)
                return ir.Load(own.name, node.kind, (row[side],), own.ambient)
            case ir.Size():
                raise ir.NotOpen("the number of entries of an input is told by its sequence")
            case _:
                return node

    root, zeros = (ir.transform(lower_root(x, mask), rule) for x in (mask.root, mask.zeros))
    if mask.is_placed and mask.align is ir.Align.END:
        present = ir.ge(place, ir.ZERO)  # of more queries than keys, the first are no tokens
        root, zeros = ir.conj(present, root), ir.select(present, zeros, ir.ZERO)
    own = (each.rows for each in reads.values())
    one = replace(mask, align=ir.Align.START, tables=(*_OF_Q, *_OF_K, *own), zeros=zeros)
    one = one.with_root(ir.conj(ir.eq(number, key_number), root))
    return Program(one, program.layer, program.without), tuple(reads.values())


def _read(table: ir.Table, row: ir.Node) -> ir.Node:
    return ir.Load(table.name, ir.Sort.INT, (row,), table.ambient)


def _placed(bounds: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(the sequence of each row, its place there), int64 [rows]."""
    rows = torch.arange(count, device=bounds.device)
    found = torch.searchsorted(bounds, rows, right=True) - 1
    found = found.clamp(0, len(bounds) - 2)
    return found, rows - bounds[found]
