"""Search for the cheapest token order that a pattern suggests.

Each candidate order is classified on a sample of rows of tiles (on all rows when they are few), its boundary tiles
are evaluated exactly, and the result is priced in FULL tiles. A candidate whose estimate may still win, by its
standard error, is sampled again on more rows. Unless the gain is clear, the winner and the natural order are then
counted in full where that is feasible, so the search never returns an order that its own count calls worse.

A union whose alternatives want different orders is split into disjoint parts, each scheduled in its own,
when that is cheaper in spite of merging two softmaxes:

    c and (a or b)   -->   c and a   |   c and b and not a
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from attndsl import ir
from attndsl.schedule.building import MaskTableBuilder, plan_of_relation
from attndsl.schedule.candidates import (
    Axes,
    Candidate,
    candidates,
    form,
    neighbours,
    splits,
    starts,
)
from attndsl.schedule.estimates import (
    FIRST_ROWS,
    LEAVES,
    ROWS,
    Estimate,
    RowSample,
    TileCosts,
    sample_rows,
)
from attndsl.schedule.model import Schedule
from attndsl.schedule.relations import TiledRelation, order_of

MOST_SEARCHED = 2_000  # nodes and operands of a relation: a larger one stays in its order
# Tokens; a longer sequence is searched on its first stretch of this length.
LONGEST_SEARCHED = 1 << 17
FINALISTS = 2
CLIMBS = 2  # box shapes from which the hill climb starts
CLEAR_GAIN = 0.8  # share of the natural order's cost below which an estimate needs no full count
LEAST_GAIN = 0.95  # share of the natural order's cost; a smaller gain may be noise
ERRORS = 3.0  # standard errors by which an estimate may be wrong
MOST_COUNTED_TILES = 300_000  # live tiles; counting more in full takes longer than it can save
MOST_SPLITS_CONSIDERED = 6  # ways to split a union that are sampled
MOST_SPLITS_TRIED = 2  # ways to split a union that are searched
# The cost model re-ranks at most SHORTLIST candidates, each within CLOSE_COST times the cheapest and with at most
# MOST_MODELLED_TILES live tiles, because it reads whole schedules.
SHORTLIST, CLOSE_COST, MOST_MODELLED_TILES = 4, 2.0, 8_000


@dataclass(frozen=True, slots=True)
class Choice:
    """One part of a pattern in the order that is cheapest for it."""

    relation: TiledRelation
    estimate: Estimate
    cost: float

    @property
    def floor(self) -> float:
        """The cost if every pair lay in a FULL tile."""
        return self.estimate.pairs / (self.relation.queries.tile * self.relation.keys.tile)

    @property
    def waste(self) -> float:
        """The cost divided by the floor."""
        return self.cost / max(self.floor, 1e-9)


def search(
    relation: TiledRelation, axes: Axes | None, tile_costs: TileCosts, split: bool
) -> tuple[list[TiledRelation], float]:
    """Returns the cheapest split into disjoint parts, each with a token order, and its cost.

    Returns the input unchanged if nothing is cheaper, or if it has more than ``MOST_SEARCHED`` nodes. A long sequence
    is searched on its first stretch, and the result is then counted on the whole. Where there is nothing to choose,
    the cost is infinite and nothing is counted.
    """
    if ir.is_larger(relation.root, MOST_SEARCHED):
        return [relation], math.inf
    queries, keys = relation.queries, relation.keys
    long = queries.length == keys.length > LONGEST_SEARCHED
    look = (
        TiledRelation(relation.root, queries.first(LONGEST_SEARCHED), keys.first(LONGEST_SEARCHED))
        if long
        else relation
    )
    hunt = _Search(axes, tile_costs, min(queries.tile, keys.tile))
    if not hunt.families(relation.root) and not (split and any(hunt.movable(relation.root))):
        return [relation], math.inf
    found = hunt.parts(look) if split else [hunt.best(look)]
    if look is relation:
        return [part.relation for part in found], _cost_of(found, tile_costs)
    parts = [
        reordered(TiledRelation(part.relation.root, queries, keys), sorting(part.relation))
        for part in found
    ]
    natural = counted([relation], tile_costs)
    cost = natural if parts == [relation] else counted(parts, tile_costs)
    return (parts, cost) if cost < LEAST_GAIN * natural else ([relation], natural)


def counted(parts: Iterable[TiledRelation], tile_costs: TileCosts) -> float:
    """Estimates the cost of disjoint parts from a sample of their rows."""
    return _cost_of([measured(part, tile_costs) for part in parts], tile_costs)


def measured(relation: TiledRelation, tile_costs: TileCosts) -> Choice:
    """Estimates the cost of a relation in its present orders from a sample of its rows."""
    return _choice(relation, sample_rows(relation, ROWS), tile_costs)


def _cost_of(parts: Sequence[Choice], tile_costs: TileCosts) -> float:
    """Adds the costs of disjoint parts and of merging their softmaxes."""
    merging = tile_costs.merged * parts[0].relation.queries.n_tiles * (len(parts) - 1)
    return sum(part.cost for part in parts) + merging


def sorting(relation: TiledRelation) -> Candidate:
    """Returns the sort keys of both sides of a relation."""
    orders = relation.queries.order, relation.keys.order
    name = next((order.name for order in orders if order), "natural")
    of_queries, of_keys = (order.keys if order else () for order in orders)
    return Candidate(name, of_queries, of_keys)


def reordered(relation: TiledRelation, by: Candidate) -> TiledRelation:
    """Sorts a relation in natural order by these keys."""
    return _ordered(relation, by) or relation


# ---------------------------------------------------------------------------- one order, and parts


@dataclass(frozen=True, slots=True)
class _Search:
    """The state of one search: its options, and a memo of what was counted."""

    axes: Axes | None
    tile_costs: TileCosts
    tokens: int  # of a tile
    _counted: dict[tuple[TiledRelation, int, int], Choice] = field(default_factory=dict)
    _looks: dict[TiledRelation, RowSample] = field(default_factory=dict)
    _schedules: dict[TiledRelation, Schedule] = field(default_factory=dict)
    _families: dict[ir.Node, list[tuple[Candidate, ...]]] = field(default_factory=dict)

    @property
    def finalists(self) -> int:
        """The number of orders that are sampled on more rows."""
        return FINALISTS if self.tile_costs.cost_model is None else 2 * SHORTLIST

    def count(self, relation: TiledRelation, rows: int, leaves: int = LEAVES) -> Choice:
        """Estimates a relation from so many of its rows of tiles."""
        known = self._counted.get((relation, rows, leaves))
        if known is None:
            known = _choice(relation, self.look(relation, rows), self.tile_costs, leaves)
            self._counted[relation, rows, leaves] = known
        return known

    def look(self, relation: TiledRelation, rows: int) -> RowSample:
        """Samples so many rows of tiles; the first, small sample is kept for later estimates."""
        known = self._looks.get(relation) if rows == FIRST_ROWS else None
        if known is None:
            known = sample_rows(relation, rows)
            if rows == FIRST_ROWS:
                self._looks[relation] = known
        return known

    def families(self, root: ir.Node) -> list[tuple[Candidate, ...]]:
        """Returns the orders that a root suggests."""
        known = self._families.get(root)
        if known is None:
            known = self._families[root] = candidates(root, self.axes, self.tokens)
        return known

    def best(self, relation: TiledRelation, ranked: Sequence[Choice] | None = None) -> Choice:
        """Returns the cheapest order of a relation, among the ``ranked`` ones if they are given."""
        natural = self.count(relation, ROWS if ranked is None else FIRST_ROWS)
        if natural.cost <= 1.2 * natural.floor:
            return self.count(relation, ROWS)
        finalists = self.ranked(natural) if ranked is None else ranked
        least = min([natural.cost, *(each.cost for each in finalists)])
        few = (each for each in finalists[: self.finalists] if self.may_beat(each, least))
        others = [self.count(each.relation, ROWS) for each in few]
        if self.tile_costs.cost_model is not None:
            return self.by_cost_model(
                [[self.count(relation, ROWS)], *([other] for other in others)]
            )[0]
        if not others:
            return self.count(relation, ROWS)
        best = min(others, key=lambda c: c.cost)
        if not self.may_beat(natural, best.cost / CLEAR_GAIN):
            return best
        natural = self.count(relation, ROWS)
        if best.estimate.exact and natural.estimate.exact:
            return best if best.cost < natural.cost else natural
        if self.is_close(best, natural) and natural.estimate.live <= MOST_COUNTED_TILES:
            best, natural = (self.count(each.relation, 1 << 40) for each in (best, natural))
            return best if best.cost < natural.cost else natural
        return best if best.cost < LEAST_GAIN * natural.cost else natural

    def may_beat(self, choice: Choice, cost: float) -> bool:
        """True if the candidate could still beat ``cost`` within its error bar and the cost model's freedom."""
        sure = max(1 - ERRORS * choice.estimate.error, 1 / CLOSE_COST)
        return choice.cost * sure <= cost * (
            1 if self.tile_costs.cost_model is None else CLOSE_COST
        )

    @staticmethod
    def is_close(best: Choice, natural: Choice) -> bool:
        """True if only a full count can tell whether the best order beats the natural one."""
        errors = (each.cost * each.estimate.error for each in (best, natural))
        gain = natural.cost - best.cost
        return 0 < gain < min((1 - CLEAR_GAIN) * natural.cost, ERRORS * math.hypot(*errors))

    def by_cost_model(self, options: Sequence[list[Choice]]) -> list[Choice]:
        """Picks the cheapest option; the cost model re-ranks those about as cheap.

        The first option (the natural order) is kept unless another is clearly cheaper.
        """
        tile_costs = self.tile_costs
        ranked = sorted(options, key=lambda option: _cost_of(option, tile_costs))
        least = _cost_of(ranked[0], tile_costs)
        close = [option for option in ranked if _cost_of(option, tile_costs) <= CLOSE_COST * least][
            :SHORTLIST
        ]
        few = all(
            choice.estimate.live <= MOST_MODELLED_TILES for option in close for choice in option
        )
        hear = tile_costs.cost_model if few and len(close) > 1 else None
        costs = [
            _cost_of(option, tile_costs)
            if hear is None
            else hear([self.schedule(choice.relation) for choice in option])
            for option in close
        ]
        costs = [
            cost * (LEAST_GAIN if option is options[0] else 1.0)
            for cost, option in zip(costs, close, strict=True)
        ]
        return close[costs.index(min(costs))]

    def schedule(self, relation: TiledRelation) -> Schedule:
        """Builds the whole schedule of a relation, as a call of one head."""
        known = self._schedules.get(relation)
        if known is None:
            known = self._schedules[relation] = _schedule(relation)
        return known

    def ranked(self, natural: Choice, limit: float = math.inf) -> list[Choice]:
        """Returns rough estimates of other orders that may cost less than the limit, cheapest first.

        Box shapes are explored by a hill climb from a few starts. For the comparison, undecided tiles count as
        PARTIAL; the best candidates are then sampled with their boundary tiles evaluated.
        """
        relation = natural.relation
        rough: dict[Candidate, Choice | None] = {}
        leaves = LEAVES if self.tile_costs.gathers else 0

        def cost(item: Candidate) -> float:
            if item not in rough:
                moved = _ordered(relation, item)
                rough[item] = None if moved is None else self.count(moved, FIRST_ROWS, leaves)
            found = rough[item]
            return math.inf if found is None else found.cost

        families = self.families(relation.root)
        first = {item: family for family in families for item in starts(family)}
        for best in sorted(first, key=cost)[:CLIMBS]:
            family = first[best]
            while near := [item for item in neighbours(family, best) if cost(item) < cost(best)]:
                best = min(near, key=cost)
        distinct = {choice.relation: choice for choice in rough.values() if choice is not None}
        cheapest = sorted(distinct.values(), key=lambda choice: choice.cost)
        return self.looked_at(cheapest[: 2 * self.finalists], min(natural.cost, limit))

    def looked_at(self, cheapest: Sequence[Choice], cost: float) -> list[Choice]:
        """Samples candidates in order of their rough costs while one may still beat the best so far and ``cost``.

        The share of a rough cost that turns out EMPTY is assumed to be at most twice what earlier candidates showed.
        """
        found: list[Choice] = []
        empty = 0.0  # share of a rough cost that turned out EMPTY
        for choice in cheapest:
            if found and not self.may_beat(choice, cost / max(1 - 2 * empty, 1 / CLOSE_COST)):
                break
            found.append(self.count(choice.relation, FIRST_ROWS))
            empty = max(empty, 1 - found[-1].cost / max(choice.cost, 1e-9))
            cost = min(cost, found[-1].cost)
        return sorted(found, key=lambda choice: choice.cost)

    def parts(self, relation: TiledRelation) -> list[Choice]:
        """Returns disjoint parts of a pattern, each in its own order, if they are cheaper than the whole."""
        whole = self.best(relation)
        merging = self.tile_costs.merged * relation.queries.n_tiles
        if whole.cost <= 2 * whole.floor:
            return [whole]
        promising: list[tuple[TiledRelation, list[Choice]]] = []
        limit = LEAST_GAIN * whole.cost - merging
        for roots in self.splits_by_waste(relation):
            sketches, total = [], 0.0
            for root in roots:
                part = TiledRelation(
                    root, relation.queries, relation.keys
                )  # what is known of its terms is kept
                least, ranked = self.rough_cost(part, limit - total)
                sketches.append((part, ranked))
                total += least
                if total >= limit:
                    break
            else:
                promising, limit = sketches, total
        parts = [self.best(part, ranked) for part, ranked in promising]
        if not parts or _cost_of(parts, self.tile_costs) >= LEAST_GAIN * whole.cost:
            return [whole]
        return parts if self.tile_costs.cost_model is None else self.by_cost_model([[whole], parts])

    def movable(self, root: ir.Node) -> Iterator[tuple[ir.Node, ...]]:
        """Yields the splits with a part that suggests an order; in natural order, parts cost no less than the whole."""
        some = itertools.islice(splits(root), MOST_SPLITS_CONSIDERED)
        return (roots for roots in some if any(map(self.families, roots)))

    def splits_by_waste(self, relation: TiledRelation) -> list[tuple[ir.Node, ...]]:
        """Returns the splits whose first part costs most beyond what its pairs need.

        Parts that differ in numbers alone and waste about as much, such as draws by several seeds, are represented
        by one of them.
        """

        def waste(roots: tuple[ir.Node, ...]) -> float:
            part = self.count(TiledRelation(roots[0], relation.queries, relation.keys), FIRST_ROWS)
            return max(0.0, part.cost - part.floor)

        found = list(self.movable(relation.root))
        alike: dict[tuple[tuple[str, ...], int], tuple[ir.Node, ...]] = {}
        for roots in found if len(found) > 1 else ():
            alike.setdefault((form(roots[0]), round(math.log2(1 + waste(roots)))), roots)
        some = list(alike.values()) or found
        return (
            sorted(some, key=waste, reverse=True)[:MOST_SPLITS_TRIED]
            if len(some) > MOST_SPLITS_TRIED
            else some
        )

    def rough_cost(self, relation: TiledRelation, limit: float) -> tuple[float, list[Choice]]:
        """Rough cost of the best order, and the reorderings estimated below ``limit``."""
        natural = self.count(relation, FIRST_ROWS)
        ranked = [] if natural.cost <= 1.2 * natural.floor else self.ranked(natural, limit)
        return min(choice.cost for choice in (natural, *ranked)), ranked


def _schedule(relation: TiledRelation) -> Schedule:
    queries, keys = relation.queries, relation.keys
    tile, one = (queries.tile, keys.tile), np.zeros((1, 1), dtype=np.int32)
    bank = MaskTableBuilder(tile)
    plan = plan_of_relation(relation, bank)
    return Schedule(queries.length, keys.length, tile, (plan,), one, bank.finish())


def _ordered(relation: TiledRelation, item: Candidate) -> TiledRelation | None:
    queries, keys = relation.queries, relation.keys
    q_order = order_of(queries, item.of_queries, item.name)
    mirrored = item.of_keys in (item.of_queries, tuple(map(_mirror, item.of_queries)))
    if mirrored and (queries.length, queries.start) == (keys.length, keys.start):
        k_order = q_order
    else:
        k_order = order_of(keys, item.of_keys, item.name)
    return None if q_order is k_order is None else relation.ordered(q_order, k_order)


@functools.lru_cache(maxsize=4096)
def _mirror(key: ir.Node) -> ir.Node:
    """Returns the same term for the other side."""
    return ir.substitute(key, {ir.Pos(ir.Side.QUERY): ir.Pos(ir.Side.KEY)})


def _choice(
    relation: TiledRelation, look: RowSample, tile_costs: TileCosts, leaves: int = LEAVES
) -> Choice:
    found = look.estimate(leaves)
    return Choice(relation, found, found.cost(tile_costs) + _moving(relation, tile_costs))


def _moving(relation: TiledRelation, tile_costs: TileCosts) -> float:
    moved = (axis.n_tiles for axis in (relation.queries, relation.keys) if axis.order is not None)
    return tile_costs.moved * sum(moved)
