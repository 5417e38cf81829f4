"""Classification of the tiles of an open mask by the contents of its inputs, in arrays of NumPy or of torch.

    what is known    -> truths on the candidates, worked out once (Classifier.of)
    what inputs say  -> least and greatest value of each term on each tile, by amin and amax (OpenSide)
    both             -> EMPTY, FULL or PARTIAL by the interpreter that classifies known masks (Classifier.states)

No value is looked at on the way, and all shapes follow from those of the inputs. An EMPTY tile holds no pair, a FULL
one all; a tile that intervals do not decide is PARTIAL, though it may hold none or all.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

import numpy as np

from attndsl import ir
from attndsl.analysis import Interpreter, Range, Truths, parts_of
from attndsl.schedule.open_masks import Bounds, Candidates, OpenHeadMask, OpenMask, readers
from attndsl.schedule.refine import interpreter, is_leaf, leaf_range, split_comparison
from attndsl.schedule.relations import axes_of
from attndsl.schedule.summaries import TileAxis, as_truths

Array: TypeAlias = Any  # of NumPy or of torch
Namespace: TypeAlias = Any  # their functions, which make arrays where those of the inputs lie

EMPTY: Final = 0
PARTIAL: Final = 1
FULL: Final = 2


def open_env(mask: OpenMask, piece: OpenHeadMask, xp: Namespace) -> ir.Env:
    """The environment of a piece without its inputs: a row a plan, a column a position."""
    column = len(piece.batch), 1
    return ir.Env(
        q=xp.arange(mask.queries.start, mask.queries.stop),
        k=xp.arange(mask.keys.start, mask.keys.stop),
        sizes={},
        tables={name: xp.asarray(array) for name, array in mask.tables.items()},
        batch=xp.asarray(piece.batch.reshape(column)),
        head=xp.asarray(piece.head.reshape(column)),
        fits=True,
        xp=xp,
    )


def conditions_hold(mask: OpenMask, tables: Mapping[str, Array], xp: Namespace) -> list[Array]:
    """Whether the inputs are what is asked of them, for each condition; tables are those of `OpenValues`."""
    if not mask.conditions:
        return []
    batch, heads = (xp.arange(0, count) for count in mask.counts)
    env = ir.Env(0, 0, {}, tables, batch[:, None], heads, fits=True, xp=xp)
    return [xp.asarray(ir.evaluate(node, env)).all() for node in mask.conditions]


def open_zero_keys(mask: OpenMask, tables: Mapping[str, Array], xp: Namespace) -> Array | None:
    """How many zero keys each query sees, int64 [batch or 1, heads or 1, queries]; None where none has any.

    A count below 0 is left for who calls to refuse. Tables are those of `OpenValues`.
    """
    if mask.zeros is ir.ZERO:
        return None
    batch, heads = (xp.arange(0, count) for count in mask.counts)
    q = xp.arange(mask.queries.start, mask.queries.stop)
    sides = batch[:, None, None], heads[:, None]
    found = ir.evaluate(mask.zeros, ir.Env(q, 0, {}, tables, *sides, fits=True, xp=xp)) + 0 * q
    return found.reshape((1,) * (3 - len(found.shape)) + tuple(found.shape))


class OpenValues:
    """The values of the terms of one piece at all positions, once its inputs are known."""

    def __init__(self, env: ir.Env, tables: Mapping[str, Array]) -> None:
        """``env``: that of `open_env`. ``tables``: the inputs, bool or int64, of the declared dims."""
        self.xp: Namespace = env.xp
        self.plans = len(env.batch)
        self._env = replace(env, tables={**env.tables, **tables})
        self._found: dict[ir.Node, Array] = {}

    def of_side(self, node: ir.Node, length: int) -> Array:
        """The values of a term of one side, int64 [plans, length]; truth values as 0 and 1. Length 1: of neither."""
        found = self._found.get(node)
        if found is None:
            found = self._found[node] = self._evaluated(node, (self.plans, length))
        return found

    def _evaluated(self, node: ir.Node, shape: tuple[int, int]) -> Array:
        made = ir.evaluate(node, self._env)
        if node.sort is ir.Sort.BOOL:
            made = self.xp.where(self.xp.asarray(made), 1, 0)
        return self.xp.broadcast_to(self.xp.asarray(made), shape)


class OpenSide:
    """One side of an open piece, the tiles of all its plans one behind the other."""

    def __init__(
        self, axis: TileAxis, known: Mapping[ir.Node, Range], bounds: Bounds, values: OpenValues
    ):
        """``known``: summaries of the terms that read no input."""
        self._axis, self._known, self._bounds, self._values = axis, known, bounds, values

    def owns(self, node: ir.Node) -> bool:
        """Whether the node depends on this side's position and not on the other's."""
        return self._axis.owns(node)

    def table_bounds(self, name: str) -> tuple[int, int]:
        """Bounds of what a read of the table can give."""
        return self._bounds[name]

    def summary(self, node: ir.Node, level: int) -> Range:
        """Least and greatest value on each tile, [plans * tiles]."""
        assert level == 0, "open tiles are not joined in boxes"
        found = self._known.get(node)
        return self._reduced(node) if found is None else found

    def _reduced(self, node: ir.Node) -> Range:
        axis, values = self._axis, self._values
        found = values.of_side(node, axis.length)
        rest = -axis.length % axis.tile
        if rest:
            last = values.xp.broadcast_to(found[:, -1:], (values.plans, rest))
            found = values.xp.concatenate([found, last], axis=1)
        by_tile = found.reshape(values.plans * axis.n_tiles, axis.tile)
        return Range(values.xp.amin(by_tile, axis=1), values.xp.amax(by_tile, axis=1))


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of a root whose ranges on tiles are found without their own parts."""

    closed: tuple[ir.Node, ...]  # truth values that read no input
    free: tuple[ir.Node, ...]  # what no position changes, but an input
    leaves: tuple[ir.Node, ...]  # other leaves of the analysis
    terms: tuple[ir.Node, ...]  # terms of one side in them that read no input

    @staticmethod
    def of(root: ir.Node, names: Collection[str]) -> Parts:
        """Finds the outermost ones. ``names``: of the inputs."""
        reading = readers(root, names)
        closed, free, found, terms = (dict[ir.Node, None]() for _ in range(4))
        seen, stack = set[ir.Node](), [root]
        while stack:
            node = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            if node not in reading and node.sort is ir.Sort.BOOL:
                closed[node] = None
            elif node in reading and not node.deps & ir.Deps.PAIR:
                free[node] = None
            elif is_leaf(node):
                found[node] = None
                sides = split_comparison(node)
                for term in (node,) if sides is None else sides[:2]:
                    if not any(x in reading for x in ir.postorder(term)):
                        terms[term] = None
            else:
                stack.extend(parts_of(node))
        return Parts(*map(tuple, (closed, free, found, terms)))


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """Knowledge of the candidates of one piece that precedes its inputs, in arrays where these lie.

    Boxes are numbered plan by plan; ``rows`` and ``columns`` count the tiles of all plans through.
    """

    piece: OpenHeadMask
    parts: Parts
    sides: tuple[TileAxis, TileAxis]
    rows: Array  # int64 [plans * candidates]
    columns: Array
    truths: Mapping[ir.Node, Truths]  # on each of them, of parts of the root that read no input
    summaries: tuple[
        Mapping[ir.Node, Range], Mapping[ir.Node, Range]
    ]  # of terms of each side that read none
    bounds: Bounds

    @staticmethod
    def of(
        mask: OpenMask, piece: OpenHeadMask, found: Candidates, number: int, xp: Namespace
    ) -> Classifier:
        """Prepares one piece, the ``number``-th of the mask."""
        sides = axes_of(mask.queries, mask.keys, found.tile, mask.tables)
        rows, columns = found.tiles[number]
        plans = np.arange(len(piece.batch))[:, None]
        flat = (
            (x + plans * n).reshape(-1) for x, n in zip((rows, columns), found.grid, strict=True)
        )
        parts = Parts.of(piece.root, mask.bounds)
        known: dict[ir.Node, Truths] = {}
        for node in parts.closed:
            truths = interpreter(node, *sides, (0, 0), rows, columns).truths(node)
            both = (
                _repeated(x, rows.shape, len(plans)) for x in (truths.may_hold, truths.may_fail)
            )
            known[node] = Truths(*map(xp.asarray, both))
        summaries: list[dict[ir.Node, Range]] = [
            {
                node: _summary(side.summary(node, 0), len(plans), xp)
                for node in parts.terms
                if side.owns(node)
            }
            for side in sides
        ]
        bounds = {name: sides[0].table_bounds(name) for name in mask.tables} | dict(mask.bounds)
        where = tuple(map(xp.asarray, flat))
        return Classifier(
            piece, parts, sides, where[0], where[1], known, (summaries[0], summaries[1]), bounds
        )

    def states(self, values: OpenValues) -> Array:
        """EMPTY, PARTIAL or FULL for each candidate of each plan, int64 [plans * candidates]."""
        sides = [
            OpenSide(axis, known, self.bounds, values)
            for axis, known in zip(self.sides, self.summaries, strict=True)
        ]
        known: dict[ir.Node, Range | Truths] = dict(self.truths)
        for node in self.parts.free:
            known[node] = self._point(node, values)
        for node in self.parts.leaves:
            known[node] = leaf_range(node, sides[0], sides[1], (0, 0), self.rows, self.columns)
        verdict = Interpreter(known.get, self.rows).truths(self.piece.root)
        state = values.xp.where(verdict.may_fail, PARTIAL, FULL)
        return values.xp.where(verdict.may_hold, state, EMPTY)

    def _point(self, node: ir.Node, values: OpenValues) -> Range | Truths:
        """The value of each plan on all of its candidates."""
        of_plans = values.of_side(node, 1)
        shape = values.plans, len(self.rows) // values.plans
        point = Range.point(values.xp.broadcast_to(of_plans, shape).reshape(-1))
        return as_truths(point) if node.sort is ir.Sort.BOOL else point


def _repeated(values: Any, shape: tuple[int, ...], plans: int) -> Any:
    return np.tile(np.broadcast_to(values, shape), plans)


def _summary(found: Range, plans: int, xp: Namespace) -> Range:
    low, high = (xp.asarray(np.tile(x, plans)) for x in (found.low, found.high))
    return Range(low, high, None if found.step is None else xp.asarray(np.tile(found.step, plans)))
