"""Ranks: where each token stands when all are sorted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attndsl import ir
from attndsl.source import AttnDslError, Diagnostic

from .values import Values
from .vectors import Summaries

sel = ir.selection


def ranked(rank: ir.Rank, made: Summaries) -> Tensor:
    """The places, int32 [B, H, tokens], or without heads, as its table declares."""
    length = made.env.sizes[rank.side.value]
    first = made.shift if rank.side is ir.Side.QUERY else 0
    at = np.arange(first, first + length)
    env = replace(made.env, q=at, k=at, batch=made.env.batch[..., 0], head=made.env.head[..., 0])
    heads = made.q.shape[1] if "head" in rank.table.dims else 1
    shape = made.q.shape[0], heads, length
    keys = [
        _reals(each, made, shape)
        if each.sort is ir.Sort.REAL
        else np.broadcast_to(ir.evaluate(each, env), shape)
        for each in rank.keys
    ]
    order = np.lexsort(keys[::-1], axis=-1)
    places = np.empty(shape, np.int32)
    np.put_along_axis(places, order, np.arange(length, dtype=np.int32)[None, None], -1)
    found = torch.from_numpy(places).to(made.q.device)
    return found if "head" in rank.table.dims else found[:, 0]


def _reals(key: ir.Node, made: Summaries, shape: tuple[int, int, int]) -> np.ndarray[Any, Any]:
    """A real of each key, rounded to float32.

    Raises:
        AttnDslError: A509, it is folded over queries, and the first one does not stand at position 0.
    """
    if made.shift and ir.holds(key, sel.QueryFold):
        title = f"a rank by all queries, and the first query stands at {made.shift}"
        note = "queries are folded as a whole: a call begins with the first one"
        raise AttnDslError(Diagnostic("A509", title, notes=(note,)))
    found = Values(made, np.zeros(1, np.int64), 0, sel.WHOLE)(key, sel.TOKENS)[:, :, 0].float()
    if 1 < found.shape[1] < shape[1]:  # of key heads
        found = found.repeat_interleave(shape[1] // found.shape[1], 1)
    return found.expand(shape).numpy(force=True)
