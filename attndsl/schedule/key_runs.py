"""Sets of keys as runs, or as positions where runs are many: joined, cut, listed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np

from attndsl.schedule.model import IntArray

Runs: TypeAlias = tuple[tuple[int, int], ...]  # [start, stop), ascending and apart


Keys: TypeAlias = Runs | IntArray  # an array: ascending positions


MOST_RUNS: Final = 8  # slices that are joined; more of them are gathered key by key


FARTHEST: Final = 1 << 62  # from position 0; no token is


def key_union(sets: Sequence[Keys]) -> Keys:
    """All keys that are in one of the sets."""
    runs: list[tuple[int, int]] = []
    others = []
    for keys in sets:
        if isinstance(keys, tuple):
            runs += keys
        else:
            others.append(keys)
    if len(runs) > 1:
        runs.sort()
    joined = as_runs(runs)
    if not others:
        return joined
    if isinstance(joined, np.ndarray):
        return functools.reduce(np.union1d, (joined, *others))
    some = others[0] if len(others) == 1 else functools.reduce(np.union1d, others)
    parts, low = [], 0
    for start, stop in joined:  # what lies between runs is kept
        parts += [some[low : some.searchsorted(start)], np.arange(start, stop)]
        low = int(some.searchsorted(stop))
    return np.concatenate([*parts, some[low:]]) if joined else some


def key_positions(keys: Keys) -> IntArray:
    """The keys one by one, int64, ascending."""
    if isinstance(keys, np.ndarray):
        return keys
    parts = [np.arange(start, stop, dtype=np.int64) for start, stop in keys]
    return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.int64), *parts])


def size(keys: Keys) -> int:
    """How many keys."""
    if isinstance(keys, np.ndarray):
        return len(keys)
    return sum(stop - start for start, stop in keys)


def as_runs(ordered: Sequence[tuple[int, int]]) -> Keys:
    """Runs in order of their starts, joined where they meet; positions where they are many."""
    joined: list[tuple[int, int]] = []
    for start, stop in ordered:
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(stop, joined[-1][1])
        elif start < stop:
            joined.append((start, stop))
    return tuple(joined) if len(joined) <= MOST_RUNS else key_positions(tuple(joined))


def runs_of(found: IntArray) -> Keys:
    """Ascending positions, as runs where these are few."""
    if not len(found):
        return ()
    cuts = np.flatnonzero(found[1:] != found[:-1] + 1)
    if len(cuts) >= MOST_RUNS:
        return found
    starts, stops = found[[0, *(cuts + 1)]], found[[*cuts, -1]] + 1
    return tuple(zip(starts.tolist(), stops.tolist(), strict=True))


def between(keys: Keys, low: int | None, high: int | None) -> Keys:
    """The keys from ``low`` to ``high``, both included; None: without that bound."""
    if not isinstance(keys, tuple):
        low = -FARTHEST if low is None else max(low, -FARTHEST)
        high = FARTHEST if high is None else min(high, FARTHEST)
        return keys[keys.searchsorted(low) : keys.searchsorted(high, side="right")]
    cut = []
    for start, stop in keys:
        if low is not None and low > start:
            start = low
        if high is not None and high < stop:
            stop = high + 1
        if start < stop:
            cut.append((start, stop))
    return tuple(cut)
