"""Strips of whole blocks: views of the inputs, or of the inputs in an order in which blocks lie side by side."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from attndsl.backends.block_batches import BlockBatch, packed, with_first_writers
from attndsl.backends.places import Index, IntArray, ShortArray, Span
from attndsl.schedule import Blocks, TokenOrder, Whole

LEAST_PAIRS: Final = 256  # of a block on average; the kernels take as long for fewer
MOST_SHARED: Final = 4  # shapes of blocks that share keys, each a call, however few pairs they have
LEAST_SHARED: Final = 1 << 14  # pairs of a shape on average, where they are more: calls cost more
LEAST_MERGED: Final = 512  # pairs of a query that is in two blocks: merging costs what some 200 do
# Queries of a stretch of a staircase at the least, and keys that a stretch adds, which the kernels multiply fastest.
LEAST_STRETCH: Final = 128
STEP: Final = 64


@dataclass(frozen=True, slots=True)
class DenseBatch:
    """Blocks of one shape, in storage order: all pairs of each item, or those with key place <= query place."""

    queries: Span | Index
    keys: Span | Index
    is_causal: bool
    seen: IntArray | None = None  # of a staircase: how many keys each query sees


@dataclass(frozen=True, slots=True, eq=False)
class WholePlan:
    """The blocks of one distinct (batch, head) class, and the orders of tokens in which they lie."""

    shapes: tuple[DenseBatch, ...]
    q_order: TokenOrder | None
    k_order: TokenOrder | None
    is_apart: bool  # whether no token is in two blocks, and none is a staircase

    @staticmethod
    def of(blocks: tuple[Blocks, ...], q_len: int, k_len: int) -> WholePlan:
        """Places for these blocks: in natural order where they are evenly spaced, else behind one another."""
        of_queries = [part.queries for part in blocks]
        of_keys = [part.keys for part in blocks]
        is_once = _are_apart(of_queries, q_len)
        is_apart = is_once and _are_apart(of_keys, k_len)
        is_apart = is_apart and all(part.seen is None for part in blocks)
        mine: Sequence[Span | Index]
        theirs: Sequence[Span | Index]
        mine, q_order = _placed(of_queries, q_len) if is_once else (_in_place(of_queries), None)
        if is_apart and q_len == k_len and all(map(np.array_equal, of_queries, of_keys)):
            theirs, k_order = mine, q_order
        elif is_apart:
            theirs, k_order = _placed(of_keys, k_len)
        else:
            theirs, k_order = _in_place(of_keys), None
        made = zip(mine, theirs, blocks, strict=True)
        shapes = (DenseBatch(q, k, part.is_causal, part.seen) for q, k, part in made)
        return WholePlan(tuple(shapes), q_order, k_order, is_apart)

    def batches(self) -> Iterator[BlockBatch]:
        """The blocks as strips, first those that are full."""
        parts = list[BlockBatch]()
        for shape in sorted(self.shapes, key=lambda each: each.seen is not None or each.is_causal):
            if shape.seen is None:
                parts.append(BlockBatch(shape.queries, shape.keys, None, is_causal=shape.is_causal))
            else:
                parts += _stretches(shape, shape.seen)
        if self.is_apart:
            return (replace(part, first_writer=True) for part in parts)
        last = max(int(part.queries.rows().max()) for part in parts)
        return with_first_writers(parts, last + 1)


@dataclass(frozen=True, eq=False)
class WholeStrips:
    """The blocks of a call, as strips and as they are; what strips are made of, in the place of a schedule."""

    q_len: int
    k_len: int
    plans: tuple[WholePlan, ...]
    plan_of: ShortArray
    blocks: tuple[tuple[Blocks, ...], ...]  # of each plan
    nbytes: int

    @staticmethod
    def of(whole: Whole) -> WholeStrips | None:
        """The strips of these blocks; None where tiles take less time."""
        blocks = [part for one in whole.classes for part in one]
        items = sum(len(part.queries) for part in blocks)
        if sum(part.pairs for part in blocks) < LEAST_PAIRS * items:
            return None
        plans = [WholePlan.of(one, whole.q_len, whole.k_len) for one in whole.classes]
        if any(_is_slow(plan, parts) for plan, parts in zip(plans, whole.classes, strict=True)):
            return None
        made = tuple(plans), whole.class_of, whole.classes, whole.nbytes
        return WholeStrips(whole.q_len, whole.k_len, *made)

    @functools.cached_property
    def batches(self) -> tuple[tuple[BlockBatch, ...], ...]:
        """The strips of each plan, in the order to run them."""
        return tuple(tuple(plan.batches()) for plan in self.plans)

    @property
    def is_apart(self) -> bool:
        """Whether no token is in two blocks of a class, and no block is a staircase."""
        return all(plan.is_apart for plan in self.plans)

    @property
    def has_triangles(self) -> bool:
        """Whether some block is the pairs up to its diagonal, or a staircase."""
        shapes = (shape for plan in self.plans for shape in plan.shapes)
        return any(shape.is_causal or shape.seen is not None for shape in shapes)

    def live_keys(self) -> IntArray:
        """The rows of k that some block has, ascending."""
        found = np.zeros(self.k_len, bool)
        for plan in self.plans:
            for shape in plan.shapes:
                rows = shape.keys.rows()
                found[rows if plan.k_order is None else plan.k_order.rows[rows]] = True
        return np.flatnonzero(found)


def _is_slow(plan: WholePlan, blocks: tuple[Blocks, ...]) -> bool:
    """Whether blocks that share tokens are so small that tiles take fewer or longer calls, or merge less."""
    if plan.is_apart:
        return False
    strips, pairs = tuple(plan.batches()), sum(part.pairs for part in blocks)
    later = [strip.queries for strip in strips if not strip.first_writer]
    if pairs < LEAST_MERGED * sum(queries.items * queries.length for queries in later):
        return True
    return len(strips) > MOST_SHARED and pairs < LEAST_SHARED * len(strips)


def _stretches(shape: DenseBatch, seen: IntArray) -> Iterator[BlockBatch]:
    """A staircase, in stretches of queries, each with the keys that some of it see."""
    size = max(LEAST_STRETCH, -(-STEP * len(seen) // shape.keys.length))
    for low in range(0, len(seen), size):
        some = seen[low : low + size]
        mask = packed((np.arange(some[-1]) < some[:, None])[None])
        queries = shape.queries.part(low, low + len(some))
        yield BlockBatch(queries, shape.keys.part(0, int(some[-1])), mask)


def _are_apart(rows: list[IntArray], length: int) -> bool:
    """Whether no row is in two blocks."""
    return bool((np.bincount(_joined(rows), minlength=length) <= 1).all())


def _in_place(blocks: list[IntArray]) -> list[Span | Index]:
    """Places of blocks where they lie: views of runs, else lists."""
    spans = [Span.of(rows) for rows in blocks]
    return [
        Index(rows, len(rows)) if span is None or span.stride > 1 else span
        for span, rows in zip(spans, blocks, strict=True)
    ]


def _placed(rows: list[IntArray], length: int) -> tuple[list[Span], TokenOrder | None]:
    """Places of blocks that are apart, and the order they are in."""
    natural = list[Span]()
    for each in rows:
        span = Span.of(each)
        if span is None:
            break
        natural.append(span)
    else:
        return natural, None
    order = _joined(rows)
    rest = np.ones(length, bool)
    rest[order] = False
    found, at = [], 0
    for each in rows:
        items, n = each.shape
        found.append(Span(at, n, items, n))
        at += items * n
    return found, TokenOrder(np.concatenate([order, np.flatnonzero(rest)]), "block by block")


def _joined(rows: list[IntArray]) -> IntArray:
    return np.concatenate([np.zeros(0, np.int64), *(each.reshape(-1) for each in rows)])
