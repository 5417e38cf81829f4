"""Inner products of the vectors of pairs, without writing a vector for each pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attndsl import ir


@dataclass(frozen=True, slots=True)
class Vectors:
    """Rows [items, heads, rows, width], and the row of each pair, [items, heads, n, m].

    ``side``: the rows are those of the queries or keys, or one for all; ``which`` is None then.
    """

    rows: Tensor
    side: ir.Side | None
    which: Tensor | None = None


def inner(left: Vectors, right: Vectors) -> Tensor:
    """The inner product of each pair, [items, heads, n, m], 1 where it does not depend on it."""
    if left.which is None and right.which is None:
        if {left.side, right.side} == set(ir.Side):
            product = left.rows @ right.rows.mT
            return product if left.side is ir.Side.QUERY else product.mT
        return _as_pairs((left.rows * right.rows).sum(-1), left.side or right.side)
    if left.which is None:
        left, right = right, left
    # The products of all rows, and of each pair the one that it reads.
    return _read(right.rows @ left.rows.mT, left, right)


def _as_pairs(x: Tensor, side: ir.Side | None) -> Tensor:
    return x[:, :, None] if side is ir.Side.KEY else x[..., None]


def _read(products: Tensor, left: Vectors, right: Vectors) -> Tensor:
    """Products [items, heads, rows of right, rows of left] at the pairs."""
    assert left.which is not None
    where = _where(products, left, right)
    shape = np.broadcast_shapes(where.shape, (*products.shape[:2], 1, 1))
    found = products.flatten(2).expand(*shape[:2], -1)
    return found.gather(2, where.expand(shape).flatten(2)).reshape(shape)


def _where(products: Tensor, left: Vectors, right: Vectors) -> Tensor:
    """The places of the flattened products that pairs read, [items, heads, n, m]."""
    assert left.which is not None
    count = products.shape[3]
    if right.which is not None:
        return left.which + right.which * count
    rows = torch.arange(products.shape[2])
    return left.which + (rows[:, None] if right.side is not ir.Side.KEY else rows) * count


def inner_gains(left: Vectors, right: Vectors, gain: Tensor) -> tuple[Tensor, Tensor]:
    """The gains of the rows of both, of shapes like theirs."""
    if left.which is None and right.which is None:
        if {left.side, right.side} == set(ir.Side):
            gain = gain if left.side is ir.Side.QUERY else gain.mT
            ours, theirs = gain @ right.rows, gain.mT @ left.rows
        else:
            each = gain[:, :, 0] if (left.side or right.side) is ir.Side.KEY else gain[..., 0]
            ours, theirs = each[..., None] * right.rows, each[..., None] * left.rows
    elif left.which is None:
        theirs, ours = inner_gains(right, left, gain)
    else:
        heads = max(left.rows.shape[1], right.rows.shape[1], gain.shape[1])
        shape = (len(gain), heads, right.rows.shape[2], left.rows.shape[2])
        like = gain.new_zeros(shape)
        where = _where(like, left, right)
        full = np.broadcast_shapes(where.shape, gain.shape, (len(gain), heads, 1, 1))
        flat = like.flatten(2).scatter_add_(
            2, where.expand(full).flatten(2), gain.expand(full).flatten(2)
        )
        products = flat.view(shape)
        ours, theirs = products.mT @ right.rows, products @ left.rows
    return ours.sum_to_size(left.rows.shape), theirs.sum_to_size(right.rows.shape)
