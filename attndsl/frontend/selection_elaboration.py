"""A selection to its seven stages, and its use in a pattern to reads of the table of what was chosen.

Runs on checked definitions; what is left to judge are values, and what expressions depend on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from attndsl import ir
from attndsl import syntax as syn
from attndsl.source import NOWHERE, AttnDslError, Span

from .attention_check import call_of
from .errors import make_error, stop_if_any
from .frames import Origin, Scope, Value
from .numbering_check import numbering_used
from .numbering_elaboration import NUMBER, label_of, numbers_of, placed, rank_of
from .order import plain_use
from .rows import K, stored
from .scope import Definition
from .selection_check import COUNTING
from .spaces import Pair
from .unit_elaboration import units_of, within
from .units import ALL, SCALE, name_of

if TYPE_CHECKING:
    from .elaboration import Elaborator

reals, sel = ir.reals, ir.selection


def used_selection(
    elaborator: Elaborator, used: Definition, base: syn.Expression, frame: Scope
) -> ir.Chosen:
    """The selection, label or rank that an expression uses, kept in the pattern that is made.

    Raises:
        AttnDslError: A219, it is used with other values for its parameters, too.
    """
    assert isinstance(base, syn.Name | syn.Call), "kinds were checked"
    given = elaborator.given(used, call_of(base), frame)
    made = selection_of(elaborator, used, given, Origin(base.span, frame), base.span)
    if isinstance(made, ir.Selection) and made.is_on_grid:
        _check_spaces(elaborator.outer, made, used, base.span)
    if elaborator.selections.setdefault(made.name, made) != made:
        title = f"`{made.name}` is used with different values for its parameters"
        helps = ("declare another selection for the other values",)
        raise AttnDslError(make_error("A219", title, base.span, helps=helps))
    return made


def _check_spaces(pair: Pair, made: ir.Selection, used: Definition, span: Span) -> None:
    """Whether a selection of tiles is asked where queries and keys stand in their grid.

    Raises:
        AttnDslError: A210.
    """
    if (pair.queries, pair.keys) != made.spaces:
        queries, keys = (space.name for space in made.spaces)
        over = queries if queries == keys else f"{queries} -> {keys}"
        title = f"`{made.name}` chooses tiles of a grid, which positions here are none of"
        also = ((used.declaration.name_span, "declared here"),)
        helps = (f"write `over {over}`",)
        raise AttnDslError(make_error("A210", title, span, also=also, helps=helps))


def entry(elaborator: Elaborator, node: syn.Index, frame: Scope) -> ir.Node | None:
    """The label, or the rank, of a token, where that is what is indexed."""
    used = numbering_used(frame.definition, node.base, frame.local)
    if used is None:
        return None
    made = used_selection(elaborator, used, node.base, frame)
    table = elaborator.declare(made.table, used.declaration.name_span, node.base.span)
    at = elaborator.node(node.indices[0], frame)
    is_of_queries = "q" in table.dims
    other = ir.Deps.KEY if is_of_queries else ir.Deps.QUERY
    if at.deps & other and (is_of_queries or elaborator.align is ir.Align.START):
        whose, found = ("queries", "key") if is_of_queries else ("keys", "query")
        title = f"`{used.name}` numbers {whose}, and this is a {found}"
        raise AttnDslError(make_error("A219", title, node.indices[0].span))
    slots = (ir.ZERO,) if isinstance(made, ir.Selection) else ()
    index = stored(table, (at, *slots), elaborator.shift)
    return ir.Load(table.name, table.kind, index, table.ambient)


def chosen(elaborator: Elaborator, container: syn.Index, item: ir.Node, frame: Scope) -> ir.Node:
    """Whether the token is in one of the units that the query has chosen."""
    used = plain_use(frame.definition, container.base)
    assert used is not None, "kinds were checked"
    made = used_selection(elaborator, used, container.base, frame)
    assert isinstance(made, ir.Selection), "kinds were checked"
    table = elaborator.declare(made.table, used.declaration.name_span, container.span)
    index = elaborator.node(container.indices[0], frame)
    shift = made.shift
    return is_chosen(made, item, index, shift, lambda dim: elaborator.size(table, dim))


def is_chosen(
    made: ir.Selection,
    item: ir.Node,
    index: ir.Node,
    shift: ir.Node,
    size: Callable[[str | int], ir.Node],
) -> ir.Node:
    """Whether the token is in one of the units that the query, or the number ``index``, has chosen.

    ``shift`` is the position of query 0, ``size`` tells how many entries the table has along a dim.
    """
    table, units = made.table, made.units
    slots = size(table.dims[-1])
    assert isinstance(units, sel.Groups), "numbers are chosen by labels alone"
    if made.by_column:
        return _by_column(made, table, item, slots)
    row, guard = index, ir.conj()
    if isinstance(made.queries, sel.Numbers):
        guard = ir.conj(ir.le(ir.ZERO, row), ir.lt(row, size(table.dims[-2])))
    else:
        row = made.row(shift)

    def read(slot: ir.Node) -> ir.Node:
        return ir.Load(table.name, table.kind, (row, slot), table.ambient)

    return ir.conj(guard, _covered(units, item, read, slots))


def _by_column(made: ir.Selection, table: ir.Table, item: ir.Node, slots: ir.Node) -> ir.Node:
    """Whether some unit that the token is in has taken the row of the query."""
    units, row = made.units, made.row_number()
    assert isinstance(units, sel.Groups), "numbers take no rows"
    unit = units.number_of(item)

    def holds(slot: ir.Node) -> ir.Node:
        return ir.eq(ir.Load(table.name, table.kind, (unit, slot), table.ambient), row)

    return ir.conj(_exists(units, item), ir.le(ir.ZERO, row), ir.exists(ir.ZERO, slots, holds))


def _exists(units: ir.selection.Groups, item: ir.Node) -> ir.Node:
    """Whether there is a token at a position: behind the last one there is no block, but would be a tile."""
    first = ir.le(ir.ZERO, item)
    is_tile = isinstance(units, sel.Tiles) and item is not K
    return ir.conj(first, ir.lt(item, ir.Size("k"))) if is_tile else first


def _covered(
    units: ir.selection.Groups, item: ir.Node, read: Callable[[ir.Node], ir.Node], slots: ir.Node
) -> ir.Node:
    """Whether the token is in one of the units in the slots of a row."""
    if isinstance(units, sel.Units) and units.size != units.every:
        return ir.exists(ir.ZERO, slots, lambda slot: _overlaps(units, item, read(slot)))
    number = units.number_of(item)
    found = ir.exists(ir.ZERO, slots, lambda slot: ir.eq(read(slot), number))
    # keys are never negative: no empty slot equals one
    return found if item is K else ir.conj(_exists(units, item), found)


def _overlaps(units: ir.selection.Units, item: ir.Node, number: ir.Node) -> ir.Node:
    """Whether the token is in the unit of a slot, which may be empty."""
    inside = ir.sub(item, units.start(number))
    within = ir.conj(ir.le(ir.ZERO, inside), ir.lt(inside, ir.Const(units.size)))
    return ir.conj(ir.le(ir.ZERO, number), within)


def selection_of(
    outer: Elaborator,
    definition: Definition,
    given: Mapping[str, Value],
    origin: Origin,
    span: Span,
) -> ir.Chosen:
    """The selection of a checked definition with these values for parameters, in the mask that is made.

    Raises:
        AttnDslError: A219, A3xx: values and sizes.
    """
    elaborator = outer.beside(definition.pair)
    elaborator.check_align(definition, span)
    frame = elaborator.frame(definition, given, origin)
    declaration = definition.declaration
    assert isinstance(declaration, syn.Choosing)
    if not elaborator.obeys_constraints(definition, frame, origin):
        stop_if_any(elaborator.diagnostics)
    for node, condition in elaborator.conditions.items():
        if not ir.reads_inputs(node):
            outer.conditions.setdefault(node, condition)
    if isinstance(declaration, syn.Select):
        made: ir.Chosen = _selection(elaborator, definition, declaration, frame)
    else:
        frame = replace(frame, local={**frame.local, SCALE: sel.Scale()})
        if isinstance(declaration, syn.Label):
            made = label_of(elaborator, definition, declaration, frame)
        else:
            made = rank_of(elaborator, definition, declaration, frame)
        stop_if_any(elaborator.diagnostics)
    read = ir.tables_read(*made.expressions())
    tables = tuple(elaborator.tables[name] for name in sorted(read))
    within = tuple(each for name, each in elaborator.selections.items() if name in read)
    return replace(made, tables=tables, within=within)


def _selection(
    elaborator: Elaborator, definition: Definition, declaration: syn.Select, frame: Scope
) -> ir.Selection:
    units = units_of(elaborator, declaration.over, declaration.over_span, frame)
    rows = declaration.queries
    queries: sel.Groups | sel.Numbers | None = None
    if isinstance(rows, syn.Numbers):
        queries = numbers_of(elaborator, rows, frame)
        inside = within(frame, name_of(declaration.over), units, None, elaborator.align)
        inside = replace(inside, local={**inside.local, rows.name: NUMBER})
    else:
        queries = _rows(elaborator, rows, declaration.queries_span, frame)
        inside = within(frame, name_of(declaration.over), units, queries, elaborator.align)
    score = reals.as_real(elaborator.node(declaration.body, inside))
    where = ir.conj(*(elaborator.node(each, inside) for each in declaration.candidates))
    kept = declaration.keeping
    keeping = ir.FALSE if kept is None else elaborator.node(kept, inside)
    if isinstance(queries, sel.Numbers):
        score, where, keeping = (
            placed(each, ir.Side.QUERY, definition) for each in (score, where, keeping)
        )
    choice = _choice(elaborator, declaration.take, inside)
    stop_if_any(elaborator.diagnostics)
    made = sel.Selection(
        definition.name, units, queries, score, where, keeping, choice,
        sel.Shared(declaration.per or "head"), (), elaborator.align, (), declaration.doc,
        declaration.take.by is not None, (elaborator.outer.queries, elaborator.outer.keys),
        declaration.take.span,
    )  # fmt: skip
    _check(made, declaration)
    return made


def _rows(
    elaborator: Elaborator, each: str | syn.Groups | None, span: Span, frame: Scope
) -> sel.Groups | None:
    """The units of queries that choose; None where each query does."""
    if each is None:
        return None
    return sel.WHOLE if each == ALL else units_of(elaborator, each, span, frame)


def _choice(elaborator: Elaborator, take: syn.Take, frame: Scope) -> sel.Choice:
    amount = elaborator.node(take.amount, frame)
    seed = ir.ZERO if take.seed is None else elaborator.node(take.seed, frame)
    if not isinstance(seed, ir.Const):
        span = take.seed.span if take.seed is not None else NOWHERE
        raise AttnDslError(make_error("A306", "a seed is a known int", span))
    is_count = take.how in COUNTING
    return sel.Choice(sel.Take(take.how), amount if is_count else reals.as_real(amount), seed.value)


def _check(made: ir.Selection, declaration: syn.Select) -> None:
    """Refuses what cannot be, at the part that is to blame.

    Raises:
        AttnDslError: A219; A306 where it is a number.
    """
    fault = sel.selection_fault(made)
    if fault is None:
        return
    field, title = fault
    spans = {
        "score": declaration.body.span,
        "queries": declaration.queries_span,
        "choice": declaration.take.amount.span,
    }
    helps: tuple[str, ...] = ()
    if field == "score" and made.choice.take in (sel.Take.REACHING, sel.Take.WITHIN):
        unit = name_of(declaration.over)
        helps = (f"make shares of scores: `softmax over {unit}: ...`",) if unit else ()
    elif field == "score" and made.choice.take is sel.Take.SAMPLE:
        helps = ("write `1.0` for the score",)
    elif field == "score" and made.shared is not sel.Shared.NOTHING:
        helps = (f"fold the heads: `sum over {made.shared.value}: ...`",)
    code = "A306" if field == "choice" else "A219"
    span = spans.get(field, declaration.name_span)
    raise AttnDslError(make_error(code, title, span, helps=helps))
