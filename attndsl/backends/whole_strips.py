"""Strips of whole blocks: views of the inputs, or of the inputs in an order in which blocks lie side by side."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from attndsl.backends.block_batches import BlockBatch, packed
from attndsl.backends.places import Index, IntArray, ShortArray, Span
from attndsl.schedule import Blocks, TokenOrder, Whole

LEAST_PAIRS: Final = 256  # of a block on average; the kernels take as long for fewer
MOST_SHARED: Final = 4  # shapes of blocks that share keys, each a call, however few pairs they have
LEAST_SHARED: Final = 1 << 14  # pairs of a shape on average, where they are more: calls cost more
CUT: Final = (
    128  # queries of a strip of a triangle: half as many pairs of each are computed in vain
)


@dataclass(frozen=True, slots=True)
class DenseBatch:
    """Blocks of one shape, in storage order: all pairs of each item, or those with key place <= query place."""

    queries: Span
    keys: Span | Index
    is_causal: bool


@dataclass(frozen=True, slots=True, eq=False)
class WholePlan:
    """The blocks of one distinct (batch, head) class, and the orders of tokens in which they lie."""

    shapes: tuple[DenseBatch, ...]
    q_order: TokenOrder | None
    k_order: TokenOrder | None
    is_apart: bool  # whether no key is in two blocks

    @staticmethod
    def of(blocks: tuple[Blocks, ...], q_len: int, k_len: int) -> WholePlan:
        """Places for these blocks: in natural order where they are evenly spaced, else behind one another."""
        of_queries = [part.queries for part in blocks]
        of_keys = [part.keys for part in blocks]
        uses = np.bincount(_joined(of_keys), minlength=k_len)
        is_apart = bool((uses <= 1).all())
        theirs: Sequence[Span | Index]
        mine, q_order = _placed(of_queries, q_len)
        if is_apart and q_len == k_len and all(map(np.array_equal, of_queries, of_keys)):
            theirs, k_order = mine, q_order
        elif is_apart:
            theirs, k_order = _placed(of_keys, k_len)
        else:
            spans = [Span.of(rows) for rows in of_keys]
            k_order = None
            theirs = [
                Index(rows, len(rows)) if span is None or span.stride > 1 else span
                for span, rows in zip(spans, of_keys, strict=True)
            ]
        made = zip(mine, theirs, blocks, strict=True)
        shapes = tuple(DenseBatch(q, k, part.is_causal) for q, k, part in made)
        return WholePlan(shapes, q_order, k_order, is_apart)

    def batches(self) -> Iterator[BlockBatch]:
        """The blocks as strips; triangles in stretches of queries, first the pairs near the diagonal."""
        for shape in self.shapes:
            if not shape.is_causal:
                yield BlockBatch(shape.queries, shape.keys, None, first_writer=True)
                continue
            for low in range(0, shape.queries.length, CUT):
                high = min(low + CUT, shape.queries.length)
                queries, near = shape.queries.part(low, high), shape.keys.part(low, high)
                mask = packed(np.tri(high - low, dtype=bool)[None])
                yield BlockBatch(queries, near, mask, first_writer=True)
                if low:
                    yield BlockBatch(queries, shape.keys.part(0, low), None)


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
        """Whether no key is in two blocks of a class."""
        return all(plan.is_apart for plan in self.plans)

    @property
    def has_triangles(self) -> bool:
        """Whether some block is the pairs up to its diagonal."""
        return any(shape.is_causal for plan in self.plans for shape in plan.shapes)

    def live_keys(self) -> IntArray:
        """The rows of k that some block has, ascending."""
        found = np.zeros(self.k_len, bool)
        for plan in self.plans:
            for shape in plan.shapes:
                rows = shape.keys.rows()
                found[rows if plan.k_order is None else plan.k_order.rows[rows]] = True
        return np.flatnonzero(found)


def _is_slow(plan: WholePlan, blocks: tuple[Blocks, ...]) -> bool:
    """Whether blocks that share keys are of so many shapes that tiles take fewer or longer calls."""
    if plan.is_apart or len(blocks) <= MOST_SHARED:
        return False
    return sum(part.pairs for part in blocks) < LEAST_SHARED * len(blocks)


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
