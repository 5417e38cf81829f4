"""Numbers that no pair can use: reads outside of a table, divisors that are 0, logarithms and roots below 0.

Judged by the rules of the IR where the pairs are known: what must not be is refused where ``pairs and it`` is all
there is, or holds for a pair among few tokens. Whatever stands behind a condition is judged where that holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from attndsl import ir
from attndsl.source import Diagnostic, Span

from .errors import make_error, unbracketed
from .spaces import Pair, dim_size

reals = ir.reals

# Positions of queries and keys among which a pair that divides by 0 is looked for.
_TOKENS: Final = 12
# Nodes of pairs and of what is asked of them: a conjunction is made for each read.
_MOST_NODES: Final = 2_000
# Nodes with the conditions they stand behind; what lies beyond is not judged.
_MOST_VISITS: Final = 2_000

# Nodes whose values are not known until there is a call.
_UNKNOWN: Final = ir.Load | ir.Coord | ir.Size | ir.Inside | ir.Var | ir.Loop
# Variables that are 0 somewhere in every call: there is a first head, and a first batch element.
_FIRST: Final = ir.Var("head"), ir.Var("batch")

Places = Mapping[ir.Node, Span]


def number_faults(attention: ir.Attention, written: Places, span: Span) -> Iterator[Diagnostic]:
    """The faults of all real expressions; ``written`` says where nodes stand, ``span`` where the whole does."""
    tables = {table.name: table for table in attention.tables}
    for term in attention.terms:
        for part in term.parts:
            judge = _Judge(part.mask, tables, written, span)
            for root in part.expressions():
                yield from judge.faults(root, part.mask.root)
        of_queries = [term.coefficient]
        if isinstance(term.log_mass, reals.Apply):
            of_queries.append(term.log_mass.item)  # the mass
        for root in of_queries:
            yield from _Judge(term.parts[0].mask, tables, written, span).faults(root, ir.TRUE)


@dataclass(frozen=True, slots=True)
class _Judge:
    """The judge of expressions in the spaces of a mask."""

    mask: ir.Mask
    tables: Mapping[str, ir.Table]
    written: Places
    span: Span

    def faults(self, root: ir.Node, relation: ir.Node) -> Iterator[Diagnostic]:
        """The faults of an expression at the pairs of a relation."""
        pairs = ir.conj(
            relation, *(ir.le(ir.ZERO, ir.Pos(side)) for side in (ir.Side.QUERY, ir.Side.KEY))
        )
        if pairs is ir.FALSE or ir.is_larger(pairs, _MOST_NODES):
            return
        pending, seen = [(root, pairs)], set[tuple[ir.Node, ir.Node]]()
        while pending and len(seen) < _MOST_VISITS:
            visit = node, among = pending.pop()
            if visit in seen or among is ir.FALSE:
                continue
            seen.add(visit)
            found = self._fault(node, among)
            if found is not None:
                yield found
            elif isinstance(node, reals.Choose | ir.Select):
                condition, yes, no = node.parts
                pending += [(no, ir.conj(among, ir.negate(condition))), (condition, among)]
                pending.append((yes, ir.conj(among, condition)))
            else:
                pending += [(part, among) for part in node.parts]

    def _fault(self, node: ir.Node, among: ir.Node) -> Diagnostic | None:
        match node:
            case ir.Load(table=name, index=index) | reals.Row(table=name, index=index):
                return self._outside(node, self.tables.get(name), index, among)
            case reals.Over(right=reals.FromInt() as divisor):
                return self._zero(node, divisor.item, among)
            case reals.Apply(function="log" | "sqrt" as function, item=reals.Number() as item):
                if item.value < 0:
                    return self._negative(node, function, "for every pair")
            case reals.Apply(function="log" | "sqrt" as function, item=reals.FromInt() as item):
                if (found := self._witness(ir.conj(among, ir.lt(item.item, ir.ZERO)))) is not None:
                    return self._negative(node, function, found)
            case _:
                pass
        return None

    def _outside(
        self, node: ir.Node, table: ir.Table | None, index: tuple[ir.Node, ...], among: ir.Node
    ) -> Diagnostic | None:
        if table is None:  # one that a selection makes
            return None
        pair = Pair(self.mask.queries, self.mask.keys)
        for dim, at in zip(table.indexed_dims, index, strict=False):
            size = dim_size(table, dim, pair)
            inside = ir.le(ir.ZERO, at), ir.lt(at, size)
            if ir.conj(among, *inside) is not ir.FALSE:
                continue
            below = ir.conj(among, inside[0]) is ir.FALSE
            wrong = (
                "less than 0"
                if below
                else f"{dim} or more"
                if isinstance(dim, int)
                else "past the end"
            )
            title = f"this read of `{table.name}` is outside of the table for every pair"
            notes = ("a read outside gives 0: nothing of the table would be used",)
            label = (
                f"its index along {dim} is {wrong}"
                if isinstance(dim, str)
                else f"its index is {wrong}"
            )
            also = () if table.span.source.text == "" else ((table.span, "declared here"),)
            helps = (
                (f"shift it, so that the least index is 0: `{table.name}[q - k + 7]`",)
                if below
                else ()
            )
            return make_error(
                "A307", title, self._place(node), label, also=also, notes=notes, helps=helps
            )
        return None

    def _zero(self, node: ir.Node, divisor: ir.Node, among: ir.Node) -> Diagnostic | None:
        found = self._witness(ir.conj(among, ir.eq(divisor, ir.ZERO)))
        if found is None:
            return None
        notes = (f"the divisor is 0 {found}",)
        text = unbracketed(self.written[divisor]) if divisor in self.written else "x"
        helps = (f"divide by `max({text}, 1)`, or choose: `if {text} == 0 then 0.0 else ...`",)
        return make_error("A302", "division by zero", self._place(node), notes=notes, helps=helps)

    def _witness(self, pairs: ir.Node) -> str | None:
        """For which pair all of it holds; None where for none among few, or where it depends on the call."""
        nodes = [*ir.postorder(pairs)]
        if pairs is ir.FALSE or any(isinstance(x, _UNKNOWN) and x not in _FIRST for x in nodes):
            return None
        asked = ir.Mask(pairs, align=ir.Align.START)
        found = np.argwhere(ir.meaning(asked, _TOKENS, _TOKENS, {})[0, 0]).tolist()
        if not found:
            return None
        first = "".join(f" of {each.name} 0" for each in _FIRST if each in nodes)
        return f"for the query at {found[0][0]} and the key at {found[0][1]}{first}"

    def _negative(self, node: ir.Node, function: str, pairs: str) -> Diagnostic:
        what = "logarithm" if function == "log" else "square root"
        title = f"the {what} of a negative number"
        notes = ("it is NaN, and so is all that a query gets that sees such a pair",)
        return make_error("A307", title, self._place(node), pairs, notes=notes)

    def _place(self, node: ir.Node) -> Span:
        return self.written.get(node, self.span)
