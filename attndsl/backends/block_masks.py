"""Schedules for flex_attention of torch: its `BlockMask`, and patterns as a mask_mod."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends import integers
from attndsl.emission import predicate
from attndsl.passes import PRESENT, bind
from attndsl.schedule import Call, Plan, Schedule, Tiles, compress, live_blocks
from attndsl.source import AttnDslError, Diagnostic, brief

ShortArray: TypeAlias = np.ndarray[Any, np.dtype[np.int32]]
MaskMod: TypeAlias = Callable[[Any, Any, Any, Any], Any]
BlockMask: TypeAlias = Any  # of torch.nn.attention.flex_attention, which takes seconds to import
_Pair: TypeAlias = "tuple[Tensor, Tensor]"


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
    plans, plan_of = live_blocks(mask, call, tile)
    if not separate_full_blocks:
        plans = tuple(map(_undivided, plans))
    turned = tuple(plan.transpose for plan in plans)
    which = torch.from_numpy(plan_of.astype(np.int64))

    def listed(plans: tuple[Plan, ...], kind: str) -> _Pair:
        counts, indices = map(torch.from_numpy, _padded(plans, kind))
        return _of_all(counts, which, call, device), _of_all(indices, which, call, device)

    kv, q = listed(plans, "partial"), listed(turned, "partial")
    full: tuple[_Pair | tuple[None, None], ...] = (None, None), (None, None)
    if separate_full_blocks:
        full = listed(plans, "full"), listed(turned, "full")
    (full_kv, full_q), lengths = full, (call.q_len, call.k_len)
    return BlockMask(lengths, *kv, *full_kv, *q, *full_q, tile, mask_mod)  # type: ignore[arg-type, call-arg]


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


def _undivided(plan: Plan) -> Plan:
    """All its tiles as PARTIAL ones."""
    rows = np.concatenate([plan.full.rows, plan.partial.rows]).astype(np.int64)
    columns = np.concatenate([plan.full.indices, plan.partial.indices]).astype(np.int64)
    n_rows = len(plan.full.indptr) - 1
    whole, _ = compress(rows, columns, n_rows)
    nothing, _ = compress(rows[:0], columns[:0], n_rows)
    return Plan(nothing, whole, np.zeros(whole.nnz, dtype=np.int32), plan.n_columns)


def _padded(plans: Sequence[Plan], kind: str) -> tuple[ShortArray, ShortArray]:
    """Counts, int32 [plans, rows], and the indices of each row, int32 [plans, rows, columns], 0 behind the counts."""
    tiles: list[Tiles] = [getattr(plan, kind) for plan in plans]
    counts = np.stack([np.diff(each.indptr).astype(np.int32) for each in tiles])
    rows, columns = counts.shape[1], plans[0].n_columns
    indices = np.zeros((len(plans), rows, columns), dtype=np.int32)
    for own, each, count in zip(indices, tiles, counts, strict=True):
        starts = np.arange(0, rows * columns, columns) if columns else np.zeros(rows, dtype=int)
        places = np.repeat(starts - each.indptr[:-1], count) + np.arange(each.nnz)
        own.reshape(-1)[places] = each.indices
    return counts, indices


def _of_all(x: Tensor, which: Tensor, call: Call, device: torch.device | str) -> Tensor:
    """Entries of each batch element and head, [batch, heads, ...], from those of each plan."""
    found = x[None] if which.numel() == 1 else x[which]
    whole = found.expand(call.batch, call.heads, *x.shape[1:])
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
    if any(isinstance(node, ir.Loop) for node in ir.postorder(known)):
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
    return any(isinstance(node, ir.Loop) for node in ir.postorder(mask.root))


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
