"""Small calls of a mask, one after the other: what a claim is tried on."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from attndsl import ir
from attndsl.schedule import Call
from attndsl.source import AttnDslError, Diagnostic

BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

MOST_HEADS = 4
MOST_LAYERS = 3
DRAWS = 3  # of random inputs, at each length
MOST_STEPS = 1 << 18  # for the examples of one pattern, of some microseconds each; see `steps`
_DRAWN = 4  # steps that a table takes, to be drawn and measured
_MOST_ENTRIES = 1 << 20  # of a table that is drawn
_MOST_GRIDS = 1 << 14  # sizes of axes that are looked at: some microseconds each
_SLOTS = 3  # of a table's dims that nothing else determines


@dataclass(frozen=True, slots=True)
class Ranges:
    """The calls to try, by what the relations of a claim depend on."""

    heads: tuple[int, ...]
    layers: tuple[int, ...]
    draws: tuple[int, ...]
    fewer_queries: bool  # whether calls with fewer queries than keys differ from the square ones

    @staticmethod
    def of(mask: ir.Mask, roots: tuple[ir.Node, ...], layer: int | None) -> Ranges:
        """The ranges that matter to these relations; ``layer`` fixes the layer."""
        nodes = {node for root in roots for node in ir.postorder(root)}
        names = {node.name for node in nodes if isinstance(node, ir.Var)}
        per_head = "head" in names or any("head" in table.dims for table in mask.tables)
        heads = tuple(range(1, MOST_HEADS + 1)) if "heads" in names else (MOST_HEADS,)
        by_length = ir.Size("q") in nodes or any("q" in table.dims for table in mask.tables)
        return Ranges(
            heads if per_head or "heads" in names else (1,),
            tuple(range(MOST_LAYERS)) if layer is None and "layer" in names else (layer or 0,),
            tuple(range(DRAWS)) if mask.tables else (0,),
            by_length and not mask.is_rectangular,
        )


def calls(mask: ir.Mask, ranges: Ranges, least: int, most: int) -> Iterator[Call]:
    """All calls with ``least`` to ``most`` keys (or queries, where there are more), shortest first.

    Queries are as many as keys, and fewer where that matters; extents of axes of one name are equal.
    Inputs are drawn at random, the same ones every time.
    """
    for q_len, k_len, extents in _lengths(mask, ranges, least, most):
        for heads, layer, draw in itertools.product(ranges.heads, ranges.layers, ranges.draws):
            with contextlib.suppress(AttnDslError):  # an input of fixed size may be too short
                yield _call(mask, q_len, k_len, extents, (heads, layer, draw))


def call_at(mask: ir.Mask, length: int | None, extents: Mapping[str, int], heads: int) -> Call:
    """The call with that many queries and keys, or as many as the extents give, without inputs.

    Raises:
        AttnDslError: A401, A402: the mask has no such length, or its axes need extents.
    """
    q_len = _total(mask.queries, extents, 1) if length is None else length
    k_len = _total(mask.keys, extents, 1) if length is None else length
    sizes = ir.resolve_sizes(mask, q_len or 0, k_len or 0, extents)
    return Call(q_len or 0, k_len or 0, 1, heads, 0, sizes)


def steps(call: Call, *roots: ir.Node) -> int:
    """The steps that evaluating the relations at a call takes: a value at up to 2,048 pairs each."""
    pairs = call.batch * call.heads * call.q_len * call.k_len
    values = sum(ir.trials(root, call.k_len)[1] for root in roots)
    return values * (1 + pairs // 2_048) + _DRAWN * len(call.tables)


def dense(mask: ir.Mask, call: Call) -> BoolArray:
    """The meaning of a mask at a call, bool [batch, heads, q_len, k_len]."""
    return ir.meaning(
        mask, call.q_len, call.k_len, call.sizes, call.tables, call.batch, call.heads, call.layer
    )


def _call(
    mask: ir.Mask, q_len: int, k_len: int, extents: Mapping[str, int], rest: tuple[int, int, int]
) -> Call:
    heads, layer, draw = rest
    sizes = ir.resolve_sizes(mask, q_len, k_len, extents)
    batch = 2 if any("batch" in table.dims for table in mask.tables) else 1
    random = np.random.default_rng([draw, q_len, k_len])
    tables, least = {}, ir.least_sizes(mask, sizes)
    for table in mask.tables:
        known = ir.known_shape(mask, table, sizes, batch, heads)
        shape = [
            max(_SLOTS, least.get((table.name, dim), 0)) if size is None else size
            for dim, size in zip(table.dims, known, strict=True)
        ]
        if math.prod(shape) > _MOST_ENTRIES:
            title = f"input {table.name!r} is too large to be tried"
            raise AttnDslError(Diagnostic("A407", title))
        tables[table.name] = _drawn(table, shape, k_len, random)
    sizes = ir.resolve_sizes(mask, q_len, k_len, extents, ir.shapes_of(mask, tables))
    return Call(q_len, k_len, batch, heads, layer, sizes, tables)


def _drawn(table: ir.Table, shape: list[int], k_len: int, random: np.random.Generator) -> Any:
    """Random entries: positions for lists, small numbers (document ids, say) that repeat otherwise."""
    if table.kind is ir.Sort.BOOL:
        return random.random(shape) < 0.5
    if table.is_list:
        return random.integers(-1, max(k_len, 1), shape)
    return np.sort(random.integers(0, 4, shape), axis=-1)


def _lengths(
    mask: ir.Mask, ranges: Ranges, least: int, most: int
) -> Iterator[tuple[int, int, dict[str, int]]]:
    found = []
    for extents in _extents(mask, most):
        q_len = _total(mask.queries, extents)
        k_len = _total(mask.keys, extents)
        for k in (k_len,) if k_len is not None else range(1, most + 1):
            for q in (q_len,) if q_len is not None and mask.is_rectangular else (k,):
                found += [(q, k, extents)] if least <= max(q, k) <= most else []
    for q, k, extents in sorted(found, key=lambda item: (max(item[:2]), item[:2])):
        if ranges.fewer_queries:
            yield from ((fewer, k, extents) for fewer in range(1, q))
        yield q, k, extents


def _extents(mask: ir.Mask, most: int) -> Iterator[dict[str, int]]:
    """Sizes of the axes that declarations leave open, by short name: grids of few tokens first, not too many."""
    axes = {
        axis.name: None
        for space in (mask.queries, mask.keys)
        for segment in space.segments
        for axis in segment.axes
        if axis.extent is None
    }
    several = any(len(space.segments) > 1 for space in (mask.queries, mask.keys))
    names, least = list(axes), 0 if several else 1  # a segment may be empty
    # No axis that grows makes fewer tokens. One that grows after those behind it would be found twice.
    smallest = (least,) * len(names)
    pending = [(_tokens(mask, dict.fromkeys(names, least)), smallest)]
    for _ in range(_MOST_GRIDS // (1 + len(names))):
        if not pending:
            break
        _, sizes = heapq.heappop(pending)
        yield dict(zip(names, sizes, strict=True))
        last = max((i for i, size in enumerate(sizes) if size > least), default=0)
        for i in range(last, len(names)):
            grown = (*sizes[:i], sizes[i] + 1, *sizes[i + 1 :])
            tokens = _tokens(mask, dict(zip(names, grown, strict=True)))
            if grown[i] <= most and tokens <= most:
                heapq.heappush(pending, (tokens, grown))


def _tokens(mask: ir.Mask, extents: Mapping[str, int]) -> int:
    """The tokens of the longer space."""
    return max(_total(space, extents, 1) or 0 for space in (mask.queries, mask.keys))


def _total(space: ir.Space, extents: Mapping[str, int], default: int = 0) -> int | None:
    """Tokens of the space; None for one that has any length."""
    if not space.segments:
        return None
    sizes = (
        [axis.extent or extents.get(axis.name, default) for axis in segment.axes]
        for segment in space.segments
    )
    return sum(map(math.prod, sizes))
