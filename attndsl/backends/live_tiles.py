"""The live tiles of a pattern that is a function on tensors, and the lists of work that kernels walk.

Files that ``emit`` writes hold this text, so it asks for nothing else of the package. Every pair within the
pattern's reach is evaluated, once for each size of tiles.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch
import triton
from torch import Tensor
from torch.nn.functional import pad

SHORTEST = 8  # tiles of an item; cutting work finer costs more in merging than balance gains
UNSPLIT = 1 << 30  # more tiles than there are
PROCESSORS = 132  # where there is no device to ask
PAIRS_AT_ONCE = 1 << 23  # evaluated together; some have temporary values of 8 bytes

T = TypeVar("T")


@dataclass(frozen=True)
class Pattern:
    """The keys that each query sees, at the lengths of one call.

    ``sees(q, k, batch, head)`` is given positions and indices that broadcast to [batch, head, query, key], and
    answers with truths that do; ``zero_keys(q, batch, head)`` counts what each query sees beside its keys, of
    score 0 and value 0. ``batch`` and ``heads`` are 1 where all of them see the same keys.
    """

    sees: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    q_len: int
    k_len: int
    batch: int
    heads: int
    device: torch.device
    q_start: int = 0  # position of the first query
    back: int | None = None  # no query sees a key that lies farther behind it; None: any may
    ahead: int | None = None  # likewise of keys that lie before it
    zero_keys: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
    q_exist: Tensor | None = None  # bool [batch or 1, queries]: which rows hold tokens; None: all
    k_exist: Tensor | None = None  # likewise
    given: dict[str, Any] = field(default_factory=dict)  # what functions of scores take by name


class Tiles(NamedTuple):
    """All tiles of a pattern: 0 without a pair, 1 with some of their pairs, 2 with all."""

    states: Tensor  # int8 [batch, heads, rows, columns], batch and heads of the pattern
    mask_ids: Tensor  # int32, likewise: where states is 1, which of the masks it has
    masks: Tensor  # int32 [n, BK / 32, BQ], a bit a key, lowest first


class Lists(NamedTuple):
    """The work of one pass, by the names of the kernels: an item is a stretch of the tiles of a row or column."""

    items: Tensor  # int32 [n, 6]: tile, first and last FULL, first and last PARTIAL entry, slot
    first_items: Tensor  # int32 [plans + 1]
    plan_of: Tensor  # int32 [batch, heads]
    plan_batch: int
    plan_head: int
    full: Tensor  # int32: the other tile of each entry; the last one is read ahead and never used
    partial: Tensor  # likewise
    mask_ids: Tensor  # int32, of each PARTIAL entry
    splits: Tensor  # int32 [m, 3]: tile, first and last slot of the tiles whose work is split
    first_splits: Tensor  # int32 [plans + 1]
    width: int  # the most items of a plan
    slots: int  # the most of a plan
    most_splits: int  # of a plan


@dataclass(frozen=True)
class Schedule:
    """The live tiles of a call; found when they are asked for, and kept."""

    pattern: Pattern
    known: dict[Any, Any] = field(default_factory=dict)

    def tiles(self, bq: int, bk: int) -> Tiles:
        """The tiles of so many queries and keys."""
        return self.kept(("tiles", bq, bk), lambda: find_tiles(self.pattern, bq, bk))

    def by_query(self, bq: int, bk: int, owners: int, *, whole: bool = False) -> Lists:
        """The key tiles of each query tile, for so many heads of all batch elements; ``whole``: none is split."""

        def make() -> Lists:
            states, ids, _ = self.tiles(bq, bk)
            return deal_out(states, ids, owners, UNSPLIT if whole else SHORTEST)

        return self.kept(("by query", bq, bk, owners, whole), make)

    def by_key(self, bq: int, bk: int, owners: int, group: int) -> Lists:
        """The query tiles of each key tile, for all query heads of its head: tile * group + head."""

        def joined(x: Tensor) -> Tensor:
            if x.shape[1] == 1:
                x = x[:, :, None].expand(-1, -1, group, -1, -1)
            else:
                x = x.reshape(x.shape[0], x.shape[1] // group, group, *x.shape[2:])
            return x.permute(0, 1, 4, 3, 2).flatten(3)

        def make() -> Lists:
            states, ids, _ = self.tiles(bq, bk)
            return deal_out(joined(states), joined(ids), owners, SHORTEST)

        return self.kept(("by key", bq, bk, owners, group), make)

    def zeros(self) -> Tensor | None:
        """How many zero keys each query sees, float32 [batch, heads, queries]; None without any."""
        p = self.pattern
        if p.zero_keys is None:
            return None
        q = torch.arange(p.q_start, p.q_start + p.q_len, device=p.device)
        batch, head = indices(p, 1)
        counts = p.zero_keys(q, batch, head).expand(p.batch, p.heads, p.q_len)
        return self.kept(("zeros",), counts.float)

    def kept(self, key: tuple[Any, ...], make: Callable[[], T]) -> T:
        """Gives what was made under this key before, or makes it now."""
        if key not in self.known:
            self.known[key] = make()
        found: T = self.known[key]
        return found


def indices(pattern: Pattern, dims: int) -> tuple[Tensor, Tensor]:
    """The batch elements and heads of a pattern, with so many dims behind them."""
    batch, head = (torch.arange(n, device=pattern.device) for n in (pattern.batch, pattern.heads))
    return batch.view(-1, 1, *[1] * dims), head.view(-1, *[1] * dims)


def find_tiles(pattern: Pattern, bq: int, bk: int) -> Tiles:
    """Evaluate all pairs that are in reach, a block of tiles at a time."""
    p = pattern
    rows, columns = triton.cdiv(p.q_len, bq), triton.cdiv(p.k_len, bk)
    shape = (p.batch, p.heads, rows, columns)
    states = torch.zeros(shape, dtype=torch.int8, device=p.device)
    mask_ids = torch.zeros(shape, dtype=torch.int32, device=p.device)
    banks, places = [torch.zeros((0, bk // 32, bq), dtype=torch.int32, device=p.device)], []
    for block in blocks(p, bq, bk):
        kept = evaluated(p, bq, bk, *block)
        count = kept.sum((3, 5))
        states[:, :, *block] = (count > 0).to(torch.int8) + (count == bq * bk)
        partial = (count > 0) & (count < bq * bk)
        masks, same = distinct(packed(kept.transpose(3, 4)[partial]))
        places.append((block, partial, same + sum(map(len, banks))))
        banks.append(masks)
    masks, same = distinct(torch.cat(banks))  # of all blocks
    for block, partial, ids in places:
        mask_ids[:, :, *block][partial] = same[ids].int()
    return Tiles(states, mask_ids, masks)


def blocks(pattern: Pattern, bq: int, bk: int) -> Iterator[tuple[slice, slice]]:
    """Blocks of tiles, rows and columns, that together are all tiles in reach."""
    p = pattern
    side = math.isqrt(max(1, PAIRS_AT_ONCE // max(1, p.batch * p.heads)))
    rows, columns = triton.cdiv(p.q_len, bq), triton.cdiv(p.k_len, bk)
    high, wide = max(1, side // bq), max(1, side // bk)
    for row in range(0, rows, high):
        below = min(row + high, rows)
        first, last = p.q_start + row * bq, p.q_start + below * bq - 1
        for column in range(0, columns, wide):
            beside = min(column + wide, columns)
            is_behind = p.back is not None and first - (beside * bk - 1) > p.back
            is_ahead = p.ahead is not None and column * bk - last > p.ahead
            if not is_behind and not is_ahead:
                yield slice(row, below), slice(column, beside)


def evaluated(pattern: Pattern, bq: int, bk: int, rows: slice, columns: slice) -> Tensor:
    """The pairs of a block of tiles, bool [batch, heads, rows, BQ, columns, BK]; none beyond the lengths."""
    p = pattern
    row = torch.arange(rows.start * bq, rows.stop * bq, device=p.device)[:, None]
    k = torch.arange(columns.start * bk, columns.stop * bk, device=p.device)
    batch, head = indices(p, 2)
    kept = p.sees(row + p.q_start, k, batch, head) & (row < p.q_len) & (k < p.k_len)
    kept = kept.expand(p.batch, p.heads, len(row), len(k))
    return kept.reshape(p.batch, p.heads, len(row) // bq, bq, len(k) // bk, bk)


def packed(pairs: Tensor) -> Tensor:
    """Masks int32 [n, BK / 32, BQ] of tiles [n, BQ, BK]."""
    count, bq, bk = pairs.shape
    places = torch.arange(32, device=pairs.device).int()
    bits = pairs.reshape(count, bq, bk // 32, 32).int() << places
    return bits.sum(3, dtype=torch.int32).transpose(1, 2).contiguous()


def distinct(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Each mask once, and which of them each one is."""
    found: tuple[Tensor, Tensor] = torch.unique(masks, dim=0, return_inverse=True)
    return found


def deal_out(states: Tensor, mask_ids: Tensor, owners: int, shortest: int) -> Lists:
    """The lists of a pass over states [batch, heads, tiles, entries], longest work first."""
    batch, heads, tiles, _ = states.shape
    plans, device = batch * heads, states.device
    n_full, n_partial = ((states == state).sum(3).flatten() for state in (2, 1))
    total = n_full + n_partial
    # an item is at most half of what a processor has to do for all heads and batch elements
    live = int(total.sum()) * owners // max(1, plans)
    longest = max(shortest, 1 << (live // (2 * processors(device))).bit_length())
    pieces = ((total + longest - 1) // longest).clamp(min=1)
    tile = torch.arange(len(total), device=device).repeat_interleave(pieces)
    piece = torch.arange(len(tile), device=device) - (pieces.cumsum(0) - pieces)[tile]
    low, high = total[tile] * piece // pieces[tile], total[tile] * (piece + 1) // pieces[tile]
    several = (pieces > 1).view(plans, tiles)
    ends = (pieces.view(plans, tiles) * several).cumsum(1)
    first = ends.flatten() - pieces
    columns = [tile % max(1, tiles)]
    for count, before in ((n_full, 0), (n_partial, n_full[tile])):
        start, most = (count.cumsum(0) - count)[tile], count[tile]
        columns += [start + (end - before).clamp(min=0).minimum(most) for end in (low, high)]
    columns.append(torch.where(several.flatten()[tile], first[tile] + piece, -1))
    order = (low - high).argsort(stable=True)
    order = order[(tile[order] // max(1, tiles)).argsort(stable=True)]
    plan, row = several.nonzero().unbind(1)
    splits = torch.stack([row, first.view(plans, tiles)[plan, row], ends[plan, row]], 1)
    n_items, n_splits = pieces.view(plans, tiles).sum(1), several.sum(1)
    starts = [pad(counts.cumsum(0), (1, 0)).int() for counts in (n_items, n_splits)]
    full, partial = (pad((states == state).nonzero()[:, 3], (0, 1)).int() for state in (2, 1))
    return Lists(
        torch.stack(columns, 1)[order].int(),
        starts[0],
        torch.arange(plans, device=device).int(),
        heads * (batch > 1),
        int(heads > 1),
        full,
        partial,
        pad(mask_ids[states == 1], (0, 1)),
        splits.int(),
        starts[1],
        *(int(x.max()) if x.numel() else 0 for x in (n_items, ends, n_splits)),
    )


def processors(device: torch.device) -> int:
    """How many programs run side by side."""
    if device.type != "cuda":
        return PROCESSORS
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
