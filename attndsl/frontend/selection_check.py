"""The check of a selection: its units, and that all its expressions have their kinds."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from attndsl import syntax as syn

from .errors import did_you_mean, listed
from .numbering_check import check_numbering, check_numbers
from .order import plain_use
from .scope import Definition
from .tile_check import check_tiles
from .units import (
    ALL,
    BLOCK,
    DIAGONALS,
    KEYS,
    QUERIES,
    SCALE,
    SHARE,
    TILE,
    Frame,
    axes_of,
    blocks_said,
    grid_of,
    name_of,
    names_of,
    no_units,
    row_names,
)

if TYPE_CHECKING:
    from .real_check import Locals, Numbers

TAKES: Final = ("top", "above", "reaching", "within", "sample")
COUNTING: Final = ("top", "sample")
HEADS: Final = ("group", "heads")


def selection_used(definition: Definition, node: syn.Expression) -> Definition | None:
    """The selection that an expression plainly names, with arguments or without."""
    used = plain_use(definition, node)
    return used if used is not None and used.is_selection else None


def check_selection(checker: Numbers, local: Locals) -> None:
    """Complain of a selection whose parts do not fit."""
    declaration = checker.definition.declaration
    if isinstance(declaration, syn.Label | syn.Rank):
        check_numbering(checker, declaration, {**local, SCALE: "real"})
        checker.facts.tables = {}
        return
    assert isinstance(declaration, syn.Select)
    rows = declaration.queries
    for each, span in (
        (declaration.over, declaration.over_span),
        (None if rows == ALL or isinstance(rows, syn.Numbers) else rows, declaration.queries_span),
    ):
        blocks = blocks_said(checker.definition, each)
        if isinstance(each, str) and blocks is None:
            no_units(checker, each, syn.Name(each, span))
        if isinstance(blocks, syn.Tiles):
            check_tiles(checker, blocks, grid_of(checker.definition, each))
        _check_sizes(checker, each, local)
    if declaration.per is not None and declaration.per not in HEADS:
        title = f"heads do not choose together `per {declaration.per}`"
        helps = (did_you_mean(declaration.per, HEADS), "write `per group` or `per heads`")
        checker.add("A219", title, declaration.per_span, helps=helps)
    unit = name_of(declaration.over)
    axes, row_axes = (axes_of(checker.definition, each) for each in (declaration.over, rows))
    inside: Locals = {**local, SCALE: "real", **names_of(unit, axes)}
    if isinstance(rows, syn.Numbers):
        check_numbers(checker, rows, local)
        checker.frame = Frame(unit, False, "q", axes)
        inside = {**inside, rows.name: "int"}
    else:
        checker.frame = Frame(unit, rows is not None, "", axes, row_axes)
        inside = {**inside, **({} if rows is None else row_names(row_axes))}
    for condition in declaration.candidates:
        checker.expect(condition, "bool", inside)
    if declaration.keeping is not None:
        checker.expect(declaration.keeping, "bool", inside)
    checker.expect(declaration.body, "real", inside)
    _check_take(checker, declaration.take, local if isinstance(rows, syn.Numbers) else inside)
    checker.facts.tables = {}  # they are the selection's own: what uses it reads what was chosen


def _check_sizes(checker: Numbers, each: str | syn.Groups | None, local: Locals) -> None:
    """Sizes of blocks are ints; those of units that are declared know no parameters."""
    role, checker.role = checker.role, "default"
    for size in syn.blocks_of(blocks_said(checker.definition, each)):
        checker.expect(size, "int", {} if isinstance(each, str) else local)
    checker.role = role


def _check_take(checker: Numbers, take: syn.Take, local: Locals) -> None:
    if take.how not in TAKES:
        title = f"nothing is taken by `{take.how}`"
        helps = (did_you_mean(take.how, TAKES),)
        notes = (f"a selection takes {listed(TAKES)}",)
        checker.add("A219", title, take.how_span, notes=notes, helps=helps)
    checker.expect(take.amount, "int" if take.how in COUNTING else "real", local)
    if take.seed is not None:
        checker.expect(take.seed, "int", local)
    if take.by not in (None, "column"):
        title = f"what is taken is taken by row, or `by column`, not `by {take.by}`"
        checker.add("A219", title, take.by_span, helps=("write `take top n by column`",))
    if (take.seed is not None) != (take.how == "sample"):
        title = "a sample has a seed, and nothing else has"
        checker.add("A219", title, take.span, helps=("write `take sample 8 seed 0`",))


def check_reduction(checker: Numbers, node: syn.Reduction, local: Locals) -> None:
    """Complain of a fold that is not one of the units or heads that there are."""
    frame = checker.frame
    if frame is None:
        title = "scores are folded in selections only"
        checker.add("A219", title, node.span)
        return
    if node.over in HEADS:
        if node.how == "softmax" or node.where is not None:
            title = "scores of heads are summed, or the greatest is taken, of all of them"
            checker.add("A219", title, node.span)
        checker.expect(node.body, "real", local)
        return
    if node.over in QUERIES:
        _check_queries(checker, node, frame, local)
        return
    own = (frame.unit if frame.unit in (BLOCK, TILE) else None, KEYS)
    if node.over not in own and blocks_said(checker.definition, node.over) is None:
        no_units(checker, node.over, syn.Name(node.over, node.over_span))
        return
    if node.rows is not None:
        checker.add("A219", "only queries are folded `in` units of them", node.rows_span)
    unit = name_of(node.over)
    is_inner = unit != frame.unit
    axes = axes_of(checker.definition, node.over) if is_inner else frame.axes
    _check_word(checker, node, is_inner, bool(axes or frame.axes))
    left = names_of(frame.unit, frame.axes)
    kept = {name: kind for name, kind in local.items() if name not in left and name != SHARE}
    inside: Locals = {**kept, **names_of(unit, axes)}
    checker.frame = replace(frame, unit=unit, axes=axes)
    if node.where is not None:
        checker.expect(node.where, "bool", inside)
    if is_inner and node.how == "sum" and not node.every:
        inside = {**inside, SHARE: "real"}
    checker.expect(node.body, "real", inside)
    checker.frame = frame


def _check_word(
    checker: Numbers, node: syn.Reduction, is_inner: bool, of_tiles: bool = False
) -> None:
    """Complain of a fold over units that it does not go over."""
    if node.every and node.how != "softmax":
        return
    title, helps = "", tuple[str, ...]()
    if node.every:
        title = "`softmax` goes over all units as it is"
        helps = (f"write `softmax over {node.over}: ...`",)
    elif node.how == "lse":
        title = "`lse` goes over all units of a query"
        helps = (f"write `lse over all {node.over}: ...`",)
    elif of_tiles and is_inner:
        title = "tiles are folded all of them, and not with units that overlap them"
        helps = (f"write `{node.how} over all {node.over}: ...`",)
    elif node.how == "softmax" and is_inner:
        title = f"`softmax` goes over the units that are scored, and not over `{node.over}`"
    elif node.how != "softmax" and not is_inner:
        title = f"`{node.how}` goes over units that overlap those that are scored"
        helps = (f"over all of them: `{node.how} over all {node.over}: ...`",)
    if title:
        checker.add("A219", title, node.over_span, helps=helps)


def _check_queries(checker: Numbers, node: syn.Reduction, frame: Frame, local: Locals) -> None:
    """Complain of a fold over queries where there is none."""
    title = ""
    if not frame.is_query_unit:
        title = "queries are folded where a unit of them chooses: `for blocks(64)`, `for all`"
    elif frame.row_axes:
        title = "the queries of a tile are not folded"
    elif node.how not in ("sum", "max") or node.every:
        title = "scores of queries are summed, or the greatest is taken"
    elif node.over == DIAGONALS and (frame.unit or node.rows is not None):
        title = "diagonals are those of single queries and keys"
    if title:
        checker.add("A219", title, node.span)
        return
    if node.rows is not None and blocks_said(checker.definition, node.rows) is None:
        no_units(checker, node.rows, syn.Name(node.rows, node.rows_span))
        return
    if axes_of(checker.definition, node.rows):
        checker.add("A219", "queries are folded in blocks of them", node.rows_span)
        return
    is_unit = node.rows is not None
    checker.frame = Frame(frame.unit, is_unit, "", frame.axes)
    of_rows = row_names(())
    inside = {name: kind for name, kind in local.items() if is_unit or name not in of_rows}
    if node.where is not None:
        checker.expect(node.where, "bool", inside)
    checker.expect(node.body, "real", inside)
    checker.frame = frame


def check_member(checker: Numbers, used: Definition, container: syn.Index, local: Locals) -> None:
    """A selection right of `in`, as `near[q]`."""
    base = container.base
    assert isinstance(base, syn.Name | syn.Call)
    call = base if isinstance(base, syn.Call) else syn.Call(base.name, (), base.span, base.span)
    checker.use(used, call, local)
    declaration = used.declaration
    if not isinstance(declaration, syn.Select):
        title = f"`{used.name}` has one number for each token"
        helps = (f"compare it: `{used.name}[k] == ...`",)
        checker.add("A219", title, container.span, helps=helps)
        return
    match container.indices:
        case (syn.Name(name="q"),) if "q" not in local and not isinstance(
            declaration.queries, syn.Numbers
        ):
            pass
        case (number,) if isinstance(declaration.queries, syn.Numbers):
            checker.expect(number, "int", local)
        case _ if isinstance(declaration.queries, syn.Numbers):
            title = f"`{used.name}` takes 1 index, not {len(container.indices)}"
            checker.add("A205", title, container.span)
        case _:
            title = f"what `{used.name}` has chosen is asked for the query alone"
            checker.add("A219", title, container.span, helps=(f"write `k in {used.name}[q]`",))
    if checker.role != "body":
        checker.add("A202", "a selection cannot be asked before there are pairs", container.span)
