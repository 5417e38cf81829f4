"""The cheapest order of tokens that the pattern suggests, counted and not assumed.

Every candidate is classified on some rows of tiles (all of them when they are few), its leaves decided
exactly, and priced. Unless the gain is clear, the winner and the natural order are counted in full, where
that is feasible: by its own count, the result is never worse.

A union whose alternatives want different orders is split into disjoint parts, each scheduled in its own,
when that is cheaper in spite of merging two softmaxes:

    c and (a or b)   -->   c and a   |   c and b and not a
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from attndsl import ir
from attndsl.passes import bind, separate_root
from attndsl.schedule.building import Call, Frame, Part, Piece, classes_of, frame_of, order_of
from attndsl.schedule.candidates import Axes, Candidate, axes_of, candidates
from attndsl.schedule.leaves import survey
from attndsl.schedule.model import IntArray
from attndsl.schedule.refine import refine_rows

FIRST_ROWS, ROWS = 8, 64  # rows of tiles looked at: to sort out, to decide
LEAVES = 48  # distinct tiles evaluated to decide, for at most ROWS rows
FINALISTS = 2
CLEAR = 0.8  # an estimate this much cheaper than the natural order's needs no second look
MARGIN = 0.95  # what a count that is not feasible must promise before an order is changed for it
COUNTED = 300_000  # live tiles up to which the natural order is counted in full, to compare
ALTERNATIVES = 6  # of a union that are tried apart


@dataclass(frozen=True, slots=True)
class Price:
    """What work costs, in FULL tiles."""

    partial: float = 1.25  # a PARTIAL tile: the mask on top
    moved: float = 0.25  # one tile's rows of one side, gathered and scattered
    merged: float = 0.5  # one tile's queries, merged from two softmaxes
    gathers: bool = False  # a PARTIAL tile costs the share of its keys that some query sees


@dataclass(frozen=True, slots=True)
class Estimate:
    """Tiles of a frame, by those that were looked at."""

    full: float
    partial: float
    pairs: float
    keys: float
    exact: bool = True

    @property
    def live(self) -> float:
        """Tiles that are visited."""
        return self.full + self.partial

    def cost(self, price: Price) -> float:
        """In FULL tiles."""
        return self.full + price.partial * (self.keys if price.gathers else self.partial)


@dataclass(frozen=True, slots=True)
class Choice:
    """One part of a pattern in the order that is cheapest for it."""

    frame: Frame
    estimate: Estimate
    cost: float


def optimise(
    mask: ir.Mask, call: Call, tile: tuple[int, int], price: Price | None = None, split: bool = True
) -> tuple[Part, ...]:
    """Disjoint parts that make up a normal mask, each in the order that is cheapest in such tiles.

    Usually one. Their outputs are merged by log-sum-exp. With ``split`` off there is exactly one.

    Raises:
        AttnDslError: A403, A404, as ``plan``.
    """
    price = price or Price()
    classes, plan_of, tables = classes_of(mask, call)
    axes = _bound_axes(mask, call)
    frames = [frame_of(root, mask, call, tile, tables) for (root,) in classes]
    chosen = [
        _parts(frame, axes, price) if split else [_best(frame, axes, price)] for frame in frames
    ]
    nothing = Piece(ir.FALSE)
    columns = itertools.zip_longest(
        *([_piece(part) for part in own] for own in chosen), fillvalue=nothing
    )
    return tuple(Part(mask, call, pieces, plan_of, tables) for pieces in columns)


def _piece(choice: Choice) -> Piece:
    frame = choice.frame
    return Piece(frame.root, frame.queries.order, frame.keys.order)


def _bound_axes(mask: ir.Mask, call: Call) -> Axes | None:
    axes = axes_of(mask, dict(call.sizes))
    if axes is None:
        return None
    sides = [
        tuple(bind(axis, call.sizes) for axis in side) for side in (axes.of_queries, axes.of_keys)
    ]
    return Axes(axes.names, sides[0], sides[1], axes.extents)


# ---------------------------------------------------------------------------- one order


def _best(frame: Frame, axes: Axes | None, price: Price) -> Choice:
    """The cheapest order of a frame."""
    natural = _choice(frame, ROWS, price)
    floor = natural.estimate.pairs / (frame.queries.tile * frame.keys.tile)
    tried = [frame]
    for item in candidates(frame.root, axes, min(frame.queries.tile, frame.keys.tile)):
        moved = _ordered(frame, item)
        if moved is not None and not any(_alike(moved, other) for other in tried):
            tried.append(moved)
    if len(tried) == 1 or natural.cost <= 1.2 * floor:
        return natural
    finalists = tried[1:]
    if len(finalists) > FINALISTS and frame.queries.n_tiles > FIRST_ROWS:
        rough = sorted(
            (_choice(item, FIRST_ROWS, price) for item in finalists), key=lambda c: c.cost
        )
        finalists = [choice.frame for choice in rough[:FINALISTS]]
    best = min((_choice(item, ROWS, price) for item in finalists), key=lambda c: c.cost)
    if best.estimate.exact and natural.estimate.exact:
        return best if best.cost < natural.cost else natural
    if CLEAR * natural.cost < best.cost < natural.cost and natural.estimate.live <= COUNTED:
        best, natural = (_choice(each.frame, 1 << 40, price) for each in (best, natural))
        return best if best.cost < natural.cost else natural
    return best if best.cost < MARGIN * natural.cost else natural


def _ordered(frame: Frame, item: Candidate) -> Frame | None:
    orders = (
        order_of(frame.queries, item.of_queries, item.name),
        order_of(frame.keys, item.of_keys, item.name),
    )
    return None if orders == (None, None) else frame.ordered(*orders)


def _alike(one: Frame, other: Frame) -> bool:
    sides = (one.queries.order, other.queries.order), (one.keys.order, other.keys.order)
    return all(
        (mine is None) == (theirs is None)
        and (mine is None or theirs is None or np.array_equal(mine.rows, theirs.rows))
        for mine, theirs in sides
    )


def _choice(frame: Frame, rows: int, price: Price) -> Choice:
    found = estimate(frame, rows)
    return Choice(frame, found, found.cost(price) + _moving(frame, price))


def _moving(frame: Frame, price: Price) -> float:
    moved = (axis.n_tiles for axis in (frame.queries, frame.keys) if axis.order is not None)
    return price.moved * sum(moved)


def estimate(frame: Frame, rows: int) -> Estimate:
    """Count on at most ``rows`` rows of tiles, one drawn from each of as many equal stretches."""
    queries, keys = frame.queries, frame.keys
    if queries.n_tiles == 0 or keys.n_tiles == 0:
        return Estimate(0.0, 0.0, 0.0, 0.0)
    chosen = _drawn(queries.n_tiles, rows)
    found = refine_rows(frame.root, queries, keys, chosen)
    rest = survey(frame.root, queries, keys, *found.open, LEAVES * rows // ROWS)
    scale = queries.n_tiles / len(chosen)
    sure = len(found.full[0])
    area = queries.tile * keys.tile
    return Estimate(
        scale * (sure + rest.full),
        scale * rest.partial,
        scale * ((sure + rest.full) * area + rest.pairs),
        scale * rest.keys,
        len(chosen) == queries.n_tiles and rest.exact,
    )


def _drawn(count: int, wanted: int) -> IntArray:
    if count <= wanted:
        return np.arange(count, dtype=np.int64)
    edges = np.linspace(0, count, wanted + 1).astype(np.int64)
    return np.random.default_rng(0).integers(edges[:-1], edges[1:])


# ---------------------------------------------------------------------------- parts


def _parts(frame: Frame, axes: Axes | None, price: Price) -> list[Choice]:
    """Disjoint parts of a pattern, each in its own order, if they are cheaper than the whole."""
    whole = _best(frame, axes, price)
    best, cost = [whole], whole.cost
    floor = whole.estimate.pairs / (frame.queries.tile * frame.keys.tile)
    if cost <= 2 * floor:
        return best
    for roots in splits(frame.root):
        parts = [_best(_narrowed(frame, root), axes, price) for root in roots]
        total = sum(part.cost for part in parts)
        total += price.merged * frame.queries.n_tiles * (len(parts) - 1)
        if total < MARGIN * cost:
            best, cost = parts, total
    return best


def splits(root: ir.Node) -> Iterator[tuple[ir.Node, ...]]:
    """Ways to write a pattern as disjoint parts: one alternative of a union, and what it leaves."""
    conjuncts = root.items if isinstance(root, ir.And) else (root,)
    for union in conjuncts:
        if not isinstance(union, ir.Or):
            continue
        common = [item for item in conjuncts if item is not union]
        for first in itertools.islice(union.items, ALTERNATIVES):
            others = [item for item in union.items if item is not first]
            rest = ir.conj(*common, ir.disj(*others), ir.negate(first))
            yield ir.conj(*common, first), separate_root(rest)


def _narrowed(frame: Frame, root: ir.Node) -> Frame:
    """The same sides around a part of the pattern; what is known of their terms is kept."""
    return Frame(root, frame.queries, frame.keys)
