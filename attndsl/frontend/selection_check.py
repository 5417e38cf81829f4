"""The check of a selection: its units, and that all its expressions have their kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from attndsl import syntax as syn

from .errors import did_you_mean, listed
from .order import plain_use
from .scope import Definition
from .units import BLOCK, SCALE, SHARE, Frame, blocks_said, name_of, names_of, no_units

if TYPE_CHECKING:
    from .real_check import Locals, Numbers

TAKES: Final = ("top", "above", "reaching", "within", "sample")
COUNTING: Final = ("top", "sample")
HEADS: Final = ("group", "heads")
_QUERIES: Final[Locals] = {"q.index": "int", "q.start": "int", "q.end": "int"}


def selection_used(definition: Definition, node: syn.Expression) -> Definition | None:
    """The selection that an expression plainly names, with arguments or without."""
    used = plain_use(definition, node)
    return used if used is not None and used.is_selection else None


def check_selection(checker: Numbers, local: Locals) -> None:
    """Complain of a selection whose parts do not fit."""
    declaration = checker.definition.declaration
    assert isinstance(declaration, syn.Select)
    for each, span in (
        (declaration.over, declaration.over_span),
        (declaration.queries, declaration.queries_span),
    ):
        blocks = blocks_said(checker.definition, each)
        if isinstance(each, str) and blocks is None:
            no_units(checker, each, syn.Name(each, span))
        _check_sizes(checker, each, local)
    if declaration.per is not None and declaration.per not in HEADS:
        title = f"heads do not choose together `per {declaration.per}`"
        helps = (did_you_mean(declaration.per, HEADS), "write `per group` or `per heads`")
        checker.add("A219", title, declaration.per_span, helps=helps)
    unit = name_of(declaration.over)
    checker.frame = Frame(unit, declaration.queries is not None)
    inside: Locals = {**local, SCALE: "real", **names_of(unit)}
    if declaration.queries is not None:
        inside = {**inside, **_QUERIES}
    for condition in declaration.candidates:
        checker.expect(condition, "bool", inside)
    if declaration.keeping is not None:
        checker.expect(declaration.keeping, "bool", inside)
    checker.expect(declaration.body, "real", inside)
    _check_take(checker, declaration.take, local)
    checker.facts.tables = {}  # they are the selection's own: what uses it reads what was chosen


def _check_sizes(checker: Numbers, each: str | syn.Blocks | None, local: Locals) -> None:
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
    own = BLOCK if frame.unit == BLOCK else None
    if node.over != own and blocks_said(checker.definition, node.over) is None:
        no_units(checker, node.over, syn.Name(node.over, node.over_span))
        return
    is_inner = node.over != frame.unit
    if is_inner == (node.how == "softmax"):
        title = f"`{node.how}` goes over units that overlap those that are scored"
        if node.how == "softmax":
            title = f"`softmax` goes over the units that are scored, and not over `{node.over}`"
        checker.add("A219", title, node.over_span)
    left = names_of(frame.unit)
    kept = {name: kind for name, kind in local.items() if name not in left and name != SHARE}
    inside: Locals = {**kept, **names_of(node.over)}
    checker.frame = Frame(node.over, frame.is_query_unit)
    if node.where is not None:
        checker.expect(node.where, "bool", inside)
    if is_inner and node.how == "sum":
        inside = {**inside, SHARE: "real"}
    checker.expect(node.body, "real", inside)
    checker.frame = frame


def check_member(checker: Numbers, used: Definition, container: syn.Index, local: Locals) -> None:
    """A selection right of `in`, as `near[q]`."""
    base = container.base
    assert isinstance(base, syn.Name | syn.Call)
    call = base if isinstance(base, syn.Call) else syn.Call(base.name, (), base.span, base.span)
    checker.use(used, call, local)
    match container.indices:
        case (syn.Name(name="q"),) if "q" not in local:
            pass
        case _:
            title = f"what `{used.name}` has chosen is asked for the query alone"
            checker.add("A219", title, container.span, helps=(f"write `k in {used.name}[q]`",))
    if checker.role != "body":
        checker.add("A202", "a selection cannot be asked before there are pairs", container.span)
