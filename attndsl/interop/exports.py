"""A pattern in the formats of other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from attndsl.arguments import check_plain_order, read_call, read_inputs
from attndsl.backends import (
    BlockMask,
    MaskMod,
    block_mask,
    has_loops,
    mask_function,
    pair_of,
    stored_function,
)
from attndsl.compiler import Program
from attndsl.schedule import Call
from attndsl.source import AttnDslError, Diagnostic, brief, suggest

from . import formats


class Exports:
    """Methods of a pattern that give it to other libraries."""

    _program: Program

    def mask_mod(
        self,
        q_len: int,
        k_len: int | None = None,
        heads: int | None = None,
        *,
        device: torch.device | str = "cpu",
        **given: Any,
    ) -> MaskMod:
        """The pattern as a mask_mod of ``torch.nn.attention.flex_attention``, for calls of these lengths.

        Args:
            q_len: How many queries; ``q_idx`` counts them, wherever the pattern places them.
            k_len: How many keys, where it differs.
            heads: How many heads.
            device: Where the tensors are that the function reads. Inputs that lie there are not copied.
            **given: Batch, extents and inputs.

        Raises:
            AttnDslError: A4xx lengths and extents, A501 inputs, A520 the pattern has zero keys.
        """
        call = read_call(self._program, q_len, k_len, heads, **given)
        return self._mask_mod(call, device, given, (128, 128))

    def to_block_mask(
        self,
        q_len: int,
        k_len: int | None = None,
        heads: int | None = None,
        *,
        device: torch.device | str = "cpu",
        block_size: int | tuple[int, int] = 128,
        separate_full_blocks: bool = True,
        **given: Any,
    ) -> BlockMask:
        """The ``BlockMask`` of a call for torch's flex_attention, block by block what ``create_block_mask`` gives.

        Takes time and memory for the live blocks, up to the arrays of [rows, columns] that the format has.

        Args:
            q_len: How many queries.
            k_len: How many keys, where it differs.
            heads: How many heads.
            device: Where its tensors are.
            block_size: Queries and keys of a block.
            separate_full_blocks: Without it all blocks are PARTIAL.
            **given: Batch, extents and inputs.

        Raises:
            AttnDslError: as ``mask_mod``; A402 for the block size.
        """
        tile = pair_of(block_size)
        call = read_call(self._program, q_len, k_len, heads, **given)
        mod = self._mask_mod(call, device, given, tile)
        normal = self._program.normal
        return block_mask(
            normal, call, tile, mod, device, separate_full_blocks=separate_full_blocks
        )

    def export(
        self,
        format: str,  # noqa: A002 - the word
        q_len: int,
        k_len: int | None = None,
        heads: int | None = None,
        *,
        block_size: int | tuple[int, int] = 128,
        device: torch.device | str | None = None,
        **given: Any,
    ) -> dict[str, Any]:
        """The pairs of a call in the format of another library's kernels, as NumPy arrays by name.

        Args:
            format: "bsr", block-sparse rows (FlashInfer); "csr", keys of each query; "cu_seqlens", packed documents;
                "varlen", windows in them (FlashAttention, torch's varlen attention); "flashmask", bounds by column;
                "magi", slices (MagiAttention); "block_sparse", blocks (Block-Sparse-Attention); "natten", arguments of
                a neighbourhood; "bias", what is added to scores, float32 [batch, heads, q_len, k_len], 0 or -inf.
            q_len: How many queries.
            k_len: How many keys, where it differs.
            heads: How many heads.
            block_size: Queries and keys of a block.
            device: Where arrays are wanted as tensors; by default they are NumPy's.
            **given: Batch, extents and inputs.

        Raises:
            AttnDslError: A414, the format cannot say these pairs, or there is no such format; A4xx lengths and extents,
                A501 inputs.
        """
        if format not in formats.NAMES:
            near = suggest(format, formats.NAMES)
            title = f"there is no format {brief(format)}"
            notes = (f"formats: {', '.join(formats.NAMES)}",)
            helps = (f"did you mean {near!r}?",) if near else ()
            raise AttnDslError(Diagnostic("A414", title, notes=notes, helps=helps))
        call = read_call(self._program, q_len, k_len, heads, **given)
        check_plain_order(call)
        made = formats.written(format, self._program, call, pair_of(block_size))
        if device is None:
            return made
        return {
            name: torch.from_numpy(x).to(device) if isinstance(x, np.ndarray) else x
            for name, x in made.items()
        }

    def _mask_mod(
        self, call: Call, device: torch.device | str, given: dict[str, Any], tile: tuple[int, int]
    ) -> MaskMod:
        check_plain_order(call)
        normal = self._program.normal
        if has_loops(normal):
            return stored_function(self._program.schedule(call, tile), device)
        apart = ("batch", "extents", "inputs", "head_start", "head_count")
        named = {name: x for name, x in given.items() if name not in apart}
        found = read_inputs(self._program, given.get("inputs"), named)
        tensors = {name: torch.as_tensor(x) for name, x in found.items()}
        return mask_function(normal, call, tensors, device)
