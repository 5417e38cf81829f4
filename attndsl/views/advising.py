"""Values of a parameter, near the one that was chosen, that fit the tiles better.

A window, a stride or a block that is no multiple of the tile leaves pairs of each tile unused. Nothing is
assumed of what a parameter means: near values are tried, their tiles counted, and those kept whose tiles
are all FULL, or that need clearly fewer computed pairs for each pair they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

NEAR = 8  # a value is near another that it differs from by an eighth at most, or by 1
CLEARLY = 0.9  # of the computed pairs for each pair of the pattern
TRIALS = 12  # values tried, of all parameters together
SUGGESTIONS = 3


@dataclass(frozen=True, slots=True)
class Fit:
    """How a pattern fits its tiles: tiles, and pairs computed and held."""

    full: int
    partial: int
    computed: int
    pairs: int

    @property
    def dearness(self) -> float:
        """Computed pairs for each pair of the pattern; 1 at best."""
        return self.computed / self.pairs if self.pairs else float("inf")

    @property
    def is_whole(self) -> bool:
        """Every tile that is visited is FULL."""
        return self.full > 0 and self.partial == 0


@dataclass(frozen=True, slots=True)
class Suggestion:
    """Another value for one parameter, and what both come to."""

    parameter: str
    value: int
    better: int
    before: Fit
    after: Fit

    def __str__(self) -> str:
        less = 1 - self.after.dearness / self.before.dearness
        live = self.after.full + self.after.partial
        what = f"all {live:,} tiles are full" if self.after.is_whole else f"{live:,} tiles"
        gain = f"{less:.0%} less to compute for each pair" if less > 0 else "no pair is masked"
        return (
            f"with {self.parameter}={self.better} instead of {self.value}, "
            f"{self.after.pairs:,} pairs in place of {self.before.pairs:,}: {what}, {gain}"
        )


Count: TypeAlias = Callable[[str, int], Fit | None]


def near(value: int, tile: int) -> Iterator[int]:
    """Values to try, the roundest first: powers of two, multiples of the tile and its parts, one to either side."""
    reach = max(1, abs(value) // NEAR)
    tried = {value}
    steps = (1 << abs(value).bit_length(), 1 << max(0, abs(value).bit_length() - 1))
    units = (tile, tile // 2, tile // 4, tile // 8, 8, 4, 2, 1)
    for unit in (*steps, *(unit for unit in units if unit)):
        for found in (value // unit * unit, -(-value // unit) * unit, value - unit, value + unit):
            if found not in tried and found >= 0 and abs(found - value) <= reach:
                tried.add(found)
                yield found


def suggest(
    parameters: Mapping[str, int], before: Fit, count: Count, tile: int
) -> tuple[Suggestion, ...]:
    """At most one value for each parameter: the first whose tiles are all FULL, or else the cheapest.

    Args:
        parameters: The values now.
        before: How the pattern fits its tiles with them.
        count: How it fits with another value of one; None where the pattern forbids it.
        tile: Tokens of a tile.
    """
    if before.is_whole or before.pairs == 0:
        return ()
    found = []
    share = max(1, TRIALS // max(1, len(parameters)))
    for name, value in parameters.items():
        best: Suggestion | None = None
        for other in [*near(value, tile)][:share]:
            after = count(name, other)
            if after is None or after.pairs == 0:
                continue
            item = Suggestion(name, value, other, before, after)
            if after.is_whole:
                best = item
                break
            if after.dearness <= CLEARLY * (best.after if best else before).dearness:
                best = item
        found += [best] if best else []
    return tuple(sorted(found, key=lambda each: each.after.dearness)[:SUGGESTIONS])
