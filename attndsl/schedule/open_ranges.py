"""Ranges of keys that the queries of an open mask name, but for what its inputs hold.

    k <= q and (k // 64 in past[q] or k // 64 == q // 64)
        -->  ranges   past[q, j] == k // 64 and k <= q, for j in 0..n,  of one block of keys at most
                      q // 64 == k // 64 and k <= q,                    of one
             entries  n + 1 of each query, whatever `past` holds

All of this follows from shapes; the ranges are worked out where the inputs lie. Conditions that bound no range
and are the same for all alternatives are left to kernels, which judge them pair by pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from attndsl import ir
from attndsl.passes import split_sides
from attndsl.schedule.list_form import Alternative, list_form
from attndsl.schedule.lists import BLOCK, KeyValues
from attndsl.schedule.open_masks import OpenHeadMask, OpenMask, readers

# Blocks of keys that a query has at most; a share of its output is held of each.
MOST_ENTRIES: Final = 256
MOST_NAMED: Final = 4096  # times that a query names a block at most; some numbers are held of each


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """A comparison that bounds a range: keys whose value is that of a term of the query, or no less than it."""

    term: ir.Node
    keys: KeyValues
    is_equal: bool


@dataclass(frozen=True, slots=True, eq=False)
class Ranges:
    """One alternative: for each query and number of its loop the keys within all bounds, if all conditions hold."""

    level: int | None  # of the variable of the loop
    numbers: range  # that it takes
    bounds: tuple[Bound, ...]
    conditions: tuple[ir.Node, ...]
    blocks: int  # that a range reaches at most

    @property
    def entries(self) -> int:
        """How many blocks a query names at most."""
        return len(self.numbers) * self.blocks


@dataclass(frozen=True, slots=True, eq=False)
class OpenLists:
    """A mask whose lists are known but for what inputs hold."""

    mask: OpenMask
    ranges: tuple[tuple[Ranges, ...], ...]  # of each piece of the mask
    rests: tuple[ir.Node, ...]  # likewise, what is judged pair by pair

    @property
    def named(self) -> int:
        """How often a query names a block of keys at most."""
        return max(sum(each.entries for each in ranges) for ranges in self.ranges)

    @property
    def entries(self) -> int:
        """How many blocks of keys a query has at most."""
        return min(self.named, -(-len(self.mask.keys) // BLOCK))


def open_lists(mask: OpenMask) -> OpenLists:
    """Finds the ranges that queries name.

    Raises:
        NotOpen: the mask is none of lists, or names too much.
    """
    made = [_of_piece(mask, piece) for piece in mask.pieces]
    found = OpenLists(mask, tuple(x for x, _ in made), tuple(x for _, x in made))
    if not 0 < found.entries <= MOST_ENTRIES or found.named > MOST_NAMED:
        raise ir.NotOpen(f"a query names up to {found.named:,} blocks of keys")
    return found


def _of_piece(mask: OpenMask, piece: OpenHeadMask) -> tuple[tuple[Ranges, ...], ir.Node]:
    """The ranges of a piece, and what is left to judge of each pair."""
    form = list_form(piece.root)
    if form is None:
        raise ir.NotOpen("no key is named by an input")
    made, rests = [], set[ir.Node]()
    for each in form:
        ranges, rest = _ranges(mask, piece, each)
        made.append(ranges)
        rests.add(ir.conj(*rest))
    if len(rests) > 1:
        raise ir.NotOpen("some keys are named on conditions of the pair that others are not")
    return tuple(made), rests.pop()


def _ranges(
    mask: OpenMask, piece: OpenHeadMask, alternative: Alternative
) -> tuple[Ranges, list[ir.Node]]:
    loop = alternative.loop
    numbers = range(1)
    if loop is not None:
        if not isinstance(loop.start, ir.Const) or not isinstance(loop.stop, ir.Const):
            raise ir.NotOpen("the limits of a loop depend on a position or an input")
        numbers = range(loop.start.value, loop.stop.value)
    bounds, conditions, rest = [], [], list[ir.Node]()
    for item in alternative.items:
        if not item.deps & ir.Deps.KEY:
            conditions.append(item)
        elif (bound := _bound(mask, item)) is not None:
            bounds.append(bound)
        elif loop is not None and ir.Index(loop.level) in ir.postorder(item):
            raise ir.NotOpen("a loop over an input runs for each pair")
        else:
            rest.append(item)
    level = None if loop is None else loop.level
    found = Ranges(level, numbers, tuple(bounds), tuple(conditions), 0)
    blocks = _reach(mask, piece, found)
    return Ranges(level, numbers, found.bounds, found.conditions, blocks), rest


def _bound(mask: OpenMask, item: ir.Node) -> Bound | None:
    """The bound that a comparison is, where the values of keys are known, and only rise or only fall."""
    if not isinstance(item, ir.Le | ir.Eq):
        return None
    sides = split_sides(item.item)
    if sides is None:
        return None
    nodes = ir.postorder(sides[1])
    if any(isinstance(x, ir.Index | ir.Var) for x in nodes):
        return None
    if sides[1].deps & (ir.Deps.BATCH | ir.Deps.HEAD) or readers(sides[1], mask.bounds):
        return None
    k = np.arange(mask.keys.start, mask.keys.stop, dtype=np.int64)
    values = np.asarray(ir.evaluate(sides[1], ir.Env(0, k, {}, mask.tables)))
    keys = KeyValues.of(np.broadcast_to(values, k.shape))
    if keys is None or keys.places is None:
        return None
    return Bound(ir.sub(sides[0], ir.Const(item.bound)), keys, isinstance(item, ir.Eq))


def _reach(mask: OpenMask, piece: OpenHeadMask, ranges: Ranges) -> int:
    """How many blocks of keys a range reaches at most, whatever the inputs hold.

    Raises:
        NotOpen: as many as there are.
    """
    found = [_longest(bound.keys) for bound in ranges.bounds if bound.is_equal]
    open_parts = readers(ir.conj(*ranges.conditions), mask.bounds)
    if not open_parts and not any(readers(each.term, mask.bounds) for each in ranges.bounds):
        found.append(_known_reach(mask, piece, ranges))
    if not found:
        raise ir.NotOpen("inputs say how many keys follow each other")
    return min(found)


def _longest(keys: KeyValues) -> int:
    """The most blocks that keys of one value reach."""
    assert keys.places is not None, "bounds have them"
    return _blocks(keys.places[:-1], keys.places[1:])


def _known_reach(mask: OpenMask, piece: OpenHeadMask, ranges: Ranges) -> int:
    """The same of ranges that no input decides."""
    k_len = len(mask.keys)
    at = np.arange(mask.queries.start, mask.queries.stop, dtype=np.int64)[:, None]
    indices = {} if ranges.level is None else {ranges.level: np.arange(len(ranges.numbers))}
    indices = {level: x + ranges.numbers.start for level, x in indices.items()}
    batch, head = (x[:, None, None] for x in (piece.batch, piece.head))
    env = ir.Env(at, 0, {}, mask.tables, batch, head, indices=indices)
    low, high = np.zeros(1, np.int64), np.full(1, k_len)
    for bound in ranges.bounds:
        wanted = np.asarray(ir.evaluate(bound.term, env))
        first, stop = bound.keys.equal(wanted) if bound.is_equal else bound.keys.at_least(wanted)
        low, high = np.maximum(low, first), np.minimum(high, stop)
    return _blocks(low, high)


def _blocks(low: Any, high: Any) -> int:
    reached = np.where(low < high, (high - 1) // BLOCK - low // BLOCK + 1, 0)
    return int(reached.max(initial=0))
