"""Search for equal rows of numbers by hashes that are then compared, so that a collision costs time alone."""

from __future__ import annotations

import functools

import numpy as np

from attndsl.schedule.model import IntArray, ShortArray

AT_ONCE = 1 << 15  # numbers compared at a time, so that they stay in a core's cache


def row_classes(
    rows: IntArray | ShortArray, offset: IntArray | None = None
) -> tuple[IntArray, IntArray]:
    """Returns one index per distinct row less its offset, [distinct], and the class of each row, [n]."""
    hashes = _hashes(rows)
    if offset is not None:
        hashes -= offset * _weights(rows.shape[1]).sum()
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    if not _alike(rows, first[inverse.reshape(-1)], offset):
        rows = rows if offset is None else rows - offset[:, None]
        _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)


def _alike(rows: IntArray | ShortArray, like: IntArray, offset: IntArray | None) -> bool:
    """Whether each row, less its offset, equals the one named."""
    others = np.flatnonzero(like != np.arange(len(rows)))
    at_once = max(1, AT_ONCE // max(1, rows.shape[1]))
    for start in range(0, len(others), at_once):
        some = others[start : start + at_once]
        mine, theirs = rows[some], rows[like[some]]
        if offset is not None:
            mine -= (offset[some] - offset[like[some]])[:, None]
        if not np.array_equal(mine, theirs):
            return False
    return True


class Distinct:
    """Distinct rows, numbered in the order in which they came."""

    def __init__(self, most: int, width: int) -> None:
        self._rows = np.empty((most, width), dtype=np.int32)  # memory is taken as it is filled
        self._numbers: dict[int | bytes, int] = {}
        self.is_hashed = True  # until two have the same

    @property
    def rows(self) -> ShortArray:
        """The distinct rows by number, [distinct, width]; spare memory is released."""
        used = self._rows[: len(self._numbers)]
        return used if 2 * len(used) > len(self._rows) else used.copy()

    def add(self, rows: ShortArray) -> IntArray:
        """Returns the numbers of these rows, adding those that are new."""
        known = len(self._numbers)
        names = _hashes(rows).tolist() if self.is_hashed else [row.tobytes() for row in rows]
        found = [self._numbers.setdefault(name, len(self._numbers)) for name in names]
        numbers = np.array(found, dtype=np.int64)
        fresh = numbers >= known
        self._rows[numbers[fresh]] = rows[fresh]
        if np.array_equal(self._rows[numbers], rows):
            return numbers
        self.is_hashed = False
        self._numbers = {row.tobytes(): n for n, row in enumerate(self._rows[:known])}
        return self.add(rows)


def _hashes(rows: IntArray | ShortArray) -> IntArray:
    return np.asarray(np.einsum("nc,c->n", rows, _weights(rows.shape[1])))  # no array of products


@functools.lru_cache(maxsize=64)
def _weights(count: int) -> IntArray:
    """Odd numbers without a pattern, by the mixer of SplitMix64 (Steele, Lea and Flood 2014).

    numpy.random would do, but that loading it takes longer than the first schedule of a process.
    """
    made = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        made = (made ^ (made >> np.uint64(shift))) * np.uint64(factor)
    return made.view(np.int64) | 1
