"""N-D neighbourhoods as NATTEN has them: found in a program, and proved pair by pair."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from attndsl.compiler import Program
from attndsl.families import TILE, TILES_AT_ONCE, BoolArray, IntArray, NotInFamily, only_plan
from attndsl.schedule import Call, Plan, Schedule
from attndsl.sources import read_mask

_STRIDES_AT_ONCE: Final = 4096  # strides tried together, each on some 100 queries
# of the neighbourhoods of the prelude, by how many axes more than one they have
_AXES: Final = ("", "yx", "tyx")


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
    for first in range(0, plan.partial.nnz, TILES_AT_ONCE):
        yield schedule.masks.packed[plan.mask_ids[first : first + TILES_AT_ONCE]]
