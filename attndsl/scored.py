"""A part of an attention on its way to a back end: its pattern as a program, and its scores bound to a call."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from attndsl import ir, passes
from attndsl.backends import BoundScore
from attndsl.compiler import Program
from attndsl.schedule import Call


@dataclass(frozen=True, eq=False)
class ScoredProgram:
    """A pattern and the real expressions over it.

    The int and bool inputs that the expressions read are declared by the mask of ``program`` beside those of the
    pattern, so that a call checks, stamps and places all of them alike. ``reals`` are the real ones, in order,
    ``products`` the inner products of vectors in the expressions.
    """

    part: ir.Scored
    program: Program
    reals: tuple[ir.Table, ...]
    products: tuple[ir.reals.Dot, ...] = ()

    @staticmethod
    def of(
        part: ir.Scored,
        tables: tuple[ir.Table, ...],
        others: tuple[ir.Node, ...] = (),
        layer: int = 0,
        without: tuple[str, ...] = (),
    ) -> ScoredProgram:
        """Prepares a part. ``others``: expressions of its term that are evaluated over its queries."""
        roots = *part.expressions(), *others
        read = ir.tables_read(*roots)
        known = {table.name for table in part.mask.tables}
        mine = [table for table in tables if table.name in read and table.name not in known]
        reals = tuple(table for table in mine if table.kind is ir.Sort.REAL)
        more = tuple(table for table in mine if table.kind is not ir.Sort.REAL)
        mask = replace(part.mask, tables=(*part.mask.tables, *more))
        nodes = (node for root in roots for node in ir.postorder(root))
        products = tuple(dict.fromkeys(node for node in nodes if isinstance(node, ir.reals.Dot)))
        return ScoredProgram(part, Program(mask, layer, without), reals, products)

    @functools.cached_property
    def whole(self) -> Program:
        """The program, its mask with the real inputs beside the others."""
        mask = self.program.mask
        return Program(replace(mask, tables=(*mask.tables, *self.reals)), self.program.layer)

    def sizes(
        self, call: Call, shapes: Mapping[str, tuple[int, ...]], *more: ir.Node
    ) -> dict[str, int]:
        """All sizes that its expressions, and ``more``, name.

        ``shapes`` are those of the real tables, without batch and head.

        Raises:
            AttnDslError: A501, a table has another size than its dims say, or too few entries.
        """
        sizes = dict(call.sizes)
        extents = {name: n for name, n in sizes.items() if "." in name and ":" not in name}
        tables = *self.program.mask.tables, *self.reals
        for root in (*self.part.expressions(), *more):
            mask = replace(
                self.program.mask, root=root, tables=tables, zeros=ir.Const(0), conditions=()
            )
            sizes |= ir.resolve_sizes(mask, call.q_len, call.k_len, extents, shapes)
        return sizes

    def bound(
        self,
        call: Call,
        sizes: Mapping[str, int],
        score: ir.Node,
        weight: ir.Node | None = None,
        reals: tuple[ir.Table, ...] | None = None,
        factor: ir.Node | None = None,
    ) -> BoundScore:
        """Expressions of the part in one call: lengths, coordinates and numbers of heads are constants in it.

        ``score``, ``weight`` and ``factor`` as of ``BoundScore``; ``reals`` are the tables they read: all, if None.
        """
        reals = self.reals if reals is None else reals
        mask, tables, first = self.program.mask, dict(call.tables), call.first
        roots = [score, *(each for each in (weight, factor) if each is not None)]
        if call.model_heads is not None:
            roots = [passes.head_shifted(each, call.head_start, call.model_heads) for each in roots]
        roots = [passes.lower_root(each, mask) for each in roots]
        declared = mask.tables
        if call.positions is not None:
            shapes = ir.shapes_of(mask, call.tables)
            lengths = {
                table.name: tuple(_length(dim, call, sizes, table) for dim in table.indexed_dims)
                for table in reals
            }
            known = replace(mask, tables=(*mask.tables, *reals))
            placed = passes.set_positions(known, call.positions, {**shapes, **lengths}, roots)
            tables |= placed.tables
            declared, first, roots = placed.mask.tables, placed.first, list(placed.expressions)
        heads = call.heads if call.model_heads is None else call.model_heads
        made = [passes.bind(each, sizes, heads=heads, layer=call.layer) for each in roots]
        read = ir.tables_read(*made)
        return BoundScore(
            made[0],
            None if weight is None else made[1],
            mask.shift(call.q_len, call.k_len) if first is None else first,
            reals,
            tuple(t for t in declared if t.name in read and t.kind is not ir.Sort.REAL),
            {name: array for name, array in tables.items() if name in read},
            breaks=weight is None and self.part.form is ir.Form.STICK,
            factor=None if factor is None else made[-1],
        )


def _length(dim: Any, call: Call, sizes: Mapping[str, int], table: ir.Table) -> int:
    """How many entries a real table has along a dim, in a call with positions: one for each row of q and k."""
    if isinstance(dim, int):
        return dim
    rows = {"q": call.q_len, "k": call.k_len, "pos": call.k_len}
    return rows[dim] if dim in rows else sizes.get(f"{table.name}:{dim}", sizes.get(dim, 0))
