"""How many tokens a mask may be asked about, and how large its inputs may be, so that no value passes 64 bits."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from attndsl import ir
from attndsl.analysis import Range, Truths
from attndsl.codegen import Magnitudes
from attndsl.source import AttnDslError, Diagnostic

_LONGEST: Final = 27  # bits of the length of a sequence
_LARGEST: Final = 61  # bits of a number in an input
_HEADS: Final = (16, 6, 5, 4, 3, 2, 1, 0)  # bits of the number of heads
_FITS: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of what calls may give, and of the values of the mask that follow."""

    longest: int  # more tokens than any sequence has
    most: int  # the greatest absolute value in an input
    heads: int  # the most query heads
    magnitudes: tuple[Magnitudes, ...]  # of each root


@dataclass(slots=True)
class _Bounds:
    """The ranges of what is not known before the call."""

    mask: ir.Mask
    sides: tuple[ir.Side, ...]  # that have a token when the mask is evaluated
    longest: int
    most: int
    heads: int
    indices: dict[int, Range]  # of bound variables, by level

    def known(self, node: ir.Node) -> Range | Truths | None:
        """A range for each leaf."""
        match node:
            case ir.Pos(side=ir.Side.QUERY):
                # with ends aligned there may be more queries than keys: they start below 0 then
                below = self.mask.align is ir.Align.END and not self.mask.keys.segments
                return Range.between(-self.longest if below else 0, self.longest)
            case ir.Pos():
                return Range.between(0, self.longest)
            case ir.Coord(side=side):
                space = self.mask.queries if side is ir.Side.QUERY else self.mask.keys
                return Range.between(0 if len(space.segments) == 1 else -1, self.longest)
            case ir.Size(name=name):
                return Range.between(int(self._is_positive(name)), self.longest)
            case ir.Var(name=name):
                most = self.heads if name in ("head", "heads") else self.longest
                return Range.between(int(name == "heads"), most)
            case ir.Load(kind=ir.Sort.INT):
                return Range.between(-self.most, self.most)
            case ir.Index(level=level):
                return self.indices.get(level)
            case _:
                return None

    def _is_positive(self, name: str) -> bool:
        """Whether there is no token where that size is 0: a length, or an extent of a space of one segment."""
        spaces = [self.mask.queries if x is ir.Side.QUERY else self.mask.keys for x in self.sides]
        alone = {space.segments[0].name for space in spaces if len(space.segments) == 1}
        return name in self.sides or ("." in name and name.partition(".")[0] in alone)


def limits(mask: ir.Mask, roots: Sequence[ir.Node]) -> Limits:
    """Wide limits within which no value that computing ``roots`` passes through reaches 2**63.

    Raises:
        AttnDslError: A403, there are none.
    """
    nodes = [node for root in roots for node in ir.postorder(root)]
    reads = bool(mask.tables)
    counts = any(isinstance(x, ir.Var) and x.name in ("head", "heads") for x in nodes)
    for bits, heads in itertools.product(range(_LONGEST, 0, -1), _HEADS if counts else _HEADS[:1]):
        usual = min(31, bits + 4) if reads else 0
        found = _tried(mask, roots, bits, usual, heads)
        wider = range(_LARGEST, usual, -1) if found and reads else ()
        tried = (_tried(mask, roots, bits, more, heads) for more in wider)
        if found:
            return next((best for best in tried if best), found)
    raise AttnDslError(
        Diagnostic(
            "A403",
            "a number in the pattern can pass 2**63 however short the sequences are",
            notes=("emitted files compute positions and inputs in 64-bit integers, exactly",),
            helps=("reduce intermediate products, for example with % before *",),
        )
    )


def _tried(
    mask: ir.Mask, roots: Sequence[ir.Node], bits: int, most: int, heads: int
) -> Limits | None:
    """Limits of so many bits, if everything fits."""
    limit = 1 << bits, 1 << most, 1 << heads
    found = Limits(*limit, tuple(_magnitudes(mask, root, *limit) for root in roots))
    sizes = (each.largest(root) for each, root in zip(found.magnitudes, roots, strict=True))
    return found if all(size < _FITS for size in sizes) else None


def _magnitudes(mask: ir.Mask, root: ir.Node, longest: int, most: int, heads: int) -> Magnitudes:
    """Bounds of all values, from the outermost loop inwards. A count has a query, but maybe no key."""
    sides = (ir.Side.QUERY,) if root.sort is ir.Sort.INT else tuple(ir.Side)
    if not root.deps & ir.Deps.PAIR:
        sides = ()  # it may be a condition, which is judged where there are no tokens, too
    indices: dict[int, Range] = {}
    domain = _Bounds(mask, sides, longest, most, heads, indices)
    loops = [node for node in ir.postorder(root) if isinstance(node, ir.Loop)]
    for node in sorted(loops, key=lambda loop: -loop.level):
        low, high = Magnitudes(domain).hull(node.start, node.stop)
        known = indices.get(node.level, Range.between(low, high))
        indices[node.level] = Range.between(
            min(low, int(known.low[0])), max(high, int(known.high[0]))
        )
    return Magnitudes(domain)
