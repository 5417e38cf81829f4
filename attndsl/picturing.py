"""Pictures of a compiled pattern in one call: pairs, tiles, or what one query sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from attndsl import ir, views
from attndsl.compiler import BoolArray, Program
from attndsl.schedule import Call
from attndsl.source import AttnDslError, Diagnostic


@dataclass(frozen=True, slots=True)
class Choice:
    """The head and batch element that a picture shows; one ``query`` alone, from either end, or all."""

    head: int = 0
    element: int = 0
    query: int | None = None


def draw(program: Program, call: Call, of: Choice) -> str:
    """The picture in characters.

    Raises:
        AttnDslError: A402, there is no such head, batch element or query.
    """
    rows = _rows(program, call, of)
    if of.query is None:
        return views.draw_mask(rows)
    own = _own_position(program, call, of)
    row, sizes = _in_order(call, of, rows[of.query])
    return views.draw_query(row, program.mask.keys, sizes, own)


def picture(program: Program, call: Call, of: Choice) -> views.Sheet:
    """The picture pair by pair, or of one query on the grid of each segment. Raises as ``draw``."""
    rows, name = _rows(program, call, of), program.mask.name
    if of.query is None:
        return views.Sheet((views.picture_mask(rows, title=name),))
    own, title = _own_position(program, call, of), f"{name}, query {of.query % call.q_len}"
    row, sizes = _in_order(call, of, rows[of.query])
    return views.Sheet(views.picture_query(row, program.mask.keys, sizes, own, title=title))


def tiles(program: Program, call: Call, of: Choice, tile: int | None, layout: str) -> views.Sheet:
    """The tiles that are computed, in natural order and beside it in a layout. Raises as ``draw``."""
    _check(call, of)
    side = tile or views.fitting_tile(max(call.q_len, call.k_len))
    whole = program.schedule(call, (side, side))
    parts = program.tiled(call, layout, (side, side))
    made = [part.schedules[side, side] for part in parts]
    return views.sheet_of_tiles(whole, made, of.head, of.element, title=program.mask.name)


def _rows(program: Program, call: Call, of: Choice) -> BoolArray:
    _check(call, of)
    rows: BoolArray = program.dense(call)[of.element, of.head]
    return rows


def _check(call: Call, of: Choice) -> None:
    wanted = ("head", of.head, call.heads), ("batch element", of.element, call.batch)
    for name, index, count in wanted:
        if not 0 <= index < count:
            title = f"there is no {name} {index}: the call has {count}"
            raise AttnDslError(Diagnostic("A402", title))
    if of.query is not None and not -call.q_len <= of.query < call.q_len:
        title = f"there is no query {of.query}: the call has {call.q_len}"
        raise AttnDslError(Diagnostic("A402", title))


def _own_position(program: Program, call: Call, of: Choice) -> int | None:
    """The position of the query among the keys; None between different spaces, and where there is none."""
    mask, query = program.mask, (of.query or 0) % call.q_len
    if mask.is_rectangular:
        return None
    if call.positions is None:
        return query + mask.shift(call.q_len, call.k_len)
    own = int(ir.of_element(call.positions.q.positions(), of.element)[query])
    return own if 0 <= own < ir.of_element(call.positions.sizes, of.element)["k"] else None


def _in_order(call: Call, of: Choice, row: BoolArray) -> tuple[BoolArray, Mapping[str, int]]:
    """Keys that a query sees, by their positions, and the sizes of the spaces."""
    if call.positions is None:
        return row, call.sizes
    keys, sizes = call.positions.k, ir.of_element(call.positions.sizes, of.element)
    exist = ir.of_element(keys.exist(), of.element)
    whole = np.zeros(sizes["k"], dtype=bool)
    whole[ir.of_element(keys.positions(), of.element)[exist]] = row[exist]
    return whole, sizes
