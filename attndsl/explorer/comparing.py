"""Two patterns in one call: where they differ, in pictures, in numbers, and by the first pair."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from attndsl import ir, views
from attndsl.compiler import Program
from attndsl.schedule import Schedule
from attndsl.source import AttnDslError, Diagnostic

from .drawn import packed
from .questions import BadQuestion, Question
from .scenes import TILE, Scene

_GROUND, _BOTH, _FIRST, _SECOND, _MIXED = "#edeff2", "#9aa3ad", "#0072b2", "#d55e00", "#8a63a8"
_INKS = (
    views.Ink("in neither", _GROUND, "· ", ". "),
    views.Ink("in both", _BOTH, "██", "# "),
    views.Ink("in A only", _FIRST, "██", "A "),
    views.Ink("in B only", _SECOND, "██", "B "),
    views.Ink("some in A only, some in B only", _MIXED, "██", "X "),
)


def compare(data: Any) -> dict[str, Any]:
    """The difference of two patterns; ``data`` hold both questions, the call is that of the first.

    Raises:
        BadQuestion: There are not two.
        AttnDslError: whatever is wrong with either; A406, they cannot be called alike.
    """
    if not isinstance(data, dict) or "with" not in data:
        raise BadQuestion("a comparison takes two patterns")
    first = Scene(Question.read({name: x for name, x in data.items() if name != "with"}))
    call = first.call
    other = replace(
        Question.read(data["with"]), q_len=call.q_len, k_len=call.k_len, heads=call.heads,
        batch=call.batch, seed=first.of.seed, head=first.of.head, element=first.of.element,
    )  # fmt: skip
    second = Scene(other)
    whole = (first.schedule(), second.schedule())
    only = tuple(_only(*pair) for pair in ((first, second), (second, first)))
    shown = [
        views.picture_pairs(each, first.rows, first.columns, *first.place, most=first.of.cells)
        for each in (*whole, *only)
    ]
    cells = [picture.cells > 0 for picture, _ in shown]
    mixed = np.select(
        [cells[2] & cells[3], cells[2], cells[3], cells[0] & cells[1]], [4, 2, 3, 1], 0
    )
    picture = views.Picture(mixed.astype(np.uint8), _INKS, None, None, "")
    counts = [views.cost(each, 64, heads=call.heads, batch=call.batch).pairs for each in only]
    return {
        "call": first.told(),
        "pictures": [packed(*shown[0]), packed(*shown[1]), packed(picture, shown[0][1])],
        "names": [first.about.mask.name, second.about.mask.name],
        "only_first": counts[0],
        "only_second": counts[1],
        "pair": _first_pair(only, first.place),
    }


def _only(first: Scene, second: Scene) -> Schedule:
    """The schedule of the pairs that the first has and the second has not."""
    a, b = first.program.normal, second.program.normal
    if (a.queries, a.keys, a.align) != (
        b.queries,
        b.keys,
        b.align,
    ) and a.keys.segments + b.keys.segments:
        raise _unlike("they live in different spaces, or are aligned differently")
    declared = {table.name: table for table in b.tables}
    for table in a.tables:
        if declared.setdefault(table.name, table) != table:
            raise _unlike(f"they declare the input `{table.name}` differently")
    root = ir.conj(a.root, ir.negate(b.root))
    tables = tuple(declared[name] for name in sorted(declared))
    mask = replace(a, tables=tables, conditions=(), claims=(), zeros=ir.ZERO).with_root(root)
    program = Program(mask, first.of.layer)
    call, given = first.call, {**second.call.tables, **first.call.tables}
    needed = {table.name: given[table.name] for table in program.mask.tables}
    extents = {name: size for name, size in call.sizes.items() if "." in name}
    again = program.call(call.q_len, call.k_len, call.batch, call.heads, extents, needed)
    return program.schedule(again, (TILE, TILE))


def _unlike(why: str) -> AttnDslError:
    return AttnDslError(Diagnostic("A406", f"the two patterns cannot be called alike: {why}"))


def _first_pair(only: tuple[Schedule, ...], place: tuple[int, int]) -> dict[str, Any] | None:
    """The first pair, by query and then by key, that one of the patterns has alone."""
    found = [pair for number, each in enumerate(only) for pair in _first(each, number, place)]
    if not found:
        return None
    query, key, number = min(found)
    return {"query": query, "key": key, "in": "AB"[number]}


def _first(schedule: Schedule, number: int, place: tuple[int, int]) -> list[tuple[int, int, int]]:
    plan = schedule.plan(*place)
    live = np.diff(plan.full.indptr) + np.diff(plan.partial.indptr)
    for row in np.flatnonzero(live)[:1].tolist():
        for query in range(row * TILE, min((row + 1) * TILE, schedule.q_len)):
            seen = np.flatnonzero(views.keys_seen(schedule, query, *place))
            if len(seen):
                return [(query, int(seen[0]), number)]
    return []
