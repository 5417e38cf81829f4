"""For users of ``torch.nn.attention.flex_attention``: their calls, from exact schedules."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends import BlockMask, MaskMod, block_mask
from attndsl.compiled import Pattern
from attndsl.compiler import Program
from attndsl.interop import Traced, trace
from attndsl.op import eager_only


@eager_only
def create_block_mask(
    mask_mod: MaskMod | Pattern,
    B: int | None,  # noqa: N803 - torch's names
    H: int | None,  # noqa: N803
    Q_LEN: int,  # noqa: N803
    KV_LEN: int,  # noqa: N803
    device: torch.device | str | None = None,
    BLOCK_SIZE: int | tuple[int, int] = 128,  # noqa: N803
    *,
    separate_full_blocks: bool = True,
    **given: Any,
) -> BlockMask:
    """The ``BlockMask`` of a mask_mod or a pattern, as torch's ``create_block_mask``, without looking at each pair.

    Blocks are those of torch's function, FULL and PARTIAL, by queries and by keys. Indices behind the counts, which
    are undefined there, are 0 here.

    Args:
        mask_mod: ``mask_mod(b, h, q_idx, kv_idx)`` as for ``attndsl.from_mask_mod``, kept in the result as it is. It is
            run once, on symbols, in each call. Or a compiled pattern.
        B: Batch elements; None is 1.
        H: Query heads; None is 1.
        Q_LEN: Queries.
        KV_LEN: Keys.
        device: Where the tensors of the result are; by default on the accelerator, where there is one.
        BLOCK_SIZE: Queries and keys of a block.
        separate_full_blocks: Without it all blocks are PARTIAL.
        **given: Extents and inputs, of a pattern.

    Raises:
        AttnDslError: A218, an operation is not translated, at its line; A501, a captured tensor is too short.
    """
    sizes = 1 if B is None else B, 1 if H is None else H
    if device is None:
        there_is = (
            torch.accelerator.is_available()
        )  # a build with an accelerator may run without one
        device = (torch.accelerator.current_accelerator() if there_is else None) or "cpu"
    if isinstance(mask_mod, Pattern):
        return mask_mod.to_block_mask(
            Q_LEN, KV_LEN, sizes[1], batch=sizes[0], device=device, block_size=BLOCK_SIZE,
            separate_full_blocks=separate_full_blocks, **given,
        )  # fmt: skip
    traced = trace(mask_mod, twice=False)
    program = _program(traced.mask)
    call = program.call(Q_LEN, KV_LEN, *sizes, None, _held(traced, sizes))
    return block_mask(
        program.normal,
        call,
        BLOCK_SIZE,
        mask_mod,
        device,
        separate_full_blocks=separate_full_blocks,
    )


@functools.lru_cache(maxsize=256)
def _program(mask: ir.Mask) -> Program:
    return Program(mask)


def _held(traced: Traced, sizes: tuple[int, int]) -> Mapping[str, Tensor]:
    """The captured tensors, of the batch elements and heads that there are: more entries are not read."""
    most = dict(zip(("batch", "head"), sizes, strict=True))
    return {
        table.name: traced.inputs[table.name][
            tuple(slice(most.get(str(dim))) for dim in table.dims)
        ]
        for table in traced.mask.tables
    }
