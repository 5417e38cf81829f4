"""Checks of what a program is asked with: switches, heads, layers, tiles, places."""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from typing import Any

from attndsl import passes
from attndsl.positions import MAX_POSITION
from attndsl.source import AttnDslError, Diagnostic, brief, suggest

MOST = 1 << 20  # heads, batch elements, or layers


TALLEST = 4096  # a tile


PLACES = (-2 * MAX_POSITION, 2 * MAX_POSITION)  # between which positions and lengths lie


SIMPLIFICATIONS = (*passes.OPTIONAL, "merge_heads", "whole")


def read_switches(names: object) -> tuple[str, ...]:
    """Names of simplifications to leave out, each once and in order.

    Raises:
        AttnDslError: A412, there is no such simplification, or it cannot be left out.
    """
    if not isinstance(names, Collection):
        title = f"`without` names simplifications, and is not {brief(names)}"
        said = 'the value of a parameter of that name: values={"without": ...}'
        raise AttnDslError(Diagnostic("A412", title, helps=(said,)))
    wanted: set[Any] = {names} if isinstance(names, str) else set(names)
    for name in sorted(wanted - set(SIMPLIFICATIONS), key=str):
        needed = name in passes.PIPELINE
        title = f"the pass {name!r} is needed" if needed else f"there is no simplification {name!r}"
        near = suggest(str(name), SIMPLIFICATIONS)
        helps = (f"did you mean {near!r}?",) if near and not needed else ()
        notes = (f"what can be left out: {', '.join(SIMPLIFICATIONS)}",)
        raise AttnDslError(Diagnostic("A412", title, notes=notes, helps=helps))
    return tuple(name for name in SIMPLIFICATIONS if name in wanted)


def read_heads(total: int | None, start: int, count: int | None) -> tuple[int, int]:
    """How many heads are held, from ``start`` on, and how many the model has. ``count`` is by default the rest.

    Raises:
        AttnDslError: A402, it is not said how many the model has, or a number is none.
    """
    if total is None:
        title = "`head_start` and `head_count` choose among the heads of the model: say how many, by `heads`"
        raise AttnDslError(Diagnostic("A402", title))
    check_count("head_start", start)
    check_count("heads", total)
    held = max(0, total - start) if count is None else count
    check_held(held, start, total)
    return held, total


def check_open(given: Mapping[str, Any]) -> None:
    """For what is said of all lengths, nothing of one call is given."""
    if given:
        title = f"{min(given)!r} belongs to calls of one length: say which, by q_len"
        raise AttnDslError(Diagnostic("A402", title))


def read_layer(layer: Any) -> int:
    """The value of ``layer``.

    Raises:
        AttnDslError: A402, it is no integer from 0 on.
    """
    check_count("layer", layer)
    return operator.index(layer)


def check_held(count: int, start: int, total: int) -> None:
    """Whether there are so many heads from there on."""
    check_count("head_start", start)
    check_count("heads", total)
    if start + count > total:
        title = f"{count} heads from head {start} on are more than the {total} of the model"
        raise AttnDslError(Diagnostic("A402", title))


def check_count(name: str, count: Any) -> None:
    if isinstance(count, bool) or not hasattr(count, "__index__") or not 0 <= count <= MOST:
        title = f"{name} is an integer from 0 to {MOST:,}, not {brief(count)}"
        raise AttnDslError(Diagnostic("A402", title))


def check_tile(tile: object) -> None:
    match tile:
        case (int(rows), int(columns)) if min(rows, columns) >= 1 and max(rows, columns) <= TALLEST:
            return
    title = f"a tile is a pair of integers from 1 to {TALLEST}, (queries, keys), not {brief(tile)}"
    raise AttnDslError(Diagnostic("A402", title))
