"""The check of labels and ranks: numbers of each query, or of each key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from attndsl import ir
from attndsl import syntax as syn

from .order import plain_use
from .scope import Definition
from .units import QUERIES, Frame

if TYPE_CHECKING:
    from .real_check import Locals, Numbers


def numbering_used(
    definition: Definition, node: syn.Expression, local: Iterable[str]
) -> Definition | None:
    """The label, rank or selection that an expression plainly names, with arguments or without."""
    used = plain_use(definition, node, local)
    return used if used is not None and used.is_selection else None


def side_said(declaration: syn.Label | syn.Rank) -> ir.Side | None:
    """The side whose tokens are numbered: the one that the declaration speaks of; None of both, or none.

    A rank by folds over queries is one of keys.
    """
    if folds_queries(declaration):
        return ir.Side.KEY
    waiting: list[syn.Expression] = [declaration.body]
    waiting += declaration.others if isinstance(declaration, syn.Rank) else ()
    found = set()
    for each in waiting:
        waiting += syn.children(each)
        if isinstance(each, syn.Name) and each.name in ("q", "k"):
            found.add(each.name)
    return ir.Side(found.pop()) if len(found) == 1 else None


def folds_queries(declaration: syn.Label | syn.Rank) -> bool:
    """Whether it is a rank by what is folded over queries."""
    waiting = [declaration.body, *declaration.others] if isinstance(declaration, syn.Rank) else []
    for each in waiting:
        waiting += syn.children(each)
        if isinstance(each, syn.Reduction) and each.over in QUERIES:
            return True
    return False


def check_numbering(checker: Numbers, declaration: syn.Label | syn.Rank, local: Locals) -> None:
    """Complain of a label or rank that is not one of queries or of keys."""
    side = side_said(declaration)
    if side is None:
        word = type(declaration).__name__.lower()
        title = f"a {word} is one of queries, or one of keys"
        helps = ("speak of `q` alone, or of `k` alone",)
        checker.add("A219", title, declaration.body.span, helps=helps)
        return
    without = "k" if side is ir.Side.QUERY else "q"
    checker.frame = Frame("", folds_queries(declaration), without)
    if isinstance(declaration, syn.Rank):
        for each in (declaration.body, *declaration.others):
            checker.expect(each, "real", local)
        return
    numbers = declaration.numbers
    check_numbers(checker, numbers, local)
    checker.expect(declaration.body, "real", {**local, numbers.name: "int"})


def check_numbers(checker: Numbers, numbers: syn.Numbers, local: Locals) -> None:
    """Complain of numbers that do not begin at 0, or whose range is none of ints."""
    if numbers.range.low != syn.Int(0):
        title = "numbers that are chosen begin at 0"
        helps = (f"write `{numbers.name} in 0..n`",)
        checker.add("A219", title, numbers.range.low.span, helps=helps)
    checker.expect(numbers.range.high, "int", local)


def check_entry(
    checker: Numbers, used: Definition, node: syn.Index, local: Locals
) -> syn.Kind | None:
    """`bucket[k]`, the number of a token."""
    if isinstance(used.declaration, syn.Select):
        title = f"`{used.name}` is a selection: it stands right of `in`"
        checker.add("A219", title, node.span, helps=(f"write `k in {used.name}[q]`",))
        return None
    base = node.base
    assert isinstance(base, syn.Name | syn.Call), "it plainly names one"
    call = base if isinstance(base, syn.Call) else syn.Call(base.name, (), base.span, base.span)
    checker.use(used, call, local)
    if len(node.indices) != 1:
        checker.add("A205", f"`{used.name}` takes 1 index, not {len(node.indices)}", node.span)
    if checker.role != "body":
        checker.add("A202", "a label or rank is not known before there are tensors", node.span)
    return "int"
