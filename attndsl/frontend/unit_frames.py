"""Expressions about a unit, in Python, put into the frame of what is chosen."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from attndsl import ir
from attndsl.source import AttnDslError

from .callers import here
from .embedding import Expr, asked_of, parts_of
from .errors import make_error
from .numbering_elaboration import NUMBER
from .rows import SHIFT

_OPEN: Final = "@unit"  # no name of the language


def open_unit(side: ir.Side, units: ir.selection.Groups) -> ir.Node:
    """The number of a unit whose frame is not known yet."""
    if isinstance(units, ir.selection.Tiles):
        own, sizes = f"{_OPEN}:{units.space}", units.sizes
    else:
        own, sizes = _OPEN, (units.size, units.every, int(units.whole))
    return ir.Load(f"{own}:{side}", ir.Sort.INT, tuple(map(ir.Const, sizes)), ir.Deps.NONE)


def only_side(deps: Iterable[ir.Deps], what: str) -> ir.Side:
    found = functools.reduce(operator.or_, deps, ir.Deps.NONE)
    sides = [side for side in ir.Side if found & side.deps]
    if len(sides) != 1:
        raise AttnDslError(
            make_error("A219", f"a {what} is one of queries, or one of keys", here())
        )
    return sides[0]


def with_inputs(chosen: ir.Chosen, parts: tuple[Expr, ...]) -> Any:
    read = ir.tables_read(*chosen.expressions())
    tables = {table.name: table for part in parts for table in parts_of(part)[1]}
    within = {each.name: each for part in parts for each in asked_of(part).selections}
    return replace(
        chosen,
        tables=tuple(tables[name] for name in sorted(read)),
        within=tuple(each for name, each in within.items() if name in read),
    )


def in_frame(
    node: ir.Node,
    units: ir.selection.Groups,
    rows: ir.selection.Groups | ir.selection.Numbers | None,
    name: str,
    shift: ir.Node,
) -> ir.Node:
    """An expression in the frame of a selection; ``shift`` is the position of query 0."""
    node = ir.substitute(node, {SHIFT: shift})
    node = settled(node, ir.Side.KEY, units)
    if isinstance(rows, ir.selection.Numbers):
        if node.deps & ir.Deps.QUERY:
            raise AttnDslError(make_error("A219", f"there is no `q` for {name!r}", here()))
        return ir.substitute(node, {NUMBER: ir.Pos(ir.Side.QUERY)})
    return settled(node, ir.Side.QUERY, rows or ir.selection.TOKENS)


def settled(node: ir.Node, side: ir.Side, units: ir.selection.Groups) -> ir.Node:
    """An expression whose units of one side are these.

    Raises:
        AttnDslError: A219, it speaks of other ones.
    """
    is_token = isinstance(units, ir.selection.Units) and units.is_token
    for each in _of_side(node, side):
        match each:
            case ir.Load(table=table) if table.startswith(_OPEN):
                is_own = each is open_unit(side, units)
            case ir.selection.Bound() if side is ir.Side.QUERY:
                is_own = is_token
            case (
                ir.selection.Pooled(units=own)
                | ir.selection.Bound(units=own)
                | ir.selection.Antidiagonal(units=own)
                | ir.selection.Reduced(units=own)
            ):
                is_own = own == units
            case _:
                is_own = is_token
        if not is_own:
            whose = "queries" if side is ir.Side.QUERY else "keys"
            what = f"single {whose}" if is_token else f"{_words(units)} of {whose}"
            title = f"this is about {what}, and speaks of others"
            raise AttnDslError(make_error("A219", title, here()))
    return ir.substitute(node, {open_unit(side, units): ir.Pos(side)})


def _words(units: ir.selection.Groups) -> str:
    if isinstance(units, ir.selection.Tiles):
        return f"tiles of {' x '.join(map(str, units.sizes))}"
    return f"blocks of {units.size}"


def _of_side(root: ir.Node, side: ir.Side) -> list[ir.Node]:
    """Nodes that speak of one side, but for those in folds over that side."""
    found: list[ir.Node] = []
    waiting, seen = [root], set[ir.Node]()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        match node:
            case ir.selection.QueryFold() if side is ir.Side.QUERY:
                pass
            case ir.selection.RowFold() if side is ir.Side.KEY:
                pass
            case ir.selection.Reduced(units=ir.selection.Units(), how=how) if side is ir.Side.KEY:
                found += [node] if how is ir.selection.Fold.SOFTMAX else []
            case ir.Load(table=table) if table.startswith(_OPEN):
                found += [node] if table.endswith(f":{side}") else []
            case (
                ir.Pos(side=own)
                | ir.Coord(side=own)
                | ir.selection.Pooled(side=own)
                | ir.reals.Own(side=own)
            ):
                found += [node] if own is side else []
            case ir.selection.Bound() | ir.selection.Antidiagonal():
                found.append(node)
            case _:
                waiting += node.parts
    return found
