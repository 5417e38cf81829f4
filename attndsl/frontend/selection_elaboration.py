"""A selection to its seven stages, and its use in a pattern to reads of the table of what was chosen.

Runs on checked definitions; what is left to judge are values, and what expressions depend on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from attndsl import ir
from attndsl import syntax as syn
from attndsl.source import NOWHERE, AttnDslError, Span

from .attention_check import call_of
from .errors import make_error, stop_if_any
from .frames import Origin, Scope, Value
from .order import plain_use
from .scope import Definition
from .selection_check import COUNTING
from .spaces import FLAT_PAIR
from .units import SCALE, SHARE, blocks_said, name_of

if TYPE_CHECKING:
    from .elaboration import Elaborator

reals, sel = ir.reals, ir.selection

LARGEST_UNIT: Final = 1 << 20  # tokens
_UNITS, _ROWS = "@units", "@rows"  # no names of the language: the units around an expression
_Q, _K = ir.Pos(ir.Side.QUERY), ir.Pos(ir.Side.KEY)
_SHARE: Final = ir.Load(
    "@share", ir.Sort.REAL, (), ir.Deps.NONE
)  # stands for itself until it is found


def chosen(elaborator: Elaborator, base: syn.Expression, item: ir.Node, frame: Scope) -> ir.Node:
    """Whether the token is in one of the units that the query has chosen."""
    used = plain_use(frame.definition, base)
    assert used is not None, "kinds were checked"
    assert isinstance(base, syn.Name | syn.Call), "kinds were checked"
    given = elaborator.given(used, call_of(base), frame)
    made = selection_of(elaborator, used, given, Origin(base.span, frame), base.span)
    if elaborator.selections.setdefault(made.name, made) != made:
        title = f"`{made.name}` is used with different values for its parameters"
        helps = ("declare another selection for the other values",)
        raise AttnDslError(make_error("A219", title, base.span, helps=helps))
    table = elaborator.declare(made.table, used.declaration.name_span, base.span)
    units, slots = made.units, elaborator.size(table, table.dims[-1])

    def read(slot: ir.Node) -> ir.Node:
        return ir.Load(table.name, table.kind, (made.row(), slot), table.ambient)

    def covers(slot: ir.Node) -> ir.Node:
        inside = ir.sub(item, units.start(read(slot)))
        within = ir.conj(ir.le(ir.ZERO, inside), ir.lt(inside, ir.Const(units.size)))
        return ir.conj(ir.le(ir.ZERO, read(slot)), within)

    if units.size != units.every:
        return ir.exists(ir.ZERO, slots, covers)
    number = ir.floordiv(item, ir.Const(units.size))
    if item is _K:  # keys are never negative: no empty slot equals one
        return ir.exists(ir.ZERO, slots, lambda slot: ir.eq(read(slot), number))
    guard = ir.le(ir.ZERO, item)
    return ir.conj(guard, ir.exists(ir.ZERO, slots, lambda slot: ir.eq(read(slot), number)))


def selection_of(
    outer: Elaborator,
    definition: Definition,
    given: Mapping[str, Value],
    origin: Origin,
    span: Span,
) -> ir.Selection:
    """The selection of a checked definition with these values for parameters, in the mask that is made.

    Raises:
        AttnDslError: A219, A3xx: values and sizes.
    """
    elaborator = outer.beside(FLAT_PAIR)
    elaborator.check_align(definition, span)
    frame = elaborator.frame(definition, given, origin)
    declaration = definition.declaration
    assert isinstance(declaration, syn.Select)
    if not elaborator.obeys_constraints(definition, frame, origin):
        stop_if_any(elaborator.diagnostics)
    units = _units(elaborator, declaration.over, declaration.over_span, frame)
    queries = None
    if declaration.queries is not None:
        queries = _units(elaborator, declaration.queries, declaration.queries_span, frame)
    inside = _within(frame, name_of(declaration.over), units, queries, elaborator.align)
    score = reals.as_real(elaborator.node(declaration.body, inside))
    where = ir.conj(*(elaborator.node(each, inside) for each in declaration.candidates))
    kept = declaration.keeping
    keeping = ir.FALSE if kept is None else elaborator.node(kept, inside)
    choice = _choice(elaborator, declaration.take, frame)
    stop_if_any(elaborator.diagnostics)
    made = sel.Selection(
        definition.name, units, queries, score, where, keeping, choice,
        sel.Shared(declaration.per or "head"), (), elaborator.align,
        tuple(elaborator.selections.values()), declaration.doc,
    )  # fmt: skip
    _check(made, declaration)
    read = ir.tables_read(*made.expressions())
    return replace(made, tables=tuple(elaborator.tables[name] for name in sorted(read)))


def _within(
    frame: Scope, name: str, units: sel.Units, queries: sel.Units | None, align: ir.Align
) -> Scope:
    """The scope of expressions on queries, or units of them, and units of keys."""
    local: dict[str, Value] = {**frame.local, SCALE: sel.Scale(), _UNITS: _kept(units)}
    if name:
        local |= {
            name: _K,
            f"{name}.start": units.start(_K),
            f"{name}.end": units.end(_K, ir.Size("k")),
        }
    if queries is not None:
        length = ir.Size("k" if align is ir.Align.END else "q")
        local |= {"q.index": _Q, "q.start": queries.start(_Q), "q.end": queries.end(_Q, length)}
        local[_ROWS] = _kept(queries)
    return replace(frame, local=local)


def _kept(units: sel.Units) -> tuple[ir.Node, ...]:
    return ir.Const(units.size), ir.Const(units.every), ir.Const(int(units.whole))


def units_around(frame: Scope) -> tuple[sel.Units, sel.Units | None]:
    """The units of keys, and of queries, that an expression is about."""
    return _given_back(frame.local[_UNITS]), (
        _given_back(frame.local[_ROWS]) if _ROWS in frame.local else None
    )


def _given_back(value: Value) -> sel.Units:
    assert isinstance(value, tuple)
    size, every, whole = (each.value for each in value if isinstance(each, ir.Const))
    return sel.Units(size, every, bool(whole))


def _units(
    elaborator: Elaborator, each: str | syn.Blocks | None, span: Span, frame: Scope
) -> sel.Units:
    blocks = blocks_said(frame.definition, each)
    if blocks is None:
        return sel.TOKENS
    scope = replace(frame, local={}) if isinstance(each, str) else frame
    numbers: list[int] = []
    for size in syn.blocks_of(blocks):
        node = elaborator.node(size, scope)
        if not isinstance(node, ir.Const) or not 0 < node.value <= LARGEST_UNIT:
            found = f", not {node.value}" if isinstance(node, ir.Const) else ""
            title = f"a size of blocks is a known int from 1 to 2**20{found}"
            raise AttnDslError(make_error("A306", title, size.span))
        numbers.append(node.value)
    made = sel.Units(numbers[0], numbers[-1], blocks.whole)
    if made.every > made.size:
        title = f"blocks of {made.size} tokens, one every {made.every}, leave tokens out"
        raise AttnDslError(make_error("A306", title, span))
    return made


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
    elif field == "score":
        helps = (f"fold the heads: `sum over {made.shared.value}: ...`",)
    code = "A306" if field == "choice" else "A219"
    span = spans.get(field, declaration.name_span)
    raise AttnDslError(make_error(code, title, span, helps=helps))


# ---------------------------------------------------------------------- within a score


def pooled(node: syn.Call, frame: Scope) -> ir.Node:
    """`mean(k)` and its kind."""
    argument = node.arguments[0].value
    assert isinstance(argument, syn.Name), "kinds were checked"
    keys, queries = units_around(frame)
    units = keys if argument.name == "k" else queries
    assert units is not None, "kinds were checked"
    return sel.Pooled(sel.Pool(node.name), ir.Side(argument.name), units)


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
    around, queries = units_around(frame)
    is_own = how is sel.Fold.SOFTMAX
    units = around if is_own else _units(elaborator, node.over, node.over_span, frame)
    inside = frame
    if not is_own:
        inside = _within(frame, node.over, units, queries, elaborator.align)
        inside = replace(inside, local={**inside.local, SHARE: _SHARE})
    where = ir.TRUE if node.where is None else elaborator.node(node.where, inside)
    item, by_share = _without_share(reals.as_real(elaborator.node(node.body, inside)))
    if _SHARE in ir.postorder(item) and not is_own:
        title = "`share` multiplies what is summed, once"
        helps = (f"write `sum over {node.over}: share * (...)`",)
        raise AttnDslError(make_error("A219", title, node.body.span, helps=helps))
    return sel.Reduced(how, units, item, where, by_share)


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
