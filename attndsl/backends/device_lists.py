"""Work lists in the memory of the device, kept as long as the schedule they were made from."""

from __future__ import annotations

import functools
import weakref
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from attndsl.backends.generated import MASKS, Functions, load
from attndsl.backends.work import Work
from attndsl.backends.worklists import WorkList, by_key, by_query, device_masks, head_classes
from attndsl.codegen import Predicate, TooDear, predicate
from attndsl.schedule import BoundMask, Schedule

SHORTEST = 8  # tiles; cutting work finer costs more in merging than balance gains
CACHE = (
    16 << 20
)  # bytes of keys and values that the heads at work together may take from the L2 cache
PROCESSORS = 132  # where there is no device to ask


@dataclass(frozen=True, slots=True, eq=False)
class DeviceLists:
    """A work list as the kernels take it."""

    tiles: tuple[Any, ...]  # their arguments from ``items`` to ``tables``
    functions: Functions
    splits: tuple[Any, ...]  # those of the merging kernels, ``splits`` to ``plan_head``
    q_order: Tensor | None
    k_order: Tensor | None
    width: int
    slots: int
    most_splits: int
    at_once: int

    def grid(self, x: Tensor) -> tuple[int]:
        """A program for each item and head of x [B, H, ...]."""
        return (self.width * x.shape[0] * x.shape[1],)

    def split_grid(self, x: Tensor) -> tuple[int, int]:
        """A program for each split tile and head of x [B, H, ...]."""
        return self.most_splits, x.shape[0] * x.shape[1]

    def shares(self, x: Tensor, *shape: int) -> Tensor | None:
        """Room for what each slot of each head of x [B, H, ...] holds: float32 [B, H, slots, *shape]."""
        if not self.slots:
            return None
        return x.new_empty((*x.shape[:2], self.slots, *shape), dtype=torch.float32)


_KNOWN: weakref.WeakKeyDictionary[Schedule, dict[Any, Any]] = weakref.WeakKeyDictionary()
_PREDICATES: weakref.WeakKeyDictionary[BoundMask, Predicate | None] = weakref.WeakKeyDictionary()


def device_lists(
    work: Work, tile: tuple[int, int], transposed: bool, q: Tensor, k: Tensor, longest: int | None
) -> DeviceLists:
    """The lists of one pass over these tensors. ``longest``: most tiles of an item, if not balanced."""
    schedule = work.schedule(tile)
    batch, heads, kv_heads = *q.shape[:2], k.shape[1]
    longest = longest or _balanced(schedule, batch, heads, q.device)
    known = _KNOWN.setdefault(schedule, {})
    key = (transposed, batch, heads, kv_heads, longest, q.device, k.shape[2:], k.dtype)
    if key not in known:
        group = heads // kv_heads
        if transposed:
            made, classes = by_key(schedule, group, longest), head_classes(schedule, group)[0]
        else:
            made = by_query(schedule, longest)
            classes = [(plan,) for plan in range(len(schedule.plans))]
        judged = _judged(_predicate(work.bound), classes, q.device)
        masks = None if judged else _masks(schedule, known, q.device)
        known[key] = _moved(made, masks, judged, k, kv_heads if transposed else heads)
    found: DeviceLists = known[key]
    return found


def _masks(schedule: Schedule, known: dict[Any, Any], device: torch.device) -> Tensor:
    """The bank on the device, once for all passes that have these tiles."""
    masks = known.get(device)
    if masks is None:
        masks = known[device] = torch.from_numpy(device_masks(schedule)).to(device)
    found: Tensor = masks
    return found


def _predicate(bound: BoundMask | None) -> Predicate | None:
    """The predicate of a bound mask, unless masks are better."""
    if bound is None:
        return None
    if bound not in _PREDICATES:
        try:
            made = predicate(bound.roots, bound.tables, bound.queries, bound.keys)
        except TooDear:
            made = None
        _PREDICATES[bound] = made
    return _PREDICATES[bound]


def _judged(
    found: Predicate | None, classes: list[tuple[int, ...]], device: torch.device
) -> tuple[Functions, tuple[Any, ...]] | None:
    """Functions and the kernels' arguments ``constants`` to ``tables``; None if masks are needed.

    They are when query heads that share a key head differ: its tiles are walked for all of them.
    """
    if found is None or any(
        (found.constants[list(one)] != found.constants[one[0]]).any() for one in classes
    ):
        return None
    constants = found.constants[[one[0] for one in classes]]
    sent = (torch.from_numpy(constants).to(device), constants.shape[1])
    return load(found.text), (*sent, torch.from_numpy(found.tables).to(device))


def _moved(
    work: WorkList,
    masks: Tensor | None,
    judged: tuple[Functions, tuple[Any, ...]] | None,
    k: Tensor,
    owners: int,
) -> DeviceLists:
    arrays = ((field.name, getattr(work, field.name)) for field in fields(work))
    sent = {name: torch.from_numpy(x).to(k.device) for name, x in arrays if x is not None}
    by_batch, by_head = (int(size > 1) for size in work.class_of.shape)
    classes = (sent["class_of"], by_batch * work.class_of.shape[1], by_head)
    tiles = (sent["items"], sent["first_items"], *classes, sent["full"], sent["partial"])
    functions, read = judged or (MASKS, (None, 0, None))
    return DeviceLists(
        (*tiles, sent["mask_ids"], masks, *read),
        functions,
        (sent["splits"], sent["first_splits"], *classes),
        sent.get("q_order"),
        sent.get("k_order"),
        work.width,
        work.slots,
        work.most_splits,
        _at_once(k, owners),
    )


def _balanced(schedule: Schedule, batch: int, heads: int, device: torch.device) -> int:
    """The longest item that leaves no processor waiting: half of what each has to do in all."""
    of = schedule.plan_of
    live = sum(schedule.plans[i].live for i in of.flat) * batch * heads // max(1, of.size)
    share = live // (2 * _processors(device))
    return max(SHORTEST, 1 << share.bit_length())  # powers of two: similar calls share their lists


@functools.cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return PROCESSORS
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count


def _at_once(k: Tensor, owners: int) -> int:
    """How many heads work on an item together: as many as the cache holds keys of, a divisor of all."""
    total = k.shape[0] * owners
    each = max(1, 2 * k.shape[2] * k.shape[3] * k.element_size() * k.shape[1] // owners)
    fits = max(1, min(total, CACHE // each))
    return next(n for n in range(fits, 0, -1) if total % n == 0)
