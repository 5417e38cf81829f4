"""Tree to nodes: definitions are opened at their uses, parameters become values.

Runs on checked definitions only, so kinds and names are right; what is left to judge are values:
constraints, divisors, ranges, sizes. Conditions that are already decided are followed one way
only: in ``if m > 0 then q % m else 0`` an ``m`` of 0 divides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from attndsl import ir
from attndsl import syntax as syn
from attndsl.source import AttnDslError, Diagnostic, Span

from .calls import matched
from .errors import make_error, quoted
from .frames import (
    DEEPEST,
    MOST_NODES,
    MOST_WORK,
    WIDEST_RANGE,
    Chain,
    InputList,
    Origin,
    Scope,
    Value,
    entry_of,
    one_of,
)
from .order import used_alone
from .real_check import DOT
from .real_elaboration import compared, function, is_finite, negative, select, times, total
from .rows import SHIFT, in_row, only_dim, own_indices, shift_of, stored
from .scope import BUILTINS, FIXED, Definition, TableItem
from .selection_check import selection_used
from .selection_elaboration import chosen, entry
from .spaces import FLAT_PAIR, Pair, Place, dim_size, segment_size, size_of
from .unit_elaboration import compared_units, folded, pooled, reduced
from .units import ANTIDIAGONAL, BOUND, is_pooled, is_unit
from .value_errors import too_deep, too_large, too_many_trials, too_wide, violated

reals = ir.reals

_POSITIONS: dict[str, ir.Node] = {side.value: ir.Pos(side) for side in ir.Side}
# A faulty part counts as undecided, so that the rest is checked too.
_SOME_INT = ir.Pos(ir.Side.QUERY)
_SOME_BOOL = ir.eq(ir.Pos(ir.Side.QUERY), ir.Pos(ir.Side.KEY))
_SOME = {"int": _SOME_INT, "bool": _SOME_BOOL, "real": reals.SCORE}

_LOOPS = {syn.Any: ir.exists, syn.All: ir.forall, syn.Count: ir.count, syn.Total: ir.total}
_NOTHING = {syn.Any: ir.FALSE, syn.All: ir.TRUE, syn.Count: ir.ZERO, syn.Total: ir.ZERO}


class Elaborator:
    """One elaboration: a budget, a memo of opened definitions, and the faults so far."""

    def __init__(
        self, outer: Pair, align: ir.Align, is_open: bool = False, layer: int | None = None
    ) -> None:
        """``outer``: the spaces of the mask. ``align``: how its queries are placed.

        ``is_open``: spaces and alignment are preliminary, `settling` will replace them. ``layer``: for which layer
        constraints of the pattern itself are judged; None leaves those that speak of layers alone.
        """
        self.outer = outer
        self.align = align
        self.is_open = is_open
        self.layer = layer
        self.shift = SHIFT if is_open else shift_of(align)
        self.diagnostics: list[Diagnostic] = []
        self.tables: dict[str, ir.Table] = {}
        self.conditions: dict[ir.Node, ir.Condition] = {}
        self.places: dict[ir.Node, Span] = {}  # of loops that are left
        self.selections: dict[str, ir.Chosen] = {}
        self._declared: dict[str, Span] = {}
        self._nodes: set[ir.Node] = set()
        self._work = 0
        self._depth = 0
        self._opened: dict[tuple[object, ...], Value] = {}

    def beside(self, outer: Pair) -> Elaborator:
        """One for expressions of another kind, in the same alignment and layer."""
        return Elaborator(outer, self.align, layer=self.layer)

    # ------------------------------------------------------------------ definitions

    def open(
        self, definition: Definition, given: Mapping[str, Value], origin: Origin, span: Span
    ) -> Value:
        """The body of a definition with these values for parameters, defaults for the others."""
        frame = self.frame(definition, given, origin)
        key = (definition, tuple(frame.local.values()), frame.chain)
        if key not in self._opened:
            self.check_align(definition, span)
            if self.obeys_constraints(definition, frame, origin):
                self._opened[key] = self.value(definition.declaration.body, frame)
            else:  # its body may fail in many ways, all for this one reason
                kind = definition.facts and definition.facts.kind
                self._opened[key] = _SOME.get(kind or "bool", _SOME_BOOL)
        return self._opened[key]

    def zeros(self, definition: Definition, given: Mapping[str, Value], origin: Origin) -> ir.Node:
        """How many zero keys a query sees; those of the pattern that the body is a plain use of."""
        frame = self.frame(definition, given, origin)
        if definition.zeros is not None:
            count = self.node(definition.zeros, frame)
            if count.deps & ir.Deps.KEY:
                title = "a count of zero keys cannot depend on `k`"
                self.diagnostics.append(make_error("A214", title, definition.zeros.span))
            return count
        used, body = used_alone(definition), definition.declaration.body
        if used is None:
            return ir.ZERO
        call = body if isinstance(body, syn.Call) else syn.Call(used.name, (), body.span, body.span)
        return self.zeros(used, self.given(used, call, frame), Origin(body.span, frame))

    def frame(self, definition: Definition, given: Mapping[str, Value], origin: Origin) -> Scope:
        """Where the body of a definition stands: its parameters with their values."""
        chain = self._chain(definition, origin.frame)
        local: dict[str, Value] = {}
        for parameter in definition.parameters:
            value = given.get(parameter.name)
            if value is None and parameter.default is not None:
                value = self.value(parameter.default, Scope(definition, dict(local), chain))
            assert value is not None, "calls were checked"
            if parameter.kind == "real" and isinstance(value, ir.Node):
                value = reals.as_real(value)
            local[parameter.name] = value
        return Scope(definition, local, chain)

    def _chain(self, definition: Definition, around: Scope | None) -> Chain:
        facts = definition.facts
        if facts is not None and not facts.needs:
            return ()  # speaks of no axis: the same wherever it is used
        return (definition.pair, *(around.chain if around else ()))

    def obeys_constraints(self, definition: Definition, frame: Scope, origin: Origin) -> bool:
        """Whether no constraint of the definition is known to fail; what fails is reported."""
        before = len(self.diagnostics)
        for constraint in definition.constraints:
            # A value that depends on lengths or heads cannot be checked yet; arithmetic is total anyway.
            required = self.node(constraint, frame)
            if self.layer is not None and origin.span is None:  # a use may stand in a dead branch
                required = ir.substitute(required, {ir.Var("layer"): ir.Const(self.layer)})
            if ir.settled(required) is ir.FALSE:
                fault = violated(definition, constraint, frame, origin, self.layer)
                self.diagnostics.append(fault)
            elif not required.deps & ir.Deps.PAIR and ir.reads_inputs(required):
                text = syn.format_expression(constraint)
                self.conditions.setdefault(required, ir.Condition(required, text, constraint.span))
        return len(self.diagnostics) == before

    def check_align(self, definition: Definition, span: Span) -> None:
        """Complain of a definition that is aligned in another way than the whole."""
        written = definition.written_align
        if not self.is_open and written not in (None, self.align.value):
            title = (
                f"`{definition.name}` is aligned at the {written}, the pattern that uses it is not"
            )
            also = ((definition.declaration.name_span, "declared here"),)
            helps = (f"write `align {written}` here too",)
            self.diagnostics.append(make_error("A212", title, span, also=also, helps=helps))

    # ------------------------------------------------------------------ expressions

    def node(self, expression: syn.Expression, frame: Scope) -> ir.Node:
        """An int or a bool."""
        value = self.value(expression, frame)
        assert isinstance(value, ir.Node), "kinds were checked"
        return value

    def value(self, expression: syn.Expression, frame: Scope) -> Value:
        """The value of an expression."""
        if self._depth > DEEPEST:
            raise AttnDslError(too_deep(expression.span))
        self._spend(1, expression.span)
        self._depth += 1  # never undone when something is raised: that ends the elaboration
        made: Value = _MEANINGS[type(expression)](self, expression, frame)
        self._depth -= 1
        return self._kept(made, expression.span) if isinstance(made, ir.Node) else made

    def _nodes_of(self, items: tuple[syn.Expression, ...], frame: Scope) -> list[ir.Node]:
        made: list[ir.Node] = []
        for item in items:
            value = self.value(item, frame)
            assert isinstance(value, ir.Node), "kinds were checked"
            made.append(value)
        return made

    def _list(self, node: syn.ListOf, frame: Scope) -> Value:
        return tuple(self._nodes_of(node.items, frame))

    def _negative(self, node: syn.Neg, frame: Scope) -> ir.Node:
        return negative(self.node(node.operand, frame))

    def _not(self, node: syn.Not, frame: Scope) -> ir.Node:
        return ir.negate(self.node(node.operand, frame))

    def _and(self, node: syn.And, frame: Scope) -> ir.Node:
        return ir.conj(*self._until(ir.FALSE, node.operands, frame))

    def _or(self, node: syn.Or, frame: Scope) -> ir.Node:
        return ir.disj(*self._until(ir.TRUE, node.operands, frame))

    def _sum(self, node: syn.Sum, frame: Scope) -> ir.Node:
        signs = [1, *(1 if operator == "+" else -1 for operator in node.operators)]
        items = self._nodes_of(node.operands, frame)
        self._spend(sum(len(item.parts) for item in items), node.span)
        return total(items, signs)

    def _product(self, node: syn.Product, frame: Scope) -> ir.Node:
        made = self.node(node.operands[0], frame)
        for operator, operand in zip(node.operators, node.operands[1:], strict=True):
            right = self.node(operand, frame)
            if operator == "*":
                made = times(made, right)
            elif operator == "/":
                made = reals.over(made, right) if self._is_no_zero(operand, right) else reals.SCORE
            else:
                divided = ir.floordiv if operator == "//" else ir.mod
                made = divided(made, right) if self._is_divisor(operand, right) else _SOME_INT
            made = self._kept(made, node.span)
        return made

    def _is_no_zero(self, operand: syn.Expression, value: ir.Node) -> bool:
        value = reals.as_real(value)
        if not (isinstance(value, reals.Number) and value.value == 0):
            return True
        notes = () if isinstance(operand, syn.Int | syn.Fraction) else ("it is 0 here",)
        title = "division by zero"
        self.diagnostics.append(make_error("A302", title, operand.span, notes=notes))
        return False

    def _is_divisor(self, operand: syn.Expression, value: ir.Node) -> bool:
        if not (isinstance(value, ir.Const) and value.value <= 0):
            return True
        is_plain = isinstance(operand, syn.Int)
        notes = () if is_plain else (f"{quoted(operand.span)} is {value.value} here",)
        title = "division by a number that is not positive"
        self.diagnostics.append(make_error("A302", title, operand.span, notes=notes))
        return False

    def _compare(self, node: syn.Compare, frame: Scope) -> ir.Node:
        items = self._nodes_of(node.operands, frame)
        pairs = zip(items, node.operators, items[1:], strict=False)
        made = [self._kept(compared(op, left, right), node.span) for left, op, right in pairs]
        return ir.conj(*made) if len(made) > 1 else made[0]

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

    def _loop(self, node: syn.Loop, frame: Scope) -> ir.Node:
        low, high = self.node(node.range.low, frame), self.node(node.range.high, frame)
        width = ir.sub(high, low)
        if isinstance(width, ir.Const) and width.value <= 0:
            return _NOTHING[type(node)]

        def body(index: ir.Node) -> ir.Node:
            inner = replace(frame, local={**frame.local, node.name: index})
            self._depth += 1  # the builder's own frames count too
            made = self.node(node.body, inner)
            self._depth -= 1
            self._spend(sum(1 for _ in ir.postorder(made)), node.span)
            return made

        made = _LOOPS[type(node)](low, high, body)
        loop = made.item if isinstance(made, ir.Not) else made
        is_left = isinstance(loop, ir.Loop)
        if is_left and isinstance(width, ir.Const) and width.value > WIDEST_RANGE:
            self.diagnostics.append(too_wide(node.range, width.value))
            return _SOME_BOOL if made.sort is ir.Sort.BOOL else _SOME_INT
        if (bodies := ir.trials(made)[0]) > ir.MOST_TRIALS:
            self.diagnostics.append(too_many_trials(node.range, bodies))
            return _SOME_BOOL if made.sort is ir.Sort.BOOL else _SOME_INT
        if is_left:
            self.places.setdefault(loop, node.range.span)
        return made

    # ------------------------------------------------------------------ names

    def _name(self, node: syn.Name, frame: Scope) -> Value:
        name = node.name
        if name in frame.local:
            return frame.local[name]
        if name in FIXED:
            return _POSITIONS.get(name) or ir.Var(name)
        item = frame.definition.unit.find(name)
        if isinstance(item, Definition):
            return self.open(item, {}, Origin(node.span, frame), node.span)
        assert isinstance(item, TableItem), "names were checked"
        return self._read(_list_of(item, ()), node.span)

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

    # ------------------------------------------------------------------ calls

    def _call(self, node: syn.Call, frame: Scope) -> Value:
        if node.name in BUILTINS:
            return self._builtin(node, frame)
        definition = frame.definition.unit.find(node.name)
        if definition is None:
            return self._function(node, frame)
        assert isinstance(definition, Definition), "names were checked"
        given = self.given(definition, node, frame)
        return self.open(definition, given, Origin(node.span, frame), node.span)

    def _function(self, node: syn.Call, frame: Scope) -> ir.Node:
        """A function of reals."""
        items = [argument.value for argument in node.arguments]
        if node.name in (BOUND, ANTIDIAGONAL):
            return compared_units(node, frame)
        if node.name == DOT:
            return reals.dot(*(self._vector(item, frame) for item in items))
        return reals.apply(node.name, self.node(items[0], frame))

    def _vector(self, node: syn.Expression, frame: Scope) -> ir.Node:
        base, indices = (node.base, node.indices) if isinstance(node, syn.Index) else (node, ())
        item = _table_item(base, frame)
        if is_pooled(node) or is_unit(node):
            assert isinstance(node, syn.Call), "it looks like one"
            return pooled(node, frame, self._vector)
        if item is None:
            assert isinstance(node, syn.Name), "kinds were checked"
            return reals.Own(ir.Side(node.name))
        table = self.declare(item.table, item.declaration.span, node.span)
        indices = own_indices(table, indices, len(table.indexed_dims) - 1)
        index = stored(table, self._nodes_of(indices, frame), self.shift)
        return reals.Row(table.name, index, table.ambient)

    def given(self, definition: Definition, node: syn.Call, frame: Scope) -> dict[str, Value]:
        arguments = matched(definition, node)[0]
        return {name: self.value(argument, frame) for name, argument in arguments.items()}

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
                item = _table_item(base, frame)
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
        item = _table_item(node, frame)
        dim = None if item is None or pair.places(None, name) else only_dim(item.table)
        if item is not None and dim is not None:
            self.declare(item.table, item.declaration.span, node.span)
            return self.size(item.table, dim)
        return size_of(self._place(None, name, None, frame))

    # ------------------------------------------------------------------ tables and lists

    def _index(self, node: syn.Index, frame: Scope) -> Value:
        if (read := entry(self, node, frame)) is not None:
            return read
        item = _table_item(node.base, frame)
        if item is not None:
            indices = own_indices(item.table, node.indices, len(item.table.indexed_dims))
            row = _list_of(item, tuple(self._nodes_of(indices, frame)))
            return self._read(row, node.span)
        items, at = self.value(node.base, frame), self.node(node.indices[0], frame)
        if isinstance(items, InputList):
            return self._read(replace(items, index=(*items.index, at)), node.span)
        assert isinstance(items, tuple), "kinds were checked"
        self._spend(len(items), node.span)
        return entry_of(items, at)

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

    def _member(self, node: syn.Member, frame: Scope) -> ir.Node:
        found = self._is_in(node, frame)
        return ir.negate(found) if node.negated else found

    def _is_in(self, node: syn.Member, frame: Scope) -> ir.Node:
        container = node.container
        if isinstance(container, syn.Index) and selection_used(frame.definition, container.base):
            return chosen(self, container, self.node(node.item, frame), frame)
        if isinstance(container, syn.Range):
            item = self.node(node.item, frame)
            low, high = self.node(container.low, frame), self.node(container.high, frame)
            return ir.conj(ir.le(low, item), ir.lt(item, high))
        row = container.base if isinstance(container, syn.Index) else container
        table = _table_item(row, frame)
        if table is not None and table.table.is_list:
            indices = container.indices if isinstance(container, syn.Index) else ()
            item = self.node(node.item, frame)
            return self._in_row(table, self._nodes_of(indices, frame), item, node.span)
        if table is None and isinstance(container, syn.Name) and container.name not in frame.local:
            assert isinstance(node.item, syn.Name), "names were checked"
            return self._inside(ir.Side(node.item.name), container.name, frame)
        item, values = self.node(node.item, frame), self.value(container, frame)
        if isinstance(values, InputList):
            return self._is_entry(item, values, node.span)
        assert isinstance(values, tuple), "kinds were checked"
        self._spend(len(values), node.span)
        return one_of(item, values)

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

    # ------------------------------------------------------------------ budgets

    def _spend(self, work: int, span: Span) -> None:
        self._work += work
        if self._work > MOST_WORK:
            raise AttnDslError(too_large(span, f"more than {MOST_WORK:,} steps to expand"))

    def _kept(self, node: ir.Node, span: Span) -> ir.Node:
        """The node, counted, its constants small enough to compute with."""
        if node in self._nodes:
            return node
        infinite = isinstance(node, reals.Real) and not is_finite(node)
        if infinite or ir.largest(node) >= ir.LARGEST:
            reach = "reals reach to 1e308" if infinite else "its magnitude reaches 2**62"
            title = "this constant is too large"
            self.diagnostics.append(make_error("A305", title, span, reach))
            return _SOME[node.sort.value]
        self._nodes.add(node)
        if len(self._nodes) > MOST_NODES:
            raise AttnDslError(too_large(span, f"more than {MOST_NODES:,} distinct expressions"))
        return node


# Keyed by class, not matched: a dispatching frame less on the stack for each level of nesting.
_MEANINGS: dict[type[syn.Expression], Any] = {
    syn.Int: lambda _, node, frame: ir.Const(node.value),
    syn.Fraction: lambda _, node, frame: reals.Number(float(node.digits)),
    syn.Bool: lambda _, node, frame: ir.BoolConst(node.value),
    syn.Name: Elaborator._name,
    syn.ListOf: Elaborator._list,
    syn.Access: Elaborator._access,
    syn.Index: Elaborator._index,
    syn.Call: Elaborator._call,
    syn.Neg: Elaborator._negative,
    syn.Product: Elaborator._product,
    syn.Sum: Elaborator._sum,
    syn.Member: Elaborator._member,
    syn.Compare: Elaborator._compare,
    syn.Not: Elaborator._not,
    syn.And: Elaborator._and,
    syn.Or: Elaborator._or,
    syn.If: Elaborator._if,
    syn.Let: Elaborator._let,
    syn.Any: Elaborator._loop,
    syn.All: Elaborator._loop,
    syn.Count: Elaborator._loop,
    syn.Total: lambda self, node, frame: (
        folded(self, node, frame) if frame.definition.is_selection else self._loop(node, frame)
    ),
    syn.Reduction: reduced,
}


def _list_of(item: TableItem, index: tuple[ir.Node, ...]) -> InputList:
    return InputList(item.table, index, item.declaration.span)


def _table_item(node: syn.Expression, frame: Scope) -> TableItem | None:
    if not isinstance(node, syn.Name) or node.name in frame.local:
        return None
    item = frame.definition.unit.find(node.name)
    return item if isinstance(item, TableItem) else None
