"""Tables of chosen units: of which call they are, and what shapes tell of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attndsl import ir
from attndsl.source import AttnDslError, Diagnostic

_RANK = 4  # dims of q and k


@dataclass(frozen=True, slots=True)
class Shape:
    """The call that a selection was made for."""

    batch: int
    heads: int
    key_heads: int
    q_len: int
    k_len: int
    device: torch.device
    extents: tuple[tuple[str, int], ...] = ()  # of the grids whose tiles are chosen, "grid.y"
    positions: bytes = b""  # a digest of where its tokens stand, where the call says so

    @staticmethod
    def of(
        q: Tensor,
        k: Tensor,
        selections: Iterable[ir.Chosen] = (),
        extents: Mapping[str, int] | None = None,
    ) -> Shape:
        """The shape of a call, and of the grids of its selections.

        Raises:
            AttnDslError: A401, A402, extents do not fit; A502, q and k do not fit each other; A503, they are on
                different devices.
        """
        if q.dim() != _RANK or k.dim() != _RANK or q.shape[0] != k.shape[0]:
            title = "q and k must have four dims, [batch, heads, length, head_dim], and the same batch size"
            raise AttnDslError(Diagnostic("A502", title))
        if q.shape[3] != k.shape[3] or k.shape[1] == 0 or q.shape[1] % k.shape[1]:
            title = "q and k must have the same head_dim, and q a multiple of the heads of k"
            raise AttnDslError(Diagnostic("A502", title))
        if q.device != k.device or not (q.is_floating_point() and k.is_floating_point()):
            title = "q and k must be floating tensors on one device"
            raise AttnDslError(Diagnostic("A503", title))
        lengths = q.shape[2], k.shape[2]
        found = _extents(selections, *lengths, extents)
        return Shape(q.shape[0], q.shape[1], k.shape[1], *lengths, q.device, found)

    def fault(self, other: Shape) -> str | None:
        """How a call differs from that of another shape, in words."""
        names = [name for name in self.__slots__ if name != "positions"]
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in names]
        told = [f"{name} {one}, not {two}" for name, one, two in pairs if one != two]
        told += ["tokens that stand elsewhere"] if self.positions != other.positions else []
        return ", ".join(told) or None


def _extents(
    selections: Iterable[ir.Chosen], q_len: int, k_len: int, extents: Mapping[str, int] | None
) -> tuple[tuple[str, int], ...]:
    """How long the axes of the grids of selections are.

    Raises:
        AttnDslError: A401, A402.
    """
    found: dict[str, int] = {}
    for each in selections:
        if isinstance(each, ir.Selection) and each.is_on_grid:
            frame = ir.Mask(ir.TRUE, *each.spaces, align=each.align, name=each.name)
            found |= ir.resolve_sizes(frame, q_len, k_len, extents)
    return tuple(sorted((name, size) for name, size in found.items() if "." in name))


@dataclass(frozen=True, slots=True, eq=False)
class Selected(Mapping[str, Tensor]):
    """The choices of the selections of a call: a table for each, by name.

    A table is int32 [batch, heads, rows, slots], as the selection is shared [batch, key heads, ...] or [batch, rows,
    slots]; in it the numbers of the chosen units, in ascending order, -1 behind them. It serves calls of the same
    pattern, lengths, heads and device: other layers, or the same one again.
    """

    tables: Mapping[str, Tensor]
    shape: Shape
    digests: frozenset[str] = field(default=frozenset())

    def __getitem__(self, name: str) -> Tensor:
        return self.tables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tables)

    def __len__(self) -> int:
        return len(self.tables)


def for_each_head(made: Tensor, shape: Shape) -> Tensor:
    """A table with an entry for each query head."""
    return spread(made, shape.heads)


def spread(made: Tensor, heads: int) -> Tensor:
    return made if made.shape[1] == heads else made.repeat_interleave(heads // made.shape[1], 1)


def known_slots(chosen: ir.Chosen) -> bool:
    """Whether shapes tell how large its table is."""
    if isinstance(chosen, ir.Rank) or chosen.by_column:
        return False
    rows = chosen.queries
    is_open = any(x.is_open for x in (rows, chosen.units) if isinstance(x, ir.selection.Tiles))
    known = isinstance(chosen.table.dims[-1], int) and not isinstance(rows, ir.selection.Numbers)
    return known and not is_open


def table_shape(chosen: ir.Chosen, q: Tensor, k: Tensor) -> tuple[int, ...]:
    """The shape of its table, which is known."""
    assert isinstance(chosen, ir.Selection), "ranks have none that is known"
    rows, slots = q.shape[2], chosen.table.dims[-1]
    if isinstance(chosen.queries, ir.selection.Units):
        size = chosen.queries.size
        shift = k.shape[2] - q.shape[2] if chosen.align is ir.Align.END else 0
        rows = -(-(shift + q.shape[2]) // size) - shift // size
    elif isinstance(chosen.queries, ir.selection.Tiles):
        rows = chosen.queries.count({})
    assert isinstance(slots, int), "it is known"
    shared = ir.selection.Shared
    heads = {shared.HEADS: (), shared.GROUP: (k.shape[1],), shared.NOTHING: (q.shape[1],)}
    return q.shape[0], *heads[chosen.shared], rows, slots
