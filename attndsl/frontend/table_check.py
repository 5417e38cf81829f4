"""The check of what is read and measured: inputs, lists, memberships and lengths."""

from __future__ import annotations

from collections.abc import Iterable

from attndsl import ir
from attndsl import syntax as syn
from attndsl.source import Span

from .errors import did_you_mean, listed, quoted
from .numbering_check import check_entry, numbering_used
from .real_check import KIND_WORDS, Locals, Numbers
from .rows import only_dim, own_indices
from .scope import (
    Need,
    SpaceItem,
    TableItem,
)
from .selection_check import check_member, selection_used
from .units import check_position

KINDS: dict[ir.Sort, syn.Kind] = {
    ir.Sort.INT: "int", ir.Sort.BOOL: "bool", ir.Sort.REAL: "real",
}  # fmt: skip
_VARYING = frozenset({"q", "k", "head", "batch"})


class Tables(Numbers):
    """The part of a check that knows inputs, lists and lengths."""

    def _read(self, table: ir.Table, count: int, span: Span) -> syn.Kind | None:
        """A read of a run-time table with so many indices."""
        if self.role == "default":
            title = f"input `{table.name}` is known only when the pattern runs"
            self.add("A202", title, span)
        self.facts.tables[table.name] = table
        is_allowed = self.allows(table, span)
        dims = table.indexed_dims[:-1] if table.is_list else table.indexed_dims
        if table.is_list:
            title = f"`{table.name}` is a list: it stands right of `in`"
            self.add("A202", title, span, helps=(f"write `k in {_indexed(table.name, dims)}`",))
            return None
        self._check_count(table, count, span)
        return KINDS[table.kind] if is_allowed else None

    def _check_count(self, table: ir.Table, count: int, span: Span) -> None:
        dims = table.indexed_dims[:-1] if table.is_list else table.indexed_dims
        if count != len(dims):
            word = "index" if len(dims) == 1 else "indices"
            title = f"`{table.name}` takes {len(dims)} {word}, not {count}"
            notes = ["batch and head are indexed by themselves"] if table.ambient else []
            helps = (f"write `{_indexed(table.name, dims)}`",)
            self.add("A205", title, span, notes=notes, helps=helps)

    def _index(self, node: syn.Index, local: Locals) -> syn.Kind | None:
        self._all(node.indices, "int", local)
        if (used := numbering_used(self.definition, node.base, local)) is not None:
            return check_entry(self, used, node, local)
        table = self.table_of(node.base, local)
        if table is not None:
            wanted = len(table.indexed_dims)
            return self._read(table, len(own_indices(table, node.indices, wanted)), node.span)
        found = self.list_or_kind(node.base, local)
        if found == "list":
            if len(node.indices) != 1:
                self.add("A205", f"a list takes 1 index, not {len(node.indices)}", node.span)
            return "int"
        if found is not None:
            title = f"{quoted(node.base.span)} cannot be indexed"
            self.add("A202", title, node.base.span, f"this is {KIND_WORDS[found]}")
        return None

    def list_or_kind(
        self, node: syn.Expression, local: Locals, *, strict: bool = False
    ) -> syn.Kind | None:
        """The kind, where an input of ints counts as a list if one index is missing; ``strict``: no other."""
        base, indices = (node.base, node.indices) if isinstance(node, syn.Index) else (node, ())
        table = self.table_of(base, local)
        if table is None:
            return self.kind(node, local)
        dims = table.indexed_dims
        is_list = not table.is_list and table.kind is ir.Sort.INT and dims[-1:] != ("q",)
        if is_list and len(indices) == len(dims) - 1:
            self._all(indices, "int", local)
            self._read(table, len(dims), node.span)
            return "list"
        if not strict:
            return self.kind(node, local)
        note = "an input of ints is one where its last index is left out, unless that is of dim `q`"
        self.add("A202", "a list is needed here", node.span, notes=(note,))
        return None

    def table_of(self, node: syn.Expression, local: Locals) -> ir.Table | None:
        """The run-time table that the expression names."""
        if not isinstance(node, syn.Name) or node.name in local:
            return None
        item = self.unit.find(node.name)
        return item.table if isinstance(item, TableItem) else None

    def _member(self, node: syn.Member, local: Locals) -> None:
        container = node.container
        if isinstance(container, syn.Name) and container.name not in local:
            side = side_of(node.item, local)
            segment = self.pair.segment(side, container.name) if side else None
            if side is not None and segment is not None:
                self.need(Need(side, segment, node.span))
                self._fixed(syn.Name(str(side), node.item.span))
                return
        self.expect(node.item, "int", local)
        match container:
            case syn.Range(low=low, high=high):
                self._all((low, high), "int", local)
                return
            case syn.Index(base=base, indices=indices):
                if (used := selection_used(self.definition, base)) is not None:
                    check_member(self, used, container, local)
                    return
                if (table := self.table_of(base, local)) is not None and table.is_list:
                    self._all(indices, "int", local)
                    self._row(table, len(indices), container.span)
                    return
            case syn.Name(name=name) if name not in local:
                if (table := self.table_of(container, local)) is not None and table.is_list:
                    self._row(table, 0, container.span)
                    return
                if self._is_segment_like(node, name, local):
                    return
            case _:
                pass
        if (found := self.list_or_kind(container, local)) in ("int", "bool"):
            helps = ("a range `lo..hi`, a list, a segment or a row of a list input",)
            title = "this cannot stand right of `in`"
            self.add("A202", title, container.span, f"this is {KIND_WORDS[found]}", helps=helps)

    def _row(self, table: ir.Table, count: int, span: Span) -> None:
        if self.role != "body":
            self.add("A202", f"input `{table.name}` is known only when the pattern runs", span)
        self.facts.tables[table.name] = table
        self._check_count(table, count, span)

    def _is_segment_like(self, node: syn.Member, name: str, local: Locals) -> bool:
        """Complain of a segment that is not in the space, or of a thing that cannot be in one."""
        known = self.pair.segment(None, name) is not None
        item = self.unit.find(name)
        if not known and not (item is None or isinstance(item, SpaceItem)):
            return False
        if known and side_of(node.item, local) is None:
            title = "only `q` and `k` can be in a segment"
            self.add("A206", title, node.item.span)
            return True
        spaces = [space for space in self.pair.of(side_of(node.item, local)) if space.name]
        where = " and ".join(f"`{space.name}`" for space in spaces)
        title = f"there is no segment `{name}`" + (f" in {where}" if where else "")
        have = [segment.name for space in spaces for segment in space.segments]
        notes = (f"its segments are {listed(have)}",) if have else ()
        helps = (did_you_mean(name, [*have, *local, *self.unit.declared("input")]),)
        self.add("A206", title, node.container.span, notes=notes, helps=helps)
        return True

    def _length(self, node: syn.Expression, local: Locals) -> None:
        match node:
            case syn.Name(name="q" | "k"):
                return
            case syn.Name(name=name) if local.get(name) != "list":
                self._length_of_name(node)
            case syn.Access(base=syn.Name(name=whole), name=part):
                table = self.table_of(node.base, local)
                if table is None or self.pair.segment(None, whole) is not None:
                    self.place(None, part, whole, node.span)
                else:
                    self._length_of_dim(table, part, node.span)
            case _:
                if self.kind(node, local) in ("int", "bool"):
                    helps = ("`len` takes `q`, `k`, an axis, a segment, a space or a list",)
                    self.add("A202", "this has no length", node.span, helps=helps)

    def _length_of_dim(self, table: ir.Table, dim: str, span: Span) -> None:
        """How many entries an input has along a dim of its own."""
        self.facts.tables[table.name] = table
        if dim in ("batch", "head") or dim not in table.dims:
            have = listed(str(each) for each in table.indexed_dims if isinstance(each, str))
            title = f"input `{table.name}` has no dim `{dim}` of its own"
            notes = (f"it has {have}",) if have else ()
            helps = (did_you_mean(dim, [d for d in table.indexed_dims if isinstance(d, str)]),)
            self.add("A206", title, span, notes=notes, helps=helps)

    def _length_of_name(self, node: syn.Name) -> None:
        name = node.name
        if (named := self.pair.segment(None, name)) is not None:
            self.need(Need(None, named, node.span))
        elif any(space.name == name and space.segments for space in self.pair.of(None)):
            for space in self.pair.of(None):
                for segment in space.segments:
                    self.need(Need(None, segment, node.span))
        elif (table := self.table_of(node, {})) is not None and not self.pair.places(None, name):
            if only_dim(table) is not None:
                self.facts.tables[name] = table
                return
            lengths = [f"`len({name}.{dim})`" for dim in table.indexed_dims if isinstance(dim, str)]
            title = f"input `{name}` has a length along each of its dims"
            helps = [f"write {' or '.join(lengths)}"] if lengths else []
            self.add("A206", title, node.span, helps=helps)
        else:
            self.place(None, name, None, node.span)

    def _all(self, nodes: Iterable[syn.Expression], wanted: syn.Kind, local: Locals) -> None:
        for node in nodes:
            self.expect(node, wanted, local)

    def _fixed(self, node: syn.Name) -> syn.Kind:
        if self.definition.is_selection and self.role == "body":
            check_position(self, node)
        if self.role != "body" and node.name in _VARYING:
            part = "a default" if self.role == "default" else "`where`"
            title = f"{part} speaks of parameters only"
            self.add("A202", title, node.span, f"`{node.name}` varies from pair to pair")
        return "int"


def side_of(node: syn.Expression, local: Locals) -> ir.Side | None:
    """The side that the expression names, if it is plainly `q` or `k`."""
    if isinstance(node, syn.Name) and node.name in ("q", "k") and node.name not in local:
        return ir.Side(node.name)
    return None


def _indexed(name: str, dims: tuple[str | int, ...]) -> str:
    words = ("q" if dim in ("q", "pos") else "k" if dim == "k" else "0" for dim in dims)
    return f"{name}[{', '.join(words)}]" if dims else name
