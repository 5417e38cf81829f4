"""Counts of the CPU back end's operations on a schedule, batch by batch: the terms of its time.

The kernels of torch take queries in blocks and keys in stretches; each block reads all keys of its strip.
Their time is close to linear in the counts below (``timing.py`` has the factors).
"""

from __future__ import annotations

import operator
from collections import Counter
from dataclasses import dataclass, fields, replace
from typing import Any, Final, TypeAlias

import numpy as np

from attndsl.backends.block_batches import BlockBatch, InStrips, Ordered, batches_of
from attndsl.backends.block_rows import Listed
from attndsl.backends.dense_blocks import DensePart, DensePlan
from attndsl.backends.heads import alike, evenly_alike
from attndsl.backends.places import Elements, Index, Places
from attndsl.backends.strip_passes import at_once
from attndsl.backends.whole_strips import WholeStrips
from attndsl.schedule import Schedule

FloatArray: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

# Queries that torch's kernels take at once, by the queries of an item, and keys at once.
BLOCKS: Final = ((768, 256), (192, 64), (0, 32))
STRETCH: Final = 512


@dataclass(frozen=True, slots=True)
class WorkCounts:
    """Counts of one pass. Elements are numbers of a tensor; all heads and batch elements together."""

    calls: float = 0  # of a kernel
    additions: float = 0  # calls that add one list of rows to a gradient
    blocks: float = 0  # blocks of queries times stretches of keys
    loaded: float = 0  # elements of keys that blocks read
    products: float = 0  # pairs times the head dim
    weights: float = 0  # pairs
    masked: float = 0  # pairs of strips that have a mask
    biases: float = 0  # pairs of masks, unpacked once for all heads
    gathered: float = 0  # elements of rows that are read one by one
    moved: float = 0  # elements that are read or written in order
    merged: float = 0  # elements of queries merged from two softmaxes; of gradients added up

    def __add__(self, other: WorkCounts) -> WorkCounts:
        return WorkCounts(*map(operator.add, _counts(self), _counts(other)))

    def __mul__(self, times: int) -> WorkCounts:
        return WorkCounts(*(times * count for count in _counts(self)))

    def vector(self) -> FloatArray:
        """The counts in order, float64 [11]."""
        return np.array(_counts(self), dtype=np.float64)


TERMS: Final = tuple(field.name for field in fields(WorkCounts))
_counts: Final = operator.attrgetter(*TERMS)  # dataclasses.astuple copies each number deeply


def work_counts(
    schedule: Schedule | InStrips,
    head_dim: int,
    *,
    heads: int = 1,
    batch: int = 1,
    v_dim: int | None = None,
) -> tuple[WorkCounts, WorkCounts]:
    """(forward, backward) of a call with this schedule, in the order and the pieces of the backend.

    Args:
        schedule: in tiles of ``best_tile``, or the counts are those of another call; or whole blocks.
        head_dim: size of queries and keys.
        heads: query heads; keys have as many.
        batch: batch elements.
        v_dim: size of values, where it differs.
    """
    width = max(1, head_dim, v_dim or head_dim)
    tokens = batch * heads * width
    if isinstance(schedule, WholeStrips) and schedule.is_apart:
        return _whole_counts(schedule, width, heads, batch)
    streams = schedule.q_len + 2 * schedule.k_len
    forward = WorkCounts(moved=tokens * streams)  # is every key finite? and the output, once
    backward = WorkCounts(moved=2 * tokens * (schedule.q_len + streams))
    for (plan, count), times in _units(schedule, batch, heads).items():
        orders = _reordering(schedule.plans[plan], count * width)
        forward += orders[0] * times
        backward += orders[1] * times
        for strip in batches_of(schedule)[plan]:
            forward += forward_of(strip, count, width) * times
            backward += backward_of(strip, count, width) * times
    return forward, backward


def _whole_counts(
    strips: WholeStrips, width: int, heads: int, batch: int
) -> tuple[WorkCounts, WorkCounts]:
    """(forward, backward) of blocks at once: nothing is masked, merged or added up."""
    forward = WorkCounts(moved=batch * heads * width * (strips.q_len + strips.k_len))
    backward = WorkCounts()
    for (number, count), times in _units(strips, batch, heads).items():
        plan = DensePlan.of(strips.plans[number], strips.q_len, strips.k_len)
        for shape in plan.shapes:
            made = _kernel_of_blocks(shape, count, width)
            if plan.is_copied:  # in pieces
                most = plan.heads_at_once(max(strips.q_len, strips.k_len) * width)
                made += WorkCounts(calls=-(-count // most) - 1)
            copies = _copies(shape, count * width, len(plan.shapes) > 1)
            forward += (made + copies[0]) * times
            backward += (made + copies[1]) * times
    return forward, backward


def _copies(
    shape: DensePart, elements: int, is_one_of_several: bool
) -> tuple[WorkCounts, WorkCounts]:
    """(forward, backward) of the copies of rows and of results, by the elements of one token."""
    queries = shape.queries.items * shape.queries.length * elements
    keys = shape.keys.items * shape.keys.length * elements
    if not shape.is_copied:
        results = queries * is_one_of_several, (queries + 2 * keys) * is_one_of_several
        return WorkCounts(moved=results[0]), WorkCounts(moved=results[1])
    if isinstance(shape.queries, Listed):
        return (
            WorkCounts(gathered=2 * queries + 2 * keys),
            WorkCounts(gathered=4 * queries + 4 * keys),
        )
    return WorkCounts(moved=2 * queries + 2 * keys), WorkCounts(moved=4 * queries + 4 * keys)


def _kernel_of_blocks(shape: DensePart | BlockBatch, heads: int, width: int) -> WorkCounts:
    """One call; of triangles torch's kernel skips whole stretches of keys behind a block of queries."""
    items, queries, keys = shape.queries.items, shape.queries.length, shape.keys.length
    made = _kernel(items, queries, keys, heads, width)
    if not shape.is_causal:
        return made
    block = next(size for least, size in BLOCKS if queries >= least)
    stops = np.minimum(np.arange(block, queries + block, block), queries)
    read = np.minimum(-(-stops // STRETCH) * STRETCH, keys)
    share = float(read.sum()) / (len(stops) * keys)
    parts = (share * part for part in (made.loaded, made.products, made.weights))
    return replace(made, **dict(zip(("loaded", "products", "weights"), parts, strict=True)))


def dense_work_counts(
    q_len: int, k_len: int, head_dim: int, *, heads: int = 1, batch: int = 1
) -> tuple[WorkCounts, WorkCounts]:
    """(forward, backward) of attention over all pairs, unmasked, by the same kernels."""
    keys = q_len, k_len, batch * heads, head_dim
    forward = _kernel(1, *keys)
    return forward, forward


def forward_of(strip: BlockBatch, heads: int, width: int) -> WorkCounts:
    """The forward pass of one strip for so many heads."""
    made = _kernel_of(strip, heads, width, per_key=0)
    rows = strip.queries.items * strip.queries.length * heads * width
    if isinstance(strip.queries, Index):
        made += WorkCounts(gathered=(2 if strip.first_writer else 3) * rows)
    return made + (WorkCounts(moved=rows) if strip.first_writer else WorkCounts(merged=rows))


def backward_of(strip: BlockBatch, heads: int, width: int) -> WorkCounts:
    """The backward pass of one strip for so many heads."""
    made = _kernel_of(strip, heads, width, per_key=2)
    rows = strip.queries.items * strip.queries.length * heads * width
    keys = strip.keys.items * strip.keys.length * heads * width
    if isinstance(strip.queries, Index):
        made += WorkCounts(gathered=3 * rows)
    additions = _additions(strip.queries, made.calls) + 2 * _additions(strip.keys, made.calls)
    return made + WorkCounts(merged=rows + 2 * keys, additions=additions)


def _additions(places: Places, calls: float) -> float:
    """Number of additions that ``Places.add`` makes in so many calls."""
    if isinstance(places, Index):
        return len(places.index) if len(places.index) > 1 else calls
    if isinstance(places, Elements):
        return calls
    overlaps = places.step and places.stride == 1
    return calls * (-(-places.length // places.step) if overlaps else 1)


def _kernel_of(strip: BlockBatch, heads: int, width: int, per_key: int) -> WorkCounts:
    items, queries, keys = strip.queries.items, strip.queries.length, strip.keys.length
    calls = -(-items // at_once(strip, heads, width, per_key))
    made = _kernel_of_blocks(strip, heads, width) + WorkCounts(calls=calls - 1)
    if strip.mask is not None:
        made += WorkCounts(
            masked=items * heads * queries * keys, biases=len(strip.mask) * queries * keys
        )
    if isinstance(strip.keys, Index):
        made += WorkCounts(gathered=2 * len(strip.keys.index) * keys * heads * width)
    return made


def _kernel(items: int, queries: int, keys: int, heads: int, width: int) -> WorkCounts:
    """One call, unmasked."""
    block = next(size for least, size in BLOCKS if queries >= least)
    blocks, pairs = items * heads * -(-queries // block), items * heads * queries * keys
    return WorkCounts(
        calls=1,
        blocks=blocks * -(-keys // STRETCH),
        loaded=blocks * keys * width,
        products=pairs * width,
        weights=pairs,
    )


def _units(schedule: Schedule | InStrips, batch: int, heads: int) -> Counter[tuple[int, int]]:
    """How often so many heads of a plan are run together: (plan, heads) -> times."""
    if schedule.plan_of.size == 1:
        return Counter({(int(schedule.plan_of.flat[0]), batch * heads): 1})
    is_apart = isinstance(schedule, WholeStrips) and schedule.is_apart
    together = alike if is_apart else evenly_alike
    rows = np.broadcast_to(schedule.plan_of, (batch, heads)).tolist()
    found = (unit for row in rows for unit in together(row, 1))
    return Counter((plan, len(range(heads)[mine])) for plan, mine, _ in found)


def _reordering(plan: Ordered, elements: int) -> tuple[WorkCounts, WorkCounts]:
    """Tensors taken in the orders of a plan and put back, by the elements of one token."""
    queries = 0 if plan.q_order is None else len(plan.q_order.rows) * elements
    keys = 0 if plan.k_order is None else len(plan.k_order.rows) * elements
    return WorkCounts(gathered=3 * queries + 2 * keys), WorkCounts(gathered=5 * queries + 6 * keys)
