"""The check of tiles: that there is such a grid, and each of its axes has a size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attndsl import ir
from attndsl import syntax as syn

from .errors import did_you_mean, listed

if TYPE_CHECKING:
    from .real_check import Numbers


def check_tiles(checker: Numbers, tiles: syn.Tiles, space: ir.Space | None) -> None:
    """Complain of tiles of what is no grid, and of axes that lack a size or have two."""
    if space is None:
        known = checker.unit.declared("grid")
        advice = did_you_mean(tiles.grid, known), f"declare `grid {tiles.grid}(y, x)`"
        checker.add("A201", f"there is no grid `{tiles.grid}`", tiles.grid_span, helps=advice)
        return
    axes = [axis.name for axis in space.segments[0].axes]
    seen: set[str] = set()
    for side in tiles.sizes:
        if side.axis not in axes or side.axis in seen:
            what = (
                "has no axis"
                if side.axis not in axes
                else "has one size for each axis, and two for"
            )
            near = did_you_mean(side.axis, axes)
            notes = (f"its axes are {listed(axes)}",)
            title = f"a tile of `{tiles.grid}` {what} `{side.axis}`"
            checker.add("A219", title, side.span, notes=notes, helps=(near,))
        seen.add(side.axis)
    if lacking := [axis for axis in axes if axis not in seen]:
        title = (
            f"a tile of `{tiles.grid}` has a size along each axis, and none along {listed(lacking)}"
        )
        checker.add("A219", title, tiles.span, helps=(f"for example `{lacking[0]} = 1`",))
