"""Exact costs of a schedule: tiles, arithmetic and memory traffic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from attndsl.schedule import Plan, Schedule, Tiles

CountArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
BIT_COUNT = np.array([byte.bit_count() for byte in range(256)], dtype=np.int64)
PREFIXES = ("", "k", "M", "G", "T", "P", "E")
SOFTMAX_BYTES = 4  # log-sum-exp and delta are kept in float32, whatever the inputs are


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes moved to and from memory.

    ``compulsory`` counts each tensor once: no algorithm moves less. ``streamed`` counts every tile
    that a kernel loads for its tile loop, as if no cache helped: the truth lies between.
    """

    compulsory: int
    streamed: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one call, all batch elements and heads together. FLOPs: a multiply-add is two."""

    tile: tuple[int, int]
    tiles: int  # of the whole square
    full: int
    partial: int
    pairs: int  # query-key pairs in the pattern
    pairs_of_square: int
    forward_flops: int
    backward_flops: int
    dense_forward_flops: int
    dense_backward_flops: int
    forward: Traffic
    backward: Traffic
    index_bytes: int
    transpose_bytes: int
    mask_bytes: int

    @property
    def live(self) -> int:
        """Tiles that are computed."""
        return self.full + self.partial

    @property
    def tile_density(self) -> float:
        """Computed tiles over all tiles."""
        return self.live / self.tiles if self.tiles else 0.0

    @property
    def density(self) -> float:
        """Pairs in the pattern over all pairs."""
        return self.pairs / self.pairs_of_square if self.pairs_of_square else 0.0

    @property
    def waste(self) -> float:
        """Tile quantisation: the share of computed pairs that the pattern does not hold."""
        computed = self.live * self.tile[0] * self.tile[1]
        return 1 - self.pairs / computed if computed else 0.0

    @property
    def speedup(self) -> float:
        """Arithmetic of dense attention over ours: what a perfect kernel could gain."""
        return self.dense_forward_flops / self.forward_flops if self.forward_flops else float("inf")


def cost(
    schedule: Schedule,
    head_dim: int,
    *,
    heads: int = 1,
    kv_heads: int | None = None,
    batch: int = 1,
    v_dim: int | None = None,
    itemsize: int = 2,
) -> Cost:
    """Count what a call with this schedule costs.

    Arithmetic is that of the matrix products, on whole tiles, as tensor cores run it. Forward:
    Q Kᵀ and P V. Backward, in two deterministic sweeps without atomics (by key tile for dK and dV,
    by query tile for dQ), each of which needs Q Kᵀ and dO Vᵀ again: seven products, four of the
    head size and three of the value size. One sweep would need five, and atomics (Dao 2023,
    FlashAttention-2, arXiv:2307.08691).

    Args:
        schedule: which tiles; its plans are weighted by how many (batch, head) share them.
        head_dim: size of queries and keys.
        heads: query heads.
        kv_heads: key and value heads; all heads unless grouped.
        batch: batch elements.
        v_dim: size of values, where it differs.
        itemsize: bytes of one number of q, k, v and the output: 2 for float16 and bfloat16.

    Raises:
        ValueError: the schedule was made for another number of heads or batch elements.
    """
    kv_heads, v_dim = kv_heads or heads, v_dim or head_dim
    weights = _weights(schedule, batch, heads)
    bq, bk = schedule.tile

    def total(count: Callable[[Plan], int]) -> int:
        return sum(n * count(plan) for n, plan in zip(weights, schedule.plans, strict=True))

    full, partial = total(lambda plan: plan.full.nnz), total(lambda plan: plan.partial.nnz)
    computed = (full + partial) * bq * bk
    square = schedule.q_len * schedule.k_len * batch * heads
    shape = _Shape(
        batch, heads, kv_heads, schedule.q_len, schedule.k_len, head_dim, v_dim, itemsize
    )
    loaded = _Loads(
        keys=total(lambda plan: _extent(_live(plan), bk, schedule.k_len)),
        queries=total(lambda plan: _extent(_live(plan.transpose), bq, schedule.q_len)),
    )
    return Cost(
        tile=schedule.tile,
        tiles=schedule.grid[0] * schedule.grid[1] * batch * heads,
        full=full,
        partial=partial,
        pairs=total(lambda plan: _pairs(schedule, plan)),
        pairs_of_square=square,
        forward_flops=2 * (head_dim + v_dim) * computed,
        backward_flops=2 * (4 * head_dim + 3 * v_dim) * computed,
        dense_forward_flops=2 * (head_dim + v_dim) * square,
        dense_backward_flops=2 * (4 * head_dim + 3 * v_dim) * square,
        forward=shape.forward(loaded),
        backward=shape.backward(loaded),
        index_bytes=schedule.index_nbytes,
        transpose_bytes=sum(plan.transpose.nbytes for plan in schedule.plans),
        mask_bytes=schedule.masks.nbytes,
    )


def total(costs: Sequence[Cost]) -> Cost:
    """Total cost of disjoint parts of one call; the square is that of the call.

    Queries, outputs and statistics are moved once for each part. Merging is not counted.
    """
    first, *rest = costs

    def traffic(name: str) -> Traffic:
        moved = [getattr(each, name) for each in costs]
        return Traffic(sum(t.compulsory for t in moved), sum(t.streamed for t in moved))

    added = ("full", "partial", "pairs", "forward_flops", "backward_flops", "index_bytes",
             "transpose_bytes", "mask_bytes")  # fmt: skip
    sums: dict[str, Any] = {name: sum(getattr(each, name) for each in costs) for name in added}
    if not rest:
        return first
    return replace(first, **sums, forward=traffic("forward"), backward=traffic("backward"))


def report(cost: Cost) -> str:
    """The cost as a short table."""
    lines = {
        "tiles": f"{cost.live:,} of {cost.tiles:,} live ({cost.tile_density:.2%}): "
        f"{cost.full:,} full, {cost.partial:,} partial",
        "pairs": f"{cost.pairs:,} of {cost.pairs_of_square:,} ({cost.density:.2%})",
        "waste": f"{cost.waste:.1%} of the computed pairs are outside the pattern",
        "forward": f"{_metric(cost.forward_flops, 'FLOP')}, {_range(cost.forward)}; "
        f"dense arithmetic is {cost.speedup:.1f} times as much",
        "backward": f"{_metric(cost.backward_flops, 'FLOP')}, {_range(cost.backward)}",
        "index": f"{_metric(cost.index_bytes, 'B')}, its transpose "
        f"{_metric(cost.transpose_bytes, 'B')}, masks {_metric(cost.mask_bytes, 'B')}",
    }
    return "\n".join(f"{name:<9}{text}" for name, text in lines.items())


@dataclass(frozen=True, slots=True)
class _Loads:
    """Rows that tile loops load, summed over tiles: keys by query tile, queries by key tile."""

    keys: int
    queries: int


@dataclass(frozen=True, slots=True)
class _Shape:
    batch: int
    heads: int
    kv_heads: int
    q_len: int
    k_len: int
    head_dim: int
    v_dim: int
    itemsize: int

    @property
    def rows(self) -> int:
        return self.batch * self.heads * self.q_len

    @property
    def queries(self) -> int:
        return self.rows * self.head_dim * self.itemsize

    @property
    def outputs(self) -> int:
        return self.rows * self.v_dim * self.itemsize

    @property
    def statistics(self) -> int:
        return self.rows * SOFTMAX_BYTES

    def keys_and_values(self, heads: int) -> int:
        return self.batch * heads * self.k_len * (self.head_dim + self.v_dim) * self.itemsize

    def forward(self, loads: _Loads) -> Traffic:
        """Read q, k, v; write the output and the log-sum-exp."""
        once = self.queries + self.outputs + self.statistics
        pair = (self.head_dim + self.v_dim) * self.itemsize
        return Traffic(once + self.keys_and_values(self.kv_heads), once + loads.keys * pair)

    def backward(self, loads: _Loads) -> Traffic:
        """Read q, k, v, o, dO, lse; write dQ, dK, dV. Streamed: delta, then the two sweeps."""
        both = self.head_dim + self.v_dim
        once = 2 * self.queries + 2 * self.outputs + self.statistics
        compulsory = once + 2 * self.keys_and_values(self.kv_heads)
        delta = 2 * self.outputs + self.statistics
        by_query = 2 * self.queries + self.outputs + 2 * self.statistics
        by_query += loads.keys * both * self.itemsize
        by_key = 2 * self.keys_and_values(self.heads)
        by_key += loads.queries * (both * self.itemsize + 2 * SOFTMAX_BYTES)
        return Traffic(compulsory, delta + by_query + by_key)


def _weights(schedule: Schedule, batch: int, heads: int) -> list[int]:
    """How many (batch, head) each plan serves."""
    for made, asked, name in zip(
        schedule.plan_of.shape, (batch, heads), ("batch", "heads"), strict=True
    ):
        if made not in (1, asked):
            raise ValueError(f"the schedule was made for {name}={made}, not {name}={asked}")
    shared = np.broadcast_to(schedule.plan_of, (batch, heads))
    return [int(n) for n in np.bincount(shared.ravel(), minlength=len(schedule.plans))]


def _live(plan: Plan) -> Iterable[Tiles]:
    return plan.full, plan.partial


def _extent(live: Iterable[Tiles], tile: int, length: int) -> int:
    """Columns that these tiles span, the ragged last one by what is inside the length."""
    return sum(int(np.minimum(tile, length - _wide(tiles.indices) * tile).sum()) for tiles in live)


def _pairs(schedule: Schedule, plan: Plan) -> int:
    """Pairs in the pattern: areas of full tiles, bits of partial ones."""
    (bq, bk), full = schedule.tile, plan.full
    rows = np.minimum(bq, schedule.q_len - _wide(full.rows) * bq)
    columns = np.minimum(bk, schedule.k_len - _wide(full.indices) * bk)
    bits = BIT_COUNT[schedule.masks.packed].sum(axis=1)
    return int((rows * columns).sum()) + int(bits[plan.mask_ids].sum())


def _wide(indices: np.ndarray[Any, np.dtype[np.int32]]) -> CountArray:
    return indices.astype(np.int64)


def _range(traffic: Traffic) -> str:
    return f"{_metric(traffic.compulsory, 'B')} to {_metric(traffic.streamed, 'B')} moved"


def _metric(amount: float, unit: str) -> str:
    """Three significant digits with a decimal prefix."""
    power = 0
    while amount >= 999.5 and power < len(PREFIXES) - 1:
        amount, power = amount / 1000, power + 1
    return f"{amount:.3g} {PREFIXES[power]}{unit}"
