"""The abstract domain: strided intervals {low, low + step, ..., high}, many at once.

Bounds are arrays (one entry per box), NumPy's or torch's tensors: those of run-time inputs stay where they are. With
dtype ``object`` they hold Python integers, so that facts about all lengths can be proved with bounds no machine word
overflows at. ``step`` None means 1. Every operation over-approximates: the result contains each value the operation
can produce.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Range:
    """Integers between ``low`` and ``high`` inclusive that are congruent to ``low`` modulo ``step``."""

    low: Array
    high: Array
    step: Array | None = None

    @staticmethod
    def point(value: Array) -> Range:
        """Exactly one value."""
        return Range(value, value, value * 0)

    @staticmethod
    def between(low: int, high: int) -> Range:
        """One range of integers of any size, ends included."""
        return Range(np.array([low], dtype=object), np.array([high], dtype=object))

    @property
    def stride(self) -> Array:
        """The step as an array."""
        return self.low * 0 + 1 if self.step is None else self.step


@dataclass(frozen=True, slots=True, eq=False)
class Truths:
    """The truth values that are possible on each box."""

    may_hold: Array
    may_fail: Array


def namespace(array: Any) -> Any:
    """The functions of an array: those of NumPy, or those of torch, which this room does not import."""
    return np if isinstance(array, np.ndarray | np.generic | int) else sys.modules["torch"]


def _gcd(*steps: Array) -> Array:
    found: Array = functools.reduce(namespace(steps[0]).gcd, steps)
    return found


def _tracked(*items: Range) -> bool:
    return any(item.step is not None for item in items)


def add(left: Range, right: Range) -> Range:
    """Sum."""
    step = _gcd(left.stride, right.stride) if _tracked(left, right) else None
    return Range(left.low + right.low, left.high + right.high, step)


def shift(item: Range, constant: int) -> Range:
    """Sum with a constant."""
    if constant == 0:
        return item
    return Range(item.low + constant, item.high + constant, item.step)


def scale(item: Range, factor: int) -> Range:
    """Product with a constant."""
    if factor == 1:
        return item
    low, high = (item.low, item.high) if factor >= 0 else (item.high, item.low)
    step = item.step if factor == -1 else item.stride * abs(factor)
    return Range(low * factor, high * factor, step)


def mul(left: Range, right: Range) -> Range:
    """Product."""
    corners = [a * b for a in (left.low, left.high) for b in (right.low, right.high)]
    return Range(_least(*corners), _greatest(*corners))


def floordiv(left: Range, right: Range) -> Range:
    """Flooring quotient; 0 for divisors that are not positive."""
    small, large = at_least(right.low, 1), at_least(right.high, 1)
    corners = [a // b for a in (left.low, left.high) for b in (small, large)]
    low, high = _least(*corners), _greatest(*corners)
    risky = right.low <= 0
    low, high = (
        _where(risky & (low > 0), low * 0, low),
        _where(risky & (high < 0), high * 0, high),
    )
    if left.step is None:
        return Range(low, high)
    # {l, l+s, ...} // m has step s // m when m divides s
    exact = (small == large) & ~risky & (left.step % small == 0)
    return Range(low, high, _where(exact, left.step // small, (low != high) * 1))


def mod(left: Range, right: Range) -> Range:
    """Non-negative remainder; 0 for divisors that are not positive."""
    small, large = at_least(right.low, 1), at_least(right.high, 1)
    known = (small == large) & (right.low >= 1)
    same = known & (left.low // large == left.high // large)
    step = _where(known, _gcd(left.stride, large), left.low * 0 + 1)
    safe = at_least(step, 1)
    offset = _where(known, left.low % safe, left.low * 0)
    low = _where(same, left.low % large, offset)
    high = _where(same, left.high % large, large - safe + offset)
    single = step == 0  # a point: gcd(0, m) is m, so step 0 only for m == 0, excluded by max
    step = _where(same, left.stride, step)
    # a residue class that divides the modulus leaves one value
    one = known & ~same & (safe == large)
    return Range(low, _where(one, low, high), _where(one | single, step * 0, step))


def minimum(left: Range, right: Range) -> Range:
    """Lesser of two."""
    return Range(_least(left.low, right.low), _least(left.high, right.high))


def maximum(left: Range, right: Range) -> Range:
    """Greater of two."""
    return Range(_greatest(left.low, right.low), _greatest(left.high, right.high))


def absolute(item: Range) -> Range:
    """Absolute value."""
    ends = abs(item.low), abs(item.high)
    spans = (item.low <= 0) & (item.high >= 0)
    return Range(_where(spans, item.low * 0, _least(*ends)), _greatest(*ends))


def monotone(item: Range, function: Any) -> Range:
    """Image under a non-decreasing function."""
    return Range(function(item.low), function(item.high))


def choose(cond: Truths, yes: Range, no: Range) -> Range:
    """if cond then yes else no."""
    low = _least(yes.low, no.low)
    high = _greatest(yes.high, no.high)
    step = None
    if _tracked(yes, no):
        step = _gcd(yes.stride, no.stride, abs(yes.low - no.low))
    joined = Range(low, high, step)
    for truth, part in ((~cond.may_fail, yes), (~cond.may_hold, no)):
        step = None if joined.step is None else _where(truth, part.stride, joined.step)
        joined = Range(
            _where(truth, part.low, joined.low),
            _where(truth, part.high, joined.high),
            step,
        )
    return joined


def at_most(item: Range, bound: int) -> Truths:
    """item <= bound."""
    return Truths(item.low <= bound, item.high > bound)


def equals(item: Range, bound: int) -> Truths:
    """item == bound."""
    possible = (item.low <= bound) & (item.high >= bound)
    if item.step is not None:
        step = at_least(item.step, 1)
        possible = possible & ((bound - item.low) % step == 0)
    return Truths(possible, (item.low != item.high) | (item.low != bound))


def at_least(array: Array, bound: int) -> Array:
    """The array, and the bound where it is less."""
    found: Array = namespace(array).clip(array, bound, None)
    return found


def _where(cond: Array, yes: Array, no: Array) -> Array:
    found: Array = namespace(yes).where(cond, yes, no)
    return found


def _least(*items: Array) -> Array:
    found: Array = functools.reduce(namespace(items[0]).minimum, items)
    return found


def _greatest(*items: Array) -> Array:
    found: Array = functools.reduce(namespace(items[0]).maximum, items)
    return found
