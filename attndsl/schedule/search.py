"""The cheapest order of tokens that the pattern suggests, counted and not assumed.

Every candidate is classified on some rows of tiles (all of them when they are few), its leaves decided
exactly, and priced; on more rows as long as its estimate, by its standard error, may turn out the best. Unless
the gain is clear, the winner and the natural order are counted in full, where that is feasible: by its own
count, the result is never worse.

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
from attndsl.passes import separate_root
from attndsl.schedule.building import Bank, Frame, order_of, plan_of_frame
from attndsl.schedule.candidates import Axes, Candidate, candidates, form, neighbours, starts
from attndsl.schedule.estimates import (
    FIRST_ROWS,
    LEAVES,
    ROWS,
    Estimate,
    Look,
    Price,
    look_at,
)
from attndsl.schedule.model import Schedule

STRETCH = 1 << 17  # tokens that are searched at most
FINALISTS = 2
CLIMBS = 2  # shapes of boxes from which others are reached
CLEAR = 0.8  # an estimate this much cheaper than the natural order's needs no second look
MARGIN = 0.95  # what a count that is not feasible must promise before an order is changed for it
ERRORS = 3.0  # by so many of its standard errors an estimate may err
COUNTED = 300_000  # live tiles up to which the natural order is counted in full, to compare
ALTERNATIVES = 6  # of unions that are thought of being tried apart,
SPLITS = 2  # and that are
# A judge hears so many, that cost at most so many times the cheapest, and have at most so many live tiles.
HEARD, CLOSE, JUDGED = 4, 2.0, 8_000


@dataclass(frozen=True, slots=True)
class Choice:
    """One part of a pattern in the order that is cheapest for it."""

    frame: Frame
    estimate: Estimate
    cost: float

    @property
    def floor(self) -> float:
        """The cost, were all pairs in FULL tiles."""
        return self.estimate.pairs / (self.frame.queries.tile * self.frame.keys.tile)

    @property
    def waste(self) -> float:
        """The cost, in times of what its pairs need."""
        return self.cost / max(self.floor, 1e-9)


def search(frame: Frame, axes: Axes | None, price: Price, split: bool) -> tuple[list[Frame], float]:
    """Disjoint parts of a pattern, each in its cheapest order, and their cost; one, in no other, if that is no gain.

    Of long sequences a first stretch is searched; what is found there is counted on the whole. Where there
    is nothing to choose, nothing is counted, and the cost infinite.
    """
    queries, keys = frame.queries, frame.keys
    long = queries.length == keys.length > STRETCH
    look = Frame(frame.root, queries.first(STRETCH), keys.first(STRETCH)) if long else frame
    hunt = _Hunt(axes, price, min(queries.tile, keys.tile))
    if not hunt.families(frame.root) and not (split and any(hunt.movable(frame.root))):
        return [frame], math.inf
    found = hunt.parts(look) if split else [hunt.best(look)]
    if look is frame:
        return [part.frame for part in found], _cost_of(found, price)
    parts = [
        reordered(Frame(part.frame.root, queries, keys), sorting(part.frame)) for part in found
    ]
    natural = counted([frame], price)
    cost = natural if parts == [frame] else counted(parts, price)
    return (parts, cost) if cost < MARGIN * natural else ([frame], natural)


def counted(parts: Iterable[Frame], price: Price) -> float:
    """What they cost, by a sample of their rows."""
    return _cost_of([measured(part, price) for part in parts], price)


def measured(frame: Frame, price: Price) -> Choice:
    """The frame as it is, by a sample of its rows."""
    return _choice(frame, look_at(frame, ROWS), price)


def _cost_of(parts: Sequence[Choice], price: Price) -> float:
    """Of disjoint parts, with what it takes to merge their softmaxes."""
    merging = price.merged * parts[0].frame.queries.n_tiles * (len(parts) - 1)
    return sum(part.cost for part in parts) + merging


def sorting(frame: Frame) -> Candidate:
    """What its sides are sorted by."""
    orders = frame.queries.order, frame.keys.order
    name = next((order.name for order in orders if order), "natural")
    of_queries, of_keys = (order.keys if order else () for order in orders)
    return Candidate(name, of_queries, of_keys)


def reordered(frame: Frame, by: Candidate) -> Frame:
    """A frame in natural order, sorted so."""
    return _ordered(frame, by) or frame


# ---------------------------------------------------------------------------- one order, and parts


@dataclass(frozen=True, slots=True)
class _Hunt:
    """One search. What has been counted is not counted again."""

    axes: Axes | None
    price: Price
    tokens: int  # of a tile
    _counted: dict[tuple[Frame, int, int], Choice] = field(default_factory=dict)
    _looks: dict[Frame, Look] = field(default_factory=dict)
    _schedules: dict[Frame, Schedule] = field(default_factory=dict)
    _families: dict[ir.Node, list[tuple[Candidate, ...]]] = field(default_factory=dict)

    @property
    def finalists(self) -> int:
        """How many orders are looked at more closely."""
        return FINALISTS if self.price.judge is None else 2 * HEARD

    def count(self, frame: Frame, rows: int, leaves: int = LEAVES) -> Choice:
        """The frame, by so many of its rows."""
        known = self._counted.get((frame, rows, leaves))
        if known is None:
            known = _choice(frame, self.look(frame, rows), self.price, leaves)
            self._counted[frame, rows, leaves] = known
        return known

    def look(self, frame: Frame, rows: int) -> Look:
        """At so many of its rows; a first look is kept, to be looked at more closely."""
        known = self._looks.get(frame) if rows == FIRST_ROWS else None
        if known is None:
            known = look_at(frame, rows)
            if rows == FIRST_ROWS:
                self._looks[frame] = known
        return known

    def families(self, root: ir.Node) -> list[tuple[Candidate, ...]]:
        """The orders that the root suggests."""
        known = self._families.get(root)
        if known is None:
            known = self._families[root] = candidates(root, self.axes, self.tokens)
        return known

    def best(self, frame: Frame, ranked: Sequence[Choice] | None = None) -> Choice:
        """The cheapest order of a frame, of those that are ``ranked`` if they are known."""
        natural = self.count(frame, ROWS if ranked is None else FIRST_ROWS)
        if natural.cost <= 1.2 * natural.floor:
            return self.count(frame, ROWS)
        finalists = self.ranked(natural) if ranked is None else ranked
        least = min([natural.cost, *(each.cost for each in finalists)])
        few = (each for each in finalists[: self.finalists] if self.promises(each, least))
        others = [self.count(each.frame, ROWS) for each in few]
        if self.price.judge is not None:
            return self.judged([[self.count(frame, ROWS)], *([other] for other in others)])[0]
        if not others:
            return self.count(frame, ROWS)
        best = min(others, key=lambda c: c.cost)
        if not self.promises(natural, best.cost / CLEAR):
            return best
        natural = self.count(frame, ROWS)
        if best.estimate.exact and natural.estimate.exact:
            return best if best.cost < natural.cost else natural
        if self.is_close(best, natural) and natural.estimate.live <= COUNTED:
            best, natural = (self.count(each.frame, 1 << 40) for each in (best, natural))
            return best if best.cost < natural.cost else natural
        return best if best.cost < MARGIN * natural.cost else natural

    def promises(self, choice: Choice, cost: float) -> bool:
        """Whether the choice may well be cheaper, for all that its estimate errs and a judge may think otherwise."""
        sure = max(1 - ERRORS * choice.estimate.error, 1 / CLOSE)
        return choice.cost * sure <= cost * (1 if self.price.judge is None else CLOSE)

    @staticmethod
    def is_close(best: Choice, natural: Choice) -> bool:
        """Whether it takes a count to tell that it is cheaper than the natural order."""
        errors = (each.cost * each.estimate.error for each in (best, natural))
        gain = natural.cost - best.cost
        return 0 < gain < min((1 - CLEAR) * natural.cost, ERRORS * math.hypot(*errors))

    def judged(self, options: Sequence[list[Choice]]) -> list[Choice]:
        """The cheapest; the judge decides among those about as cheap. The first is left for a clear gain only."""
        price = self.price
        ranked = sorted(options, key=lambda option: _cost_of(option, price))
        least = _cost_of(ranked[0], price)
        close = [option for option in ranked if _cost_of(option, price) <= CLOSE * least][:HEARD]
        few = all(choice.estimate.live <= JUDGED for option in close for choice in option)
        hear = price.judge if few and len(close) > 1 else None
        costs = [
            _cost_of(option, price)
            if hear is None
            else hear([self.schedule(choice.frame) for choice in option])
            for option in close
        ]
        costs = [
            cost * (MARGIN if option is options[0] else 1.0)
            for cost, option in zip(costs, close, strict=True)
        ]
        return close[costs.index(min(costs))]

    def schedule(self, frame: Frame) -> Schedule:
        """Of one head, in full."""
        known = self._schedules.get(frame)
        if known is None:
            known = self._schedules[frame] = _schedule(frame)
        return known

    def ranked(self, natural: Choice, limit: float = math.inf) -> list[Choice]:
        """The frame in other orders, roughly counted, the cheapest first; those that may cost less than the limit.

        Of boxes, those that are tried start from a few shapes and move on while that is cheaper. To compare
        them, what refinement leaves undecided is taken for PARTIAL; of the best, it is looked at.
        """
        frame = natural.frame
        rough: dict[Candidate, Choice | None] = {}
        leaves = LEAVES if self.price.gathers else 0

        def cost(item: Candidate) -> float:
            if item not in rough:
                moved = _ordered(frame, item)
                rough[item] = None if moved is None else self.count(moved, FIRST_ROWS, leaves)
            found = rough[item]
            return math.inf if found is None else found.cost

        families = self.families(frame.root)
        first = {item: family for family in families for item in starts(family)}
        for best in sorted(first, key=cost)[:CLIMBS]:
            family = first[best]
            while near := [item for item in neighbours(family, best) if cost(item) < cost(best)]:
                best = min(near, key=cost)
        distinct = {choice.frame: choice for choice in rough.values() if choice is not None}
        cheapest = sorted(distinct.values(), key=lambda choice: choice.cost)
        return self.looked_at(cheapest[: 2 * self.finalists], min(natural.cost, limit))

    def looked_at(self, cheapest: Sequence[Choice], cost: float) -> list[Choice]:
        """The orders as they are when looked at, while one may still be cheaper than those before and ``cost``.

        Of a rough cost, at most twice as much is taken to turn out EMPTY as in those orders.
        """
        found: list[Choice] = []
        empty = 0.0  # of a rough cost
        for choice in cheapest:
            if found and not self.promises(choice, cost / max(1 - 2 * empty, 1 / CLOSE)):
                break
            found.append(self.count(choice.frame, FIRST_ROWS))
            empty = max(empty, 1 - found[-1].cost / max(choice.cost, 1e-9))
            cost = min(cost, found[-1].cost)
        return sorted(found, key=lambda choice: choice.cost)

    def parts(self, frame: Frame) -> list[Choice]:
        """Disjoint parts of a pattern, each in its own order, if they are cheaper than the whole."""
        whole = self.best(frame)
        merging = self.price.merged * frame.queries.n_tiles
        if whole.cost <= 2 * whole.floor:
            return [whole]
        promising: list[tuple[Frame, list[Choice]]] = []
        limit = MARGIN * whole.cost - merging
        for roots in self.wasteful(frame):
            sketches, total = [], 0.0
            for root in roots:
                part = Frame(root, frame.queries, frame.keys)  # what is known of its terms is kept
                least, ranked = self.sketch(part, limit - total)
                sketches.append((part, ranked))
                total += least
                if total >= limit:
                    break
            else:
                promising, limit = sketches, total
        parts = [self.best(part, ranked) for part, ranked in promising]
        if not parts or _cost_of(parts, self.price) >= MARGIN * whole.cost:
            return [whole]
        return parts if self.price.judge is None else self.judged([[whole], parts])

    def movable(self, root: ir.Node) -> Iterator[tuple[ir.Node, ...]]:
        """The splits of which a part may be sorted: in natural order, parts cost no less than the whole."""
        some = itertools.islice(splits(root), ALTERNATIVES)
        return (roots for roots in some if any(map(self.families, roots)))

    def wasteful(self, frame: Frame) -> list[tuple[ir.Node, ...]]:
        """The splits whose first part costs most beyond what its pairs need.

        Of parts that differ in numbers alone and waste about as much, such as draws by several seeds, one.
        """

        def waste(roots: tuple[ir.Node, ...]) -> float:
            part = self.count(Frame(roots[0], frame.queries, frame.keys), FIRST_ROWS)
            return max(0.0, part.cost - part.floor)

        found = list(self.movable(frame.root))
        alike: dict[tuple[tuple[str, ...], int], tuple[ir.Node, ...]] = {}
        for roots in found if len(found) > 1 else ():
            alike.setdefault((form(roots[0]), round(math.log2(1 + waste(roots)))), roots)
        some = list(alike.values()) or found
        return sorted(some, key=waste, reverse=True)[:SPLITS] if len(some) > SPLITS else some

    def sketch(self, frame: Frame, limit: float) -> tuple[float, list[Choice]]:
        """About what the frame costs in its cheapest order; and in others than the natural one, below the limit."""
        natural = self.count(frame, FIRST_ROWS)
        ranked = [] if natural.cost <= 1.2 * natural.floor else self.ranked(natural, limit)
        return min(choice.cost for choice in (natural, *ranked)), ranked


def _schedule(frame: Frame) -> Schedule:
    queries, keys = frame.queries, frame.keys
    tile, one = (queries.tile, keys.tile), np.zeros((1, 1), dtype=np.int32)
    bank = Bank(tile)
    plan = plan_of_frame(frame, bank)
    return Schedule(queries.length, keys.length, tile, (plan,), one, bank.finish())


def _ordered(frame: Frame, item: Candidate) -> Frame | None:
    queries, keys = frame.queries, frame.keys
    q_order = order_of(queries, item.of_queries, item.name)
    mirrored = item.of_keys in (item.of_queries, tuple(map(_mirror, item.of_queries)))
    if mirrored and (queries.length, queries.start) == (keys.length, keys.start):
        k_order = q_order
    else:
        k_order = order_of(keys, item.of_keys, item.name)
    return None if q_order is k_order is None else frame.ordered(q_order, k_order)


@functools.lru_cache(maxsize=4096)
def _mirror(key: ir.Node) -> ir.Node:
    """The same term of the other side."""
    return ir.substitute(key, {ir.Pos(ir.Side.QUERY): ir.Pos(ir.Side.KEY)})


def _choice(frame: Frame, look: Look, price: Price, leaves: int = LEAVES) -> Choice:
    found = look.estimate(leaves)
    return Choice(frame, found, found.cost(price) + _moving(frame, price))


def _moving(frame: Frame, price: Price) -> float:
    moved = (axis.n_tiles for axis in (frame.queries, frame.keys) if axis.order is not None)
    return price.moved * sum(moved)


def splits(root: ir.Node) -> Iterator[tuple[ir.Node, ...]]:
    """Ways to write a pattern as disjoint parts: one alternative of a union, and what it leaves."""
    conjuncts = root.items if isinstance(root, ir.And) else (root,)
    for union in conjuncts:
        if not isinstance(union, ir.Or):
            continue
        common = [item for item in conjuncts if item is not union]
        for first in union.items:
            others = [item for item in union.items if item is not first]
            rest = ir.conj(*common, ir.disj(*others), ir.negate(first))
            yield ir.conj(*common, first), separate_root(rest)
