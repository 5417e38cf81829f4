"""Families of pairs that other libraries have kernels for: what a call is proved to be by its exact schedule."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from attndsl import ir
from attndsl.compiler import Program
from attndsl.schedule import Call, Plan, Schedule
from attndsl.sources import read_mask

BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

TILE: Final = (128, 128)  # queries and keys of the tiles by which families are told
_AT_ONCE: Final = 256  # PARTIAL tiles whose masks are looked at together: 4 MiB of truth values
_STRIDES_AT_ONCE: Final = 4096  # strides tried together, each on some 100 queries
_MOST_TOLD: Final = 2_000  # PARTIAL tiles that are looked into for words: a tenth of a second
_INSTEAD: Final = 'format="bsr" says every pattern'


class NotInFamily(Exception):
    """The pairs of a call are not those of a family: ``reason`` says why, ``instead`` what says them."""

    def __init__(self, reason: str, instead: str = _INSTEAD) -> None:
        super().__init__(reason)
        self.reason, self.instead = reason, instead


def only_plan(schedule: Schedule) -> Plan:
    """The plan that all batch elements and heads share.

    Raises:
        NotInFamily: they differ.
    """
    if len(schedule.plans) != 1:
        raise NotInFamily(
            "batch elements or heads differ", "export each: heads=1, or inputs of one element"
        )
    return schedule.plans[0]


# ---------------------------------------------------------------------------- spans of keys


@dataclass(frozen=True, slots=True)
class Spans:
    """The keys of each query as one span, [start, stop); both are 0 where it sees none."""

    start: IntArray  # [q_len]
    stop: IntArray  # [q_len]


def spans(schedule: Schedule, plan: Plan) -> Spans:
    """The span of keys of each query, in time and memory of the live tiles.

    Raises:
        NotInFamily: the keys of a query are not neighbours.
    """
    n_rows, (height, width) = schedule.grid[0], schedule.tile
    start = np.full((n_rows, height), schedule.k_len, dtype=np.int64)
    stop, count = (np.zeros((n_rows, height), dtype=np.int64) for _ in range(2))
    full, partial = plan.full, plan.partial
    if full.nnz:
        live = np.flatnonzero(np.diff(full.indptr))
        begins = full.indptr[live]
        firsts = full.indices.astype(np.int64) * width
        ends = np.minimum(firsts + width, schedule.k_len)
        start[live] = np.minimum.reduceat(firsts, begins)[:, None]
        stop[live] = np.maximum.reduceat(ends, begins)[:, None]
        count[live] = np.add.reduceat(ends - firsts, begins)[:, None]
    rows, firsts = partial.rows, partial.indices.astype(np.int64)[:, None] * width
    for first in range(0, partial.nnz, _AT_ONCE):
        some = slice(first, first + _AT_ONCE)
        masks = schedule.masks.unpack(plan.mask_ids[some])
        held = masks.sum(axis=2)
        low = np.where(held > 0, firsts[some] + masks.argmax(axis=2), schedule.k_len)
        high = np.where(held > 0, firsts[some] + width - masks[:, :, ::-1].argmax(axis=2), 0)
        np.minimum.at(start, rows[some], low)
        np.maximum.at(stop, rows[some], high)
        np.add.at(count, rows[some], held)
    flat = (x.reshape(-1)[: schedule.q_len] for x in (start, stop, count))
    start, stop, count = flat
    start = np.where(count > 0, start, 0)
    apart = np.flatnonzero(count != stop - start)
    if len(apart):
        raise NotInFamily(f"the keys of query {int(apart[0])} are not neighbours")
    return Spans(start, stop)


# ---------------------------------------------------------------------------- one square


def is_causal_square(schedule: Schedule) -> bool:
    """Whether all batch elements and heads see the triangle k <= q of a square; false: they see every pair.

    Raises:
        NotInFamily: they see other pairs.
    """
    shapes = {_shape(schedule, plan) for plan in schedule.plans}
    if len(shapes) > 1:
        raise NotInFamily("some batch elements or heads see all pairs, others do not")
    return "causal" in shapes


def _shape(schedule: Schedule, plan: Plan) -> str:
    at, q_len, k_len = spans(schedule, plan), schedule.q_len, schedule.k_len
    if not at.start.any():
        if (at.stop == k_len).all():
            return "full"
        if q_len == k_len and np.array_equal(at.stop, np.arange(1, q_len + 1)):
            return "causal"
    raise NotInFamily("it is neither all pairs nor, of as many queries as keys, those with k <= q")


# ---------------------------------------------------------------------------- windows in documents


@dataclass(frozen=True, slots=True)
class Documents:
    """Documents in which each query sees ``left`` keys before it and ``right`` behind; -1 stands for all there are.

    Batch elements are packed one behind the other. Where there are more keys than queries, each batch element is one
    document, and the queries are its last tokens.
    """

    q_ends: IntArray  # [documents + 1], from 0
    k_ends: IntArray  # [documents + 1]
    left: int
    right: int

    def __str__(self) -> str:
        count = len(self.q_ends) - 1
        window = f", window {(self.left, self.right)}"
        return (
            f"{count:,} document{'s' * (count != 1)} of up to {self.longest[0]:,} queries{window}"
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return int(self.q_ends.nbytes + self.k_ends.nbytes)

    @property
    def longest(self) -> tuple[int, int]:
        """The most queries, and keys, of a document."""
        sizes = (np.diff(ends).max(initial=0) for ends in (self.q_ends, self.k_ends))
        most_queries, most_keys = map(int, sizes)
        return most_queries, most_keys


def documents(schedule: Schedule, batch: int = 1) -> Documents:
    """The documents of a call, and what queries see of them.

    Raises:
        NotInFamily: there are none, or a query sees other keys of them.
    """
    if schedule.plan_of.shape[1] > 1:
        raise NotInFamily("heads differ")
    each = [spans(schedule, plan) for plan in schedule.plans]
    order = np.broadcast_to(schedule.plan_of[:, 0], (batch,)).tolist()
    length, k_len = schedule.q_len, schedule.k_len
    if length != k_len:
        start = np.concatenate([each[n].start for n in order])
        stop = np.concatenate([each[n].stop for n in order])
        return _one_each(start, stop, (length, k_len), len(order))
    start = np.concatenate([each[n].start + b * length for b, n in enumerate(order)])
    stop = np.concatenate([each[n].stop + b * length for b, n in enumerate(order)])
    place = np.arange(len(start))
    back, ahead = place - start, stop - 1 - place
    unseen = np.flatnonzero((back < 0) | (ahead < 0))
    if len(unseen):
        raise NotInFamily(f"query {int(unseen[0]) % length} does not see itself")
    # a document begins where a query sees nothing before itself, and the one before it nothing behind itself
    begins = np.ones(len(start), dtype=bool)
    if back.any():
        begins &= back == 0
    if ahead.any():
        begins[1:] &= ahead[:-1] == 0
    ends = np.append(np.flatnonzero(begins), len(start))
    own = np.cumsum(begins) - 1
    left, right = int(back.max(initial=0)), int(ahead.max(initial=0))
    fits = (start == np.maximum(ends[own], place - left)) & (
        stop == np.minimum(ends[own + 1], place + right + 1)
    )
    _check_windows(fits, length)
    longest = int(np.diff(ends).max(initial=0))
    left, right = (-1 if x >= longest - 1 else x for x in (left, right))
    return Documents(ends, ends, left, right)


def _one_each(start: IntArray, stop: IntArray, lengths: tuple[int, int], batch: int) -> Documents:
    """The window of the last queries of more keys, of each batch element."""
    q_len, k_len = lengths
    place = np.tile(np.arange(q_len) + k_len - q_len, batch)
    back, ahead = place - start, stop - 1 - place
    empty = np.flatnonzero(stop == start)
    if len(empty):
        raise NotInFamily(f"query {int(empty[0]) % q_len} sees no key")
    left, right = int(back.max(initial=0)), int(ahead.max(initial=0))
    if min(left, right) < 0:
        raise NotInFamily("queries do not see the keys at their own places")
    fits = (start == np.maximum(0, place - left)) & (stop == np.minimum(k_len, place + right + 1))
    _check_windows(fits, q_len)
    left, right = -1 if not start.any() else left, -1 if (stop == k_len).all() else right
    q_ends, k_ends = (np.arange(batch + 1, dtype=np.int64) * n for n in lengths)
    return Documents(q_ends, k_ends, left, right)


def _check_windows(fits: BoolArray, length: int) -> None:
    if not fits.all():
        query = int(np.argmin(fits)) % length
        raise NotInFamily(
            f"query {query} sees neither its document nor a window of it that all have"
        )


# ---------------------------------------------------------------------------- neighbourhoods


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """The arguments of a neighbourhood attention of NATTEN on tokens of some layout, a number for each axis."""

    shape: tuple[int, ...]  # tokens of each axis
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    is_causal: tuple[bool, ...]

    def __str__(self) -> str:
        names = ("kernel_size", "stride", "dilation", "is_causal")
        values = ", ".join(f"{name}={getattr(self, name)}" for name in names)
        return f"na{len(self.shape)}d({values})"


_AXES: Final = (
    "",
    "yx",
    "tyx",
)  # of the neighbourhoods of the prelude, by how many axes more than one they have


def neighbourhood(program: Program, call: Call) -> Neighbourhood:
    """The neighbourhood that a call is: read off some of its rows, and proved by the schedule of that neighbourhood.

    Raises:
        NotInFamily: it is none.
    """
    if call.q_len != call.k_len:
        raise NotInFamily("there are more or fewer queries than keys")
    shape = _layout(program, call)
    schedule = program.schedule(call, TILE)
    plan = only_plan(schedule)
    if not call.q_len:
        raise NotInFamily("there are no tokens")
    axes = [_axis(schedule, plan, shape, axis) for axis in range(len(shape))]
    found = Neighbourhood(shape, *(tuple(x) for x in zip(*axes, strict=True)))
    if not _is_same(schedule, _schedule_of(found)):
        raise NotInFamily("queries see other keys than those of a neighbourhood on each axis")
    return found


def _layout(program: Program, call: Call) -> tuple[int, ...]:
    segments = program.mask.keys.segments
    if not segments and not program.mask.queries.segments:
        return (call.q_len,)
    if program.mask.queries != program.mask.keys or len(segments) != 1:
        raise NotInFamily("tokens are not those of one grid")
    (segment,) = segments
    if not 1 <= len(segment.axes) <= 3:
        raise NotInFamily(f"a grid of {len(segment.axes)} axes")
    return tuple(int(call.sizes[f"{segment.name}.{axis.name}"]) for axis in segment.axes)


def _axis(
    schedule: Schedule, plan: Plan, shape: tuple[int, ...], axis: int
) -> tuple[int, int, int, bool]:
    """(kernel size, stride, dilation, causal) that some queries along one axis are seen to have."""
    length = shape[axis]
    some = sorted({*range(min(length, 64)), *range(max(0, length - 64), length), length // 2})
    middle = [n // 2 for n in shape]
    seen = np.zeros((len(some), length), dtype=bool)
    for number, place in enumerate(some):
        at = tuple(place if a == axis else n for a, n in enumerate(middle))
        row = _row(schedule, plan, int(np.ravel_multi_index(at, shape))).reshape(shape)
        line = tuple(slice(None) if a == axis else n for a, n in enumerate(middle))
        seen[number] = row[line]
    places, counts = np.array(some), seen.sum(axis=1)
    if not counts.all():
        raise NotInFamily("a query sees none of the keys of its own line")
    widest = seen[counts.argmax()].nonzero()[0]
    dilation = int(widest[1] - widest[0]) if len(widest) > 1 else 1
    first, last = seen.argmax(axis=1), length - 1 - seen[:, ::-1].argmax(axis=1)
    size = int(counts.max())
    if size == 1:
        raise NotInFamily(f"along axis {axis} queries see one key, and kernels have two at least")
    if size * dilation > length:
        raise NotInFamily("a kernel times its dilation is longer than its axis")
    own = places // dilation, (length - 1 - places % dilation) // dilation
    low, high = first // dilation, last // dilation
    for causal in (True, False) if not (last > places).any() else (False,):
        for first_stride in range(1, size + 1, _STRIDES_AT_ONCE):
            strides = np.arange(first_stride, min(first_stride + _STRIDES_AT_ONCE, size + 1))
            bounds = _bounds(*own, size, strides[:, None], causal)
            fits = ((bounds[0] == low) & (bounds[1] == high)).all(axis=1)
            if fits.any():
                return size, int(strides[fits.argmax()]), dilation, causal
    raise NotInFamily(f"along axis {axis} queries do not see a neighbourhood of {size} keys")


def _bounds(
    place: IntArray, last: IntArray, size: int, stride: IntArray, causal: bool
) -> tuple[IntArray, IntArray]:
    """First and last key of queries among those of their residue, whose last is ``last``, for each stride."""
    group = place // stride * stride
    if causal:
        leader = np.minimum(group + stride - 1, last)
        return np.maximum(0, leader - size + 1), place
    leader = np.minimum(group + stride // 2, last)
    centre = np.clip(leader, size // 2, last - (size - 1) // 2)
    return centre - size // 2, centre + (size - 1) // 2


def _row(schedule: Schedule, plan: Plan, query: int) -> BoolArray:
    """The keys that one query sees, bool [k_len]."""
    (height, width), row = schedule.tile, query // schedule.tile[0]
    seen = np.zeros((schedule.grid[1], width), dtype=bool)
    seen[plan.full.row(row)] = True
    start, stop = plan.partial.indptr[row : row + 2]
    masks = schedule.masks.unpack(plan.mask_ids[start:stop])
    seen[plan.partial.indices[start:stop]] = masks[:, query % height]
    return seen.reshape(-1)[: schedule.k_len]


def _schedule_of(found: Neighbourhood) -> Schedule:
    n = len(found.shape)
    program = _neighbourhoods(n, found.kernel_size, found.stride, found.dilation, found.is_causal)
    extents = dict(zip(_AXES[n - 1], found.shape, strict=False)) if n > 1 else None
    count = math.prod(found.shape)
    return program.schedule(program.call(count, count, 1, 1, extents, {}), TILE)


@functools.lru_cache(maxsize=64)
def _neighbourhoods(
    n: int,
    sizes: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    causal: tuple[bool, ...],
) -> Program:
    values: dict[str, Any] = {}
    letters = ("s", "t", "d", "p")
    for letter, numbers in zip(letters, (sizes, strides, dilations, causal), strict=True):
        names = [{"s": "size", "t": "stride", "d": "d", "p": "past"}[letter]]
        if n > 1:
            names = [letter + axis for axis in _AXES[n - 1]]
        values |= dict(zip(names, numbers, strict=True))
    return Program(read_mask(f"neighborhood{n}d", values=values))


def _is_same(some: Schedule, other: Schedule) -> bool:
    """Whether two schedules of one plan, in tiles of one size, are of the same pairs."""
    mine, theirs = (only_plan(each) for each in (some, other))
    for kind in ("full", "partial"):
        a, b = getattr(mine, kind), getattr(theirs, kind)
        if not (np.array_equal(a.indptr, b.indptr) and np.array_equal(a.indices, b.indices)):
            return False
    return all(map(np.array_equal, _masks(some, mine), _masks(other, theirs)))


def _masks(schedule: Schedule, plan: Plan) -> Iterator[np.ndarray[Any, Any]]:
    for first in range(0, plan.partial.nnz, _AT_ONCE):
        yield schedule.masks.packed[plan.mask_ids[first : first + _AT_ONCE]]


# ---------------------------------------------------------------------------- said in words


def told(program: Program, call: Call) -> dict[str, str]:
    """Says what kernels of others take a call for, by the names of back ends, or why they do not: "no: ..."."""
    names = ("sdpa", "varlen, flash_attn", "natten")
    if program.mask.zeros is not ir.ZERO:
        return dict.fromkeys(names, "no: the pattern has zero keys, which are no pairs")
    if call.positions is not None:
        return dict.fromkeys(names, "no: positions of tokens are not given to it")
    schedule = program.schedule(call, TILE)
    if sum(plan.partial.nnz for plan in schedule.plans) > _MOST_TOLD:
        return dict.fromkeys(names, "not looked for among so many tiles")
    asked = (
        lambda: "one triangle" if is_causal_square(schedule) else "all pairs",
        lambda: str(documents(schedule, call.batch)),
        lambda: str(neighbourhood(program, call)),
    )
    return {name: _answer(ask) for name, ask in zip(names, asked, strict=True)}


def _answer(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except NotInFamily as error:
        return f"no: {error.reason}"
