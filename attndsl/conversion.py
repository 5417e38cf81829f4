"""Patterns made of masks as other libraries have them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends import BlockMask, MaskMod
from attndsl.compiled import Pattern, compile_pattern
from attndsl.interop import trace
from attndsl.source import AttnDslError, Diagnostic


def from_mask_mod(
    mask_mod: MaskMod,
    /,
    *,
    layer: int = 0,
    align: Literal["start", "end"] | None = None,
    without: Collection[str] = (),
) -> Pattern:
    """The pattern of a mask_mod of ``torch.nn.attention.flex_attention``.

    Args:
        mask_mod: ``mask_mod(b, h, q_idx, kv_idx)``, a truth value of each pair: comparisons, logic, arithmetic and bit
            operations of torch, ``torch.where``, clamps, and entries of captured tensors. It is run on symbols,
            twice. A captured tensor becomes an input by the name it has in the function, and is read, not copied, in
            every call that is given no other: ``pattern.captured``.
        layer: The value of ``layer`` in the pattern; a mask_mod reads none.
        align: Where query 0 stands when there are fewer queries than keys: at position 0, "start", as for
            flex_attention, by default.
        without: Simplifications to leave out, as for ``attndsl.compile``.

    Raises:
        AttnDslError: A218, the function does what is not translated, at its line: branches on a value, floats, random
            numbers, changes of tensors, results computed from a captured tensor before it is indexed.
    """
    traced = trace(mask_mod, ir.Align(align or "start"))
    if traced.stale is not None:
        raise traced.stale
    return Pattern(traced.mask, layer, without, captured=traced.inputs)


def from_mask(mask: Tensor) -> Pattern:
    """The pattern of a dense mask: true where a query sees a key, bool [q_len, k_len], or [batch, heads, q_len, k_len].

    The tensor is read, not copied, in every call that is given no other by the name ``mask``; one batch element or head
    serves all.

    Raises:
        AttnDslError: A501, it is no such tensor.
    """
    if mask.dtype is not torch.bool or mask.ndim not in (2, 4):
        title = "a dense mask is a bool tensor, [q_len, k_len] or [batch, heads, q_len, k_len]"
        helps = ("of one that is added to scores: `bias == 0`",)
        raise AttnDslError(Diagnostic("A501", title, helps=helps))
    text = "input mask: bool[batch, head, q, k]\npattern dense_mask = mask[q, k]"
    whole = mask if mask.ndim == 4 else mask[None, None]
    return Pattern(compile_pattern(text).ir, captured={"mask": whole})


def from_intervals(intervals: Tensor | Sequence[Any]) -> Pattern:
    """The pattern in which query i sees the keys from its starts up to before its stops.

    Args:
        intervals: int [q_len, n, 2] or [q_len, 2], pairs of start and stop, stop excluded; an empty one adds nothing.
            Read, not copied, in every call that is given no other by the name ``intervals``.

    Raises:
        AttnDslError: A501, they are no such numbers.
    """
    made = torch.as_tensor(intervals)
    if made.ndim == 2:
        made = made[:, None]
    if made.ndim != 3 or made.shape[2] != 2 or made.is_floating_point():
        title = "intervals are integers [q_len, n, 2]: where the keys of a query start and stop"
        raise AttnDslError(Diagnostic("A501", title))
    text = (
        "input intervals: int[q, n, 2]\n"
        "pattern intervals_of_keys = any j in 0..len(intervals.n): intervals[q, j, 0] <= k < intervals[q, j, 1]"
    )
    return Pattern(compile_pattern(text).ir, captured={"intervals": made})


def from_block_mask(block_mask: BlockMask) -> Pattern:
    """The pattern of a ``BlockMask`` of torch: that of its mask_mod, once its blocks are found to be those of it.

    Raises:
        AttnDslError: A218 for the mask_mod; A414, a block is live that the mask_mod leaves out, or the other way round.
    """
    pattern = from_mask_mod(block_mask.mask_mod)
    (q_len, k_len), (batch, heads) = block_mask.seq_lengths, block_mask.kv_indices.shape[:2]
    own = pattern.to_block_mask(
        q_len, k_len, heads, batch=batch, block_size=tuple(block_mask.BLOCK_SIZE)
    )
    partial, full = (_dense(block_mask, kind) for kind in ("kv", "full_kv"))
    wanted = [_dense(own, kind) for kind in ("kv", "full_kv")]
    # a block may be evaluated pair by pair though it is FULL, or EMPTY; never the other way round
    if not bool(((partial | full) >= (wanted[0] | wanted[1])).all() and (full <= wanted[1]).all()):
        title = "the blocks of this BlockMask are not those of its mask_mod"
        helps = ("blocks that were chosen by themselves are a list of keys for each query block",)
        raise AttnDslError(Diagnostic("A414", title, helps=helps))
    return pattern


def _dense(block_mask: BlockMask, kind: str) -> Tensor:
    """True for each block that is listed, bool [batch, heads, rows, columns]."""
    counts = getattr(block_mask, f"{kind}_num_blocks")
    indices = getattr(block_mask, f"{kind}_indices")
    if counts is None:
        return torch.zeros_like(block_mask.kv_indices, dtype=torch.bool)
    columns = torch.arange(indices.shape[-1], device=indices.device)
    listed = torch.where(columns < counts[..., None], indices.long(), len(columns))
    found = torch.zeros(
        *indices.shape[:-1], len(columns) + 1, dtype=torch.bool, device=indices.device
    )
    return found.scatter(-1, listed, True)[..., :-1].cpu()
