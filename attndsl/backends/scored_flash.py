"""Scores s + b by the flash kernel of torch, with b as a bias."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends.merging import merged
from attndsl.backends.places import Index
from attndsl.backends.real_evaluation import Values
from attndsl.backends.scored_strips import Pairs
from attndsl.backends.scored_work import Work, own_vectors

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

# Logarithms of weights: what thousands of pairs may err by in float32, and what is far from its subnormal numbers.
_LEAST, _MOST = 27.0, 80.0
BUDGET = 1 << 24  # elements of temporaries in one call of the flash kernel


def forward_by_flash(work: Work, scale: float) -> None:
    (q, out, lse), (k, v) = work.of_queries, work.of_keys
    for low, high, bias, dead in _biases(work):
        part = work.strip.batch.cut(low, high)
        queries, keys = part.queries, part.keys
        o, level = _flash(
            queries.read(q), keys.read(k), keys.read(v), 0.0, False, attn_mask=bias, scale=scale
        )
        o = o[..., : out.shape[-1]]
        if dead is not None:
            o = o.masked_fill(dead[..., None], 0.0)
            level = level.masked_fill(dead, -math.inf)
        if not part.first_writer:
            o, level = merged(queries.read(out), queries.read(lse), o, level)
        queries.write(out, o)
        queries.write(lse, level)


def _biases(work: Work) -> Iterator[tuple[int, int, Tensor, Tensor | None]]:
    """Items low <= i < high, b with -inf for pairs that are not live, and the queries without a weight."""
    strip, node = work.strip, work.program.bias
    assert node is not None
    batch, whole = strip.batch, slice(0, work.heads)
    n, m = batch.queries.length, batch.keys.length
    of_keys = 2 * isinstance(batch.keys, Index)  # tensors as large as the keys of an item
    item = work.of_queries[0].shape[-1] * (n + of_keys * m)
    step = max(1, BUDGET // (work.heads * (item if node in strip.free else item + n * m)))
    free, q, k = work.values(whole), work.of_queries[0], work.of_keys[0]
    shared = node in strip.free and (work.pairs is None or len(work.pairs.live) == 1)
    made = _bias(free, node, work.pairs, (n, m), work.reach) if shared else None
    for low in range(0, batch.queries.items, step):
        high = min(low + step, batch.queries.items)
        if made is not None:
            yield low, high, *made
            continue
        part = batch.cut(low, high)
        own = own_vectors(
            work, part.queries.read(q).to(work.dtype), part.keys.read(k).to(work.dtype)
        )
        values = strip.cut(free, low, high, own)
        yield low, high, *_bias(values, node, work.pairs_of(low, high), (n, m))


def _bias(
    values: Values,
    node: ir.Node,
    pairs: Pairs | None,
    shape: tuple[int, int],
    reach: Callable[[], float] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """b with -inf for pairs that are not live, and the queries without a weight.

    Biases that decide nothing are raised to where their weights are no subnormal numbers, which are slow: with
    |s| <= ``reach``, a pair ``_LEAST`` + 2 * reach below the best of its query weighs e^-_LEAST at the most, and all
    such together less than a rounding of the sum.
    """
    given = values(node)
    given = given.reshape((1,) * (4 - given.dim()) + given.shape)
    low, high = map(float, given.aminmax())
    is_finite = math.isfinite(low) and math.isfinite(high)
    given = given.expand(*given.shape[:2], *shape)
    bias = _lowered(given, pairs, is_finite)
    top = bias.amax(-1, keepdim=True)
    dead = top[..., 0] == -math.inf
    is_wide = is_finite and high - low > _LEAST and given.dtype == torch.float32
    if is_wide and reach is not None and (spread := _LEAST + 2 * reach()) <= _MOST:
        bias = _lowered(torch.maximum(given, top - spread), pairs, is_finite)
    return bias.contiguous(), dead if dead.any() else None


def _lowered(bias: Tensor, pairs: Pairs | None, is_finite: bool) -> Tensor:
    if pairs is None:
        return bias
    return bias + pairs.levels if is_finite else bias.masked_fill(~pairs.live, -math.inf)
