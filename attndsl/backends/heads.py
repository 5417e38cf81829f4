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


def evenly_alike(plan_of: list[int], group: int) -> Iterator[tuple[int, slice, slice]]:
    """The same, but of heads with keys of their own those of one plan that are evenly spaced, neighbours or not."""
    heads_of: dict[int, list[int]] = {}
    for head, plan in enumerate(plan_of):
        heads_of.setdefault(plan, []).append(head)
    found = []
    for plan, heads in heads_of.items():
        step = heads[1] - heads[0] if len(heads) > 1 else 1
        some = range(heads[0], heads[-1] + 1, step)
        if group > 1 or len(some) != len(heads) or list(some) != heads:
            yield from alike(plan_of, group)
            return
        found.append((plan, slice(some.start, some.stop, step)))
    yield from ((plan, some, some) for plan, some in found)
