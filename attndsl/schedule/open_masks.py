"""Masks in a call whose inputs are not known yet, but for their shapes and types: an input is an open leaf.

    doc[q] == doc[k] and k <= q     roots, one for all batch elements and heads that differ in what they read alone
        -->  k <= q                 of which the live tiles are the candidates, whatever the inputs hold

All of this follows from shapes, so it is made once. ``open_tiles`` then classifies the candidates by what the inputs
hold, where they lie.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np

from attndsl import ir
from attndsl.passes import PRESENT, bind, lower_root, separate_root
from attndsl.schedule.building import BoundMask, tiled
from attndsl.schedule.calls import Call
from attndsl.schedule.loop_parts import TooManyAlternatives
from attndsl.schedule.loops import Loops
from attndsl.schedule.magnitude import LIMIT, check_bounded
from attndsl.schedule.model import HeadMask, IntArray, ShortArray
from attndsl.schedule.relations import axes_of, positions_of
from attndsl.source import AttnDslError

MOST_CANDIDATES: Final = 1 << 22  # tiles of all plans; some ten numbers are held of each
MOST_TRIALS: Final = 64  # bodies of loops over inputs, each an operation or more a call
MOST_ROOTS: Final = 16  # relations of different shape; each takes operations of its own
_MOST_BITS: Final = 62  # of the numbers that are tried as bounds of an input of 64 bits
_FEWEST_BITS: Final = 31  # below which a bound might refuse what calls bring

Bounds: TypeAlias = Mapping[str, tuple[int, int]]  # of the values of a table


@dataclass(frozen=True, slots=True, eq=False)
class OpenHeadMask:
    """One relation, and the batch element and head of each of its plans."""

    root: ir.Node
    batch: IntArray  # [plans]
    head: IntArray  # [plans]


@dataclass(frozen=True, slots=True, eq=False)
class OpenMask:
    """A mask in one call whose inputs are open. Plans are counted through all pieces."""

    pieces: tuple[OpenHeadMask, ...]
    plan_of: ShortArray  # [1 or batch, 1 or heads]
    queries: range  # positions of the queries
    keys: range  # positions of the keys
    bounds: Bounds  # between which all values of an open table lie, 0 included
    asked: Bounds  # likewise, of tables whose type allows other values: they are checked when they are known
    tables: Mapping[str, Any]  # known ones, which loops became
    placed: tuple[ir.Table, ...]  # of positions that are not known, made of what the call says
    conditions: tuple[ir.Node, ...]  # what is asked of the inputs of each batch element and head
    zeros: ir.Node  # how many zero keys a query sees, of all batch elements and heads
    counts: tuple[int, int]  # batch elements and heads

    @property
    def plans(self) -> int:
        """How many plans there are."""
        return sum(len(piece.batch) for piece in self.pieces)

    @property
    def nbytes(self) -> int:
        """Bytes of the tables."""
        return sum(int(array.nbytes) for array in self.tables.values())


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The tiles of each piece that may be live, by row and then by column."""

    tile: tuple[int, int]
    grid: tuple[int, int]
    tiles: tuple[tuple[IntArray, IntArray], ...]  # (rows, columns) of each piece


def open_mask(
    mask: ir.Mask,
    call: Call,
    types: Mapping[str, np.dtype[Any]],
    limits: Bounds,
    conditions: Sequence[ir.Node] = (),
    listed: bool = False,
) -> OpenMask:
    """Binds a normal mask to a call whose tables have shapes, and contents that are not looked at.

    Args:
        mask: The mask.
        call: The call; its tables may hold anything.
        types: Of the values of each input.
        limits: Bounds of the values of other tables.
        conditions: What the pattern asks of its inputs.
        listed: Whether loops over inputs may name keys.

    Raises:
        NotOpen: its schedule cannot be found so.
        AttnDslError: A403, A404 for lengths.
    """
    root, zeros = mask.root, lower_root(mask.zeros, mask)
    if mask.absent(call.q_len, call.k_len):
        root, zeros = ir.conj(PRESENT, root), ir.select(PRESENT, zeros, ir.ZERO)
    made: dict[str, Any] = {}
    found: dict[ir.Node, dict[tuple[int, int], int]] = {}
    places: list[tuple[ir.Node, tuple[int, int]]] = []
    shape = (
        call.batch if root.deps & ir.Deps.BATCH else 1,
        call.heads if root.deps & ir.Deps.HEAD else 1,
    )
    for b, h in np.ndindex(shape):
        given = {"heads": call.heads, "layer": call.layer, "batch": b, "head": h}
        bound = separate_root(
            _without_loops(bind(root, call.sizes, **given), mask, call, made, listed)
        )
        own = b if bound.deps & ir.Deps.BATCH else 0, h if bound.deps & ir.Deps.HEAD else 0
        plans = found.setdefault(bound, {})
        plans.setdefault(own, len(plans))
        places.append((bound, own))
    if len(found) > MOST_ROOTS:
        raise ir.NotOpen(f"heads or batch elements have {len(found)} relations of different shape")
    pieces = tuple(OpenHeadMask(bound, *_columns(plans)) for bound, plans in found.items())
    before = dict(zip(found, np.cumsum([0, *map(len, found.values())]).tolist(), strict=False))
    numbers = [before[bound] + found[bound][own] for bound, own in places]
    plan_of = np.array(numbers, dtype=np.int32).reshape(shape)
    queries, keys = positions_of(mask, call)
    *judged, counted = (_of_all(node, call) for node in (*conditions, zeros))
    roots = [*(piece.root for piece in pieces), *judged, counted]
    limits = {**limits, "<batch>": (0, call.batch - 1), "<head>": (0, call.heads - 1)}
    bounds, asked = _bounds(roots, queries, keys, made, types, limits)
    placed = tuple(table for table in mask.tables if table.name in limits)
    about = bounds, asked, made, placed, tuple(judged), counted, (call.batch, call.heads)
    return OpenMask(pieces, plan_of, queries, keys, *about)


def _of_all(node: ir.Node, call: Call) -> ir.Node:
    """A condition on the inputs of a call, or a count of zero keys, of all batch elements and heads at once."""
    bound = bind(node, call.sizes, heads=call.heads, layer=call.layer)
    for loop in _outer_loops(bound):
        _check_loop(loop)
    return bound


def open_candidates(mask: OpenMask, tile: tuple[int, int]) -> Candidates:
    """The tiles that may be live, whatever the open tables hold.

    Raises:
        AttnDslError: A403, A407 for lengths.
        NotOpen: there are too many.
    """
    alone = np.zeros((1, 1), dtype=np.int32)
    pieces = tuple(HeadMask(superset(piece.root, mask.bounds)) for piece in mask.pieces)
    bound = BoundMask(pieces, alone, mask.tables, mask.queries, mask.keys)
    schedule = tiled(bound, tile, merges=False).schedules[tile]
    count = sum(len(p.batch) * x.live for p, x in zip(mask.pieces, schedule.plans, strict=True))
    if count > MOST_CANDIDATES:
        raise ir.NotOpen(f"{count:,} tiles may be live, whatever the inputs hold")
    found = []
    for plan in schedule.plans:
        rows = np.concatenate([plan.full.rows, plan.partial.rows]).astype(np.int64)
        columns = np.concatenate([plan.full.indices, plan.partial.indices]).astype(np.int64)
        order = np.lexsort((columns, rows))
        found.append((rows[order], columns[order]))
    return Candidates(tile, schedule.grid, tuple(found))


def readers(root: ir.Node, names: Collection[str]) -> set[ir.Node]:
    """The parts of a root that read one of these tables."""
    found: set[ir.Node] = set()
    for node in ir.postorder(root):
        is_read = isinstance(node, ir.Load) and node.table in names
        if is_read or any(part in found for part in node.parts):
            found.add(node)
    return found


def superset(root: ir.Node, names: Collection[str]) -> ir.Node:
    """A relation that holds wherever the root does, whatever these tables hold, and that reads none of them."""
    reading = readers(root, names)

    @functools.cache
    def made(node: ir.Node, otherwise: ir.Node) -> ir.Node:
        if node not in reading:
            return node
        match node:
            case ir.Not(item=item):
                return ir.negate(made(item, ir.negate(otherwise)))
            case ir.And(items=items):
                return ir.conj(*(made(item, otherwise) for item in items))
            case ir.Or(items=items):
                return ir.disj(*(made(item, otherwise) for item in items))
            case _:
                return otherwise

    return made(root, ir.TRUE)


def _columns(plans: Collection[tuple[int, int]]) -> tuple[IntArray, IntArray]:
    found = np.array(list(plans), dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def _without_loops(
    root: ir.Node, mask: ir.Mask, call: Call, made: dict[str, Any], listed: bool
) -> ir.Node:
    """Loops that read no input become tables, as everywhere; short ones that do stay, if one side decides them."""
    outer = _outer_loops(root)
    if not outer:
        return root
    reading = readers(root, [table.name for table in mask.tables])
    loops = Loops(*axes_of(*positions_of(mask, call), (1, 1), made))
    known: dict[ir.Node, ir.Node] = {}
    try:
        for loop in outer:
            if loop not in reading:
                known[loop] = loops.read(loop)
            elif not listed or loop.deps & ir.Deps.PAIR != ir.Deps.PAIR:
                _check_loop(loop)
    except TooManyAlternatives as error:
        raise ir.NotOpen("a loop is too wide") from error
    made |= loops.made
    return ir.substitute(root, known)


def _check_loop(loop: ir.Node) -> None:
    if loop.deps & ir.Deps.PAIR == ir.Deps.PAIR:
        raise ir.NotOpen("a loop over an input runs for each pair")
    spent = 1
    for node in ir.postorder(loop):
        if isinstance(node, ir.Exists | ir.Total):
            if not isinstance(node.start, ir.Const) or not isinstance(node.stop, ir.Const):
                raise ir.NotOpen("the limits of a loop depend on a position or an input")
            spent *= max(1, node.stop.value - node.start.value)
    if spent > MOST_TRIALS:
        raise ir.NotOpen(f"a loop over an input runs over {spent:,} values")


def _outer_loops(root: ir.Node) -> list[ir.Node]:
    found: dict[ir.Node, None] = {}
    seen: set[ir.Node] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, ir.Loop):
            found[node] = None
        else:
            stack.extend(node.parts)
    return list(found)


# ---------------------------------------------------------------------------- numbers


def _bounds(
    roots: Sequence[ir.Node],
    queries: range,
    keys: range,
    made: Mapping[str, Any],
    types: Mapping[str, np.dtype[Any]],
    limits: Bounds,
) -> tuple[Bounds, Bounds]:
    """Bounds of the values of open tables with which no number passes 2**62; and which of them need checking."""
    narrow: dict[str, tuple[int, int]] = dict(limits)
    wide: list[str] = []
    for name, kind in types.items():
        if kind.kind == "b":
            narrow[name] = 0, 1
        elif kind.itemsize < 8:
            info = np.iinfo(kind)
            narrow[name] = min(0, int(info.min)), int(info.max)
        else:
            wide.append(name)
    known = {name: _ends(array) for name, array in made.items()}
    for bits in range(_MOST_BITS, _FEWEST_BITS - 1, -1):
        tried = narrow | dict.fromkeys(wide, (-(1 << bits), 1 << bits))
        try:
            for root in roots:
                check_bounded(root, queries, keys, known | tried)
        except AttnDslError as error:
            if error.code != "A403":
                raise
            continue
        return tried, {name: tried[name] for name in wide}
    raise ir.NotOpen(f"a number may pass {LIMIT}, if the inputs hold large ones")


def _ends(array: Any) -> tuple[int, int]:
    return (min(0, int(array.min())), max(0, int(array.max()))) if array.size else (0, 0)
