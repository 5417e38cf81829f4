"""Binding of a normal mask to a call, and its exact schedule."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from attndsl import ir
from attndsl.passes import PRESENT, bind, lower_root, separate_root
from attndsl.schedule.alternatives import is_long
from attndsl.schedule.boundary_tiles import evaluate_tiles
from attndsl.schedule.calls import Call
from attndsl.schedule.disk_cache import schedule_of
from attndsl.schedule.layouts import (
    NATURAL,
    Layout,
    keys_on,
    rank_table,
    ranked_table,
)
from attndsl.schedule.loop_parts import TooManyAlternatives
from attndsl.schedule.loops import Loops
from attndsl.schedule.merge_heads import merge_heads
from attndsl.schedule.model import (
    ByteArray,
    HeadMask,
    IntArray,
    MaskTable,
    Plan,
    Runs,
    Schedule,
    ShortArray,
    Tiles,
    compress,
)
from attndsl.schedule.refine import refine
from attndsl.schedule.relations import (
    TiledRelation,
    axes_of,
    order_of,
    positions_of,
    tiled_relation,
)
from attndsl.schedule.summaries import TileAxis
from attndsl.source import AttnDslError, Span


@dataclass(frozen=True, eq=False)
class BoundMask:
    """A mask in one call: what each class of (batch, head) computes, and in which order of tokens.

    A pattern is one such mask, or several disjoint ones, where the search splits it.
    """

    pieces: tuple[HeadMask, ...]
    piece_of: ShortArray  # [1 or batch, 1 or heads], index into pieces
    tables: Mapping[str, Any]
    queries: range  # positions of the queries
    keys: range  # positions of the keys

    @property
    def roots(self) -> tuple[ir.Node, ...]:
        """The relation of each piece."""
        return tuple(piece.root for piece in self.pieces)

    @property
    def nbytes(self) -> int:
        """Bytes of the tables and of the orders."""
        orders = {o for piece in self.pieces for o in (piece.q_order, piece.k_order) if o}
        held = (*self.tables.values(), *(order.rows for order in orders))
        return sum(array.nbytes for array in held)


@dataclass(frozen=True, slots=True, eq=False)
class TiledMask:
    """A bound mask and its exact schedules, each in tiles of one size; a plan stands for each piece."""

    bound: BoundMask
    schedules: Mapping[tuple[int, int], Schedule]

    @property
    def nbytes(self) -> int:
        """Bytes of the bound mask and the schedules."""
        return self.bound.nbytes + sum(made.nbytes for made in self.schedules.values())


def tiled(bound: BoundMask, *tiles: tuple[int, int], merges: bool = True) -> TiledMask:
    """Schedules a bound mask in tiles of each size: no EMPTY tile is in one, no FULL tile has a mask.

    With ``merges``, pieces that turn out to see the same pairs in the first tiles are one in what is returned.

    Raises:
        AttnDslError: A403, a number in the pattern passes 2**62 at these lengths; A407, memory.
    """
    found: dict[tuple[int, int], Schedule] = {}
    for tile in tiles:
        if tile in found:
            continue
        made = _scheduled(bound, tile)
        if merges and not found and len(bound.pieces) > 1:
            made, kept = merge_heads(made)
            bound = replace(
                bound, pieces=tuple(bound.pieces[number] for number in kept), piece_of=made.plan_of
            )
        found[tile] = made
    return TiledMask(bound, found)


def _scheduled(bound: BoundMask, tile: tuple[int, int]) -> Schedule:
    """The schedule with a plan for each piece; read from the disk where that saves time."""
    compute = functools.partial(_computed, bound, tile)
    if bound.tables:
        return compute()
    positions = bound.queries, bound.keys
    return schedule_of(bound.pieces, positions, tile, bound.piece_of, compute)


def _computed(bound: BoundMask, tile: tuple[int, int]) -> Schedule:
    bank, lengths = MaskTableBuilder(tile), (len(bound.queries), len(bound.keys))
    plans = []
    for piece in bound.pieces:
        relation = tiled_relation(piece.root, bound.queries, bound.keys, tile, bound.tables)
        plans.append(plan_of_relation(relation.ordered(piece.q_order, piece.k_order), bank))
    return Schedule(*lengths, tile, tuple(plans), bound.piece_of, bank.finish())


def plan(
    mask: ir.Mask,
    call: Call,
    tile: tuple[int, int],
    layouts: tuple[Layout, Layout] = (NATURAL, NATURAL),
) -> Schedule:
    """The exact schedule of a normal mask in these layouts of the queries and the keys.

    Raises:
        AttnDslError: a number in the pattern passes 2**62 at these lengths (A403), a quantifier is
            wider than it may be (A404), the schedule would not fit into memory (A407), or a layout
            does not fit the pattern (A410, A411).
    """
    return tiled(arranged(mask, call, layouts), tile, merges=call.merge_heads).schedules[tile]


def arranged(
    mask: ir.Mask, call: Call, layouts: tuple[Layout, Layout] = (NATURAL, NATURAL)
) -> BoundMask:
    """Binds a whole normal mask to a call, in these layouts of the queries and the keys.

    Raises:
        AttnDslError: A404, A410, A411, as ``plan``.
    """
    keys = [keys_on(side, layout, mask) for side, layout in zip(ir.Side, layouts, strict=True)]
    classes, piece_of, tables = classes_of(mask, call, *keys)
    positions = positions_of(mask, call)
    pieces = []
    for root, *sorting in classes:
        axes = axes_of(*positions, (1, 1), tables)
        counts = len(keys[0]), len(keys[0]) + len(keys[1])
        orders = (
            order_of(axes[0], sorting[: counts[0]], layouts[0].name),
            order_of(axes[1], sorting[counts[0] : counts[1]], layouts[1].name),
        )
        pieces.append(HeadMask(root, *orders))
    return BoundMask(tuple(pieces), piece_of, tables, *positions)


def specialise(mask: ir.Mask, call: Call) -> tuple[tuple[ir.Node, ...], ShortArray, dict[str, Any]]:
    """The distinct roots over all (batch, head), which of them each uses, and the tables they read."""
    classes, plan_of, tables = classes_of(mask, call)
    return tuple(root for root, *_ in classes), plan_of, tables


def classes_of(
    mask: ir.Mask, call: Call, *keys: tuple[ir.Node, ...]
) -> tuple[tuple[tuple[ir.Node, ...], ...], ShortArray, dict[str, Any]]:
    """Like ``specialise``, with each root followed by the sort keys of its layouts, specialised alike.

    Raises:
        AttnDslError: A403, a number in a loop passes 2**62; A404, a loop is wider than it may be.
    """
    root = mask.root
    if mask.absent(call.q_len, call.k_len):
        root = ir.conj(PRESENT, root)
    nodes = (root, *itertools.chain(*keys))
    deps = functools.reduce(operator.or_, (node.deps for node in nodes))
    shape = (
        call.batch if deps & ir.Deps.BATCH else 1,
        call.heads if deps & ir.Deps.HEAD else 1,
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
        return separate_root(without_loops(made))

    def without_loops(root: ir.Node) -> ir.Node:
        if not any(isinstance(node, ir.Loop) or is_long(node) for node in ir.postorder(root)):
            return root
        axes = axes_of(*positions_of(mask, call), (1, 1), slices.tables)
        loops = Loops(*axes)
        made = loops.read(root)
        slices.tables |= loops.made
        return made

    try:
        for b, h in np.ndindex(shape):
            item = tuple(bound(node, b, h) for node in nodes)
            plan_of[b, h] = found.setdefault(item, len(found))
    except TooManyAlternatives as error:
        raise AttnDslError(ir.too_wide(error.width, _place_of_widest(mask, call))) from error
    return tuple(found), plan_of, slices.tables


def _place_of_widest(mask: ir.Mask, call: Call) -> Span | None:
    """Where the first loop was written that is too wide by itself; the first one of all, if none is."""
    for loop, place in mask.places:
        root = loop if loop.sort is ir.Sort.BOOL else ir.ge(loop, ir.ONE)
        alone = replace(mask, root=lower_root(root, mask), places=())
        try:
            classes_of(alone, call)
        except AttnDslError:
            return place
    return mask.places[0][1] if mask.places else None


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
        deps = self._declared[table].ambient
        b = batch if deps & ir.Deps.BATCH else 0
        h = head if deps & ir.Deps.HEAD else 0
        key = (table, b, h)
        if key not in self._names:
            index = [i for i, flag in ((b, ir.Deps.BATCH), (h, ir.Deps.HEAD)) if deps & flag]
            content = np.asarray(self._arrays[table][tuple(index)], order="C")  # may have no dims
            name = fresh = f"{table}[{b},{h}]"
            if content.size < self._arrays[table].size:  # there are other slices
                name = self._contents.setdefault((table, content.tobytes()), fresh)
            self.tables.setdefault(name, content)
            self._names[key] = name
        return self._names[key]


def plan_of_relation(relation: TiledRelation, bank: MaskTableBuilder) -> Plan:
    """All live tiles; the masks of the PARTIAL ones go to the bank."""
    root, queries, keys = relation.root, relation.queries, relation.keys
    found = refine(root, queries, keys)
    rows, columns = found.rows, found.columns
    if len(rows) == 0:
        return _assemble(found.full, (rows, columns), rows.astype(np.int32), queries, keys)
    leaves = evaluate_tiles(root, queries, keys, found)
    full = leaves.is_full[leaves.which]
    partial = ~full & ~leaves.is_empty[leaves.which]
    ids = bank.add(leaves.masks)[leaves.mask_of[leaves.which[partial]]]
    both = found.full.and_tiles(rows[full], columns[full])
    return _assemble(both, (rows[partial], columns[partial]), ids, queries, keys)


def _assemble(
    full: Runs,
    partial: tuple[IntArray, IntArray],
    ids: ShortArray,
    queries: TileAxis,
    keys: TileAxis,
) -> Plan:
    partial_tiles, order = compress(*partial, queries.n_tiles)
    full_tiles = Tiles.of(full, queries.n_tiles)
    return Plan(full_tiles, partial_tiles, ids[order], keys.n_tiles, queries.order, keys.order)


class MaskTableBuilder:
    """Collects the distinct masks of all plans."""

    def __init__(self, tile: tuple[int, int]) -> None:
        self.tile = tile
        self._masks: list[ByteArray] = []
        self._ids: dict[bytes, int] = {}

    def add(self, masks: ByteArray) -> ShortArray:
        """The ids of the distinct masks of one plan."""
        if not self._masks:  # the first plan is often the only one
            self._masks.append(masks)
            return np.arange(len(masks), dtype=np.int32)
        if not self._ids:
            self._ids.update((mask.tobytes(), n) for n, mask in enumerate(self._masks[0]))
        known = len(self._ids)
        found = (self._ids.setdefault(mask.tobytes(), len(self._ids)) for mask in masks)
        ids = np.fromiter(found, dtype=np.int32, count=len(masks))
        self._masks.append(masks[ids >= known])
        return ids

    def finish(self) -> MaskTable:
        size = -(-self.tile[0] * self.tile[1] // 8)
        none = np.zeros((0, size), dtype=np.uint8)
        joined = self._masks[0] if len(self._masks) == 1 else np.concatenate([none, *self._masks])
        return MaskTable(joined, self.tile)


def check_numbers(mask: ir.Mask, node: ir.Node, call: Call) -> None:
    """Refuse a call in which 64-bit arithmetic would not be exact for a value, be it the relation or another.

    Raises:
        AttnDslError: A403, a number in the pattern passes 2**62; A404, a quantifier is too wide; A407, the
            call is too long.
    """
    classes, _, tables = classes_of(replace(mask, root=ir.TRUE), call, (node,))
    for _, bound in classes:
        tiled_relation(bound, *positions_of(mask, call), (128, 128), tables)
