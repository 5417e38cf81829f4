"""The strips of a call with scores: its units, where their pairs stand, and pieces of bounded size."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends.block_batches import BlockBatch, InStrips, Ordered, batches_of
from attndsl.backends.heads import alike
from attndsl.backends.places import Elements, Index, IntArray, Places
from attndsl.backends.real_evaluation import Kept, Spot, Values
from attndsl.backends.scored_program import Program, is_given
from attndsl.backends.scores import BoundScore
from attndsl.schedule import Schedule, TokenOrder

reals = ir.reals

_HIDDEN = {torch.float32: torch.int32, torch.float64: torch.int64}  # ints as wide, for their bits
MOST_COMPARED: Final = 1 << 22  # pairs of a batch of blocks whose values are compared
_Q, _K = ir.Pos(ir.Side.QUERY), ir.Pos(ir.Side.KEY)


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """Query heads of one plan, of one or more batch elements.

    ``tensors``: for each batch element, those by query head and those by key head, [heads, length, ...].
    ``folded``: how many batch elements are one behind the other, and the tokens of one, of queries and keys.
    """

    number: int
    plan: Ordered
    batches: range
    heads: slice
    tensors: list[tuple[list[Tensor], list[Tensor]]]
    block_batches: tuple[BlockBatch, ...]
    folded: tuple[int, int, int] | None = None


def units(
    schedule: Schedule | InStrips,
    is_alike: bool,
    of_queries: Sequence[Tensor],
    of_keys: Sequence[Tensor],
    results: tuple[int, int],
) -> Iterator[Unit]:
    """All heads of all batch elements, those that go together in one unit; tensors are in its storage order.

    The last ``results`` tensors of either side are written to. Where all are alike to the scores too, batch elements
    become heads.
    """
    plan_of, (batch, heads) = schedule.plan_of, of_queries[0].shape[:2]
    if not batch * heads * of_keys[0].shape[1]:
        return
    if plan_of.size == 1 and is_alike:
        of_queries, of_keys = (
            [x.flatten(0, 1)[None] for x in side] for side in (of_queries, of_keys)
        )
        batch, heads = 1, batch * heads
    group = heads // of_keys[0].shape[1]
    rows = [range(batch)] if len(plan_of) == 1 else [range(b, b + 1) for b in range(batch)]
    for batches in rows:
        row = plan_of[batches.start].tolist()
        for number, mine, theirs in alike(row if len(row) > 1 else row * heads, group):
            plan = schedule.plans[number]
            sides = (
                (of_queries, mine, plan.q_order, results[0]),
                (of_keys, theirs, plan.k_order, results[1]),
            )
            taken = [
                tuple(_stored(x[b, which], order) for x in tensors)
                for b in batches
                for tensors, which, order, _ in sides
            ]
            pairs = [(list(q), list(k)) for q, k in zip(taken[::2], taken[1::2], strict=True)]
            yield Unit(number, plan, batches, mine, pairs, batches_of(schedule)[number])
            for place, b in enumerate(batches):
                for side, (tensors, which, order, count) in enumerate(sides):
                    for x, moved in list(zip(tensors, pairs[place][side], strict=True))[
                        len(tensors) - count :
                    ]:
                        if order is not None:
                            places = torch.from_numpy(order.places)
                            torch.index_select(moved, 1, places, out=x[b, which])


def _stored(x: Tensor, order: TokenOrder | None) -> Tensor:
    return x if order is None else x.index_select(1, torch.from_numpy(order.rows))


# ---------------------------------------------------------------- pairs


@dataclass(frozen=True, slots=True, eq=False)
class Pairs:
    """The live pairs of a piece: ``bits`` all ones or none, ``levels`` 0 or -inf; [items or 1, 1, n, m].

    ``dead``: the queries without a live key, bool [items or 1, 1, n], if there are any.
    """

    live: Tensor
    bits: Tensor
    levels: Tensor
    dead: Tensor | None

    @staticmethod
    def of(strip: BlockBatch, dtype: torch.dtype) -> Pairs | None:
        """The live pairs of a strip; None: all are."""
        if strip.mask is None:
            return None
        whole = np.unpackbits(strip.mask, axis=-1, count=strip.keys.length).view(bool)[:, None]
        live = torch.from_numpy(whole)
        dead = torch.from_numpy(~whole.any(-1))
        bits = -live.to(_HIDDEN[dtype])
        levels = torch.zeros(live.shape, dtype=dtype).masked_fill_(~live, -math.inf)
        return Pairs(live, bits, levels, dead if dead.any() else None)

    def hide(self, x: Tensor) -> Tensor:
        """``x`` with 0 for pairs that are not live, whatever stands there; in place."""
        x.view(self.bits.dtype).bitwise_and_(self.bits)
        return x


@dataclass(frozen=True, slots=True, eq=False)
class ScoredBatch:
    """A strip of a unit and what is known of its pairs."""

    unit: Unit
    number: int
    batch: BlockBatch
    bound: BoundScore
    program: Program
    free: Set[ir.Node]
    q: IntArray  # [items or 1, 1, n, 1], positions
    k: IntArray

    def spot(self, b: int, heads: slice, low: int, high: int) -> Spot:
        """Where the pairs of the items low <= i < high stand."""
        q, k = (x if len(x) == 1 else x[low:high] for x in (self.q, self.k))
        name = self.unit.number, self.unit.heads.start, self.number, low, high
        return Spot(q, k, b, heads, name)

    def values(
        self, b: int, heads: slice, tables: Mapping[str, Tensor], kept: Kept, dtype: torch.dtype
    ) -> Values:
        """The values of the free nodes, of query heads of the unit."""
        start = self.unit.heads.start
        heads = slice(start + heads.start, start + heads.stop)
        spot = self.spot(b, heads, 0, 1)
        spot = Spot(spot.q[:1], spot.k[:1], b, heads, (*spot.name[:3], "free"))
        return Values(self.bound, spot, tables, kept, dtype, self.program.constants)

    def cut(
        self,
        free: Values,
        low: int,
        high: int,
        own: Mapping[ir.Side, Tensor],
        spent: Set[ir.Node] = frozenset(),
    ) -> Values:
        """The values of some items; ``spent`` nodes are overwritten when they are used."""
        spot = self.spot(free.spot.batch, free.spot.heads, low, high)
        made = (self.bound, spot, free.tables, free.kept, free.dtype, self.program.constants)
        return Values(*made, self.free, free, own, spent)


# The free nodes and positions of queries and keys, for each strip of each plan that was met.
KnownStrips: TypeAlias = dict[int, list[tuple[Set[ir.Node], IntArray, IntArray]]]


def strips(
    unit: Unit, bound: BoundScore, program: Program, known: KnownStrips
) -> Iterator[ScoredBatch]:
    """The strips of a unit, in order."""
    found = known.get(unit.number)
    if found is None:
        found = known[unit.number] = list(_stood(unit, bound, program))
    for number, (batch, stands) in enumerate(zip(unit.block_batches, found, strict=True)):
        yield ScoredBatch(unit, number, batch, bound, program, *stands)


def _stood(
    unit: Unit, bound: BoundScore, program: Program
) -> Iterator[tuple[Set[ir.Node], IntArray, IntArray]]:
    free: dict[object, Set[ir.Node]] = {}
    plan = unit.plan
    for batch in unit.block_batches:
        q, k = _positions(batch.queries, plan.q_order), _positions(batch.keys, plan.k_order)
        if unit.folded is not None:
            elements, q_len, k_len = unit.folded
            q, k = q % q_len + bound.first, k % k_len
            q, k = q[:, None, :, None], k[:, None, None, :]
            own = [
                x[: max(1, len(x) // elements)] for x in (q, k)
            ]  # others stand at the same places
            yield free_nodes(program, None, (own[0], own[1])), q, k
            continue
        steps = _step(batch.queries, plan.q_order), _step(batch.keys, plan.k_order)
        key = steps if batch.queries.items > 1 else None
        if key not in free:
            free[key] = free_nodes(program, key)
        yield free[key], q[:, None, :, None] + bound.first, k[:, None, None, :]


def reaches_all(schedule: Schedule | InStrips) -> bool:
    """Whether some first strip writes to every query of every plan."""
    for plan in batches_of(schedule):
        first = (part.queries for part in plan if part.first_writer)
        if sum(part.items * part.length for part in first) != schedule.q_len:
            return False
    return True


def _positions(places: Places, order: TokenOrder | None) -> IntArray:
    rows = places.rows()
    return (rows if order is None else order.rows[rows]).reshape(-1, places.length)


def _step(places: Places, order: TokenOrder | None) -> int | None:
    """By how many positions an item stands behind the one before; None where they do not move evenly."""
    if isinstance(places, Index):
        return 0 if len(places.index) == 1 else None
    assert not isinstance(places, Elements), "strips are of one schedule"
    return places.step if order is None or not places.step else None


def free_nodes(
    program: Program,
    steps: tuple[int | None, int | None] | None,
    stands: tuple[IntArray, IntArray] | None = None,
) -> Set[ir.Node]:
    """The real nodes that have the same value for all items; ``steps`` None: there is one item.

    An int is free where it stays the same expression when positions move on by the steps; or, of items that ``stands``
    places, where it has the same value for each.
    """
    free: dict[ir.Node, bool] = {}
    move: dict[ir.Node, ir.Node] = {}
    unknown = ir.Deps.NONE
    for position, step in zip((_Q, _K), steps or (0, 0), strict=True):
        if step is None:
            unknown |= position.deps
        elif step:
            move[position] = ir.add(position, ir.Const(step))

    def is_free(node: ir.Node) -> bool:
        if isinstance(node, reals.Score | reals.Own | reals.Drawn):
            return False
        if node.sort in (ir.Sort.INT, ir.Sort.BOOL) and not is_given(node):
            if stands is not None:
                return _is_same(node, *stands)
            return not node.deps & unknown and ir.substitute(node, move) is node
        for part in node.parts:
            if part not in free:
                free[part] = is_free(part)
        return all(free[part] for part in node.parts)

    factor = () if program.factor is None else (program.factor,)
    roots = (program.root, *program.gains.values(), *factor)
    for node in (node for root in roots for node in ir.postorder(root)):
        if node not in free and node.sort is ir.Sort.REAL:
            free[node] = is_free(node)
    return frozenset(node for node, is_so in free.items() if is_so)


def _is_same(node: ir.Node, q: IntArray, k: IntArray) -> bool:
    """Whether an expression of positions has the same values for all items; False where it reads anything else."""
    items = max(len(q), len(k))
    if items == 1:
        return True
    if node.deps & ~ir.Deps.PAIR or ir.reads_inputs(node):
        return False
    if items * q.shape[2] * k.shape[3] > MOST_COMPARED:
        return False
    found = np.asarray(ir.evaluate(node, ir.Env(q=q, k=k, sizes={})))
    return found.ndim == 0 or bool((found == found[:1]).all())
