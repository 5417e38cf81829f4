"""Vectors of tokens and of units, computed once for all strips of a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor
from torch.nn import functional as F

from attndsl import ir

from .summaries import KeySummaries, normal, pooled
from .tiling import pooled_tiles


@dataclass(frozen=True, slots=True)
class Summaries:
    """Summaries, and what integer expressions read: the same for all strips of a call.

    ``env`` lacks positions. ``reals`` are the real inputs, float32 values as float64.
    """

    q: Tensor
    k: Tensor
    env: ir.Env
    reals: Mapping[str, Tensor]
    scale: float
    starts: bool = False  # whether the first query stands at position 0 however many keys there are
    kept: KeySummaries | None = None  # of the keys before
    known: dict[object, Tensor] = field(default_factory=dict)

    @property
    def group(self) -> int:
        """How many query heads there are for each key head."""
        return self.q.shape[1] // max(1, self.k.shape[1])

    def pooled(self, node: ir.Node) -> Tensor:
        """The vectors of all units of keys, or of queries."""
        if node not in self.known:
            assert isinstance(node, ir.selection.Pooled)
            is_tiled = isinstance(node.units, ir.selection.Tiles)
            if node.side is ir.Side.KEY and self.kept is not None and not is_tiled:
                self.known[node] = self.kept.pooled(node, self.k)
                return self.known[node]
            x = self.k if node.side is ir.Side.KEY else self.q
            x = normal(x.float().double()) if node.normal else x
            if isinstance(node.units, ir.selection.Tiles):
                self.known[node] = pooled_tiles(x, node.units, node.how, self.env.sizes)
            else:
                self.known[node] = pooled(x, node.units, node.how)
        return self.known[node]

    @property
    def shift(self) -> int:
        """The position of query 0."""
        return 0 if self.starts else self.env.sizes["k"] - self.q.shape[2]

    def laid_out(self, side: ir.Side, units: ir.selection.Units) -> Tensor:
        """The vectors of each block one behind the other, keys last first; zeros for those that do not exist."""
        key = side, units
        if key not in self.known:
            x = (self.k if side is ir.Side.KEY else self.q).float().double()
            x = F.pad(x, (0, 0, 0, -x.shape[2] % units.size))
            x = x.reshape(*x.shape[:2], -1, units.size, x.shape[3])
            x = x.flip(3) if side is ir.Side.KEY else x
            self.known[key] = x.flatten(3)
        return self.known[key]

    def tokens(self, side: ir.Side) -> Tensor:
        """The vectors of single queries, or keys."""
        node = ir.reals.Own(side)
        if node not in self.known:
            self.known[node] = (self.k if side is ir.Side.KEY else self.q).float().double()
        return self.known[node]
