"""From a normal mask and the facts of one call to its schedule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from attndsl import ir
from attndsl.passes import UNROLL_LIMIT, TooManyAlternatives, bind, separate_root
from attndsl.schedule.leaves import decide
from attndsl.schedule.magnitude import check_magnitude
from attndsl.schedule.model import (
    BoolArray,
    IntArray,
    MaskBank,
    Plan,
    Schedule,
    ShortArray,
    Tiles,
    compress,
)
from attndsl.schedule.refine import refine
from attndsl.schedule.summaries import TileAxis
from attndsl.source import AttnDslError, Diagnostic


@dataclass(frozen=True, slots=True)
class Call:
    """What a schedule depends on beside the pattern. ``tables`` hold NumPy arrays of the declared dims."""

    q_len: int
    k_len: int
    batch: int = 1
    heads: int = 1
    layer: int = 0
    sizes: Mapping[str, int] = field(default_factory=dict)
    tables: Mapping[str, Any] = field(default_factory=dict)


def plan(mask: ir.Mask, call: Call, tile: tuple[int, int]) -> Schedule:
    """The exact schedule of a normal mask: no EMPTY tile is in it, no FULL tile has a mask.

    Raises:
        AttnDslError: a number in the pattern passes 2**62 at these lengths (A403), or a quantifier is
            wider than it may be (A404).
    """
    try:
        roots, plan_of, tables = specialise(mask, call)
    except TooManyAlternatives as error:
        raise AttnDslError(_too_wide(error.width)) from error
    bank = _Bank(tile)
    plans = tuple(_plan(root, mask, call, tile, tables, bank) for root in roots)
    return Schedule(call.q_len, call.k_len, tile, plans, plan_of, bank.finish())


def specialise(mask: ir.Mask, call: Call) -> tuple[tuple[ir.Node, ...], ShortArray, dict[str, Any]]:
    """The distinct roots over all (batch, head), which of them each uses, and the tables they read."""
    rank = mask.root.rank
    shape = (
        call.batch if rank & ir.Rank.BATCH else 1,
        call.heads if rank & ir.Rank.HEAD else 1,
    )
    slices = _Slices(mask, call.tables)
    roots: dict[ir.Node, int] = {}
    plan_of = np.zeros(shape, dtype=np.int32)
    for b, h in np.ndindex(shape):
        root = bind(
            mask.root,
            call.sizes,
            heads=call.heads,
            layer=call.layer,
            batch=b,
            head=h,
            rename=lambda load, b=b, h=h: slices.name(load.table, b, h),  # type: ignore[misc]
        )
        plan_of[b, h] = roots.setdefault(separate_root(root), len(roots))
    return tuple(roots), plan_of, slices.tables


def _too_wide(width: int) -> Diagnostic:
    return Diagnostic(
        "A404",
        f"an `any` or `all` of the pattern runs over {width:,} values at these lengths",
        notes=(f"at most {UNROLL_LIMIT:,} are allowed",),
        helps=("state it as a comparison, or give the range a bound that does not grow",),
    )


class _Slices:
    """The tables of one call, cut per batch element and head; equal slices share a name."""

    def __init__(self, mask: ir.Mask, arrays: Mapping[str, Any]) -> None:
        self._declared = {table.name: table for table in mask.tables}
        self._arrays = {name: np.asarray(array) for name, array in arrays.items()}
        self._names: dict[tuple[str, int, int], str] = {}
        self._contents: dict[tuple[str, bytes], str] = {}
        self.tables: dict[str, Any] = {
            name: self._arrays[name]
            for name, table in self._declared.items()
            if not table.ambient and name in self._arrays
        }

    def name(self, table: str, batch: int, head: int) -> str:
        """The name of that slice."""
        rank = self._declared[table].ambient
        b = batch if rank & ir.Rank.BATCH else 0
        h = head if rank & ir.Rank.HEAD else 0
        key = (table, b, h)
        if key not in self._names:
            index = [i for i, flag in ((b, ir.Rank.BATCH), (h, ir.Rank.HEAD)) if rank & flag]
            content = np.ascontiguousarray(self._arrays[table][tuple(index)])
            fresh = f"{table}[{b},{h}]"
            name = self._contents.setdefault((table, content.tobytes()), fresh)
            self.tables.setdefault(name, content)
            self._names[key] = name
        return self._names[key]


def _plan(
    root: ir.Node,
    mask: ir.Mask,
    call: Call,
    tile: tuple[int, int],
    tables: Mapping[str, Any],
    bank: _Bank,
) -> Plan:
    shift = mask.shift(call.q_len, call.k_len)
    queries = TileAxis(ir.Side.QUERY, call.q_len, shift, tile[0], tables)
    keys = TileAxis(ir.Side.KEY, call.k_len, 0, tile[1], tables)
    check_magnitude(root, queries, keys)
    found = refine(root, queries, keys)
    rows, columns = found.open
    if len(rows) == 0:
        return _assemble(found.full, (rows, columns), rows.astype(np.int32), queries, keys)
    leaves = decide(root, queries, keys, rows, columns)
    full = leaves.is_full[leaves.which]
    partial = ~full & ~leaves.is_empty[leaves.which]
    ids = bank.add(leaves.masks, ~leaves.is_full & ~leaves.is_empty)[leaves.which[partial]]
    both = (
        np.concatenate([found.full[0], rows[full]]),
        np.concatenate([found.full[1], columns[full]]),
    )
    return _assemble(both, (rows[partial], columns[partial]), ids, queries, keys)


def _assemble(
    full: tuple[IntArray, IntArray],
    partial: tuple[IntArray, IntArray],
    ids: ShortArray,
    queries: TileAxis,
    keys: TileAxis,
) -> Plan:
    full_tiles, _ = compress(*full, queries.n_tiles)
    partial_tiles, order = compress(*partial, queries.n_tiles)
    return Plan(full_tiles, partial_tiles, ids[order], keys.n_tiles)


class _Bank:
    """Collects the distinct masks of all plans."""

    def __init__(self, tile: tuple[int, int]) -> None:
        self._tile = tile
        self._ids: dict[bytes, int] = {}

    def add(self, masks: BoolArray, wanted: BoolArray) -> ShortArray:
        """Ids of the wanted masks; -1 elsewhere."""
        ids = np.full(len(masks), -1, dtype=np.int32)
        packed = np.packbits(masks.reshape(len(masks), -1), axis=1)
        for index in np.flatnonzero(wanted):
            ids[index] = self._ids.setdefault(packed[index].tobytes(), len(self._ids))
        return ids

    def finish(self) -> MaskBank:
        size = -(-self._tile[0] * self._tile[1] // 8)
        joined = np.frombuffer(b"".join(self._ids), dtype=np.uint8)
        return MaskBank(joined.reshape(-1, size), self._tile)


__all__ = ["Call", "Tiles", "plan", "specialise"]
