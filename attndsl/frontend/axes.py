"""Axes and segments in the check of one definition: which are meant, and whether they are there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from attndsl import ir
from attndsl import syntax as syn
from attndsl.source import Diagnostic, Span

from .errors import did_you_mean, listed, make_error
from .scope import Definition, Facts, Need, SpaceItem
from .spaces import Pair, Place, places_of

Role: TypeAlias = Literal["body", "default", "where"]


class Axes:
    """The part of a check that knows the spaces of its definition."""

    def __init__(self, definition: Definition, facts: Facts, diagnostics: list[Diagnostic]) -> None:
        """Learn ``facts`` about the definition; complain to ``faults``."""
        self.definition = definition
        self.facts = facts
        self.diagnostics = diagnostics
        self.unit = definition.unit
        self.pair = definition.pair
        self.role: Role = "body"

    def place(self, side: ir.Side | None, axis: str, segment: str | None, span: Span) -> None:
        found = self.pair.places(side, axis, segment)
        if len(found) == 1:
            self.need(Need(side, found[0], span))
        elif found:
            prefix = f"{side}." if side else ""
            names = listed(f"{prefix}{place.full}" for place in found)
            title = f"axis `{axis}` is in several segments"
            self.add("A206", title, span, helps=(f"write one of {names}",))
        else:
            self._no_axis(side, f"{segment}.{axis}" if segment else axis, span)

    def _no_axis(self, side: ir.Side | None, wanted: str, span: Span) -> None:
        spaces = self.pair.of(side)
        if not any(space.segments for space in spaces):
            axis = wanted.rpartition(".")[2]
            if self.definition.is_pattern:
                grids = self.unit.declared("grid", "space")
                with_it = [n for n in grids if self._space_has(n, axis)]
                where = (
                    f"`over {with_it[0]}`" if with_it else f"`over` a grid with an axis `{axis}`"
                )
                advice = f"say where the pattern lives: {where}"
            else:
                advice = "pass coordinates to a helper as arguments: `near(q.y, k.y)`"
            if self.definition.is_attention:
                advice = "say where it lives, and which pairs by a branch: `over image = (over q.y == k.y: score s)`"
            what = "has no `over`, so positions have no axes"
            title = f"there is no axis `{wanted}`: `{self.definition.name}` {what}"
            self.add("A206", title, span, helps=(advice,))
            return
        names = sorted({place.full for s in spaces for place in places_of(s)})
        near = did_you_mean(wanted, self.pair.names(side))
        if (segment := self.pair.segment(side, wanted)) is not None:
            axes = listed(f"{side or ''}.{axis.name}".lstrip(".") for axis in segment.axes)
            near = (
                f"it is a segment: ask for its axes, {axes}, or whether `{side or 'q'} in {wanted}`"
            )
        where = " and ".join(f"`{space.name}`" for space in spaces)
        title = f"there is no axis `{wanted}` in {where}"
        self.add("A206", title, span, notes=(f"its axes are {listed(names)}",), helps=(near,))

    def _space_has(self, name: str, axis: str) -> bool:
        item = self.unit.find(name)
        return isinstance(item, SpaceItem) and bool(Pair(item.space, item.space).places(None, axis))

    def need(self, need: Need) -> None:
        self.facts.needs.setdefault((need.side, need.what), need)

    def check_needs(self, definition: Definition, facts: Facts, call: syn.Call) -> None:
        missing: list[Need] = []
        for need in facts.needs.values():
            here = self._here(need, call.span)
            if here is None:
                missing.append(need)
            else:
                self.need(here)
        if missing:
            also = [(need.span, "it is used here") for need in missing[:1]]
            names = listed(dict.fromkeys(each.name for each in missing))
            over = self.pair.of(None)[0].name
            lack = (
                f"`{over}` lacks" if over else f"`{self.definition.name}` lacks: it has no `over`"
            )
            title = f"`{definition.name}` needs {names}, which {lack}"
            self.add("A210", title, call.span, also=also)

    def _here(self, need: Need, span: Span) -> Need | None:
        """Translates another pattern's need to the space of this one."""
        what: Place | ir.Segment | None
        if isinstance(need.what, Place):
            what = self.pair.translate(need.side, need.what)
        else:
            what = self.pair.translate_segment(need.side, need.what)
        return Need(need.side, what, span) if what else None

    def add(
        self,
        code: str,
        title: str,
        span: Span,
        label: str = "",
        *,
        also: Iterable[tuple[Span, str]] = (),
        notes: Iterable[str] = (),
        helps: Iterable[str | None] = (),
    ) -> None:
        self.diagnostics.append(
            make_error(code, title, span, label, also=also, notes=notes, helps=helps)
        )
