"""Names and what is read and measured become IR: inputs, rows, memberships, lengths."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Final

from attndsl import ir
from attndsl import syntax as syn
from attndsl.source import AttnDslError, Diagnostic, Span

from .errors import make_error
from .frames import (
    MOST_NODES,
    MOST_WORK,
    SOME,
    InputList,
    Scope,
    Value,
)
from .real_elaboration import compared, function, is_finite, select
from .rows import SHIFT, in_row, only_dim, stored
from .scope import TableItem
from .spaces import FLAT_PAIR, Pair, Place, dim_size, segment_size, size_of
from .value_errors import too_large

_EQUALITIES: Final = (("==",), ("!=",))


class TableReader(ABC):
    """The part of an elaborator that knows names, inputs, rows and lengths."""

    @abstractmethod
    def node(self, expression: syn.Expression, frame: Scope) -> ir.Node:
        """The node of an expression that is no list."""

    @abstractmethod
    def value(self, expression: syn.Expression, frame: Scope) -> Value:
        """The value of an expression: a node, or a list."""

    def __init__(
        self, outer: Pair, align: ir.Align, is_open: bool = False, layer: int | None = None
    ) -> None:
        """``outer``: the spaces of the mask. ``align``: how its queries are placed.

        ``is_open``: spaces and alignment are preliminary, and replaced later. ``layer``: for which layer
        constraints of the pattern itself are judged; None leaves those that speak of layers alone.
        """
        self.outer = outer
        self.align = align
        self.is_open = is_open
        self.layer = layer
        self.shift = SHIFT if is_open else ir.first_query(align)
        self.diagnostics: list[Diagnostic] = []
        self.tables: dict[str, ir.Table] = {}
        self.conditions: dict[ir.Node, ir.Condition] = {}
        self.places: dict[ir.Node, Span] = {}  # of loops that are left
        self.selections: dict[str, ir.Chosen] = {}
        self._declared: dict[str, Span] = {}
        self.written: dict[ir.Node, Span] = {}  # all nodes that were made, and where first
        self._work = 0
        self._depth = 0
        self._opened: dict[tuple[object, ...], Value] = {}

    def _nodes_of(self, items: tuple[syn.Expression, ...], frame: Scope) -> list[ir.Node]:
        made: list[ir.Node] = []
        for item in items:
            value = self.value(item, frame)
            assert isinstance(value, ir.Node), "kinds were checked"
            made.append(value)
        return made

    def _list(self, node: syn.ListOf, frame: Scope) -> Value:
        return tuple(self._nodes_of(node.items, frame))

    def _not(self, node: syn.Not, frame: Scope) -> ir.Node:
        return ir.negate(self.node(node.operand, frame))

    def _and(self, node: syn.And, frame: Scope) -> ir.Node:
        return ir.conj(*self._until(ir.FALSE, node.operands, frame))

    def _or(self, node: syn.Or, frame: Scope) -> ir.Node:
        return ir.disj(*self._until(ir.TRUE, node.operands, frame))

    def _compare(self, node: syn.Compare, frame: Scope) -> ir.Node:
        if node.operators in _EQUALITIES and isinstance(number := node.operands[1], syn.Int):
            return self._equals(node, self.node(node.operands[0], frame), number)
        items = self._nodes_of(node.operands, frame)
        pairs = zip(items, node.operators, items[1:], strict=False)
        made = [self._kept(compared(op, left, right), node.span) for left, op, right in pairs]
        return ir.conj(*made) if len(made) > 1 else made[0]

    def _equals(self, node: syn.Compare, item: ir.Node, number: syn.Int) -> ir.Node:
        """Whether a value is a number, or is not."""
        if item.sort is not ir.Sort.INT:
            return compared(node.operators[0], item, ir.Const(number.value))
        self._spend(1, number.span)
        made = ir.eq_number(item, number.value)
        return made if node.operators == ("==",) else ir.negate(made)

    def _until(
        self, absorbing: ir.Node, operands: tuple[syn.Expression, ...], frame: Scope
    ) -> list[ir.Node]:
        """Left to right; nothing behind an operand that decides is looked at."""
        items: list[ir.Node] = []
        for operand in operands:
            value = self.value(operand, frame)
            assert isinstance(value, ir.Node), "kinds were checked"
            items.append(value)
            if value is absorbing:
                break
            self._spend(len(value.parts), operand.span)
        return items

    def _if(self, node: syn.If, frame: Scope) -> ir.Node:
        condition = self.node(node.condition, frame)
        if isinstance(condition, ir.BoolConst):
            return self.node(node.yes if condition.value else node.no, frame)
        return select(condition, self.node(node.yes, frame), self.node(node.no, frame))

    def _let(self, node: syn.Let, frame: Scope) -> Value:
        local = dict(frame.local)
        inner = replace(frame, local=local)
        for binding in node.bindings:
            local[binding.name] = self.value(binding.value, inner)
        return self.value(node.body, inner)

    def _kept(self, node: ir.Node, span: Span) -> ir.Node:
        """The node, counted, its constants small enough to compute with."""
        if node in self.written:
            return node
        infinite = isinstance(node, ir.reals.Real) and not is_finite(node)
        if infinite or ir.largest(node) >= ir.LARGEST:
            reach = "reals reach to 1e308" if infinite else "its magnitude reaches 2**62"
            title = "this constant is too large"
            self.diagnostics.append(make_error("A305", title, span, reach))
            return SOME[node.sort.value]
        self.written[node] = span
        if len(self.written) > MOST_NODES:
            raise AttnDslError(too_large(span, f"more than {MOST_NODES:,} distinct expressions"))
        return node

    def _access(self, node: syn.Access, frame: Scope) -> ir.Node:
        if (
            isinstance(node.base, syn.Name)
            and (dotted := f"{node.base.name}.{node.name}") in frame.local
        ):
            place = frame.local[dotted]
            assert isinstance(place, ir.Node), "kinds were checked"
            return place
        segment = node.base.name if isinstance(node.base, syn.Access) else None
        base = node.base.base if isinstance(node.base, syn.Access) else node.base
        assert isinstance(base, syn.Name), "names were checked"
        side = ir.Side(base.name)
        return ir.Coord(side, self._place(side, node.name, segment, frame).full)

    def _place(self, side: ir.Side | None, axis: str, segment: str | None, frame: Scope) -> Place:
        """The axis of the mask's space that a name means, through all patterns around."""
        place: Place | None = frame.chain[0].places(side, axis, segment)[0]
        for pair in (*frame.chain[1:], self.outer):
            assert place is not None, "calls were checked"
            place = pair.translate(side, place)
        assert place is not None, "calls were checked"
        return place

    def _segment(self, side: ir.Side | None, name: str, frame: Scope) -> ir.Segment:
        """The segment of the mask's space that a name means, likewise."""
        segment = frame.chain[0].segment(side, name)
        for pair in (*frame.chain[1:], self.outer):
            assert segment is not None, "calls were checked"
            segment = pair.translate_segment(side, segment)
        assert segment is not None, "calls were checked"
        return segment

    def _inside(self, side: ir.Side, name: str, frame: Scope) -> ir.Node:
        segment = self._segment(side, name, frame)
        if not self.is_open and len(self.outer.of(side)[0].segments) == 1:
            return ir.TRUE
        return ir.Inside(side, segment.name)

    def _builtin(self, node: syn.Call, frame: Scope) -> ir.Node:
        if node.name == "len":
            return self._length(node.arguments[0].value, frame)
        items = self._nodes_of(tuple(each.value for each in node.arguments), frame)
        self._spend(sum(len(item.parts) for item in items), node.span)
        if (made := function(node.name, items)) is not None:
            return made
        match node.name:
            case "min":
                return ir.minimum(*items)
            case "max":
                return ir.maximum(*items)
            case "abs":
                return ir.absolute(*items)
            case "clamp":
                return ir.clamp(*items)
            case "ilog2":
                return ir.ilog2(*items)
            case _:
                return ir.pow2(*items)

    def _length(self, node: syn.Expression, frame: Scope) -> ir.Node:
        match node:
            case syn.Name(name="q" | "k" as name):
                return ir.Size(name)
            case syn.Name() if not isinstance(frame.local.get(node.name), tuple | InputList):
                return self._length_of_name(node, frame)
            case syn.Access(base=syn.Name(name=whole) as base, name=part):
                item = table_item(base, frame)
                if item is None or frame.definition.pair.segment(None, whole) is not None:
                    return size_of(self._place(None, part, whole, frame))
                self.declare(item.table, item.declaration.span, node.span)
                return self.size(item.table, part)
            case _:
                value = self.value(node, frame)
                assert isinstance(value, tuple | InputList), "kinds were checked"
                if isinstance(value, InputList):
                    self.declare(value.table, value.declared, node.span)
                    return self.size(value.table, value.table.dims[-1])
                return ir.Const(len(value))

    def size(self, table: ir.Table, dim: str | int) -> ir.Node:
        return dim_size(table, dim, FLAT_PAIR if self.is_open else self.outer)

    def _length_of_name(self, node: syn.Name, frame: Scope) -> ir.Node:
        name, pair = node.name, frame.chain[0] if frame.chain else FLAT_PAIR
        if pair.segment(None, name) is not None:
            return segment_size(self._segment(None, name, frame))
        spaces = [space for space in pair.of(None) if space.name == name and space.segments]
        if spaces:
            names = [segment.name for segment in spaces[0].segments]
            return ir.add(*(segment_size(self._segment(None, each, frame)) for each in names))
        item = table_item(node, frame)
        dim = None if item is None or pair.places(None, name) else only_dim(item.table)
        if item is not None and dim is not None:
            self.declare(item.table, item.declaration.span, node.span)
            return self.size(item.table, dim)
        return size_of(self._place(None, name, None, frame))

    def _read(self, entry: InputList, span: Span) -> Value:
        """An entry of a table; where an index is missing, a list of entries."""
        table = self.declare(entry.table, entry.declared, span)
        if len(entry.index) < len(table.indexed_dims):
            return entry
        places = stored(table, entry.index, self.shift)
        return ir.Load(table.name, table.kind, places, table.ambient)

    def declare(self, table: ir.Table, declared: Span, span: Span) -> ir.Table:
        if self.tables.setdefault(table.name, table) != table:
            also = ((declared, "here"), (self._declared[table.name], "and here, also in use"))
            title = f"two inputs named `{table.name}` are declared in different ways"
            self.diagnostics.append(make_error("A209", title, span, also=also))
        self._declared.setdefault(table.name, declared)
        if "pos" in table.dims and not self.is_open and self.outer.is_rectangular:
            title = (
                f"`{table.name}` is indexed by `pos`, but queries and keys live in different spaces"
            )
            helps = ("declare two inputs, one over `q` and one over `k`",)
            declares = ((declared, "declared here"),)
            self.diagnostics.append(make_error("A209", title, span, also=declares, helps=helps))
        return table

    def _is_entry(self, item: ir.Node, values: InputList, span: Span) -> ir.Node:
        def equals(place: ir.Node) -> ir.Node:
            entry = self._read(replace(values, index=(*values.index, place)), span)
            assert isinstance(entry, ir.Node), "no index is missing"
            return ir.eq(entry, item)

        return ir.exists(ir.ZERO, self.size(values.table, values.table.dims[-1]), equals)

    def _in_row(
        self, item: TableItem, index: list[ir.Node], wanted: ir.Node, span: Span
    ) -> ir.Node:
        table = self.declare(item.table, item.declaration.span, span)
        return in_row(table, index, wanted, self.shift, lambda dim: self.size(table, dim))

    def _spend(self, work: int, span: Span) -> None:
        self._work += work
        if self._work > MOST_WORK:
            raise AttnDslError(too_large(span, f"more than {MOST_WORK:,} steps to expand"))


def list_of(item: TableItem, index: tuple[ir.Node, ...]) -> InputList:
    return InputList(item.table, index, item.declaration.span)


def table_item(node: syn.Expression, frame: Scope) -> TableItem | None:
    if not isinstance(node, syn.Name) or node.name in frame.local:
        return None
    item = frame.definition.unit.find(node.name)
    return item if isinstance(item, TableItem) else None
