"""How far a query sees, for all lengths: bounds on q - k and k - q, proved from the IR."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from attndsl import ir
from attndsl.analysis.proving import FAR, Ends, impossible, is_large, variable
from attndsl.source import AttnDslError


class Far(StrEnum):
    """A distance that is no number."""

    UNBOUNDED = "unbounded"
    UNDECIDED = "not decided"
    NOWHERE = "nowhere"  # there is no pair at all


Distance: TypeAlias = int | Far


@dataclass(frozen=True, slots=True)
class Reach:
    """The greatest q - k (``back``) and k - q (``ahead``) over all pairs of the pattern, in positions.

    Numbers are bounds that hold for all lengths with no more queries than keys. UNBOUNDED is proved too:
    some query sees as far as one likes. ``axes`` says the same of coordinates, for tokens that have the
    axis.
    """

    back: Distance
    ahead: Distance
    axes: tuple[tuple[str, Distance, Distance], ...] = ()

    def __str__(self) -> str:
        parts = [_text("", self.back, self.ahead)]
        parts += [_text(f"{axis}: ", back, ahead) for axis, back, ahead in self.axes]
        return "; ".join(parts)


def _text(name: str, back: Distance, ahead: Distance) -> str:
    return f"{name}{back} back, {ahead} ahead"


_D, _STEPS = variable(0), variable(1)
_Q: ir.Node = ir.Pos(ir.Side.QUERY)
_K: ir.Node = ir.Pos(ir.Side.KEY)
_NEAR = 8  # keys from which far pairs are looked for
_SCALE = [*(-(1 << n) for n in range(40, -1, -1)), 0, *(1 << n for n in range(40))]
_MOST_AXES = 64  # that the reach is worked out along
_MOST_HALVINGS = 16  # exact up to 2**17, an upper bound beyond
_MOST_STEPS = 100_000  # nodes and operands that are rebuilt or interpreted: under a second
_BUILT = 4  # relations that a proof makes of one, besides what it interprets, about


class _Proofs:
    """Proofs about one mask, which share a budget; past it none succeeds."""

    def __init__(self, root: ir.Node) -> None:
        self._left = _MOST_STEPS
        self._size = sum(1 + len(node.parts) for node in ir.postorder(root))

    def begin(self) -> bool:
        """Whether there are steps left to build relations from the mask's own; they are taken."""
        return self._spend(_BUILT * self._size)

    def impossible(self, root: ir.Node, variables: Mapping[ir.Node, Ends]) -> bool:
        """Whether the relation holds for no values, see `proving.impossible`."""
        return self.begin() and impossible(root, variables, self._spend)

    def _spend(self, steps: int) -> bool:
        self._left -= steps
        return self._left >= 0


def reach(mask: ir.Mask, normal: ir.Mask) -> Reach:
    """The reach of a mask: ``normal`` (its normal form) gives positions, ``mask`` itself the axes."""
    if is_large(normal.root):
        return Reach(Far.UNDECIDED, Far.UNDECIDED)
    proofs = _Proofs(normal.root)
    axes: list[tuple[str, Distance, Distance]] = []
    back, ahead = (_decided(_flat, normal.root, sign, proofs) for sign in (1, -1))
    if not mask.is_rectangular:
        for segment, axis in itertools.islice(_axes_of(mask.keys), _MOST_AXES):
            args = mask.root, segment, axis.name
            ends = (_decided(_along, *args, sign, proofs) for sign in (1, -1))
            axes.append((axis.name, next(ends), next(ends)))
    return Reach(back, ahead, tuple(axes))


def _decided(bound: Callable[..., Distance], *args: object) -> Distance:
    """The bound, unless numbers grow beyond all bounds on the way."""
    try:
        return bound(*args)
    except AttnDslError:
        return Far.UNDECIDED


def _axes_of(space: ir.Space) -> Iterator[tuple[ir.Segment, ir.Axis]]:
    return ((segment, axis) for segment in space.segments for axis in segment.axes)


def _flat(root: ir.Node, sign: int, proofs: _Proofs) -> Distance:
    """The greatest sign * (q - k)."""
    far, near = (_Q, _K) if sign > 0 else (_K, _Q)
    forward, backward = ir.add(near, _D), ir.sub(far, _D)
    views = [
        (ir.conj(ir.substitute(root, {far: forward}), ir.ge(forward, ir.ZERO)), near),
        (ir.conj(ir.substitute(root, {near: backward}), ir.ge(backward, ir.ZERO)), far),
    ]

    def is_empty_from(least: int) -> bool:
        ends = {_D: (least, FAR)}
        return any(proofs.impossible(view, {rest: (0, FAR), **ends}) for view, rest in views)

    found = _bound(is_empty_from)
    if found is not None:
        return found
    distance = ir.scale(_STEPS, _modulus(root))
    for start in map(ir.Const, range(_NEAR)):
        pair = {near: start, far: ir.add(start, distance)}
        never = ir.negate(ir.substitute(root, pair))
        if proofs.impossible(never, {_STEPS: (1 << 20, FAR)}):
            return Far.UNBOUNDED
    return Far.UNDECIDED


def _modulus(root: ir.Node) -> int:
    """A common multiple of the constants that the relation divides by."""
    found = 1
    for node in ir.postorder(root):
        if isinstance(node, ir.FloorDiv | ir.Mod) and isinstance(node.right, ir.Const):
            joined = math.lcm(found, max(node.right.value, 1))
            found = joined if joined < 1 << 20 else found
    return found


def _along(root: ir.Node, segment: ir.Segment, axis: str, sign: int, proofs: _Proofs) -> Distance:
    """The greatest difference of one coordinate, back or ahead, among tokens of the segment."""
    if not proofs.begin():
        return Far.UNDECIDED
    root, full = _within(root, segment), f"{segment.name}.{axis}"
    mine: ir.Node = ir.Coord(ir.Side.QUERY, full)
    theirs: ir.Node = ir.Coord(ir.Side.KEY, full)
    away = ir.substitute(root, {theirs: ir.sub(mine, ir.scale(_D, sign))})
    found = _bound(lambda least: proofs.impossible(away, {mine: (0, FAR), _D: (least, FAR)}))
    if found is not None:
        return found
    equal: dict[ir.Node, ir.Node] = {
        ir.Coord(ir.Side.KEY, name): ir.Coord(ir.Side.QUERY, name) for name in _names(segment)
    }
    ends = {mine: _D, theirs: ir.ZERO} if sign > 0 else {mine: ir.ZERO, theirs: _D}
    line = ir.substitute(ir.substitute(root, {**equal, theirs: theirs}), ends)
    never = proofs.impossible(ir.negate(line), {_D: (1 << 20, FAR)})
    return Far.UNBOUNDED if never else Far.UNDECIDED


def _names(segment: ir.Segment) -> Iterator[str]:
    return (f"{segment.name}.{axis.name}" for axis in segment.axes)


def _within(root: ir.Node, segment: ir.Segment) -> ir.Node:
    """The relation among tokens of one segment: they are in no other, and have none of its axes."""

    def rule(node: ir.Node) -> ir.Node:
        match node:
            case ir.Inside(segment=name):
                return ir.BoolConst(name == segment.name)
            case ir.Coord(axis=axis) if axis not in _names(segment):
                return ir.Const(-1)
            case _:
                return node

    return ir.transform(root, rule, ir.Inside, ir.Coord)


def _bound(is_empty_from: Callable[[int], bool]) -> Distance | None:
    """The least b with a proof that no pair is farther than b; None without any proof.

    Any b with a proof is sound; that it is the least assumes that proofs succeed from some b on.
    """
    if not is_empty_from(_SCALE[-1]):
        return None
    if is_empty_from(_SCALE[0]):
        return Far.NOWHERE
    # First among powers of two of either sign, then between two neighbours of them.
    place = bisect.bisect_left(_SCALE, True, hi=len(_SCALE) - 1, key=is_empty_from)
    low, high = _SCALE[place - 1], _SCALE[place]  # no proof from low on, a proof from high on
    for _ in range(_MOST_HALVINGS):
        middle = (low + high) // 2
        if middle == low:
            break
        low, high = (low, middle) if is_empty_from(middle) else (middle, high)
    return high - 1
