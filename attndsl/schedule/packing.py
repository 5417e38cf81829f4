"""Schedules as bytes, and back; what is read is believed only where it is sound and agrees with the relation."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from attndsl import ir
from attndsl.schedule.model import (
    BoolArray,
    HeadMask,
    IntArray,
    MaskTable,
    Plan,
    Runs,
    Schedule,
    ShortArray,
    Tiles,
    TokenOrder,
)

_ALIGNED: Final = 16  # bytes
_SAMPLES: Final = 256  # pairs of a plan of each kind that are held against the relation
_PLANS: Final = 16  # plans that are held against their relations
_EDGES: Final = 64  # tiles at an end of which the bits beyond it are looked at


def packed(schedule: Schedule) -> bytes:
    """A line of JSON, the lengths of the arrays, then the arrays one after another."""
    arrays: list[np.ndarray[Any, Any]] = [schedule.masks.packed]
    for plan in schedule.plans:
        arrays += [*plan.full.arrays[1:], *plan.partial.arrays, plan.mask_ids]
    head = json.dumps([len(array) for array in arrays]).encode() + b"\n"
    parts = [head + b" " * (-len(head) % _ALIGNED)]
    for array in arrays:
        parts.append(array.tobytes())
        parts.append(bytes(-array.nbytes % _ALIGNED))
    return b"".join(parts)


def unpacked(
    data: bytearray,
    pieces: Sequence[HeadMask],
    positions: tuple[range, range],
    tile: tuple[int, int],
    plan_of: ShortArray,
) -> Schedule | None:
    """The schedule of the pieces, each a plan; None where the bytes are none, or one of something else.

    Every array is checked, so that nothing reads or writes beyond it; and pairs drawn at random, so that whoever
    writes the bytes cannot know them, must be in the plan exactly where they are in the relation.
    """
    try:
        made = _read(data, pieces, (len(positions[0]), len(positions[1])), tile, plan_of)
    except (ValueError, TypeError, IndexError, RecursionError):  # no JSON, no lengths, few bytes
        return None
    if not all(_is_sound(plan, made) for plan in made.plans):
        return None
    some = _drawn(len(pieces), _PLANS) if len(pieces) > _PLANS else np.arange(len(pieces))
    agree = (_agrees(made, int(i), pieces[int(i)].root, positions) for i in some)
    return made if all(agree) else None


def _read(
    data: bytearray,
    pieces: Sequence[HeadMask],
    lengths: tuple[int, int],
    tile: tuple[int, int],
    plan_of: ShortArray,
) -> Schedule:
    end = data.index(b"\n") + 1
    n_rows, n_columns = (-(-length // side) for length, side in zip(lengths, tile, strict=True))
    at, counts = end + -end % _ALIGNED, iter(json.loads(data[:end]))

    def array(dtype: type[np.generic], width: int = 1) -> Any:
        nonlocal at
        count = next(counts, None)
        if type(count) is not int or count < 0:
            raise ValueError(count)
        found = np.frombuffer(data, dtype, count * width, at)
        at += found.nbytes + -found.nbytes % _ALIGNED
        return found

    size = -(-tile[0] * tile[1] // 8)
    bank = array(np.uint8, size).reshape(-1, size)
    plans = []
    for piece in pieces:
        rows, first, stop = (array(np.int32) for _ in range(3))
        full = Tiles.of(Runs(rows, first, stop), n_rows)
        partial = Tiles(array(np.int64), array(np.int32))
        ids = array(np.int32)
        plans.append(Plan(full, partial, ids, n_columns, piece.q_order, piece.k_order))
    if next(counts, None) is not None or at != len(data):
        raise ValueError(at)
    return Schedule(*lengths, tile, tuple(plans), plan_of, MaskTable(bank, tile))


def _is_sound(plan: Plan, schedule: Schedule) -> bool:
    """Whether rows, columns and masks exist, are in order and apart, and no mask goes beyond the lengths."""
    (n_rows, n_columns), partial = schedule.grid, plan.partial
    indptr, columns = partial.indptr, partial.indices
    if len(indptr) != n_rows + 1 or indptr[0] != 0 or indptr[-1] != len(columns):
        return False
    if (np.diff(indptr) < 0).any() or len(plan.mask_ids) != len(columns):
        return False
    rows, first, stop = (x.astype(np.int64) for x in plan.full.arrays[1:])
    if not len(rows) == len(first) == len(stop):
        return False
    limits: tuple[tuple[IntArray | ShortArray, int], ...] = (
        *((rows, n_rows), (first, n_columns), (stop - 1, n_columns)),
        *((columns, n_columns), (plan.mask_ids, len(schedule.masks))),
    )
    if not all(((x >= 0) & (x < limit)).all() for x, limit in limits) or (stop <= first).any():
        return False
    begins, ends = rows * n_columns + first, rows * n_columns + stop
    places = partial.rows.astype(np.int64) * n_columns + columns
    if (np.diff(places) <= 0).any() or (begins[1:] < ends[:-1]).any():
        return False
    run = np.searchsorted(begins, places, side="right") - 1
    if ((run >= 0) & (places < np.append(ends, 0)[run])).any():
        return False
    return _is_within(plan, schedule)


def _is_within(plan: Plan, schedule: Schedule) -> bool:
    """Whether the masks of tiles at the ends have no bit beyond them."""
    (n_rows, n_columns), (bq, bk) = schedule.grid, schedule.tile
    left = schedule.q_len - (n_rows - 1) * bq, schedule.k_len - (n_columns - 1) * bk
    for is_last, side in (
        (plan.partial.rows == n_rows - 1, 0),
        (plan.partial.indices == n_columns - 1, 1),
    ):
        ids = plan.mask_ids[is_last]
        if len(ids) > _EDGES:
            ids = ids[_drawn(len(ids), _EDGES)]
        masks = schedule.masks.unpack(ids)
        if (masks[:, left[0] :] if side == 0 else masks[:, :, left[1] :]).any():
            return False
    return True


def _agrees(schedule: Schedule, number: int, root: ir.Node, positions: tuple[range, range]) -> bool:
    """Whether pairs drawn at random are in the plan where they are in the relation, and nowhere else."""
    plan, (queries, keys) = schedule.plans[number], positions
    if not queries or not keys:
        return plan.live == 0
    rows, columns = (np.concatenate(each) for each in zip(*_pairs(schedule, plan), strict=True))
    q, k = _placed(plan.q_order, rows, queries.start), _placed(plan.k_order, columns, keys.start)
    wanted = ir.evaluate(root, ir.Env(q=q, k=k, sizes={}))
    return bool((_holds(schedule, plan, rows, columns) == wanted).all())


def _pairs(schedule: Schedule, plan: Plan) -> Iterator[tuple[IntArray, IntArray]]:
    """Places of pairs: anywhere, in PARTIAL tiles, and in FULL ones."""
    (bq, bk), lengths = schedule.tile, (schedule.q_len, schedule.k_len)
    yield _drawn(lengths[0], _SAMPLES), _drawn(lengths[1], _SAMPLES)
    rows, first, stop = plan.full.arrays[1:]
    for tile_rows, low, high in (
        (plan.partial.rows, plan.partial.indices, plan.partial.indices + 1),
        (rows, first, stop),
    ):
        if len(tile_rows):
            some = _drawn(len(tile_rows), _SAMPLES)
            width = (high - low).astype(np.int64)[some]
            row = tile_rows[some].astype(np.int64) * bq + _drawn(bq, _SAMPLES)
            column = low[some].astype(np.int64) * bk + _drawn(1 << 62, _SAMPLES) % (width * bk)
            yield np.minimum(row, lengths[0] - 1), np.minimum(column, lengths[1] - 1)


def _holds(schedule: Schedule, plan: Plan, rows: IntArray, columns: IntArray) -> BoolArray:
    """Whether the plan has the pairs of those places."""
    (bq, bk), width = schedule.tile, schedule.grid[1]
    at = rows // bq * width + columns // bk
    of_run, first, stop = (x.astype(np.int64) for x in plan.full.arrays[1:])
    run = np.searchsorted(of_run * width + first, at, side="right") - 1
    found = (run >= 0) & (at < np.append(of_run * width + stop, 0)[run])
    live = plan.partial.rows.astype(np.int64) * width + plan.partial.indices
    if len(live):
        place = np.minimum(np.searchsorted(live, at), len(live) - 1)
        bit = rows % bq * bk + columns % bk
        byte = schedule.masks.packed[plan.mask_ids[place], bit // 8]
        found |= (live[place] == at) & ((byte >> (7 - bit % 8).astype(np.uint8)) & 1 > 0)
    return np.asarray(found, dtype=bool)


def _placed(order: TokenOrder | None, places: IntArray, start: int) -> IntArray:
    return (places if order is None else order.rows[places]) + start


def _drawn(limit: int, count: int) -> IntArray:
    """So many numbers below the limit, by the system's randomness. numpy.random would take 10 ms to load."""
    words = np.frombuffer(os.urandom(8 * count), np.uint64)
    return (words % np.uint64(limit)).astype(np.int64)
