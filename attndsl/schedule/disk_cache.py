"""Disk cache of schedules and reordering decisions that took long to compute.

A schedule is keyed by the bound relation itself, whatever pattern it came from. Calls with run-time inputs are not
cached, because their contents seldom come back. A decision about token orders holds for any inputs.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from attndsl import cache
from attndsl.schedule.model import (
    HeadMask,
    MaskTable,
    Plan,
    Runs,
    Schedule,
    ShortArray,
    Tiles,
    TokenOrder,
)

SLOW: Final = 0.02  # seconds; a result that took less is not worth a file
_ALIGNED = 16  # bytes


def schedule_of(
    pieces: Sequence[HeadMask],
    lengths: tuple[int, int],
    shift: int,
    tile: tuple[int, int],
    plan_of: ShortArray,
    compute: Callable[[], Schedule],
) -> Schedule:
    """Returns what ``compute`` gives, a plan for each relation, from the disk cache if it is there."""
    if cache.location() is None:
        return compute()
    key = {
        "relations": _digest(piece.root.digest for piece in pieces),
        "orders": _digest(_order_digest(o) for p in pieces for o in (p.q_order, p.k_order)),
        "lengths": json.dumps([*lengths, shift]),
        "tile": json.dumps(tile),
        "code": code(),
    }
    found = cache.load_bytes("schedules", key)
    if found is not None:
        return _unpacked(found, pieces, lengths, tile, plan_of)
    started = time.perf_counter()
    made = compute()
    if time.perf_counter() - started > SLOW:
        cache.store_bytes("schedules", key, _packed(made))
    return made


def _arrays(schedule: Schedule) -> list[np.ndarray[Any, Any]]:
    made: list[np.ndarray[Any, Any]] = [schedule.masks.packed]
    for plan in schedule.plans:
        made += [*plan.full.arrays, *plan.partial.arrays, plan.mask_ids]
    return made


def _packed(schedule: Schedule) -> bytes:
    """Serialises a schedule: a line of JSON, then the arrays one after another."""
    arrays = _arrays(schedule)
    about = [[array.dtype.str, list(array.shape)] for array in arrays]
    columns = [plan.n_columns for plan in schedule.plans]
    head = json.dumps([columns, about]).encode() + b"\n"
    parts = [head + b" " * (-len(head) % _ALIGNED)]
    for array in arrays:
        parts.append(array.tobytes())
        parts.append(bytes(-array.nbytes % _ALIGNED))
    return b"".join(parts)


def _unpacked(
    data: bytearray,
    pieces: Sequence[HeadMask],
    lengths: tuple[int, int],
    tile: tuple[int, int],
    plan_of: ShortArray,
) -> Schedule:
    head = data.index(b"\n") + 1
    columns, about = json.loads(data[:head])
    at = head + -head % _ALIGNED
    arrays = []
    for dtype, shape in about:
        count = int(np.prod(shape))
        made = np.frombuffer(data, dtype, count, at).reshape(shape)
        arrays.append(made)
        at += made.nbytes + -made.nbytes % _ALIGNED
    bank, *rest = arrays
    plans = []
    for number, (piece, n_columns) in enumerate(zip(pieces, columns, strict=True)):
        indptr, *runs, more_indptr, more, ids = rest[7 * number : 7 * number + 7]
        full, partial = Tiles(indptr, Runs(*runs)), Tiles(more_indptr, more)
        plans.append(Plan(full, partial, ids, n_columns, piece.q_order, piece.k_order))
    return Schedule(*lengths, tile, tuple(plans), plan_of, MaskTable(bank, tile))


# ---------------------------------------------------------------------------- searches


def load_search(asked: object) -> Any:
    """Loads the stored result of an equal search; None if there is none."""
    return cache.recall("searches", _search_key(asked)) if cache.location() else None


def store_search(asked: object, seconds: float, found: object) -> None:
    """Stores what a search found, if it took long."""
    if seconds > SLOW and cache.location():
        cache.keep("searches", _search_key(asked), found)


def _search_key(asked: object) -> dict[str, str]:
    return {"asked": repr(asked), "code": code()}


@functools.cache
def code() -> str:
    """Cache version: changes when the compiler's source files change.

    A checkout is hashed file by file, by age and size, because any file may be edited; an installed package by one.
    """
    package = Path(__file__).parents[1]
    files = [str(package / "__init__.py"), __file__]
    if (package.parent / "pyproject.toml").exists():
        rooms = (room.path for room in os.scandir(package) if room.is_dir())  # as glob, but faster
        files = sorted(file.path for room in rooms for file in os.scandir(room))
    found = [(path, Path(path).stat()) for path in files if path.endswith(".py")]
    return _digest(f"{path} {x.st_mtime_ns} {x.st_size}".encode() for path, x in found)


def _order_digest(order: TokenOrder | None) -> bytes:
    if order is None:
        return b""
    return hashlib.blake2b(order.rows.tobytes(), digest_size=16).digest()


def _digest(parts: Iterable[bytes]) -> str:
    made = hashlib.blake2b(digest_size=16)
    for part in parts:
        made.update(len(part).to_bytes(4, "big") + part)
    return made.hexdigest()
