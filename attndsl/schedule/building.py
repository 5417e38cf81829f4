"""From a normal mask and the facts of one call to its schedule."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from attndsl import ir
from attndsl.passes import UNROLL_LIMIT, TooManyAlternatives, bind, separate_root
from attndsl.schedule.layouts import (
    NATURAL,
    Layout,
    band_ranks,
    keys_on,
    rank_table,
    ranked_table,
    stable_order,
)
from attndsl.schedule.leaves import decide
from attndsl.schedule.magnitude import check_magnitude
from attndsl.schedule.model import (
    BoolArray,
    IntArray,
    MaskBank,
    Order,
    Plan,
    Schedule,
    ShortArray,
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


def plan(
    mask: ir.Mask,
    call: Call,
    tile: tuple[int, int],
    layouts: tuple[Layout, Layout] = (NATURAL, NATURAL),
) -> Schedule:
    """The exact schedule of a normal mask: no EMPTY tile is in it, no FULL tile has a mask.

    ``layouts`` are those of the queries and of the keys; tiles are taken in that order.

    Raises:
        AttnDslError: a number in the pattern passes 2**62 at these lengths (A403), a quantifier is
            wider than it may be (A404), or a layout does not fit the pattern (A410, A411).
    """
    keys = [keys_on(side, layout, mask) for side, layout in zip(ir.Side, layouts, strict=True)]
    classes, plan_of, tables = classes_of(mask, call, *keys)
    bank = Bank(tile)
    plans = []
    for root, *sorting in classes:
        frame = frame_of(root, mask, call, tile, tables)
        for side, layout, n_keys in zip(ir.Side, layouts, map(len, keys), strict=True):
            frame = frame.sorted(side, sorting[:n_keys], layout.name)
            sorting = sorting[n_keys:]
        plans.append(plan_of_frame(frame, bank))
    return Schedule(call.q_len, call.k_len, tile, tuple(plans), plan_of, bank.finish())


def specialise(mask: ir.Mask, call: Call) -> tuple[tuple[ir.Node, ...], ShortArray, dict[str, Any]]:
    """The distinct roots over all (batch, head), which of them each uses, and the tables they read."""
    classes, plan_of, tables = classes_of(mask, call)
    return tuple(root for root, *_ in classes), plan_of, tables


def classes_of(
    mask: ir.Mask, call: Call, *keys: tuple[ir.Node, ...]
) -> tuple[tuple[tuple[ir.Node, ...], ...], ShortArray, dict[str, Any]]:
    """As ``specialise``, each root followed by the keys of its layouts, specialised alike.

    Raises:
        AttnDslError: A404, a quantifier is wider than it may be.
    """
    nodes = (mask.root, *itertools.chain(*keys))
    rank = functools.reduce(operator.or_, (node.rank for node in nodes))
    shape = (
        call.batch if rank & ir.Rank.BATCH else 1,
        call.heads if rank & ir.Rank.HEAD else 1,
    )
    slices = _Slices(mask, call.tables)
    found: dict[tuple[ir.Node, ...], int] = {}
    plan_of = np.zeros(shape, dtype=np.int32)

    def bound(node: ir.Node, b: int, h: int) -> ir.Node:
        made = bind(
            node,
            call.sizes,
            heads=call.heads,
            layer=call.layer,
            batch=b,
            head=h,
            rename=lambda load: slices.name(load.table, b, h),
        )
        return separate_root(made)

    try:
        for b, h in np.ndindex(shape):
            item = tuple(bound(node, b, h) for node in nodes)
            plan_of[b, h] = found.setdefault(item, len(found))
    except TooManyAlternatives as error:
        raise AttnDslError(_too_wide(error.width)) from error
    return tuple(found), plan_of, slices.tables


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
        listed = ranked_table(table)
        if listed is not None:
            return rank_table(self.name(listed, batch, head))
        rank = self._declared[table].ambient
        b = batch if rank & ir.Rank.BATCH else 0
        h = head if rank & ir.Rank.HEAD else 0
        key = (table, b, h)
        if key not in self._names:
            index = [i for i, flag in ((b, ir.Rank.BATCH), (h, ir.Rank.HEAD)) if rank & flag]
            content = np.asarray(self._arrays[table][tuple(index)], order="C")  # may have no dims
            fresh = f"{table}[{b},{h}]"
            name = self._contents.setdefault((table, content.tobytes()), fresh)
            self.tables.setdefault(name, content)
            self._names[key] = name
        return self._names[key]


@dataclass(frozen=True, slots=True)
class Frame:
    """One distinct root and its two sides, each in some order."""

    root: ir.Node
    queries: TileAxis
    keys: TileAxis

    def sorted(self, side: ir.Side, keys: Sequence[ir.Node], name: str) -> Frame:
        """The same with that side sorted by these keys of its position."""
        axis = self.queries if side is ir.Side.QUERY else self.keys
        if not keys or axis.length == 0:
            return self
        for node in itertools.chain(*map(ir.postorder, keys)):
            if isinstance(node, ir.Load) and (listed := ranked_table(node.table)) is not None:
                axis.tables.setdefault(node.table, band_ranks(axis.tables[listed]))
        rows = stable_order([axis.values(key) for key in keys])
        if np.array_equal(rows, np.arange(axis.length)):
            return self
        moved = axis.reordered(Order(rows, name))
        return replace(self, queries=moved) if axis is self.queries else replace(self, keys=moved)


def frame_of(
    root: ir.Node, mask: ir.Mask, call: Call, tile: tuple[int, int], tables: dict[str, Any]
) -> Frame:
    """Both sides in natural order.

    Raises:
        AttnDslError: A403, a number in the pattern passes 2**62 at these lengths.
    """
    shift = mask.shift(call.q_len, call.k_len)
    queries = TileAxis(ir.Side.QUERY, call.q_len, shift, tile[0], tables)
    keys = TileAxis(ir.Side.KEY, call.k_len, 0, tile[1], tables)
    check_magnitude(root, queries, keys)
    return Frame(root, queries, keys)


def plan_of_frame(frame: Frame, bank: Bank) -> Plan:
    """All live tiles; the masks of the PARTIAL ones go to the bank."""
    root, queries, keys = frame.root, frame.queries, frame.keys
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
    return Plan(full_tiles, partial_tiles, ids[order], keys.n_tiles, queries.order, keys.order)


class Bank:
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
