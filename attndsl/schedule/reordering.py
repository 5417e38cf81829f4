"""Choice of token orders for a call, remembered for later calls and other processes.

A decision consists of expressions: the roots of disjoint parts, and the keys their sides are sorted by. It holds for
any tables, so a call of the same sizes with other documents sorts by the new tables without a search. A decision
is never wrong, only possibly slow: the search runs again where the decision now costs clearly more than it did.
Decisions that took long to find are stored on disk.
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
from attndsl.schedule.building import BoundMask, classes_of
from attndsl.schedule.calls import Call
from attndsl.schedule.candidates import Axes, Candidate, axes_of, candidates, form, splits
from attndsl.schedule.disk_cache import load_search, store_search
from attndsl.schedule.estimates import TileCosts
from attndsl.schedule.model import HeadMask
from attndsl.schedule.relations import TiledRelation, positions_of, tiled_relation
from attndsl.schedule.search import counted, measured, reordered, search, sorting

# Search again if a cached decision now costs this many times its original estimate.
SEARCH_AGAIN = 1.25
MOST_DECISIONS = 64  # decisions remembered for each pattern
# A head within this factor of another's waste that kept natural order is not searched.
SIMILAR_WASTE = 1.1


@dataclass(frozen=True, slots=True)
class Decision:
    """Disjoint parts with their sort keys, and their cost when they were chosen."""

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
    """Returns the disjoint parts of a normal mask, each in the token order that is cheapest in such tiles.

    There is usually one part, and exactly one with ``split`` off; outputs of several are merged by log-sum-exp.
    ``decisions`` is a memo that is read and added to.

    Raises:
        AttnDslError: A403, A404, as ``plan``.
    """
    tile_costs, decisions = tile_costs or TileCosts(), {} if decisions is None else decisions
    classes, piece_of, tables = classes_of(mask, call)
    positions = positions_of(mask, call)
    axes = _bound_axes(mask, call)
    chosen: list[list[HeadMask]] = []
    stayed: dict[tuple[str, ...], TiledRelation] = {}  # relations that kept natural order, by form
    # Keep two at most: each holds several MB of term summaries.
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
    """Applies a known decision with the tables of this call; returns None if it costs clearly more than it did."""
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
    """Stores a decision on disk, its expressions by their digests."""
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
    """Loads a stored decision; returns None unless its parts are the whole, and its sort keys candidates of them."""
    asked = _asked(relation, axes, tile_costs, split)
    found = None if asked is None else load_search(asked)
    if found is None:
        return None
    match found:
        case [list(parts), int() | float() as cost]:
            pass
        case _:
            return None
    wholes = itertools.chain([(relation.root,)], splits(relation.root))
    named = [part[0] if isinstance(part, list) and len(part) == 4 else None for part in parts]
    roots = next((roots for roots in wholes if _names(roots) == named), None)
    if roots is None:
        return None
    tokens = min(relation.queries.tile, relation.keys.tile)
    made: list[tuple[ir.Node, Candidate]] = []
    for root, (_, name, *sides) in zip(roots, parts, strict=True):
        known: dict[tuple[str, ...], tuple[ir.Node, ...]] = {(): ()}
        for item in itertools.chain.from_iterable(candidates(root, axes, tokens)):
            known |= {tuple(_names(keys)): keys for keys in (item.of_queries, item.of_keys)}
        keys = [
            known.get(tuple(map(str, side))) if isinstance(side, list) else None for side in sides
        ]
        if keys[0] is None or keys[1] is None or not isinstance(name, str):
            return None
        made.append((root, Candidate(name, keys[0], keys[1])))
    return Decision(tuple(made), cost)


def _asked(
    relation: TiledRelation, axes: Axes | None, tile_costs: TileCosts, split: bool
) -> object:
    """Returns the cache key of a search: all it depends on but tables; None if the cost model has no name."""
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
    """A root of one (batch, head) class with its tables under their declared names.

    Decisions for one class can so be recognised in another.
    """

    def __init__(self, root: ir.Node, tables: Mapping[str, Any]) -> None:
        loads = {node.table for node in ir.postorder(root) if isinstance(node, ir.Load)}
        self._slices = {name.partition("[")[0]: name for name in loads}
        self.root = _renamed(root, {name: short for short, name in self._slices.items()})
        self.tables = {short: tables[name] for short, name in self._slices.items()}

    def piece(self, part: TiledRelation) -> HeadMask:
        """Returns the head mask with the tables under the names of this class again."""
        return HeadMask(_renamed(part.root, self._slices), part.queries.order, part.keys.order)


def _renamed(root: ir.Node, names: Mapping[str, str]) -> ir.Node:
    if all(new == old for old, new in names.items()):
        return root

    def rule(node: ir.Node) -> ir.Node:
        assert isinstance(node, ir.Load)
        return ir.Load(names[node.table], node.kind, node.index, node.ambient)

    return ir.transform(root, rule, ir.Load)


def _bound_axes(mask: ir.Mask, call: Call) -> Axes | None:
    axes = axes_of(mask, dict(call.sizes))
    if axes is None:
        return None
    sides = [
        tuple(bind(axis, call.sizes) for axis in side) for side in (axes.of_queries, axes.of_keys)
    ]
    return Axes(axes.names, sides[0], sides[1], axes.extents)
