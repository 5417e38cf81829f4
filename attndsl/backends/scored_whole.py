"""Whole blocks of all batch elements of a call with scores, as one unit: batch elements are more tokens.

Where the scores read nothing of the batch element, blocks of one shape differ only in where they lie. The tokens of
all batch elements are taken one behind the other, in an order in which blocks lie side by side: one copy of a tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attndsl.backends.places import IntArray
from attndsl.backends.scored_strips import Unit
from attndsl.backends.whole_strips import WholePlan, WholeStrips
from attndsl.schedule import Blocks, TokenOrder


@dataclass(frozen=True, slots=True, eq=False)
class FoldedBlocks:
    """The blocks of so many batch elements, of one class; row r of element b is token b * length + r."""

    batch: int
    lengths: tuple[int, int]
    plan: WholePlan

    @staticmethod
    def of(strips: WholeStrips, batch: int) -> FoldedBlocks:
        """The blocks of a call that has one class."""
        lengths = strips.q_len, strips.k_len
        made = tuple(
            Blocks(
                _repeated(part.queries, batch, lengths[0]),
                _repeated(part.keys, batch, lengths[1]),
                False,
            )
            for part in strips.blocks[0]
        )
        return FoldedBlocks(batch, lengths, WholePlan.of(made, *(batch * n for n in lengths)))

    def unit(
        self,
        of_queries: Sequence[Tensor],
        of_keys: Sequence[Tensor],
        results: tuple[int, int],
        empty: Sequence[float] | None,
    ) -> Iterator[Unit]:
        """The one unit of tensors [B, H, N, ...]; the last ``results`` of either side are what it makes.

        Each result of queries begins as its number in ``empty``, or as anything where None says that all is written;
        gradients of keys begin at 0.
        """
        plan, made = self.plan, (results[0], results[1])
        sides = (
            (of_queries, self.lengths[0], plan.q_order),
            (of_keys, self.lengths[1], plan.k_order),
        )
        stored: list[list[Tensor]] = []
        for (side, length, order), count in zip(sides, made, strict=True):
            read = [self._folded(x, length, order) for x in side[: len(side) - count]]
            shapes = [
                (x.shape[1], self.batch * length, *x.shape[3:]) for x in side[len(side) - count :]
            ]
            stored.append([*read, *(side[0].new_empty(x, dtype=side[-1].dtype) for x in shapes)])
        for x, value in zip(_last(stored[0], made[0]), empty or (), strict=empty is not None):
            x.fill_(value)
        for x in _last(stored[1], made[1]):
            x.zero_()
        heads = slice(0, of_queries[0].shape[1])
        given = range(1), heads, [(stored[0], stored[1])], tuple(plan.batches())
        yield Unit(-self.batch, plan, *given, (self.batch, *self.lengths))
        for (side, length, order), moved, count in zip(sides, stored, made, strict=True):
            for x, each in zip(_last(side, count), _last(moved, count), strict=True):
                self._put_back(each, x, length, order)

    def _folded(self, x: Tensor, length: int, order: TokenOrder | None) -> Tensor:
        """[B, H, N, ...] as [H, B * N, ...], in that order."""
        if order is None or not x.is_contiguous():
            joined = x.transpose(0, 1).flatten(1, 2)
            return joined if order is None else joined.index_select(1, torch.from_numpy(order.rows))
        heads = x.shape[1]
        rows = _rows_of(order.rows, heads, length)
        taken = x.flatten(0, 2).index_select(0, rows)
        return taken.view(heads, len(order.rows), *x.shape[3:])

    def _put_back(self, stored: Tensor, x: Tensor, length: int, order: TokenOrder | None) -> None:
        """Writes [H, B * N, ...] to x [B, H, N, ...]."""
        if order is None:
            x.copy_(stored.view(len(stored), self.batch, length, *x.shape[3:]).transpose(0, 1))
            return
        heads, count = stored.shape[:2]
        places = order.places.reshape(self.batch, 1, length) + count * np.arange(heads)[:, None]
        taken = torch.from_numpy(places.reshape(-1))
        torch.index_select(stored.flatten(0, 1), 0, taken, out=x.view(-1, *x.shape[3:]))


def _last(tensors: Sequence[Tensor], count: int) -> Sequence[Tensor]:
    return tensors[len(tensors) - count :]


def _repeated(rows: IntArray, batch: int, length: int) -> IntArray:
    """Blocks of each batch element, [batch * items, n]."""
    found = rows + length * np.arange(batch)[:, None, None]
    return found.reshape(-1, rows.shape[1])


def _rows_of(tokens: IntArray, heads: int, length: int) -> Tensor:
    """Rows of tensors [B, H, N], counted flat, of such tokens of each head."""
    elements, rows = np.divmod(tokens, length)
    found = elements * heads * length + rows + length * np.arange(heads)[:, None]
    return torch.from_numpy(found.reshape(-1))
