"""Bit operations on integers, as arithmetic: an integer is the sum of its runs of bits.

    x & 6 = (x // 2 % 4) * 2          x | y = x + y - (x & y)          x ^ y = x + y - 2 * (x & y)
    x & -8 = x - x % 8                ~x = -x - 1

All of it holds for negative integers too, in two's complement with sign bits without end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from attndsl import ir

_WIDEST: Final = 40  # bits of a position: lengths are at most 2**40


@dataclass(frozen=True, slots=True)
class Digit:
    """Bit ``place`` of an integer."""

    source: ir.Node
    place: int

    @property
    def truth(self) -> ir.Node:
        """Whether the bit is 1."""
        shifted = ir.floordiv(self.source, ir.Const(1 << self.place))
        return ir.eq(ir.mod(shifted, ir.Const(2)), ir.ONE)


Bit: TypeAlias = "Digit | ir.Node"  # a node is a truth value
Row: TypeAlias = tuple[Bit, ...]  # least significant first; all others are 0


@dataclass(slots=True)
class Bits:
    """Bit operations, and the bits of what they gave."""

    known: dict[ir.Node, Row] = field(default_factory=dict)

    def conjunction(self, left: ir.Node, right: ir.Node) -> ir.Node | None:
        """The bits that both have; None where neither is known to have few bits."""
        if isinstance(left, ir.Const):
            left, right = right, left
        if isinstance(right, ir.Const):
            return self._masked(left, right.value)
        first, second = self._row(left), self._row(right)
        if first is None or second is None:
            return None
        pairs = zip(first, second, strict=False)
        return self._joined([_and(a, b) for a, b in pairs])

    def disjunction(self, left: ir.Node, right: ir.Node) -> ir.Node | None:
        """The bits that one of them has, or both; None as above."""
        first, second = self._row(left), self._row(right)
        if first is not None and second is not None:
            return self._joined([_or(a, b) for a, b in _padded(first, second)])
        both = self.conjunction(left, right)
        return None if both is None else ir.sub(ir.add(left, right), both)

    def difference(self, left: ir.Node, right: ir.Node) -> ir.Node | None:
        """The bits that one of them has and not the other; None as above."""
        first, second = self._row(left), self._row(right)
        if first is not None and second is not None:
            return self._joined([_xor(a, b) for a, b in _padded(first, second)])
        both = self.conjunction(left, right)
        return None if both is None else ir.sub(ir.add(left, right), ir.scale(both, 2))

    def shifted(self, item: ir.Node, places: int) -> ir.Node:
        """The integer with its bits moved up, or down where ``places`` is negative."""
        row = self.known.get(item)
        if row is not None:
            zeros: Row = (ir.FALSE,) * max(0, places)
            return self._joined([*zeros, *row[max(0, -places) :]])
        if places >= 0:
            return ir.scale(item, 1 << places)
        return ir.floordiv(item, ir.Const(1 << -places))

    def _masked(self, item: ir.Node, mask: int) -> ir.Node:
        if mask < 0:
            return ir.sub(item, self._masked(item, ~mask))
        row = self.known.get(item)
        digits: Sequence[Bit] = [Digit(item, place) for place in range(mask.bit_length())]
        wanted = digits if row is None else row[: mask.bit_length()]
        return self._joined([b if mask >> i & 1 else ir.FALSE for i, b in enumerate(wanted)])

    def _row(self, item: ir.Node) -> Row | None:
        """The bits of an integer that is not negative and at most a position."""
        if item in self.known:
            return self.known[item]
        match item:
            case ir.Const(value=value) if value >= 0:
                found = [ir.BoolConst(bool(value >> i & 1)) for i in range(value.bit_length())]
                return tuple(found)
            case ir.Pos() | ir.Var() | ir.FloorDiv(left=ir.Pos() | ir.Var(), right=ir.Const()):
                return tuple(Digit(item, place) for place in range(_WIDEST))
            case _:
                pass
        low, high = ir.static_range(item)
        if low is None or low < 0 or high is None or high >= 1 << _WIDEST:
            return None
        return tuple(Digit(item, place) for place in range(high.bit_length()))

    def _joined(self, bits: Sequence[Bit]) -> ir.Node:
        """The integer of these bits: a run of neighbouring bits of one integer is one quotient and remainder."""
        terms: list[ir.Node] = []
        place = 0
        while place < len(bits):
            bit, width = bits[place], 1
            if isinstance(bit, Digit):
                while bits[place + width : place + width + 1] == [_after(bit, width)]:
                    width += 1
                part = ir.floordiv(bit.source, ir.Const(1 << bit.place))
                run = ir.mod(part, ir.Const(1 << width))
            else:
                run = ir.select(bit, ir.ONE, ir.ZERO)
            terms.append(ir.scale(run, 1 << place))
            place += width
        made = ir.add(*terms)
        if not isinstance(made, ir.Const):
            self.known[made] = tuple(bits)
        return made


def _after(bit: Digit, count: int) -> Digit:
    return Digit(bit.source, bit.place + count)


def _padded(first: Row, second: Row) -> list[tuple[Bit, Bit]]:
    length = max(len(first), len(second))
    rows = [[*row, *[ir.FALSE] * (length - len(row))] for row in (first, second)]
    return list(zip(*rows, strict=True))


def _truth(bit: Bit) -> ir.Node:
    return bit.truth if isinstance(bit, Digit) else bit


def _and(left: Bit, right: Bit) -> Bit:
    for bit, other in ((left, right), (right, left)):
        if bit == other or bit is ir.TRUE or other is ir.FALSE:
            return other
    return ir.conj(_truth(left), _truth(right))


def _or(left: Bit, right: Bit) -> Bit:
    for bit, other in ((left, right), (right, left)):
        if bit == other or bit is ir.FALSE or other is ir.TRUE:
            return other
    return ir.disj(_truth(left), _truth(right))


def _xor(left: Bit, right: Bit) -> Bit:
    for bit, other in ((left, right), (right, left)):
        if bit is ir.FALSE:
            return other
    return ir.FALSE if left == right else ir.ne(_truth(left), _truth(right))
