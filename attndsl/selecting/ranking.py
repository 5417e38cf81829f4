"""Ranks: where each token stands when all are sorted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from attndsl import ir

from .vectors import Summaries


def ranked(rank: ir.Rank, made: Summaries) -> Tensor:
    """The places, int32 [B, H, tokens], or without heads, as its table declares."""
    length = made.env.sizes[rank.side.value]
    first = made.shift if rank.side is ir.Side.QUERY else 0
    at = np.arange(first, first + length)
    env = replace(made.env, q=at, k=at, batch=made.env.batch[..., 0], head=made.env.head[..., 0])
    heads = made.q.shape[1] if "head" in rank.table.dims else 1
    shape = made.q.shape[0], heads, length
    keys = [np.broadcast_to(ir.evaluate(each, env), shape) for each in rank.keys]
    order = np.lexsort(keys[::-1], axis=-1)
    places = np.empty(shape, np.int32)
    np.put_along_axis(places, order, np.arange(length, dtype=np.int32)[None, None], -1)
    found = torch.from_numpy(places).to(made.q.device)
    return found if "head" in rank.table.dims else found[:, 0]
