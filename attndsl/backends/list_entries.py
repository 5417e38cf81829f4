"""Lists of an open mask, made by operations of torch where the inputs lie, and inverted there.

    entries_of   each block of keys that a query names, once, with a bit for each of its keys
    by_block     the same entries by block: the queries that name each block, in items of even size

No value is looked at on the way, and all shapes follow from those of the inputs: a query has room for as many entries
as it may name blocks, a block for as many items as there may be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from attndsl import ir
from attndsl.backends.on_device import OnDevice
from attndsl.schedule import BLOCK, KeyValues, OpenLists, Ranges, open_env


class Entries(NamedTuple):
    """Blocks that queries name, entry after entry of each query, in ascending order."""

    blocks: Tensor  # int32 [plans, Q * entries]; the number of all blocks where an entry names none
    words: Tensor  # int32 [plans, Q * entries, 2], a bit for each key of the block


class ByBlock(NamedTuple):
    """The entries of each block of keys, cut into items."""

    order: Tensor  # int32 [plans, Q * entries], numbers of entries by block and then by query
    items: (
        Tensor  # int32 [plans, items, 3]: block, first of the order, last; none where first == last
    )
    first_items: Tensor  # int32 [plans, blocks + 1], of each block


@dataclass(frozen=True, slots=True, eq=False)
class EntryMaker:
    """All of the lists of a call that follows from shapes, on the device."""

    lists: OpenLists
    envs: tuple[ir.Env, ...]  # of each piece
    places: Mapping[KeyValues, Tensor]

    @staticmethod
    def of(lists: OpenLists, device: torch.device) -> EntryMaker:
        """Moves to the device what does not depend on inputs."""
        xp = OnDevice(device)
        envs = tuple(open_env(lists.mask, piece, xp) for piece in lists.mask.pieces)
        ranges = (each for piece in lists.ranges for each in piece)
        all_keys = {bound.keys for each in ranges for bound in each.bounds}
        places = {keys: xp.asarray(keys.places) for keys in all_keys}
        return EntryMaker(lists, envs, places)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(x.nbytes for x in self.places.values())

    def entries(self, tables: Mapping[str, Tensor]) -> Entries:
        """The entries for these inputs, bool or int64 and of all declared dims."""
        none = -(-len(self.lists.mask.keys) // BLOCK)
        pieces = zip(self.lists.ranges, self.envs, strict=True)
        found = [self._of_piece(ranges, env, tables, none) for ranges, env in pieces]
        blocks, words = (torch.cat(x) for x in zip(*found, strict=True))
        blocks, words = _joined(torch.where(words == 0, none, blocks), words, none)
        if blocks.shape[-1] > self.lists.entries:  # so many differ at most
            blocks, order = blocks.sort(-1)
            blocks, order = (x[..., : self.lists.entries] for x in (blocks, order))
            words = words.gather(-1, order)
        halves = torch.stack([words & 0xFFFF_FFFF, words >> 32], -1).to(torch.int32)
        return Entries(blocks.to(torch.int32).flatten(1), halves.flatten(1, 2))

    def _of_piece(
        self, ranges: Sequence[Ranges], env: ir.Env, tables: Mapping[str, Tensor], none: int
    ) -> tuple[Tensor, Tensor]:
        """(blocks, bits of their keys) [plans, Q, entries] of a piece, as they are named."""
        shape = len(env.batch), len(self.lists.mask.queries)
        given, whose = {**env.tables, **tables}, (env.batch[..., None], env.head[..., None])
        parts = []
        for each in ranges:
            j = env.xp.arange(each.numbers.start, each.numbers.stop)
            indices = {} if each.level is None else {each.level: j}
            own = replace(
                env,
                q=env.q[:, None],
                k=0,
                tables=given,
                batch=whose[0],
                head=whose[1],
                indices=indices,
            )
            low, high = self._range(each, own)
            wide = (*shape, len(each.numbers))
            parts.append(_cut(low.expand(wide), high.expand(wide), each.blocks))
        blocks, words = (torch.cat(x, -1) for x in zip(*parts, strict=True))
        lacking = self.lists.named - blocks.shape[-1]
        return F.pad(blocks, (0, lacking), value=none), F.pad(words, (0, lacking))

    def _range(self, ranges: Ranges, env: ir.Env) -> tuple[Tensor, Tensor]:
        """The first key of each range and the one after its last, of three dims."""
        k_len, xp = len(self.lists.mask.keys), env.xp
        low, high = xp.asarray(0).view(1, 1, 1), xp.asarray(k_len).view(1, 1, 1)
        for bound in ranges.bounds:
            wanted, keys = xp.asarray(ir.evaluate(bound.term, env)), bound.keys
            if bound.is_equal:
                low = torch.maximum(low, self._first(keys, wanted * keys.sign))
                high = torch.minimum(high, self._first(keys, wanted * keys.sign + 1))
            elif keys.sign > 0:
                low = torch.maximum(low, self._first(keys, wanted))
            else:
                high = torch.minimum(high, self._first(keys, 1 - wanted))
        for condition in ranges.conditions:
            high = high * xp.asarray(ir.evaluate(condition, env))
        return low, high

    def _first(self, keys: KeyValues, wanted: Tensor) -> Tensor:
        """The first key whose risen value is no less than wanted."""
        at = wanted - int(keys.values[0])
        return self.places[keys][at.clamp(0, len(self.places[keys]) - 1)]


def _cut(low: Tensor, high: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """(block, bits of its keys) [..., n * blocks] of ranges [..., n] that reach so many blocks; no bit past a range."""
    block = (low // BLOCK)[..., None] + torch.arange(blocks, device=low.device)
    left = (low[..., None] - block * BLOCK).clamp(0, BLOCK - 1)
    right = (high[..., None] - block * BLOCK).clamp(max=BLOCK) - 1
    ones = torch.full_like(left, -1)
    bits = (ones << left) & ~((2 * ones) << right.clamp(min=0))
    return block.flatten(-2), torch.where(right >= left, bits, 0).flatten(-2)


def _joined(blocks: Tensor, words: Tensor, none: int) -> tuple[Tensor, Tensor]:
    """Each block of a query once, in ascending order, with all of its bits; ``none`` behind them or between."""
    count = blocks.shape[-1]
    blocks, order = blocks.sort(-1)
    words, step = words.gather(-1, order), 1
    while step < count:  # of equal blocks the last has the bits of all
        before = F.pad(words[..., :-step], (step, 0))
        same = F.pad(blocks[..., step:] == blocks[..., :-step], (step, 0), value=False)
        words = words | torch.where(same, before, 0)
        step *= 2
    is_last = F.pad(blocks[..., 1:] != blocks[..., :-1], (0, 1), value=True)
    return torch.where(is_last, blocks, none), torch.where(is_last, words, 0)


def by_block(entries: Entries, blocks: int, longest: int) -> ByBlock:
    """The entries of each of so many blocks, in order, at most ``longest`` of them in an item."""
    found, order = entries.blocks.sort(dim=1, stable=True)
    plans, count = found.shape
    numbers = torch.arange(blocks + 1, device=found.device, dtype=found.dtype)
    starts = torch.searchsorted(found, numbers.expand(plans, -1).contiguous())
    pieces = -(-starts.diff() // longest)
    first_items = F.pad(pieces.cumsum(1), (1, 0))
    number = torch.arange(capacity(count, blocks, longest), device=found.device)
    ends = first_items[:, 1:].contiguous()
    block = torch.searchsorted(ends, number.expand(plans, -1).contiguous(), right=True)
    here = block.clamp(max=blocks - 1)
    first = starts.gather(1, here) + (number - first_items.gather(1, here)) * longest
    last = torch.minimum(first + longest, starts.gather(1, here + 1))
    last = torch.where(block < blocks, last, first)
    items = torch.stack([here, first, last], -1)
    return ByBlock(order.to(torch.int32), items.to(torch.int32), first_items.to(torch.int32))


def capacity(count: int, blocks: int, longest: int) -> int:
    """How many items so many entries of so many blocks make at most."""
    return count // longest + blocks
