"""Disk cache of schedules and reordering decisions that took long to compute.

A schedule is keyed by the bound relation itself, whatever pattern it came from. Calls with run-time inputs are not
cached, because their contents seldom come back. A decision about token orders holds for any inputs.
"""

from __future__ import annotations

import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from attndsl import cache
from attndsl.schedule.model import HeadMask, Schedule, ShortArray, TokenOrder
from attndsl.schedule.packing import packed, unpacked

SLOW: Final = 0.02  # seconds; a result that took less is not worth a file
_ROOMS: Final = ("ir", "passes", "analysis", "schedule")  # what makes schedules and decisions


def schedule_of(
    pieces: Sequence[HeadMask],
    positions: tuple[range, range],
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
        "lengths": json.dumps([*map(len, positions), positions[0].start]),
        "tile": json.dumps(tile),
        "code": code(),
    }
    data = cache.load_bytes("schedules", key)
    found = None if data is None else unpacked(data, pieces, positions, tile, plan_of)
    if found is not None:
        return found
    started = time.perf_counter()
    made = compute()
    if time.perf_counter() - started > SLOW:
        cache.store_bytes("schedules", key, packed(made))
    return made


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
    """Cache version: a digest of the source files that schedules and decisions are made by, some milliseconds."""
    package = Path(__file__).parents[1]
    files = sorted(path for room in _ROOMS for path in (package / room).glob("*.py"))
    return _digest(path.read_bytes() for path in files)


def _order_digest(order: TokenOrder | None) -> bytes:
    if order is None:
        return b""
    return hashlib.blake2b(order.rows.tobytes(), digest_size=16).digest()


def _digest(parts: Iterable[bytes]) -> str:
    made = hashlib.blake2b(digest_size=16)
    for part in parts:
        made.update(len(part).to_bytes(4, "big") + part)
    return made.hexdigest()
