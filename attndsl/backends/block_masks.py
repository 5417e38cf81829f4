"""Schedules for flex_attention of torch: its `BlockMask`, and patterns as a mask_mod."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends import integers
from attndsl.emission import predicate
from attndsl.passes import PRESENT, bind
from attndsl.schedule import Call, Schedule, live_blocks
from attndsl.source import AttnDslError, Diagnostic, brief

BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
MaskMod: TypeAlias = Callable[[Any, Any, Any, Any], Any]
BlockMask: TypeAlias = Any  # of torch.nn.attention.flex_attention, which takes seconds to import


def block_mask(
    mask: ir.Mask,
    call: Call,
    block_size: int | tuple[int, int],
    mask_mod: MaskMod,
    device: torch.device | str = "cpu",
    *,
    separate_full_blocks: bool = True,
) -> BlockMask:
    """The `BlockMask` of a normal mask at a call: block by block that of torch's ``create_block_mask``.

    Args:
        mask: The relation, in its normal form.
        call: Lengths, batch and heads, and what the inputs hold.
        block_size: Queries and keys of a block.
        mask_mod: The same relation, for the pairs of PARTIAL blocks.
        device: Where its tensors are.
        separate_full_blocks: Without it all blocks are PARTIAL.

    Raises:
        AttnDslError: A4xx for lengths.
    """
    from torch.nn.attention.flex_attention import BlockMask

    tile = pair_of(block_size)
    full, partial, grid_of = live_blocks(mask, call, tile)
    kinds: list[BoolArray | None] = [partial, full]
    if not separate_full_blocks:
        kinds = [partial | full, None]
    which = torch.from_numpy(grid_of.astype(np.int64))
    kv, q = (
        [_listed(grids, turned, which, call, device) for grids in kinds] for turned in (False, True)
    )
    lengths = call.q_len, call.k_len
    return BlockMask(lengths, *kv[0], *kv[1], *q[0], *q[1], tile, mask_mod)  # type: ignore[arg-type]


def pair_of(block_size: int | tuple[int, int]) -> tuple[int, int]:
    """Queries and keys of a block, of a pair or of one number for both.

    Raises:
        AttnDslError: A402, a number is not positive.
    """
    both: Any = (block_size, block_size) if isinstance(block_size, int) else tuple(block_size)
    if len(both) != 2 or not all(isinstance(x, int) and x > 0 for x in both):
        title = f"a block size is one positive integer, or one for queries and one for keys, not {brief(block_size)}"
        raise AttnDslError(Diagnostic("A402", title))
    return both[0], both[1]


def _listed(
    grids: BoolArray | None,
    turned: bool,
    which: Tensor,
    call: Call,
    device: torch.device | str,
) -> tuple[Tensor | None, Tensor | None]:
    """Counts of the blocks of each row, or column, of each batch element and head, and which they are, 0 behind."""
    if grids is None:
        return None, None
    listed = np.ascontiguousarray(grids.transpose(0, 2, 1)) if turned else grids
    width, rows = listed.shape[2], math.prod(listed.shape[:2])
    starts, places = np.arange(rows + 1) * width, np.flatnonzero(listed)
    bounds = np.searchsorted(places, starts)
    counts = np.diff(bounds)
    indices = np.zeros(listed.shape, dtype=np.int32)
    here = np.repeat(starts[:-1] - bounds[:-1], counts)
    here += np.arange(len(places))
    places -= np.repeat(starts[:-1], counts)
    indices.reshape(-1)[here] = places
    found = map(torch.from_numpy, (counts.astype(np.int32).reshape(listed.shape[:2]), indices))
    counted, numbered = (_of_all(x, which, call, device) for x in found)
    return counted, numbered


def _of_all(x: Tensor, which: Tensor, call: Call, device: torch.device | str) -> Tensor:
    """Entries of each batch element and head, [batch, heads, ...], from those of each grid."""
    if which.numel() == 1:
        x = x[None]
        if call.batch * call.heads == 1:
            return x.to(device)
    else:
        x = x[which]
    whole = x.expand(call.batch, call.heads, *x.shape[2:])
    return whole.to(device, memory_format=torch.contiguous_format).contiguous()


# ---------------------------------------------------------------------- the pattern as a function


def mask_function(
    mask: ir.Mask, call: Call, tensors: Mapping[str, Tensor], device: torch.device | str = "cpu"
) -> MaskMod:
    """A mask_mod of flex_attention that is true for the pairs of a normal mask at these lengths.

    Args:
        mask: The relation, in its normal form.
        call: Lengths, batch and heads. ``q_idx`` counts its queries, wherever they stand.
        tensors: The inputs, read when the function is called; not copied where they have its device and all entries.
        device: Where they are read.

    Raises:
        AttnDslError: A520, the pattern tries numbers in turn (`any`, `all`, `count`, `sum`), or has zero keys.
    """
    if mask.zeros is not ir.ZERO:
        raise _refusal("it has zero keys, which are no pairs")
    known = bind(mask.root, call.sizes, heads=call.heads, layer=call.layer)
    shift = call.first if call.first is not None else mask.shift(call.q_len, call.k_len)
    if mask.absent(call.q_len, call.k_len):
        known = ir.conj(PRESENT, known)
    position = ir.Pos(ir.Side.QUERY)
    known = ir.substitute(known, {position: ir.add(position, ir.Const(shift))})
    if ir.holds(known, *ir.LOOPS):
        raise _refusal("it tries numbers in turn, which a mask_mod cannot")
    if isinstance(known, ir.BoolConst):
        value = int(known.value)
        return lambda b, h, q_idx, kv_idx: b.new_full((), value, dtype=torch.bool)
    bound = ir.Mask(known, tables=mask.tables, align=ir.Align.START).with_root(known)
    function, names = _function(bound)
    counts = {"batch": call.batch, "head": call.heads, "q": call.q_len, "k": call.k_len}
    declared = {table.name: table for table in bound.tables}
    given = [_shown(declared[name], tensors[name].to(device), counts) for name in names]
    return _closed(function, given, mask.name)


def has_loops(mask: ir.Mask) -> bool:
    """Whether it tries numbers in turn, where `mask_function` refuses it and `stored_function` does not."""
    return ir.holds(mask.root, *ir.LOOPS)


def stored_function(schedule: Schedule, device: torch.device | str = "cpu") -> MaskMod:
    """A mask_mod that looks the pairs of a call up in the masks of its PARTIAL tiles."""
    (n_rows, n_columns), (rows, columns) = schedule.grid, schedule.tile
    ids = np.full((len(schedule.plans), n_rows, n_columns), -1, dtype=np.int32)
    for number, plan in enumerate(schedule.plans):
        ids[number, plan.full.rows, plan.full.indices] = len(schedule.masks)
        ids[number, plan.partial.rows, plan.partial.indices] = plan.mask_ids
    full = np.ones((1, rows, columns), dtype=bool)
    masks = torch.from_numpy(np.concatenate([schedule.masks.unpack(), full])).to(device)
    found, of = (torch.from_numpy(x).to(device) for x in (ids, schedule.plan_of))
    by_batch, by_head = (size > 1 for size in of.shape)

    def seen(q: Any, k: Any, batch: Any, head: Any, given: Any) -> Any:
        of, found, masks = given[:3]
        plan = of[batch if by_batch else batch * 0, head if by_head else head * 0]
        entry = found[plan, q // rows, k // columns]
        return (entry >= 0) & masks[entry.clamp(min=0), q % rows, k % columns]

    return _closed(seen, (of, found, masks), "")


def _refusal(reason: str) -> AttnDslError:
    helps = ("call the pattern itself, on another back end",)
    return AttnDslError(Diagnostic("A520", f"the pattern is no mask_mod: {reason}", helps=helps))


def _shown(table: ir.Table, x: Tensor, counts: Mapping[str, int]) -> Tensor:
    """An input with all its entries; a view where one serves all."""
    if table.kind is ir.Sort.BOOL and x.dtype is not torch.bool:
        x = x != 0
    shape = [counts.get(str(dim), size) for dim, size in zip(table.dims, x.shape, strict=True)]
    return x.expand(shape)


_FEWEST: Final = 16  # places for tensors in every mask_mod: dynamo, which takes two of them for one function, looks
# for those of the one in the other, and fails where there are fewer


def _closed(function: Callable[..., Any], tensors: Sequence[Tensor], name: str) -> MaskMod:
    """A mask_mod of ``function(q, k, batch, head, tensors)``."""
    given = (*tensors, *[None] * (_FEWEST - len(tensors)))

    def mask_mod(b: Any, h: Any, q_idx: Any, kv_idx: Any) -> Any:
        return function(q_idx, kv_idx, b, h, given)

    mask_mod.__name__ = mask_mod.__qualname__ = name or "mask_mod"
    return mask_mod


@functools.lru_cache(maxsize=256)
def _function(mask: ir.Mask) -> tuple[Callable[..., Any], tuple[str, ...]]:
    """The relation as a function of (q, k, batch, head, tensors), and the names of the inputs that it takes."""
    text, tables = predicate(mask)
    names: dict[str, Any] = {name: getattr(integers, name) for name in _HELPERS}
    names |= {"torch": torch}
    inputs = "".join(f", given[{place}]" for place in range(len(tables)))
    text += (
        f"def seen(q, k, batch, head, given):\n    return in_pattern(q, k, batch, head{inputs})\n"
    )
    exec(compile(text, f"<pattern {mask.digest}>", "exec"), names)  # written of the IR alone
    function: Callable[..., Any] = names["seen"]
    return function, tuple(tables.values())


_HELPERS = ("read", "span", "quotient", "remainder", "ilog2", "pow2")
