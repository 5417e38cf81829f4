"""Heads that are computed together."""

from __future__ import annotations

from collections.abc import Iterator


def alike(plan_of: list[int], group: int) -> Iterator[tuple[int, slice, slice]]:
    """(plan, query heads, key heads): neighbours of one plan, or single heads that share a key head."""
    low = 0
    while low < len(plan_of):
        high = low + 1
        while high < len(plan_of) and plan_of[high] == plan_of[low]:
            high += 1
        step = high - low if low % group == high % group == 0 else 1
        for head in range(low, high, step):
            theirs = slice(head // group, (head + step - 1) // group + 1)
            yield plan_of[low], slice(head, head + step), theirs
        low = high
