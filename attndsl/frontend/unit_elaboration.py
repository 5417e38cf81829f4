"""Scores of selections to nodes: vectors of units, folds over heads, units and queries."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from attndsl import ir
from attndsl import syntax as syn
from attndsl.source import AttnDslError, Span

from .errors import make_error
from .frames import Scope, Value
from .units import (
    BOUND,
    DIAGONALS,
    KEYS,
    QUERIES,
    SCALE,
    SHARE,
    UNIT,
    blocks_said,
    grid_of,
    name_of,
)

if TYPE_CHECKING:
    from .elaboration import Elaborator

reals, sel = ir.reals, ir.selection

_UNITS, _ROWS = "@units", "@rows"  # no names of the language: the units around an expression
_Q, _K = ir.Pos(ir.Side.QUERY), ir.Pos(ir.Side.KEY)
# Placeholder of a share, until it is found.
_SHARE: Final = ir.Load("@share", ir.Sort.REAL, (), ir.Deps.NONE)


def within(
    frame: Scope, name: str, units: sel.Groups, queries: sel.Groups | None, align: ir.Align
) -> Scope:
    """The scope of expressions on queries, or units of them, and units of keys."""
    local: dict[str, Value] = {**frame.local, SCALE: sel.Scale(), _UNITS: units}
    if name:
        local |= {name: _K, **_bounds(units, name, _K, "k")}
    if queries is not None:
        local |= _of_rows(queries, align)
    return replace(frame, local=local)


def _bounds(units: sel.Groups, name: str, number: ir.Node, length: str) -> dict[str, Value]:
    """Where a unit of that name begins, and where it ends, or the least coordinates of a tile."""
    if isinstance(units, sel.Tiles):
        return {f"{name}.{axis}": at for axis, at in units.first(number).items()}
    start, end = units.start(number), units.end(number, ir.Size(length))
    return {f"{name}.start": start, f"{name}.end": end}


def units_around(frame: Scope) -> tuple[sel.Groups, sel.Groups | None]:
    """The units of keys, and of queries, that an expression is about."""
    units, rows = frame.local[_UNITS], frame.local.get(_ROWS)
    assert isinstance(units, sel.Groups), "a selection is about units"
    return units, rows if isinstance(rows, sel.Groups) else None


def units_of(
    elaborator: Elaborator, each: str | syn.Groups | None, span: Span, frame: Scope
) -> sel.Groups:
    blocks = blocks_said(frame.definition, each)
    if blocks is None:
        return sel.TOKENS
    if isinstance(blocks, syn.Tiles):
        return _tiles_of(elaborator, blocks, grid_of(frame.definition, each), frame)
    scope = replace(frame, local={}) if isinstance(each, str) else frame
    numbers = [_size(elaborator, size, scope, "blocks") for size in syn.blocks_of(blocks)]
    made = sel.Units(numbers[0], numbers[-1], blocks.whole)
    if made.every > made.size:
        title = f"blocks of {made.size} tokens, one every {made.every}, leave tokens out"
        raise AttnDslError(make_error("A306", title, span))
    return made


def _size(elaborator: Elaborator, size: syn.Expression, frame: Scope, whose: str) -> int:
    node = elaborator.node(size, frame)
    if isinstance(node, ir.Const) and 0 < node.value <= sel.LARGEST_UNIT:
        return node.value
    found = f", not {node.value}" if isinstance(node, ir.Const) else ""
    title = f"a size of {whose} is a known int from 1 to 2**20{found}"
    raise AttnDslError(make_error("A306", title, size.span))


def _tiles_of(
    elaborator: Elaborator, tiles: syn.Tiles, space: ir.Space | None, frame: Scope
) -> sel.Tiles:
    """Tiles of a grid, which is that of the keys or of the queries of the selection.

    Raises:
        AttnDslError: A219, it is another grid; A306, a size is no known int.
    """
    if space is None or space not in (elaborator.outer.keys, elaborator.outer.queries):
        title = f"this selection chooses no tiles of `{tiles.grid}`"
        raise AttnDslError(make_error("A219", title, tiles.span))
    sizes = {x.axis: _size(elaborator, x.size, frame, "tiles") for x in tiles.sizes}
    return sel.Tiles(space, tuple(sizes[axis.name] for axis in space.segments[0].axes))


def pooled(
    node: syn.Call, frame: Scope, vector: Callable[[syn.Expression, Scope], ir.Node]
) -> ir.Node:
    """`mean(k)`, `mean(unit(k))` and their kind, and `unit(...)` of a vector."""
    argument = node.arguments[0].value
    if node.name == UNIT:
        return sel.Unit(vector(argument, frame))
    is_normal = isinstance(argument, syn.Call)
    if isinstance(argument, syn.Call):
        argument = argument.arguments[0].value
    assert isinstance(argument, syn.Name), "kinds were checked"
    keys, queries = units_around(frame)
    units = keys if argument.name == "k" else queries
    assert units is not None, "kinds were checked"
    return sel.Pooled(sel.Pool(node.name), ir.Side(argument.name), units, is_normal)


def compared_units(node: syn.Call, frame: Scope) -> ir.Node:
    """`bound(q, k)`, or `antidiagonal(q, k)`.

    Raises:
        AttnDslError: A219, units of queries and of keys differ.
    """
    keys, queries = units_around(frame)
    if node.name == BOUND:
        return sel.Bound(keys)
    if queries != keys or not isinstance(keys, sel.Units) or not keys.is_partition:
        title = "antidiagonals are those of blocks of queries and of keys of one size"
        raise AttnDslError(make_error("A219", title, node.span))
    return sel.Antidiagonal(keys)


def folded(elaborator: Elaborator, node: syn.Total, frame: Scope) -> ir.Node:
    """`sum j in 0..n: real`."""
    low, high = elaborator.node(node.range.low, frame), elaborator.node(node.range.high, frame)
    if (low.deps | high.deps) & ~ir.Deps.NONE:
        title = "a sum of reals goes over the same numbers for all pairs"
        raise AttnDslError(make_error("A219", title, node.range.span))

    def body(index: ir.Node) -> ir.Node:
        inner = replace(frame, local={**frame.local, node.name: index})
        return elaborator.node(node.body, inner)

    return sel.series(low, high, body)


def reduced(elaborator: Elaborator, node: syn.Reduction, frame: Scope) -> ir.Node:
    """`sum over group: e`, `softmax over fine where c: e`."""
    how = sel.Fold(node.how)
    if node.over in ("group", "heads"):
        item = reals.as_real(elaborator.node(node.body, frame))
        return sel.Reduced(how, sel.Shared(node.over), item, ir.TRUE, False)
    if node.over in QUERIES:
        return _over_queries(elaborator, node, frame)
    around, queries = units_around(frame)
    is_own = how is sel.Fold.SOFTMAX
    is_around = is_own or (blocks_said(frame.definition, node.over) is None and node.over != KEYS)
    units = around if is_around else units_of(elaborator, node.over, node.over_span, frame)
    if isinstance(units, sel.Tiles) and units.space != elaborator.outer.keys:
        title = "keys are folded in tiles of their own grid"
        raise AttnDslError(make_error("A219", title, node.over_span))
    inside = frame
    if not is_own:
        name = node.over if is_around else name_of(node.over)
        inside = within(frame, name, units, queries, elaborator.align)
        inside = replace(inside, local={**inside.local, SHARE: _SHARE})
    where = ir.TRUE if node.where is None else elaborator.node(node.where, inside)
    item, by_share = _without_share(reals.as_real(elaborator.node(node.body, inside)))
    if _SHARE in ir.postorder(item) and not is_own:
        title = "`share` multiplies what is summed, once"
        helps = (f"write `sum over {node.over}: share * (...)`",)
        raise AttnDslError(make_error("A219", title, node.body.span, helps=helps))
    if node.every:
        return sel.RowFold(how, units, item, where)
    return sel.Reduced(how, units, item, where, by_share)


def _over_queries(elaborator: Elaborator, node: syn.Reduction, frame: Scope) -> ir.Node:
    """`sum over queries where c: e`, `sum over queries in fine: e`, `sum over diagonals: e`."""
    rows = None if node.rows is None else units_of(elaborator, node.rows, node.rows_span, frame)
    assert not isinstance(rows, sel.Tiles), "the check refuses tiles of queries"
    inside = replace(frame, local={**frame.local, _ROWS: None})
    if rows is not None:
        inside = replace(frame, local={**frame.local, **_of_rows(rows, elaborator.align)})
    where = ir.TRUE if node.where is None else elaborator.node(node.where, inside)
    item = reals.as_real(elaborator.node(node.body, inside))
    by_distance = node.over == DIAGONALS
    return sel.QueryFold(sel.Fold(node.how), rows or sel.TOKENS, item, where, by_distance)


def _of_rows(rows: sel.Groups, align: ir.Align) -> dict[str, Value]:
    """The names that a unit of queries has."""
    length = "k" if align is ir.Align.END else "q"
    return {"q.index": _Q, **_bounds(rows, "q", _Q, length), _ROWS: rows}


def _without_share(item: ir.Node) -> tuple[ir.Node, bool]:
    """A product without the share in it, and whether it was there."""
    if item is _SHARE:
        return reals.UNITY, True
    if isinstance(item, reals.Times):
        for one, other in ((item.left, item.right), (item.right, item.left)):
            rest, found = _without_share(one)
            if found:
                return reals.times(rest, other), True
    return item, False
