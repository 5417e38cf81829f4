"""Work lists in the memory of the device, kept as long as the schedule they were made from."""

from __future__ import annotations

import functools
import weakref
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from attndsl.backends.arguments import Pairs, Splits, Tiles, by_name
from attndsl.backends.generated import load
from attndsl.backends.protocol import Tile
from attndsl.backends.standalone import heads_at_once
from attndsl.backends.work_partition import (
    WorkPartition,
    by_key,
    by_query,
    device_masks,
    head_classes,
)
from attndsl.codegen import OverBudget, Predicate, predicate
from attndsl.schedule import BoundMask, Schedule, TiledMask

SHORTEST = 8  # tiles; cutting work finer costs more in merging than balance gains
PROCESSORS = 132  # where there is no device to ask


@dataclass(frozen=True, slots=True, eq=False)
class KernelMetadata:
    """A work list as the kernels take it."""

    tiles: Tiles
    splits: Splits
    most_splits: int  # of any plan

    def grid(self, x: Tensor) -> tuple[int]:
        """A program for each item and head of x [B, H, ...]."""
        return (self.tiles.width * x.shape[0] * x.shape[1],)

    def split_grid(self, x: Tensor) -> tuple[int, int]:
        """A program for each split tile and head of x [B, H, ...]."""
        return self.most_splits, x.shape[0] * x.shape[1]

    def shares(self, x: Tensor, *shape: int) -> Tensor | None:
        """Room for what each slot of each head of x [B, H, ...] holds: float32 [B, H, slots, *shape]."""
        if not self.tiles.slots:
            return None
        return x.new_empty((*x.shape[:2], self.tiles.slots, *shape), dtype=torch.float32)


_KNOWN: weakref.WeakKeyDictionary[Schedule, dict[Any, Any]] = weakref.WeakKeyDictionary()
_PREDICATES: weakref.WeakKeyDictionary[BoundMask, Predicate | None] = weakref.WeakKeyDictionary()


def kernel_metadata(
    part: TiledMask,
    tile: Tile,
    transposed: bool,
    q: Tensor,
    k: Tensor,
    longest: int | None,
    folded: int = 1,
) -> KernelMetadata:
    """The lists of one pass over these tensors. ``longest``: most tiles of an item, if not balanced.

    ``folded``: heads of the schedule that are one head of q.
    """
    schedule = part.schedules[tile]
    batch, heads, kv_heads = *q.shape[:2], k.shape[1]
    longest = longest or _balanced(schedule, batch, heads, q.device)
    known = _KNOWN.setdefault(schedule, {})
    key = (transposed, batch, heads, kv_heads, folded, longest, q.device, k.shape[2:], k.dtype)
    if key not in known:
        group = heads // kv_heads
        if transposed:
            made, classes = (
                by_key(schedule, group, longest),
                head_classes(schedule.plan_of, group)[0],
            )
        else:
            made = by_query(schedule, longest)
            classes = [(plan,) for plan in range(len(schedule.plans))]
        pairs = _evaluated(_predicate(part.bound), classes, q.device)
        pairs = pairs or Pairs(masks=_masks(schedule, known, q.device))
        known[key] = _moved(made, pairs, k, kv_heads if transposed else heads, folded)
    found: KernelMetadata = known[key]
    return found


def _masks(schedule: Schedule, known: dict[Any, Any], device: torch.device) -> Tensor:
    """The bank on the device, once for all passes that have these tiles."""
    masks = known.get(device)
    if masks is None:
        masks = known[device] = torch.from_numpy(device_masks(schedule)).to(device)
    found: Tensor = masks
    return found


def _predicate(bound: BoundMask) -> Predicate | None:
    """The predicate of a bound mask, unless masks are better, or the only description of its pairs."""
    if not bound.pieces:
        return None
    if bound not in _PREDICATES:
        try:
            made = predicate(bound.roots, bound.tables, bound.queries, bound.keys)
        except OverBudget:
            made = None
        _PREDICATES[bound] = made
    return _PREDICATES[bound]


def _evaluated(
    found: Predicate | None, classes: list[tuple[int, ...]], device: torch.device
) -> Pairs | None:
    """The predicate and what it reads; None if masks are needed.

    They are when query heads that share a key head differ: its tiles are walked for all of them.
    """
    if found is None or any(
        (found.constants[list(one)] != found.constants[one[0]]).any() for one in classes
    ):
        return None
    constants = found.constants[[one[0] for one in classes]]
    return Pairs(
        constants=torch.from_numpy(constants).to(device),
        n_constants=constants.shape[1],
        tables=torch.from_numpy(found.tables).to(device),
        **load(found.text),
    )


def _moved(
    work: WorkPartition, pairs: Pairs, k: Tensor, owners: int, folded: int
) -> KernelMetadata:
    arrays = ((field.name, getattr(work, field.name)) for field in fields(work))
    sent = {name: torch.from_numpy(x).to(k.device) for name, x in arrays if x is not None}
    by_batch, by_head = (int(size > 1) for size in work.class_of.shape)
    plans: dict[str, Any] = {
        "plan_of": sent["class_of"],
        "plan_batch": by_batch * work.class_of.shape[1],
        "plan_head": by_head * folded,
        "slots": work.slots,
    }
    tiles = Tiles(
        **plans,
        **by_name(pairs),
        items=sent["items"],
        first_items=sent["first_items"],
        full=sent["full"],
        partial=sent["partial"],
        mask_ids=sent["mask_ids"],
        q_order=sent.get("q_order"),
        k_order=sent.get("k_order"),
        at_once=heads_at_once(k, owners),
        width=work.width,
        SPLIT=work.slots > 0,
        Q_ORDERED=work.q_order is not None,
        K_ORDERED=work.k_order is not None,
    )
    splits = Splits(**plans, splits=sent["splits"], first_splits=sent["first_splits"])
    return KernelMetadata(tiles, splits, work.most_splits)


def _balanced(schedule: Schedule, batch: int, heads: int, device: torch.device) -> int:
    of = schedule.plan_of
    live = sum(schedule.plans[i].live for i in of.flat) * batch * heads // max(1, of.size)
    return longest_item(live, device)


def longest_item(live: int, device: torch.device) -> int:
    """The longest item that leaves no processor waiting: half of what each has to do in all."""
    share = live // (2 * _processors(device))
    return max(SHORTEST, 1 << share.bit_length())  # powers of two: similar calls share their lists


@functools.cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return PROCESSORS
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count
