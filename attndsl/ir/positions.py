"""Where the tokens of one call stand: the position of each row of q and of k, and the lengths that follow."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

IntArray: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
BoolArray: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]


class NotOpen(Exception):
    """Why a mask cannot be scheduled before its inputs are read."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of q, or those of k and v, of one call.

    Row i of batch element b stands at ``start[b] + i``, or at ``at[b, i]`` where positions are given outright. It holds
    a token if it is one of the first ``stop[b]`` and its position is not negative.

    Args:
        count: How many rows there are in memory.
        start: The position of row 0, int64 [batch or 1].
        stop: How many rows may hold a token, int64 [batch or 1].
        at: Positions outright, int64 [batch or 1, count]; -1 for no token.
        before: Whether rows at negative positions hold tokens, too: queries that no one asks where they stand.
        unknown: Which of "start", "stop" and "at" have their shape alone, and contents that are not known yet.
        xp: The functions of the arrays: those of NumPy, or of torch.
    """

    count: int
    start: IntArray
    stop: IntArray
    at: IntArray | None = None
    before: bool = False
    unknown: frozenset[str] = frozenset()
    xp: Any = field(default=np, repr=False)

    def positions(self) -> IntArray:
        """The position of each row, int64 [batch or 1, count]; of no meaning where there is no token."""
        if self.at is not None:
            return self.at
        found: IntArray = self.start[:, None] + self.xp.arange(0, self.count)
        return found

    def exist(self) -> BoolArray:
        """Whether each row holds a token, bool [batch or 1, count]."""
        inside: BoolArray = self.xp.arange(0, self.count) < self.stop[:, None]
        return inside if self.before else inside & (self.positions() >= 0)

    def first(self) -> IntArray:
        """The least position of a token, int64 [batch or 1]; 2**62 where there is none."""
        xp, none = self.xp, 1 << 62
        found: IntArray
        if self.count == 0:
            found = xp.where(self.stop == 0, none, none)
        elif self.at is not None:
            found = xp.amin(xp.where(self.exist(), self.at, none), axis=1)
        else:
            least = self.start if self.before else xp.clip(self.start, 0, None)
            found = xp.where(self.start + self.stop > least, least, none)
        return found

    def end(self) -> IntArray:
        """One past the last position of a token, int64 [batch or 1]; 0 where there is none."""
        xp = self.xp
        found: IntArray
        if self.count == 0:
            found = self.stop * 0
        elif self.at is not None:
            found = xp.amax(xp.where(self.exist(), self.at + 1, 0), axis=1)
        else:
            found = xp.clip(xp.where(self.stop > 0, self.start + self.stop, 0), 0, None)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Positions:
    """Where both sides of a call stand. ``sizes`` are those of each batch element, or one for all."""

    q: Rows
    k: Rows
    sizes: tuple[Mapping[str, int], ...]

    @property
    def is_open(self) -> bool:
        """Whether something of it is not known yet. The lengths then are not, either: ``sizes`` are any."""
        return bool(self.q.unknown | self.k.unknown)

    def key(self) -> bytes:
        """A digest of all of it."""
        hasher = hashlib.blake2b(digest_size=16)
        for rows in (self.q, self.k):
            arrays = [rows.start, rows.stop, *([] if rows.at is None else [rows.at])]
            about = rows.count, rows.before, sorted(rows.unknown), [x.shape for x in arrays]
            hasher.update(repr(about).encode())
            for array in arrays:
                hasher.update(np.ascontiguousarray(array).data)
        hasher.update(repr([sorted(sizes.items()) for sizes in self.sizes]).encode())
        return hasher.digest()


def of_element(array: Any, batch: int) -> Any:
    """The entry of one batch element, of an array with one for each or one for all."""
    return array[batch if len(array) > 1 else 0]
