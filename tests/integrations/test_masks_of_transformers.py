"""Every mask function of transformers is a pattern, and its BlockMask that of torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask, create_mask

pytest.importorskip("transformers")

from transformers import masking_utils as masks

import attndsl
from tests.support.block_masks import same

BATCH, TOKENS = 2, 40
PADDING = torch.tensor([3, 0])
BLOCKS = torch.tensor([[-1] * 6 + [0] * 9 + [-1] * 4 + [1] * 21, [0] * 5 + [-1] * 35])
KEEP = torch.arange(TOKENS) >= PADDING[:, None]
ROWS = torch.arange(TOKENS) // torch.tensor([[7], [16]])
PLACES = torch.arange(TOKENS) % torch.tensor([[7], [16]])

MADE: dict[str, Callable[[], Any]] = {
    "causal_mask_function": lambda: masks.causal_mask_function,
    "bidirectional_mask_function": lambda: masks.bidirectional_mask_function,
    "sliding_window_overlay": lambda: masks.sliding_window_overlay(6),
    "chunked_overlay": lambda: masks.chunked_overlay(8, PADDING),
    "blockwise_overlay": lambda: masks.blockwise_overlay(BLOCKS),
    "sliding_window_causal_mask_function": lambda: masks.sliding_window_causal_mask_function(6),
    "sliding_window_bidirectional_overlay": lambda: masks.sliding_window_bidirectional_overlay(6),
    "sliding_window_bidirectional_mask_function": lambda: (
        masks.sliding_window_bidirectional_mask_function(6)
    ),
    "chunked_causal_mask_function": lambda: masks.chunked_causal_mask_function(8, PADDING),
    "padding_mask_function": lambda: masks.padding_mask_function(KEEP),
    "packed_sequence_mask_function": lambda: masks.packed_sequence_mask_function(ROWS),
    "remap_positions_for_packed_sequence": lambda: masks.remap_positions_for_packed_sequence(
        masks.sliding_window_causal_mask_function(6), PLACES
    ),
    "add_offsets_to_mask_function": lambda: masks.add_offsets_to_mask_function(
        masks.causal_mask_function, 5, 2
    ),
    "and_masks": lambda: masks.and_masks(
        masks.causal_mask_function, masks.padding_mask_function(KEEP)
    ),
    "or_masks": lambda: masks.or_masks(masks.causal_mask_function, masks.blockwise_overlay(BLOCKS)),
}
_NOT_MASKS = {"prepare_padding_mask"}  # of a whole mask, before there is a function


def test_all_functions_of_this_version_are_here():
    ends = ("_mask_function", "_overlay", "_masks")
    found = {
        name
        for name in vars(masks)
        if not name.startswith(("_", "create", "prepare")) and name.endswith(ends)
    }
    assert found - _NOT_MASKS <= MADE.keys()


@pytest.mark.parametrize("name", MADE)
def test_a_mask_function_is_a_pattern_and_a_block_mask(name: str):
    mod = MADE[name]()

    def function(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        made = mod(b, h, q_idx, kv_idx)
        return made if isinstance(made, torch.Tensor) else q_idx.new_ones((), dtype=torch.bool)

    p = attndsl.compile(mod)
    wanted = create_mask(function, BATCH, 1, TOKENS, TOKENS, "cpu")
    assert torch.equal(p.mask(TOKENS, batch=BATCH).expand_as(wanted), wanted)
    for block in (8, 11):
        given = (BATCH, 1, TOKENS, TOKENS, "cpu", block)
        ours = attndsl.flex.create_block_mask(function, *given)
        same(ours, create_block_mask(function, *given))
