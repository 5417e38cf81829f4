"""The schedule: exactly which tiles to compute, in compressed form."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np

from attndsl import ir

IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
ShortArray: TypeAlias = np.ndarray[Any, np.dtype[np.int32]]
BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
ByteArray: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
_Ints = TypeVar("_Ints", IntArray, ShortArray)


def written_out(first: _Ints, stop: _Ints) -> _Ints:
    """Concatenates the ranges from each first up to its stop."""
    lengths = stop - first
    before = np.cumsum(lengths, dtype=np.int64) - lengths
    found = np.repeat((first - before).astype(first.dtype), lengths)
    found += np.arange(len(found), dtype=first.dtype)
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Neighbours of one row, from ``first`` up to ``stop``: by row, then by column, each as long as can be."""

    rows: ShortArray  # [runs]
    first: ShortArray  # [runs]
    stop: ShortArray  # [runs]

    @staticmethod
    def joined(rows: IntArray, first: IntArray, stop: IntArray) -> Runs:
        """Joins neighbouring runs; the given ones are disjoint, in any order."""
        order = np.argsort((rows << 32) | first, kind="stable")  # by merging: most are in order
        rows, first, stop = rows[order], first[order], stop[order]
        apart = np.ones(len(rows) + 1, dtype=bool)
        apart[1:-1] = (rows[1:] != rows[:-1]) | (first[1:] != stop[:-1])
        begins, ends = apart[:-1], apart[1:]
        return Runs(*(x.astype(np.int32) for x in (rows[begins], first[begins], stop[ends])))

    def and_tiles(self, rows: IntArray, columns: IntArray) -> Runs:
        """Union with disjoint tiles."""
        if len(rows) == 0:
            return self
        mine = (x.astype(np.int64) for x in (self.rows, self.first, self.stop))
        more = rows, columns, columns + 1
        return Runs.joined(*(np.concatenate(both) for both in zip(mine, more, strict=True)))

    @property
    def count(self) -> int:
        """How many tiles."""
        return int(self.lengths.sum())

    @property
    def lengths(self) -> IntArray:
        """How many tiles each run has, [runs]."""
        return (self.stop - self.first).astype(np.int64)

    @property
    def arrays(self) -> tuple[ShortArray, ShortArray, ShortArray]:
        """The three arrays."""
        return self.rows, self.first, self.stop

    def transposed(self) -> Runs:
        """Transposes to runs by column.

        A run of a column begins where a row has a tile and the row before has none, and ends where it is the other
        way round, so the work follows the number of runs in both directions, whatever their lengths.
        """
        width = max(1, int(self.stop.max(initial=0)))
        here = self.rows.astype(np.int64) * width
        sides = [row + end for row in (here, here + width) for end in (self.first, self.stop)]
        ends = np.concatenate(sides)
        order = np.argsort(ends, kind="stable")
        ends, change = ends[order], np.cumsum(np.repeat([1, -1, -1, 1], len(here))[order])[:-1]

        def turned(sign: int) -> IntArray:
            cells = written_out(*(side[change == sign] for side in (ends[:-1], ends[1:])))
            return np.sort((cells % width << 32) | cells // width)

        begun, ended = turned(1), turned(-1)
        low = (1 << 32) - 1
        return Runs(*(x.astype(np.int32) for x in (begun >> 32, begun & low, ended & low)))


@dataclass(frozen=True, eq=False)
class Tiles:
    """Tiles in CSR: those of row tile ``r`` are ``indices[indptr[r]:indptr[r + 1]]``, increasing.

    Held as runs, a dense row costs no more than one tile; its indices are written out once they are asked for.
    """

    indptr: IntArray  # [rows + 1]
    held: ShortArray | Runs

    @staticmethod
    def of(runs: Runs, n_rows: int) -> Tiles:
        """Builds the CSR form of runs."""
        before = np.concatenate([[0], np.cumsum(runs.lengths)])
        return Tiles(before[np.searchsorted(runs.rows, np.arange(n_rows + 1))], runs)

    @functools.cached_property
    def indices(self) -> ShortArray:
        """The column tiles, [nnz]."""
        held = self.held
        return written_out(held.first, held.stop) if isinstance(held, Runs) else held

    @property
    def nnz(self) -> int:
        """How many tiles."""
        return int(self.indptr[-1])

    @property
    def rows(self) -> ShortArray:
        """The row tile of each entry, [nnz]."""
        count = np.diff(self.indptr)
        return np.repeat(np.arange(len(count), dtype=np.int32), count)

    @property
    def arrays(self) -> tuple[np.ndarray[Any, Any], ...]:
        """The arrays as they are held; equal for equal tiles that are held alike."""
        held = self.held.arrays if isinstance(self.held, Runs) else (self.held,)
        return self.indptr, *held

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays, as they are held."""
        return sum(array.nbytes for array in self.arrays)

    def row(self, index: int) -> ShortArray:
        """The column tiles of one row tile."""
        return self.indices[self.indptr[index] : self.indptr[index + 1]]

    def pairs(self) -> ShortArray:
        """(row tile, column tile) of each entry, [nnz, 2]."""
        return np.stack([self.rows, self.indices], axis=1)

    def __len__(self) -> int:
        return self.nnz

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((int(row), int(column)) for row, column in self.pairs())


def once_each(numbers: IntArray) -> IntArray:
    """The distinct ones, in order. np.unique would load numpy.ma, 10 ms of the first call of a process."""
    ordered = np.sort(numbers)
    first: BoolArray = np.diff(ordered, prepend=ordered[:1] - 1) != 0
    return ordered[first]


def compress(rows: IntArray, columns: IntArray, n_rows: int) -> tuple[Tiles, IntArray]:
    """CSR of (row, column) entries, and the order that sorts them."""
    span = int(columns.max(initial=0)) + 1
    order = np.argsort(rows * span + columns, kind="stable")
    counts = np.bincount(rows, minlength=n_rows)
    indptr = np.zeros(n_rows + 1, dtype=np.int64)
    np.cumsum(counts, out=indptr[1:])
    return Tiles(indptr, columns[order].astype(np.int32)), order


@dataclass(frozen=True, eq=False)
class TokenOrder:
    """The storage order of one side: storage index ``s`` holds row ``rows[s]`` of the tensors.

    A permutation. Tiles are runs of storage indices; kernels gather and scatter rows.
    """

    rows: IntArray  # [length]
    name: str = ""  # name of the layout it comes from
    keys: tuple[ir.Node, ...] = field(default=(), repr=False)  # keys by which positions are sorted

    @functools.cached_property
    def places(self) -> IntArray:
        """Inverse permutation: the place in storage of each row, [length]."""
        found = np.empty_like(self.rows)
        found[self.rows] = np.arange(len(self.rows))
        return found


@dataclass(frozen=True, slots=True)
class HeadMask:
    """Relation and token orders of one distinct (batch, head) class."""

    root: ir.Node
    q_order: TokenOrder | None = None
    k_order: TokenOrder | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """The live tiles of one distinct (batch, head) class.

    In a ``full`` tile every pair inside the lengths is in the pattern: no mask is needed but for the
    bounds of a ragged last tile. ``mask_ids`` gives each ``partial`` tile its entry in the mask bank.
    Tiles are over storage order; None is the natural one.
    """

    full: Tiles
    partial: Tiles
    mask_ids: ShortArray  # [partial.nnz]
    n_columns: int
    q_order: TokenOrder | None = None
    k_order: TokenOrder | None = None

    @functools.cached_property
    def transpose(self) -> Plan:
        """The same tiles by key tile, for the backward pass: O(live tiles), no dense step."""
        n_columns, n_rows = self.n_columns, len(self.full.indptr) - 1
        partial, order = _transposed(self.partial, n_columns)
        if isinstance(self.full.held, Runs):
            full = Tiles.of(self.full.held.transposed(), n_columns)
        else:
            full, _ = _transposed(self.full, n_columns)
        ids = self.mask_ids[order]
        return Plan(full, partial, ids, n_rows, self.k_order, self.q_order)

    @property
    def live(self) -> int:
        """Tiles that are visited."""
        return self.full.nnz + self.partial.nnz

    @property
    def nbytes(self) -> int:
        """Bytes of the index arrays, one direction, and of the orders."""
        orders = sum(order.rows.nbytes for order in (self.q_order, self.k_order) if order)
        return self.full.nbytes + self.partial.nbytes + self.mask_ids.nbytes + orders


def _transposed(tiles: Tiles, n_columns: int) -> tuple[Tiles, IntArray]:
    return compress(tiles.indices.astype(np.int64), tiles.rows.astype(np.int64), n_columns)


@dataclass(frozen=True, slots=True, eq=False)
class MaskTable:
    """The distinct masks of PARTIAL tiles, one bit a pair; bits outside the lengths are 0."""

    packed: ByteArray  # [n, bq * bk / 8], row-major, most significant bit first
    tile: tuple[int, int]

    def __len__(self) -> int:
        return len(self.packed)

    @property
    def nbytes(self) -> int:
        """Bytes of the packed masks."""
        return self.packed.nbytes

    def unpack(self, ids: IntArray | ShortArray | slice = slice(None)) -> BoolArray:
        """The masks of those ids, bool [n, bq, bk]."""
        bits = np.unpackbits(self.packed[ids], axis=-1, count=self.tile[0] * self.tile[1])
        return bits.view(bool).reshape(-1, *self.tile)


@dataclass(frozen=True, eq=False)
class Schedule:
    """All live tiles of a call: one plan per distinct (batch, head) class, shared where alike."""

    q_len: int
    k_len: int
    tile: tuple[int, int]
    plans: tuple[Plan, ...]
    plan_of: ShortArray  # [1 or batch, 1 or heads] index into plans
    masks: MaskTable

    def __repr__(self) -> str:
        """A summary in one line: the arrays are megabytes."""
        full, partial = (
            sum(len(getattr(plan, kind)) for plan in self.plans) for kind in ("full", "partial")
        )
        tiles, count = self.grid[0] * self.grid[1] * len(self.plans), len(self.plans)
        return (
            f"<Schedule of {self.q_len:,} queries x {self.k_len:,} keys in tiles of {self.tile[0]} x {self.tile[1]}:"
            f" {full:,} full and {partial:,} partial of {tiles:,}, {count} plan{'s' * (count > 1)}>"
        )

    def _repr_html_(self) -> str:
        # by name: pictures are drawn some floors further up
        page: str = importlib.import_module("attndsl.views").schedule_html(self)
        return page

    @property
    def grid(self) -> tuple[int, int]:
        """Query tiles and key tiles of the whole square."""
        return -(-self.q_len // self.tile[0]), -(-self.k_len // self.tile[1])

    def plan(self, batch: int = 0, head: int = 0) -> Plan:
        """The plan of one batch element and head."""
        b = batch if self.plan_of.shape[0] > 1 else 0
        h = head if self.plan_of.shape[1] > 1 else 0
        return self.plans[int(self.plan_of[b, h])]

    @property
    def full(self) -> Tiles:
        """FULL tiles, when all heads and batch elements share one plan."""
        return self._only().full

    @property
    def partial(self) -> Tiles:
        """PARTIAL tiles, when all heads and batch elements share one plan."""
        return self._only().partial

    def _only(self) -> Plan:
        if len(self.plans) != 1:
            count = len(self.plans)
            raise ValueError(
                f"the schedule has {count} plans; choose one: schedule.plan(batch, head)"
            )
        return self.plans[0]

    @property
    def nbytes(self) -> int:
        """Bytes of indices and masks, one direction."""
        return self.index_nbytes + self.masks.nbytes

    @property
    def index_nbytes(self) -> int:
        """Bytes of indices, one direction; tiles that plans share count once."""
        shared = {id(tiles): tiles for plan in self.plans for tiles in (plan.full, plan.partial)}
        apart = sum(plan.nbytes - plan.full.nbytes - plan.partial.nbytes for plan in self.plans)
        return sum(tiles.nbytes for tiles in shared.values()) + apart + self.plan_of.nbytes

    @property
    def density(self) -> float:
        """Live tiles over all tiles, averaged over batch and heads."""
        total = self.grid[0] * self.grid[1] * self.plan_of.size
        live = sum(self.plans[i].live for i in self.plan_of.flat)
        return live / total if total else 0.0

    def cover(self, batch: int = 0, head: int = 0) -> BoolArray:
        """Back to pairs: the dense mask that the schedule computes, in natural order, bool [q_len, k_len]."""
        (rows, columns), (bq, bk) = self.grid, self.tile
        plan = self.plan(batch, head)
        dense = np.zeros((rows, columns, bq, bk), dtype=bool)
        dense[plan.full.rows, plan.full.indices] = True
        dense[plan.partial.rows, plan.partial.indices] = self.masks.unpack(plan.mask_ids)
        joined = dense.transpose(0, 2, 1, 3).reshape(rows * bq, columns * bk)
        stored = joined[: self.q_len, : self.k_len]
        if plan.q_order is None and plan.k_order is None:
            return stored
        natural = np.empty_like(stored)
        natural[np.ix_(_rows(plan.q_order, self.q_len), _rows(plan.k_order, self.k_len))] = stored
        return natural


def _rows(order: TokenOrder | None, length: int) -> IntArray:
    return np.arange(length) if order is None else order.rows
