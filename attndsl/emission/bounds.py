"""How large the values of a mask can get at any length: what decides the width and form of arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from attndsl import ir
from attndsl.analysis import Range, Truths
from attndsl.codegen import Magnitudes

LONGEST: Final = 1 << 27  # tokens, and the magnitude that tables of 32 bits stay below
MOST_HEADS: Final = 1 << 16


@dataclass(slots=True)
class _Bounds:
    """The ranges of what is not known before the call."""

    mask: ir.Mask
    sides: tuple[ir.Side, ...]  # that have a token when the mask is evaluated
    indices: dict[int, Range]  # of bound variables, by level

    def known(self, node: ir.Node) -> Range | Truths | None:
        """A range for each leaf."""
        match node:
            case ir.Pos(side=ir.Side.QUERY):
                # a plain sequence may have more queries than keys: they start below 0 then
                below = self.mask.align is ir.Align.END and not self.mask.keys.segments
                return _range(-LONGEST if below else 0, LONGEST)
            case ir.Pos():
                return _range(0, LONGEST)
            case ir.Coord(side=side):
                space = self.mask.queries if side is ir.Side.QUERY else self.mask.keys
                return _range(0 if len(space.segments) == 1 else -1, LONGEST)
            case ir.Size(name=name):
                return _range(int(self._is_positive(name)), LONGEST)
            case ir.Var(name=name):
                return _range(int(name == "heads"), MOST_HEADS)
            case ir.Load(kind=ir.Sort.INT):
                return _range(-LONGEST, LONGEST)
            case ir.Index(level=level):
                return self.indices.get(level)
            case _:
                return None

    def _is_positive(self, name: str) -> bool:
        """Whether there is no token where that size is 0: a length, or an extent of a space of one segment."""
        spaces = [self.mask.queries if x is ir.Side.QUERY else self.mask.keys for x in self.sides]
        alone = {space.segments[0].name for space in spaces if len(space.segments) == 1}
        return name in self.sides or ("." in name and name.partition(".")[0] in alone)


def magnitudes(mask: ir.Mask, root: ir.Node) -> Magnitudes:
    """Bounds of all values, from the outermost loop inwards. A count has a query, but maybe no key."""
    sides = (ir.Side.QUERY,) if root.sort is ir.Sort.INT else tuple(ir.Side)
    indices: dict[int, Range] = {}
    loops = [node for node in ir.postorder(root) if isinstance(node, ir.Loop)]
    for node in sorted(loops, key=lambda loop: -loop.level):
        low, high = Magnitudes(_Bounds(mask, sides, indices)).hull(node.start, node.stop)
        known = indices.get(node.level, _range(low, high))
        indices[node.level] = _range(min(low, int(known.low[0])), max(high, int(known.high[0])))
    return Magnitudes(_Bounds(mask, sides, indices))


def _range(low: int, high: int) -> Range:
    return Range(np.array([low], dtype=object), np.array([high], dtype=object))
