"""The tokens of the tiles of a grid, for their summaries."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, maximum, minimum

from attndsl import ir

Pool = ir.selection.Pool


def pooled_tiles(
    x: Tensor, tiles: ir.selection.Tiles, how: ir.selection.Pool, sizes: Mapping[str, int]
) -> Tensor:
    """The summaries [B, H, tiles, D] of the vectors [B, H, N, D] of a grid, float32 values as float64.

    The tokens of a tile are added in the order of their positions; a tile that an end of the grid cuts is that of the
    tokens it has.
    """
    length = x.shape[2]
    number = ir.evaluate(tiles.number_of(ir.Pos(ir.Side.KEY)), ir.Env(0, np.arange(length), sizes))
    order = np.argsort(number, kind="stable")
    held = np.bincount(np.asarray(number), minlength=tiles.count(sizes))
    first = np.cumsum(held) - held
    narrow, total = x.float(), x.new_zeros((*x.shape[:2], len(held), x.shape[3])).double()
    for offset in range(int(held.max(initial=0))):
        which = np.flatnonzero(held > offset)
        at, into = (
            torch.from_numpy(each).to(x.device) for each in (order[first[which] + offset], which)
        )
        part = narrow[:, :, at].double()
        if not offset:
            joined = part
        elif how is Pool.MEAN:
            joined = total[:, :, into] + part
        else:
            joined = (maximum if how is Pool.MAX else minimum)(total[:, :, into], part)
        total = total.index_copy(2, into, joined)
    if how is Pool.MEAN:
        total = total / torch.from_numpy(held).to(x.device)[:, None]
    return total.float().double()
