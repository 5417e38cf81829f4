"""The work of one strip on one batch element, and its pieces."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends.real_evaluation import Kept, Values
from attndsl.backends.scored_program import Program
from attndsl.backends.scored_strips import Pairs, ScoredBatch

PIECE = 1 << 19  # pairs of a piece, over its heads: what is computed of them stays in the cache


@dataclass(frozen=True, slots=True, eq=False)
class Workspace:
    """Memory for values of pairs that every piece takes again: fresh memory costs as much as what is done with it."""

    found: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Some memory of that name, which what was there before gives up."""
        count, known = math.prod(shape), self.found.get(name)
        if known is None or len(known) < count:
            known = self.found[name] = torch.empty(count, dtype=dtype)
        return known[:count].view(tuple(shape))


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A strip of one batch element, with the tensors of its heads."""

    strip: ScoredBatch
    b: int
    pairs: Pairs | None
    of_queries: list[Tensor]
    of_keys: list[Tensor]
    tables: Mapping[str, Tensor]
    totals: Mapping[str, Tensor]
    kept: Kept
    dtype: torch.dtype
    width: int  # of queries and keys
    space: Workspace
    reach: Callable[[], float] | None  # no scaled product is larger

    @property
    def program(self) -> Program:
        """The expression."""
        return self.strip.program

    @property
    def heads(self) -> int:
        """Query heads."""
        return len(self.of_queries[0])

    @property
    def group(self) -> int:
        """Query heads of one key head."""
        return self.heads // len(self.of_keys[0])

    def values(self, mine: slice) -> Values:
        """The free values of some query heads."""
        tables = of_heads(self.tables, mine)
        return self.strip.values(self.b, mine, tables, self.kept, self.dtype)

    def pairs_of(self, low: int, high: int) -> Pairs | None:
        """The live pairs of some items."""
        pairs = self.pairs
        if pairs is None or len(pairs.live) == 1:
            return pairs
        dead = None if pairs.dead is None else pairs.dead[low:high]
        return Pairs(pairs.live[low:high], pairs.bits[low:high], pairs.levels[low:high], dead)


def of_heads(tables: Mapping[str, Tensor], heads: slice) -> dict[str, Tensor]:
    return {name: x if len(x) == 1 else x[heads] for name, x in tables.items()}


def own_vectors(work: Work, q: Tensor, k: Tensor) -> dict[ir.Side, Tensor]:
    """The vectors of the pieces of q and k, by query head, where they are read."""
    if not work.program.reads_own:
        return {}
    q, k = q[..., : work.width], k[..., : work.width]  # without what fills them up for the kernel
    return {ir.Side.QUERY: q, ir.Side.KEY: k.repeat_interleave(work.group, 1)}


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Some items of a strip, of some key heads and their query heads."""

    low: int
    high: int
    theirs: slice
    mine: slice


def pieces_of(work: Work) -> Iterator[tuple[Values, list[Chunk]]]:
    """Pieces of one item or of one key head, as the products take them without a copy; by heads, then by items."""
    batch, group = work.strip.batch, work.group
    items, key_heads = batch.queries.items, len(work.of_keys[0])
    size = batch.queries.length * batch.keys.length * group
    most = max(1, PIECE // size)
    by_item = items <= key_heads
    span, step = (min(most, key_heads), 1) if by_item else (1, min(most, items))
    for first in range(0, key_heads, span):
        theirs = slice(first, min(first + span, key_heads))
        mine = slice(theirs.start * group, theirs.stop * group)
        yield (
            work.values(mine),
            [Chunk(low, min(low + step, items), theirs, mine) for low in range(0, items, step)],
        )
