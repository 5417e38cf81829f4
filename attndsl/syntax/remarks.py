"""The comments of a declaration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Remarks:
    """The comments of a declaration that are not its documentation.

    `above`: lines that start with `#`, or `""` for a blank line between them or below them;
    comments from inside the declaration come last. `beside`: the one after it on its last line.
    """

    above: tuple[str, ...] = ()
    beside: str = ""
