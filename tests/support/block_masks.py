"""BlockMasks held against those of torch, block by block."""

from __future__ import annotations

from typing import Any

import torch


def rows(counts: Any, indices: Any) -> Any:
    """The blocks of each row, as sets of torch; what lies behind the counts is not defined."""
    if counts is None:
        return None
    behind = torch.arange(indices.shape[-1]) >= counts[..., None]
    return counts, indices.masked_fill(behind, -1)


def same(ours: Any, theirs: Any) -> None:
    """Asserts that two BlockMasks of one function are the same."""
    for name in ("kv", "full_kv", "q", "full_q"):
        for one, other in zip(*(
            rows(getattr(x, f"{name}_num_blocks"), getattr(x, f"{name}_indices")) or ()
            for x in (ours, theirs)
        ), strict=True):  # fmt: skip
            assert torch.equal(one, other), name
            assert one.dtype == other.dtype
    assert ours.seq_lengths == theirs.seq_lengths
    assert ours.BLOCK_SIZE == theirs.BLOCK_SIZE
    assert ours.mask_mod is theirs.mask_mod
    assert torch.equal(ours.to_dense(), theirs.to_dense())
    assert ours.shape == theirs.shape
    assert ours.sparsity() == theirs.sparsity()
