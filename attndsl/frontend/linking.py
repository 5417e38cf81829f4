"""The loading of a file and of those it imports: what is declared in each, faults collected."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from attndsl import ir
from attndsl import syntax as syn
from attndsl.source import AttnDslError, Diagnostic, Span

from .errors import did_you_mean, make_error
from .scope import (
    Definition,
    Item,
    SpaceItem,
    TableItem,
    Unit,
    UnitsItem,
    reserved_fault,
    spaces_said,
)
from .spaces import Pair
from .units import spaces_of_tiles

Resolve: TypeAlias = Callable[[str, Span], syn.Module]


MOST_AXES = 64  # of a grid


DEEPEST_IMPORT = 50


class Linker:
    """Loads a module and what it imports; faults of the declarations are collected."""

    def __init__(self, resolve: Resolve | None, prelude: Unit | None) -> None:
        """``resolve`` brings the module an import names."""
        self.resolve = resolve
        self.prelude = prelude
        self.units: dict[str, Unit] = {}
        self.open: list[tuple[str, Span]] = []  # files being loaded, and the import that asked
        self.diagnostics: list[Diagnostic] = []

    def load(self, module: syn.Module) -> Unit:
        """The module's names. Each file is loaded once."""
        unit = Unit(module, self.prelude)
        self.units[unit.name] = unit
        # A segment speaks of a grid, and what is imported may bear the name of what is declared.
        for kind in (
            syn.Grid,
            syn.Import,
            (syn.Space, syn.Input, syn.Def, syn.Pattern, syn.Attention, syn.Units, syn.Choosing),
        ):
            for each in module.declarations:
                if isinstance(each, kind):
                    self.declare(unit, each)
        for definition in unit.definitions():
            self.resolve_names(definition)
        return unit

    # ------------------------------------------------------------------ declarations

    def declare(self, unit: Unit, declaration: syn.Declaration) -> None:
        """Give the name its meaning in the unit."""
        match declaration:
            case syn.Grid():
                self._add(unit, declaration, SpaceItem(self._grid(declaration), declaration))
            case syn.Space():
                item = SpaceItem(self._space(unit, declaration), declaration)
                self._add(unit, declaration, item)
            case syn.Input():
                self._add(unit, declaration, TableItem(self._table(declaration), declaration))
            case syn.Def() | syn.Select() | syn.Label() | syn.Rank():
                self._add(unit, declaration, Definition(declaration, unit))
            case syn.Units():
                self._add(unit, declaration, UnitsItem(declaration, unit))
            case syn.Pattern() | syn.Attention():
                # Its spaces may be declared further down: they are found when all names are known.
                self._add(unit, declaration, Definition(declaration, unit))
            case syn.Import():
                self._import(unit, declaration)

    def _add(
        self,
        unit: Unit,
        declaration: syn.Grid
        | syn.Space
        | syn.Input
        | syn.Def
        | syn.Pattern
        | syn.Attention
        | syn.Units
        | syn.Choosing,
        item: Item,
    ) -> None:
        name, span = declaration.name, declaration.name_span
        if (reserved := reserved_fault(name, span)) is not None:
            self.diagnostics.append(reserved)
        before = unit.own.get(name) or unit.imported.get(name)
        if before is not None:
            self.diagnostics.append(_twice(name, span, before))
        else:
            unit.own[name] = item

    def _grid(self, grid: syn.Grid) -> ir.Space:
        axes = self._axes(grid.axes)
        self._check_extents((axes,), grid.name_span)
        return ir.Space(grid.name, (ir.Segment(grid.name, axes),))

    def _axes(self, axes: tuple[syn.Axis, ...]) -> tuple[ir.Axis, ...]:
        seen: dict[str, Span] = {}
        for axis in axes:
            self._check_axis(axis)
            if axis.name in seen:
                also = ((seen[axis.name], "first here"),)
                title = f"axis `{axis.name}` is declared twice"
                self.diagnostics.append(
                    make_error("A203", title, axis.span, "again here", also=also)
                )
            seen.setdefault(axis.name, axis.span)
        return tuple(ir.Axis(axis.name, axis.extent) for axis in axes)

    def _check_axis(self, axis: syn.Axis) -> None:
        if axis.name in ir.DIM_WORDS:
            title = f"an axis cannot be named `{axis.name}`"
            note = "batch, head, pos, q and k name dims of inputs"
            self.diagnostics.append(make_error("A204", title, axis.name_span, notes=(note,)))
        if axis.extent == 0:
            self.diagnostics.append(
                make_error("A209", "an axis has at least one position", axis.span)
            )

    def _check_extents(self, segments: tuple[tuple[ir.Axis, ...], ...], span: Span) -> None:
        if (most := max(map(len, segments), default=0)) > MOST_AXES:
            title = f"a grid has at most {MOST_AXES} axes"
            self.diagnostics.append(make_error("A209", title, span, f"this one has {most:,}"))
        fixed = [math.prod(axis.extent or 1 for axis in axes) for axes in segments]
        if sum(fixed) > ir.LARGEST_SPACE:
            title = "a space has at most 2**40 positions"
            self.diagnostics.append(
                make_error("A209", title, span, f"this one has {sum(fixed):,} or more")
            )

    def _space(self, unit: Unit, declaration: syn.Space) -> ir.Space:
        segments: dict[str, ir.Segment] = {}
        for segment in declaration.segments:
            if segment.name in segments:
                title = f"segment `{segment.name}` is declared twice"
                self.diagnostics.append(make_error("A203", title, segment.span, "again here"))
            if (reserved := reserved_fault(segment.name, segment.name_span)) is not None:
                self.diagnostics.append(reserved)
            segments[segment.name] = ir.Segment(segment.name, self._segment_axes(unit, segment))
        made = tuple(segments.values())
        self._check_extents(tuple(each.axes for each in made), declaration.name_span)
        return ir.Space(declaration.name, made)

    def _segment_axes(self, unit: Unit, segment: syn.Segment) -> tuple[ir.Axis, ...]:
        if segment.axes:
            return self._axes(segment.axes)
        if segment.length is not None:
            if segment.length == 0:
                self.diagnostics.append(
                    make_error("A209", "a segment has at least one token", segment.span)
                )
            return (ir.Axis(segment.name, segment.length),)
        grid = unit.find(segment.name)
        if isinstance(grid, SpaceItem) and isinstance(grid.declaration, syn.Grid):
            return grid.space.segments[0].axes
        helps = (
            did_you_mean(segment.name, unit.declared("grid")),
            f"declare `grid {segment.name}(...)`, or write `{segment.name}(y, x)`",
            f"a segment of fixed length is `{segment.name}(77)`",
        )
        title = f"there is no grid `{segment.name}`"
        self.diagnostics.append(make_error("A201", title, segment.name_span, helps=helps))
        return (ir.Axis(segment.name),)

    def _table(self, declaration: syn.Input) -> ir.Table:
        dims = tuple(dim.value for dim in declaration.dims)
        order = {"batch": 0, "head": 1}
        ranks = [order.get(dim, 2) if isinstance(dim, str) else 2 for dim in dims]
        for dim, rank, before in zip(declaration.dims[1:], ranks[1:], ranks, strict=False):
            if rank < before or (rank == before and rank < 2):
                title = f"`{dim.value}` stands too late in the dims of `{declaration.name}`"
                note = "`batch`, then `head`, come before all others, each at most once"
                self.diagnostics.append(make_error("A209", title, dim.span, notes=(note,)))
        for dim in declaration.dims:
            if dim.value == 0:
                self.diagnostics.append(
                    make_error("A209", "a dim has at least one entry", dim.span)
                )
        if declaration.kind == "list" and (ranks[-1] < 2 or dims[-1] in ir.DIM_WORDS):
            title = f"the last dim of the list `{declaration.name}` must hold its slots"
            helps = (f"write `list[{', '.join(map(str, dims))}, 8]`, or a name instead of 8",)
            self.diagnostics.append(
                make_error("A209", title, declaration.dims[-1].span, helps=helps)
            )
        kind = _SORTS.get(declaration.kind, ir.Sort.INT)
        return ir.Table(declaration.name, kind, dims, declaration.kind == "list", declaration.span)

    def resolve_names(self, definition: Definition) -> None:
        """Find the spaces of a pattern, now that all names are known."""
        pattern = definition.declaration
        over = spaces_said(definition)
        if isinstance(pattern, syn.Select):
            definition.pair = spaces_of_tiles(definition, pattern)
        if isinstance(pattern, syn.Def | syn.Choosing) or over is None:
            return
        queries = self._space_named(definition.unit, over.queries, over.queries_span)
        keys = queries
        if over.keys is not None:
            keys = self._space_named(definition.unit, over.keys, over.keys_span)
        definition.pair = Pair(queries, keys)
        if not definition.pair.is_rectangular:
            return
        if pattern.align == "end":
            title = "positions in different spaces cannot be aligned at their ends"
            label = "queries and keys live in different spaces"
            also = ((over.span, label),)
            self.diagnostics.append(make_error("A212", title, pattern.align_span, also=also))
        for segment in queries.segments:
            other = keys.segment(segment.name)
            if other is not None and other != segment:
                title = (
                    f"segment `{segment.name}` has other axes in {over.queries} than in {over.keys}"
                )
                self.diagnostics.append(make_error("A209", title, over.span))

    def _space_named(self, unit: Unit, name: str, span: Span) -> ir.Space:
        item = unit.find(name)
        if isinstance(item, SpaceItem):
            return item.space
        helps = (
            did_you_mean(name, unit.declared("grid", "space")),
            f"declare `grid {name}(y, x)` or `space {name} = ...`",
        )
        self.diagnostics.append(
            make_error("A201", f"there is no space `{name}`", span, helps=helps)
        )
        return ir.FLAT

    # ------------------------------------------------------------------ other files

    def _import(self, unit: Unit, declaration: syn.Import) -> None:
        source = self._load_import(declaration)
        if source is None:
            return
        if not declaration.names:
            for name, item in source.own.items():
                self._bring(unit, name, item, declaration.span)
        for wanted in declaration.names:
            item_or_none = source.own.get(wanted.name)
            if item_or_none is None:
                title = f"`{declaration.path}` declares no `{wanted.name}`"
                helps = (did_you_mean(wanted.name, source.own),)
                self.diagnostics.append(make_error("A208", title, wanted.name_span, helps=helps))
            else:
                self._bring(unit, wanted.alias or wanted.name, item_or_none, wanted.span)

    def _bring(self, unit: Unit, name: str, item: Item, span: Span) -> None:
        if (reserved := reserved_fault(name, span)) is not None:
            self.diagnostics.append(reserved)
        before = unit.own.get(name) or unit.imported.get(name)
        if before is not None and before is not item:
            self.diagnostics.append(_twice(name, span, before))
        else:
            unit.imported[name] = item

    def _load_import(self, declaration: syn.Import) -> Unit | None:
        if self.resolve is None:
            title = f"cannot import `{declaration.path}`: this program is no file"
            self.diagnostics.append(make_error("A208", title, declaration.path_span))
            return None
        try:
            module = self.resolve(declaration.path, declaration.path_span)
        except AttnDslError as error:
            self.diagnostics.extend(error.diagnostics)
            return None
        name = module.span.source.name
        if self._is_open(name, declaration):
            return None
        if name in self.units:
            return self.units[name]
        self.open.append((name, declaration.path_span))
        try:
            return self.load(module)
        finally:
            self.open.pop()

    def _is_open(self, name: str, declaration: syn.Import) -> bool:
        """Whether the file is being loaded already, or too many are; both are reported."""
        main = next(iter(self.units))
        chain = [main, *(each for each, _ in self.open)]
        span = declaration.path_span
        if name in chain:
            turn = " imports ".join([*chain[chain.index(name) :], name])
            self.diagnostics.append(
                make_error("A208", "files import each other", span, notes=(turn,))
            )
            return True
        if len(chain) > DEEPEST_IMPORT:
            title = f"imports reach more than {DEEPEST_IMPORT} files deep"
            self.diagnostics.append(make_error("A208", title, span))
            return True
        return False


_SORTS = {"bool": ir.Sort.BOOL, "real": ir.Sort.REAL}


def _twice(name: str, span: Span, before: Item) -> Diagnostic:
    first = before.declaration.name_span
    return make_error(
        "A203", f"`{name}` is declared twice", span, "again here", also=((first, "first here"),)
    )
