"""Launches of single passes of the GPU kernels, and what they ask of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import triton
from torch import Tensor

from attndsl.backends import kernels
from attndsl.backends.arguments import (
    BackwardKeysArgs,
    BackwardKeysCall,
    BackwardQueriesArgs,
    BackwardQueriesCall,
    ForwardArgs,
    ForwardCall,
    MergeOutputsArgs,
    MergeOutputsCall,
    PrepareBackwardArgs,
    PrepareBackwardCall,
    Prepared,
    ScoreCall,
    SumChunksArgs,
    SumChunksCall,
    by_name,
    strides,
)
from attndsl.backends.configs import (
    Config,
    Pass,
    architecture,
    few_queries,
    padded,
)
from attndsl.backends.kernel_metadata import KernelMetadata
from attndsl.backends.launching import Launch
from attndsl.backends.protocol import Request, Tile
from attndsl.backends.tuning import (
    configured,
)
from attndsl.schedule import TiledMask, tiled

T = TypeVar("T")


ROWS: Final = 64  # of a program that prepares the backward pass


UNSCORED: Final = ScoreCall()


ARGUMENTS: dict[Pass, tuple[Any, Any]] = {
    "forward": (ForwardCall, ForwardArgs),
    "backward_queries": (BackwardQueriesCall, BackwardQueriesArgs),
    "backward_keys": (BackwardKeysCall, BackwardKeysArgs),
}


@dataclass(frozen=True, slots=True, eq=False)
class Gained:
    """Where a backward writes what scores read gains: columns [B, H, length, n], and at pairs by one more pass."""

    of_query: Tensor | None = None
    of_key: Tensor | None = None
    at_pairs: Callable[[Prepared], None] | None = None


NOTHING: Final = Gained()


@dataclass(frozen=True, slots=True, eq=False)
class PassLauncher:
    """A pass over work lists, a program an item and head of what it computes, for tensors that lie alike."""

    rows: int  # of the tiles whose results it computes
    lists: KernelMetadata
    launch: Launch[Any]
    merges: tuple[Launch[Any], ...]  # of the shares of split tiles, one a result, if there are any


def preparation(out: Tensor, dout: Tensor, dlse: Tensor | None) -> Launch[PrepareBackwardCall]:
    """The launch of the kernel that prepares the backward."""
    given = PrepareBackwardArgs(
        **strides(o=out, g=dout),
        q_len=out.shape[2],
        heads=out.shape[1],
        DV=out.shape[3],
        BDV=padded(out.shape[3]),
        BQ=ROWS,
        THROUGH_LSE=dlse is not None,
    )
    grid = triton.cdiv(out.shape[2], ROWS), out.shape[0] * out.shape[1]
    return Launch(kernels.prepare_backward, grid, PrepareBackwardCall, given)


def merge_launch(which: Pass, rows: int, lists: KernelMetadata, x: Tensor) -> Launch[Any]:
    """The launch that makes a result whole where tiles were split."""
    splits, grid = by_name(lists.splits), lists.split_grid(x)
    if which == "forward":
        merged = MergeOutputsArgs(
            **splits,
            **strides(o=x),
            q_order=lists.tiles.q_order,
            q_len=x.shape[2],
            heads=x.shape[1],
            DV=x.shape[3],
            BDV=padded(x.shape[3]),
            BQ=rows,
            Q_ORDERED=lists.tiles.Q_ORDERED,
        )
        return Launch(kernels.merge_outputs, grid, MergeOutputsCall, merged)
    is_by_key = which == "backward_keys"
    order = lists.tiles.k_order if is_by_key else lists.tiles.q_order
    summed = SumChunksArgs(
        **splits,
        order=order,
        length=x.shape[2],
        heads=x.shape[1],
        D=x.shape[3],
        BD=padded(x.shape[3]),
        BLOCK=rows,
        ORDERED=order is not None,
    )
    return Launch(kernels.sum_chunks, grid, SumChunksCall, summed)


def layout_of(tensors: Sequence[Tensor]) -> tuple[Any, ...]:
    """Key of the tensors of a launch: everything it depends on except their addresses."""
    return tensors[0].device, *[(x.dtype, x.shape, x.stride()) for x in tensors]


FEW: Final = 16  # queries of a call whose heads are folded into tiles


def few(request: Request) -> Config | None:
    """The config of a forward of few queries; None if they are many, or a gradient is wanted."""
    if request.gradient or not 1 <= request.q_len <= FEW:
        return None
    arch, widths = architecture(request.device), (request.head_dim, request.value_dim)
    if few_queries(arch, request.dtype.itemsize, request.q_len, *widths) is None:
        return None
    return configured("few_queries", request)


def also_in(part: TiledMask, tile: Tile) -> TiledMask:
    """The same, scheduled in tiles of this size too."""
    if tile in part.schedules:
        return part
    made = tiled(part.bound, tile, merges=False).schedules
    return replace(part, schedules={**part.schedules, **made})
