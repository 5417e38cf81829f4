"""Patterns made of masks as other libraries have them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from attndsl import ir
from attndsl.backends import MaskMod
from attndsl.compiled import Pattern
from attndsl.interop import trace


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
