"""Give heads and batch elements one plan where their schedules are equal, and one list where their tiles are.

    plans A, B: equal tiles, equal masks, equal orders    -->  A serves both
    plans A, B: equal FULL (or PARTIAL) tiles             -->  the list is stored once

Expressions may differ and mean the same at the lengths of a call: a window wider than the sequence is no
window, and heads whose windows are 4,096 and 8,192 are one over 2,048 tokens.

Law: equal tiles with equal masks hold equal pairs. So plans that are merged are about one relation, and
equal in tiles of any other size, too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from attndsl.schedule.model import Plan, Schedule, Tiles, TokenOrder


def merge_heads(schedule: Schedule) -> tuple[Schedule, list[int]]:
    """The schedule with each plan once, and which of its plans were kept."""
    share = _sharing()
    plans = [
        replace(plan, full=share(plan.full), partial=share(plan.partial)) for plan in schedule.plans
    ]
    first: dict[object, int] = {}
    stands_for = [first.setdefault(_contents(plan), number) for number, plan in enumerate(plans)]
    kept = sorted(first.values())
    number_of = {old: new for new, old in enumerate(kept)}
    renumbered = np.array([number_of[old] for old in stands_for], dtype=np.int32)
    made = tuple(plans[number] for number in kept)
    return replace(schedule, plans=made, plan_of=renumbered[schedule.plan_of]), kept


def _sharing() -> Callable[[Tiles], Tiles]:
    known: dict[tuple[bytes, ...], Tiles] = {}
    return lambda tiles: known.setdefault(tuple(x.tobytes() for x in tiles.arrays), tiles)


def _contents(plan: Plan) -> object:
    """Key on which two equal plans agree; their tiles are shared already."""
    orders = (_rows(plan.q_order), _rows(plan.k_order))
    return id(plan.full), id(plan.partial), plan.mask_ids.tobytes(), orders


def _rows(order: TokenOrder | None) -> bytes | None:
    return None if order is None else order.rows.tobytes()
