"""How large values can get, and which are never negative: what decides the width and form of arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np

from attndsl import ir
from attndsl.analysis import Interpreter, Range, Truths


@dataclass(frozen=True, slots=True)
class Domain:
    """The positions that a root is evaluated at, and the tables it reads.

    ``bounds``: between which the values of tables lie that are not among ``tables``, as they are not known yet.
    """

    queries: range
    keys: range
    tables: Mapping[str, Any]
    bounds: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def known(self, node: ir.Node) -> Range | Truths | None:
        """The range of a position or table value."""
        match node:
            case ir.Pos(side=side):
                positions = self.queries if side is ir.Side.QUERY else self.keys
                return Range.between(positions.start, max(positions.start, positions.stop - 1))
            case ir.Load(table=table) if table in self.bounds:
                return None if node.sort is ir.Sort.BOOL else Range.between(*self.bounds[table])
            case ir.Load(table=table, kind=ir.Sort.INT):
                values = self.tables[table]
                low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
                return Range.between(min(low, 0), max(high, 0))
            case _:
                return None


class Leaves(Protocol):
    """Whatever bounds the leaves of an expression; a ``Domain`` does for one call."""

    def known(self, node: ir.Node) -> Range | Truths | None:
        """The range of a leaf, None for what is no leaf."""


class Magnitudes:
    """Bounds of every sub-expression over a domain, in unbounded integers."""

    def __init__(self, domain: Leaves) -> None:
        self._interpreter = Interpreter(domain.known, np.zeros(1, dtype=object))

    def is_positive(self, node: ir.Node) -> bool:
        """Whether all values are above zero."""
        return bool(self._interpreter.range(node).low[0] > 0)

    def hull(self, *nodes: ir.Node) -> tuple[int, int]:
        """The least and the greatest value of any of them."""
        found = [self._interpreter.range(node) for node in nodes]
        return min(int(x.low[0]) for x in found), max(int(x.high[0]) for x in found)

    def largest(self, root: ir.Node) -> int:
        """No absolute value that computing ``root`` passes through is larger; sums in any order."""
        nodes = ir.postorder(root)
        if any(isinstance(node, ir.Exists | ir.Total) for node in nodes):
            return ir.LARGEST  # which its bodies pass through depends on the variable
        return max((self._through(cast(ir.AnyNode, node)) for node in nodes), default=0)

    def _through(self, node: ir.AnyNode) -> int:
        match node:
            case ir.Sum(terms=terms, constant=constant):
                return sum(abs(c) * (1 + self._size(term)) for term, c in terms) + abs(constant)
            case ir.Le(item=item, bound=bound) | ir.Eq(item=item, bound=bound):
                return self._through(cast(ir.AnyNode, item)) + abs(bound)
            case _:
                return self._size(node) if node.sort is ir.Sort.INT else 0

    def _size(self, node: ir.Node) -> int:
        found = self._interpreter.range(node)
        return max(abs(int(found.low[0])), abs(int(found.high[0])))
