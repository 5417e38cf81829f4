"""The cost of an action in units that other processes do not change: calls of functions, and bytes held at once."""

from __future__ import annotations

import cProfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
A_SECOND = 5_000_000  # calls, roughly, on a machine that does nothing else


def calls_of(action: Callable[[], object]) -> int:
    """How many functions an action calls, Python's own and built-in ones."""
    profile = cProfile.Profile()
    profile.runcall(action)
    return _total(profile)


def within(calls: int, action: Callable[[], T]) -> T:
    """The result of an action, or its error, which comes with so many calls of functions at the most."""
    profile = cProfile.Profile()
    try:
        return profile.runcall(action)
    finally:
        assert _total(profile) <= calls, f"{_total(profile):,} calls"


def in_memory(most: int, action: Callable[[], T]) -> T:
    """The result of an action, or its error, for which the process grows by so many bytes; Linux alone can tell."""
    peaks = Path("/proc/self/clear_refs")
    if not peaks.exists():
        return action()
    peaks.write_text("5", encoding="ascii")  # from now on the peak is what is held now
    before = _peak()
    try:
        return action()
    finally:
        assert _peak() - before <= most, f"{(_peak() - before) >> 20} MB"


def _total(profile: cProfile.Profile) -> int:
    return sum(entry.callcount for entry in profile.getstats())


def _peak() -> int:
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        if line.startswith("VmHWM:")
    )
    return int(line.split()[1]) << 10
