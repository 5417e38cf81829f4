"""A schedule against the dense meaning: every pair, no empty tile, no full tile masked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from attndsl.schedule import Plan, Schedule, Tiles
from attndsl.verification.references import Fault

BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]


def schedule_fault(schedule: Schedule, dense: BoolArray) -> Fault | None:
    """The first error of a schedule, if it has one.

    Args:
        schedule: Of one call.
        dense: The meaning of that call, bool [batch, heads, q_len, k_len].
    """
    checked = set()
    for batch, head in np.ndindex(*dense.shape[:2]):
        meant = dense[batch, head]
        key = (id(schedule.plan(batch, head)), meant.tobytes())
        if key in checked:  # heads that share a plan and a meaning
            continue
        checked.add(key)
        fault = next(_plan_faults(schedule, meant, batch, head), None)
        if fault is not None:
            return fault
    return None


def parts_fault(parts: Sequence[Schedule], dense: BoolArray) -> Fault | None:
    """The first error of schedules whose softmaxes are merged: each pair of the pattern must be in just one.

    Args:
        parts: Of one call.
        dense: The meaning of that call, bool [batch, heads, q_len, k_len].
    """
    for batch, head in np.ndindex(*dense.shape[:2]):
        covers = [part.cover(batch, head) for part in parts]
        count = np.asarray(np.sum(covers, axis=0, dtype=np.int64))
        for query, key in np.argwhere(count != dense[batch, head]):
            place = {"batch": batch, "head": head, "query": int(query), "key": int(key)}
            want = _in(dense[batch, head, query, key])
            return Fault("parts", place, f"in {count[query, key]} of {len(parts)} parts", want)
    for part in parts:
        own = [[part.cover(b, h) for h in range(dense.shape[1])] for b in range(dense.shape[0])]
        if (fault := schedule_fault(part, np.array(own).reshape(dense.shape))) is not None:
            return replace(fault, what="parts")
    return None


def _plan_faults(schedule: Schedule, meant: BoolArray, batch: int, head: int) -> Iterator[Fault]:
    plan, (bq, bk) = schedule.plan(batch, head), schedule.tile
    covered = schedule.cover(batch, head)
    place = {"batch": batch, "head": head}
    for query, key in np.argwhere(covered != meant):
        pair = place | {"query": int(query), "key": int(key)}
        yield Fault("schedule", pair, _in(covered[query, key]), _in(meant[query, key]))
    live, total = _per_tile(_stored(meant, plan), schedule)
    for kind, tiles in (("full", plan.full), ("partial", plan.partial)):
        for row, column in tiles:
            pairs, size = int(live[row, column]), int(total[row, column])
            if (pairs == size) == (kind == "full") and pairs:
                continue
            yield Fault(
                "schedule",
                place | {"row of tiles": row, "column of tiles": column},
                f"a {kind} tile of {bq} x {bk}",
                f"none: {pairs} of its {size} pairs are in the pattern",
            )
    if _places(plan.transpose, swap=True) != _places(plan, swap=False):
        yield Fault("schedule", place, "other tiles in the transpose", "the same tiles")


def _in(value: bool) -> str:
    return "in the pattern" if value else "not in the pattern"


def _stored(meant: BoolArray, plan: Plan) -> BoolArray:
    """The pairs in the order in which tiles hold them."""
    for axis, order in enumerate((plan.q_order, plan.k_order)):
        meant = meant if order is None else meant.take(order.rows, axis)
    return meant


def _per_tile(meant: BoolArray, schedule: Schedule) -> tuple[Any, Any]:
    """How many pairs of each tile are live, and how many there are inside the lengths."""
    (rows, columns), (bq, bk) = schedule.grid, schedule.tile

    def count(pairs: BoolArray) -> Any:
        padded = np.zeros((rows * bq, columns * bk), dtype=np.int64)
        padded[: schedule.q_len, : schedule.k_len] = pairs
        return padded.reshape(rows, bq, columns, bk).sum(axis=(1, 3))

    return count(meant), count(np.ones_like(meant))


def _places(plan: Plan, swap: bool) -> tuple[Any, Any]:
    """All tiles by (query tile, key tile), with multiplicity, and the masks of the partial ones."""

    def pairs(tiles: Tiles) -> list[tuple[int, int]]:
        return [(column, row) if swap else (row, column) for row, column in tiles]

    masked = zip(pairs(plan.partial), plan.mask_ids.tolist(), strict=True)
    return sorted(pairs(plan.full)), sorted(masked)
