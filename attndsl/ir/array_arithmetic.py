"""Operations on arrays, numbers and truth values as the language defines them."""

from __future__ import annotations

from types import ModuleType
from typing import Any, TypeAlias

import numpy as np


def read(
    xp: ModuleType, table: Value, ambient: list[Value], index: list[Value], truth: bool
) -> Value:
    """``table[ambient..., index...]``; 0 (false) where an index is out of bounds."""
    shape = table.shape[len(ambient) :]
    if 0 in table.shape:
        return False if truth else 0
    inside: Value = True
    for item, size in zip(index, shape, strict=True):
        inside = inside & (item >= 0) & (item < size)
    if xp is np and np.size(inside) and np.all(inside):  # as most are
        found = table[(*ambient, *map(_as_index, index))]
        return found != 0 if truth else found
    clipped = [
        _as_index(choose(xp, item < 0, 0, choose(xp, item >= size, size - 1, item)))
        for item, size in zip(index, shape, strict=True)
    ]
    found = table[(*ambient, *clipped)]
    if truth:
        return (found != 0) & inside
    return choose(xp, inside, found, 0)


def _as_index(value: Value) -> Value:
    """Within a table, Python's integers fit into 64 bits."""
    return value.astype(np.int64) if is_unlimited(value) else value


def is_unlimited(value: Value) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "O"


def choose(xp: ModuleType, cond: Value, yes: Value, no: Value) -> Value:
    if isinstance(cond, bool | np.bool_):
        return yes if cond else no
    return xp.where(cond, yes, no)


def negated(value: Value) -> Value:
    return (not value) if isinstance(value, bool) else ~value


def guarded(xp: ModuleType, operation: Any, left: Value, right: Value) -> Value:
    """Floor division or modulo, 0 where the divisor is not positive."""
    if isinstance(right, NUMBER):
        return operation(left, right) if right > 0 else left * 0
    positive = right > 0
    return choose(xp, positive, operation(left, choose(xp, positive, right, 1)), 0)


def ilog2(xp: ModuleType, value: Value) -> Value:
    """Bit length minus one by bisection: exact on all 63 bits, unlike a float logarithm."""
    if isinstance(value, int) or is_unlimited(value):
        return np.frompyfunc(lambda x: x.bit_length() - 1 if x >= 1 else -1, 1, 1)(value)
    rest = choose(xp, value < 1, 1, value)
    result = rest * 0
    for shift in (32, 16, 8, 4, 2, 1):
        large = rest >= (1 << shift)
        result = result + choose(xp, large, shift, 0)
        rest = choose(xp, large, rest >> shift, rest)
    return choose(xp, value < 1, -1, result)


def pow2(xp: ModuleType, value: Value) -> Value:
    valid = (value >= 0) & (value <= 62)
    return choose(xp, valid, 1 << choose(xp, valid, value, 0), 0)


def numpy_of(value: Value) -> Any:
    return np.asarray(value.cpu() if hasattr(value, "cpu") else value)


NUMBER = (int, np.integer)


Value: TypeAlias = Any  # int, bool, or an array of them in the namespace ``xp``
