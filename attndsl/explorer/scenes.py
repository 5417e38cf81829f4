"""A pattern in a call, as a question describes it: compiled once, completed where nothing was said."""

from __future__ import annotations

import functools
from typing import Any, Final

from attndsl import ir, problems
from attndsl.compiler import Program
from attndsl.schedule import Schedule
from attndsl.settings import Asked, Setting, Subject, setting, with_values
from attndsl.source import AttnDslError, Diagnostic
from attndsl.sources import describe

from .questions import Question

_SIDES: Final = {0: 64, 1: 64, 2: 16, 3: 8}  # lengths, and sides of grids, that are shown unasked
TILE: Final = 128  # tokens a side of the tiles that pairs are read from


class Scene:
    """A pattern in a call, and what is looked at of it.

    Raises:
        AttnDslError: whatever is wrong with the text, the values, or the call.
    """

    def __init__(self, of: Question) -> None:
        self.of = of
        self.about, self.program = _compiled(of.text, of.entry, _frozen(of), of.align, of.layer)
        lengths = of.q_len, of.k_len, of.heads, of.batch
        asked = Asked(*lengths, dict(of.extents), {}, of.seed, of.layer)
        self.setting: Setting = setting(self.about.mask, asked, _SIDES)
        self.call = self.setting.call(self.program)
        if of.head >= self.call.heads or of.element >= self.call.batch:
            counts = f"{self.call.heads} heads and {self.call.batch} batch elements"
            raise AttnDslError(Diagnostic("A402", f"the call has {counts}: choose among them"))
        self.place = of.element, of.head

    def schedule(self) -> Schedule:
        """The schedule in natural order, in tiles that pairs can be read from."""
        return self.program.schedule(self.call, (TILE, TILE))

    @property
    def rows(self) -> range:
        """The queries in the window."""
        return _within(self.of.rows, self.call.q_len)

    @property
    def columns(self) -> range:
        """The keys in the window."""
        return _within(self.of.columns, self.call.k_len)

    def told(self) -> dict[str, Any]:
        """The call, with all that was chosen, as plain data."""
        mask, made = self.about.mask, self.setting
        return {
            "name": self.about.signature.name,
            "attention": self.about.attention is not None,
            "meaning": ir.show(mask.root),
            "values": dict(self.about.values),
            "chosen": sorted(self.about.chosen),
            "q_len": made.q_len,
            "k_len": made.k_len,
            "heads": made.heads,
            "batch": made.batch,
            "extents": {name: n for name, n in self.call.sizes.items() if "." in name},
            "axes": _open_axes(mask),
            "inputs": dict(made.made_up),
            "by_head": bool(mask.root.deps & ir.Deps.HEAD),
            "by_batch": bool(mask.root.deps & ir.Deps.BATCH),
            "by_layer": _reads_layer(mask),
            "rectangular": mask.is_rectangular,
            "aligned": str(mask.align),
        }


def _within(asked: tuple[int, int] | None, length: int) -> range:
    """The tokens that were asked for, as far as there are such; one at the least."""
    first, stop = asked or (0, length)
    first = max(0, min(first, length - 1))
    return range(first, max(first + 1, min(stop, length)))


def _frozen(of: Question) -> tuple[tuple[str, Any], ...]:
    """The values of a question, such that they can be looked up."""
    return tuple(
        (name, tuple(x) if isinstance(x, list) else x) for name, x in sorted(of.values.items())
    )


# Two patterns side by side, and the values that a slider was just at.
@functools.lru_cache(maxsize=16)
def _compiled(
    text: str, entry: str | None, values: tuple[tuple[str, Any], ...], align: str | None, layer: int
) -> tuple[Subject, Program]:
    source = problems.as_text(text)
    given = {name: list(x) if isinstance(x, tuple) else x for name, x in values}
    about = with_values(source, describe(source, entry), given, entry, align, layer)
    return about, Program(about.mask, layer)


def _open_axes(mask: ir.Mask) -> list[str]:
    """Axes whose extents a call chooses, as "segment.axis", queries' first."""
    segments = (*mask.queries.segments, *mask.keys.segments)
    named = (f"{s.name}.{axis.name}" for s in segments for axis in s.axes if axis.extent is None)
    return list(dict.fromkeys(named))


def _reads_layer(mask: ir.Mask) -> bool:
    return any(
        isinstance(node, ir.Var) and node.name == "layer" for node in ir.postorder(mask.root)
    )
