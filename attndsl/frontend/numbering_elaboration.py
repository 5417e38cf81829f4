"""Labels and ranks to what makes their tables, and their uses to reads of these."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from attndsl import ir
from attndsl import syntax as syn
from attndsl.source import AttnDslError

from .errors import make_error, stop_if_any
from .frames import Scope
from .numbering_check import side_said
from .scope import Definition
from .unit_elaboration import within

if TYPE_CHECKING:
    from .elaboration import Elaborator

reals, sel = ir.reals, ir.selection

NUMBER = ir.Index(-2)
"""Stands for the number that is chosen, or that chooses, until its side is known."""


def label_of(
    elaborator: Elaborator, definition: Definition, declaration: syn.Label, frame: Scope
) -> ir.Selection:
    """A label as a selection of one number for each query, or by each key."""
    side = side_said(declaration)
    assert side is not None, "kinds were checked"
    numbers = numbers_of(elaborator, declaration.numbers, frame)
    inside = replace(frame, local={**frame.local, declaration.numbers.name: NUMBER})
    score = placed(elaborator.node(declaration.body, inside), side.other, definition)
    by_column = side is ir.Side.KEY
    return sel.Selection(
        definition.name,
        sel.TOKENS if by_column else numbers,
        numbers if by_column else None,
        reals.as_real(score), ir.TRUE, ir.FALSE, sel.Choice(sel.Take.TOP, ir.Const(1)),
        sel.varies_by(score), align=elaborator.align, doc=declaration.doc, by_column=by_column,
    )  # fmt: skip


def rank_of(
    elaborator: Elaborator, definition: Definition, declaration: syn.Rank, frame: Scope
) -> ir.Rank:
    """A rank of all queries, or of all keys; one by reals is one of keys.

    Raises:
        AttnDslError: A219, queries are ranked by reals.
    """
    side = side_said(declaration)
    assert side is not None, "kinds were checked"
    inside = within(frame, "", sel.TOKENS, sel.WHOLE, elaborator.align)
    said = (declaration.body, *declaration.others)
    keys = tuple(elaborator.node(each, inside) for each in said)
    for key, each in zip(keys, said, strict=True):
        if sel.sides_read(key, folds_all=True) & side.other.deps:
            raise absent(side.other, definition)
        if key.sort is ir.Sort.REAL and side is ir.Side.QUERY:
            title, helps = "queries are ranked by ints alone", ("rank keys: `by t[k]`",)
            raise AttnDslError(make_error("A219", title, each.span, helps=helps))
    return ir.Rank(definition.name, side, keys, align=elaborator.align, doc=declaration.doc)


def numbers_of(elaborator: Elaborator, numbers: syn.Numbers, frame: Scope) -> ir.selection.Numbers:
    """The numbers in a range from 0 on."""
    stop = elaborator.node(numbers.range.high, frame)
    if stop.deps & ~ir.Deps.NONE:
        title = "the range of a number is the same for all pairs"
        raise AttnDslError(make_error("A219", title, numbers.range.span))
    stop_if_any(elaborator.diagnostics)
    return sel.Numbers(stop)


def placed(node: ir.Node, side: ir.Side, definition: Definition) -> ir.Node:
    """An expression with the number of that side in it.

    Raises:
        AttnDslError: A219, it speaks of tokens of that side, through a helper that it calls.
    """
    if node.deps & side.deps:
        raise absent(side, definition)
    return ir.substitute(node, {NUMBER: ir.Pos(side)})


def absent(side: ir.Side, definition: Definition) -> AttnDslError:
    """The error that there are no tokens of a side to speak of."""
    title = f"there is no `{side.value}` for `{definition.name}`"
    return AttnDslError(make_error("A219", title, definition.declaration.body.span))
