"""From a pattern and a call to disjoint parts in chosen orders; what was chosen is remembered.

A choice is made of expressions: roots, and what their sides are sorted by. It holds for every table that
may be bound, so another call of the same sizes, with other documents say, sorts by the new ones and does
not search. It is never wrong, only maybe slow: where it turns out clearly dearer than it was when it was
made, the search is done again. What took long is kept for other processes, too.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from attndsl import ir
from attndsl.passes import bind
from attndsl.schedule.building import (
    BoundMask,
    Call,
    TiledRelation,
    classes_of,
    positions_of,
    tiled_relation,
)
from attndsl.schedule.candidates import Axes, Candidate, axes_of, candidates, form
from attndsl.schedule.disk_cache import load_search, store_search
from attndsl.schedule.estimates import TileCosts
from attndsl.schedule.model import HeadMask
from attndsl.schedule.search import counted, measured, reordered, search, sorting, splits

SEARCH_AGAIN = 1.25  # a choice that costs more than so many times what it did is made anew
MOST_DECISIONS = 64  # of a pattern
SIMILAR_WASTE = (
    1.1  # a head wastes about as much as another does if it is no more than so many times that
)


@dataclass(frozen=True, slots=True)
class Decision:
    """The parts, what each is sorted by, and what they cost when that was decided."""

    parts: tuple[tuple[ir.Node, Candidate], ...]
    cost: float


Decisions: TypeAlias = MutableMapping[Any, Decision]


def optimise(
    mask: ir.Mask,
    call: Call,
    tile: tuple[int, int],
    tile_costs: TileCosts | None = None,
    split: bool = True,
    decisions: Decisions | None = None,
) -> tuple[BoundMask, ...]:
    """Disjoint parts that make up a normal mask, each in the order that is cheapest in such tiles.

    Usually one. Their outputs are merged by log-sum-exp. With ``split`` off there is exactly one.
    ``decisions`` are looked up and added to.

    Raises:
        AttnDslError: A403, A404, as ``plan``.
    """
    tile_costs, decisions = tile_costs or TileCosts(), {} if decisions is None else decisions
    classes, piece_of, tables = classes_of(mask, call)
    positions = positions_of(mask, call)
    axes = _bound_axes(mask, call)
    chosen: list[list[HeadMask]] = []
    stayed: dict[tuple[str, ...], TiledRelation] = {}  # in natural order, by form
    # Of a few frames at a time: what they know of their terms is megabytes for each.
    look = functools.lru_cache(maxsize=2)(functools.partial(measured, tile_costs=tile_costs))
    for (root,) in classes:
        view = _View(root, tables)
        relation = tiled_relation(view.root, *positions, tile, view.tables)
        key, kind = (
            (view.root, call.q_len, call.k_len, tile, tile_costs, split),
            form(relation.root),
        )
        decided = decisions.get(key) or _kept(relation, axes, tile_costs, split)
        found = _recalled(relation, decided, tile_costs)
        if decided is None or found is None:
            if kind in stayed and look(relation).waste <= SIMILAR_WASTE * look(stayed[kind]).waste:
                found, decided = [relation], _decision([relation], look(relation).cost)
            else:
                found, decided = _searched(relation, axes, tile_costs, split)
                if found == [relation]:
                    stayed[kind] = relation
        elif found == [relation]:
            stayed.setdefault(kind, relation)
        decisions[key] = decided
        for oldest in list(decisions)[:-MOST_DECISIONS]:
            decisions.pop(oldest, None)
        chosen.append([view.piece(part) for part in found])
    columns = itertools.zip_longest(*chosen, fillvalue=HeadMask(ir.FALSE))
    return tuple(BoundMask(pieces, piece_of, tables, *positions) for pieces in columns)


def _searched(
    relation: TiledRelation, axes: Axes | None, tile_costs: TileCosts, split: bool
) -> tuple[list[TiledRelation], Decision]:
    started = time.perf_counter()
    found, cost = search(relation, axes, tile_costs, split)
    decided = _decision(found, cost)
    _keep(relation, axes, tile_costs, split, decided, time.perf_counter() - started)
    return found, decided


def _decision(found: Iterable[TiledRelation], cost: float) -> Decision:
    return Decision(tuple((part.root, sorting(part)) for part in found), cost)


def _recalled(
    relation: TiledRelation, known: Decision | None, tile_costs: TileCosts
) -> list[TiledRelation] | None:
    """The parts as they were decided, sorted by the tables of this call; None where they are dear."""
    if known is None:
        return None
    parts = [
        reordered(TiledRelation(root, relation.queries, relation.keys), by)
        for root, by in known.parts
    ]
    if relation.queries.tables and counted(parts, tile_costs) > SEARCH_AGAIN * known.cost:
        return None
    return parts


def _keep(
    relation: TiledRelation,
    axes: Axes | None,
    tile_costs: TileCosts,
    split: bool,
    decided: Decision,
    seconds: float,
) -> None:
    """For other processes, as hashes of expressions."""
    asked = _asked(relation, axes, tile_costs, split)
    parts = [
        [root.digest.hex(), by.name, _names(by.of_queries), _names(by.of_keys)]
        for root, by in decided.parts
    ]
    if asked is not None:
        store_search(asked, seconds, [parts, decided.cost])


def _kept(
    relation: TiledRelation, axes: Axes | None, tile_costs: TileCosts, split: bool
) -> Decision | None:
    """What another process decided, its expressions found among those that would be thought of here."""
    asked = _asked(relation, axes, tile_costs, split)
    found = None if asked is None else load_search(asked)
    if found is None:
        return None
    halves = itertools.chain.from_iterable(splits(relation.root))
    roots = {root.digest.hex(): root for root in itertools.chain((relation.root,), halves)}
    parts, cost = found
    made: list[tuple[ir.Node, Candidate]] = []
    for root, name, *sides in parts:
        if root not in roots:
            return None
        known: dict[tuple[str, ...], tuple[ir.Node, ...]] = {(): ()}
        tokens = min(relation.queries.tile, relation.keys.tile)
        for item in itertools.chain.from_iterable(candidates(roots[root], axes, tokens)):
            known |= {tuple(_names(keys)): keys for keys in (item.of_queries, item.of_keys)}
        keys = [known.get(tuple(side)) for side in sides]
        if keys[0] is None or keys[1] is None:
            return None
        made.append((roots[root], Candidate(name, keys[0], keys[1])))
    return Decision(tuple(made), cost)


def _asked(
    relation: TiledRelation, axes: Axes | None, tile_costs: TileCosts, split: bool
) -> object:
    """All that a search depends on but tables, the same in every process; None if it cannot be named."""
    if tile_costs.cost_model is not None and not tile_costs.name:
        return None
    sides = [(side.length, side.start, side.tile) for side in (relation.queries, relation.keys)]
    grid = None
    if axes is not None:
        of_sides = _names(axes.of_queries), _names(axes.of_keys)
        grid = (axes.names, tuple(axes.extents), of_sides)
    return relation.root.digest.hex(), sides, grid, replace(tile_costs, cost_model=None), split


def _names(nodes: Iterable[ir.Node]) -> list[str]:
    return [node.digest.hex() for node in nodes]


class _View:
    """A root of one (batch, head) class as the pattern has it: tables under their declared names.

    So that what is decided for one class can be recognised in another.
    """

    def __init__(self, root: ir.Node, tables: Mapping[str, Any]) -> None:
        loads = {node.table for node in ir.postorder(root) if isinstance(node, ir.Load)}
        self._slices = {name.partition("[")[0]: name for name in loads}
        self.root = _renamed(root, {name: short for short, name in self._slices.items()})
        self.tables = {short: tables[name] for short, name in self._slices.items()}

    def piece(self, part: TiledRelation) -> HeadMask:
        """What to compute, its tables under the names of this class again."""
        return HeadMask(_renamed(part.root, self._slices), part.queries.order, part.keys.order)


def _renamed(root: ir.Node, names: Mapping[str, str]) -> ir.Node:
    if all(new == old for old, new in names.items()):
        return root

    def rule(node: ir.Node) -> ir.Node:
        if not isinstance(node, ir.Load):
            return node
        return ir.Load(names[node.table], node.kind, node.index, node.ambient)

    return ir.transform(root, rule)


def _bound_axes(mask: ir.Mask, call: Call) -> Axes | None:
    axes = axes_of(mask, dict(call.sizes))
    if axes is None:
        return None
    sides = [
        tuple(bind(axis, call.sizes) for axis in side) for side in (axes.of_queries, axes.of_keys)
    ]
    return Axes(axes.names, sides[0], sides[1], axes.extents)
