"""Summaries of units: the tokens of each as one vector, and those of a cache that grows."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, maximum, minimum, where

from attndsl import ir
from attndsl.source import AttnDslError, Diagnostic

Pool, Units, Pooled = ir.selection.Pool, ir.selection.Units, ir.selection.Pooled


def pooled(x: Tensor, units: ir.selection.Units, how: ir.selection.Pool) -> Tensor:
    """The summaries [B, H, M, D] of vectors [B, H, N, D], float32 values as float64.

    The tokens of a unit are added from the first to the last, whichever units there are beside it; a unit that the
    end cuts is that of the tokens it has.
    """
    total = x.new_zeros((*x.shape[:2], -(-x.shape[2] // units.every), x.shape[3])).double()
    _add(total, x, units, how, 0)
    return _finished(total, units, how, x.shape[2])


def _add(
    total: Tensor, x: Tensor, units: ir.selection.Units, how: ir.selection.Pool, start: int
) -> None:
    """Takes the tokens from ``start`` on into the totals of their units."""
    narrow, length, every = x.float(), x.shape[2], units.every
    for offset in range(units.size):
        first = max(0, -(-(start - offset) // every))
        stop = max(0, -(-(length - offset) // every))
        if first >= stop:
            continue
        at = first * every + offset
        part = narrow[:, :, at : (stop - 1) * every + offset + 1 : every].double()
        into = total[:, :, first:stop]
        if not offset:
            into.copy_(part)
        elif how is Pool.MEAN:
            into += part
        else:
            into.copy_((maximum if how is Pool.MAX else minimum)(into.clone(), part))


def _finished(
    total: Tensor, units: ir.selection.Units, how: ir.selection.Pool, length: int
) -> Tensor:
    """The summaries, of totals."""
    count = units.count(length)
    found = total[:, :, :count]
    if how is Pool.MEAN and count:
        sizes = found.new_full((count,), units.size)
        for place in range(max(0, (length - units.size) // units.every + 1), count):
            sizes[place] = length - place * units.every  # those that the end cuts
        found = found / sizes[:, None]
    return found.float().double()


@dataclass(slots=True)
class KeySummaries:
    """Summaries of keys that grow as tokens arrive: each call of `select` adds the keys that are new.

    One for each layer of a model, and each sequence that it writes. The keys before are those of the calls before.
    """

    totals: dict[ir.Node, Tensor] = field(default_factory=dict)
    lengths: dict[ir.Node, int] = field(default_factory=dict)
    last: dict[ir.Node, Tensor] = field(default_factory=dict)  # keys of the calls before

    def _is_other(self, node: ir.Node, k: Tensor) -> bool:
        """Whether the last key of the call before is another one here."""
        before = self.last.get(node)
        if before is None or not before.shape[2]:
            return False
        at = self.lengths[node]
        here = k[:, :, at - 1 : at]
        return not bool(((here == before) | here.isnan() | before.isnan()).all())

    def pooled(self, node: ir.selection.Pooled, k: Tensor) -> Tensor:
        """The summaries of all units, of which those of the keys before are known.

        Raises:
            AttnDslError: A509, there are fewer keys than before, or others.
        """
        units, length = node.units, k.shape[2]
        assert isinstance(units, Units), "tiles are no part of a cache"
        known, before = self.totals.get(node), self.lengths.get(node, 0)
        shape = k.shape[:2], k.shape[3]
        if known is not None and (
            (known.shape[:2], known.shape[3]) != shape
            or before > length
            or known.device != k.device
            or self._is_other(node, k)
        ):
            title = "summaries are those of a cache with more keys, or with other ones"
            raise AttnDslError(Diagnostic("A509", title, helps=("begin with new ones",)))
        many = -(-length // units.every)
        if known is None or known.shape[2] < many:
            room = many if known is None else 2 * many
            wider = k.new_zeros((*shape[0], room, shape[1])).double()
            if known is not None:
                wider[:, :, : known.shape[2]] = known
            known = self.totals[node] = wider
        fresh = normal(k.float().double()) if node.normal else k
        _add(known, fresh, units, node.how, before)
        self.lengths[node] = length
        if k.device.type == "cpu":  # elsewhere a look at them is a copy to the host
            self.last[node] = k[:, :, length - 1 : length].clone()
        return _finished(known, units, node.how, length)


def normal(x: Tensor) -> Tensor:
    """Vectors divided by their lengths, float32 values as float64; zeros where that is 0."""
    length = x.square().sum(-1, keepdim=True).sqrt()
    return (x / where(length == 0, 1.0, length)).float().double()
