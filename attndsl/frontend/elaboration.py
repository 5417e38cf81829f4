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
from attndsl.source import AttnDslError, Span

from .calls import matched
from .errors import make_error, quoted
from .frames import (
    DEEPEST,
    SOME,
    SOME_BOOL,
    SOME_INT,
    WIDEST_RANGE,
    Chain,
    InputList,
    Origin,
    Scope,
    Value,
    entry_of,
    one_of,
    one_of_numbers,
)
from .order import used_alone
from .real_check import DOT
from .real_elaboration import negative, times, total
from .rows import own_indices, stored
from .scope import BUILTINS, FIXED, Definition, TableItem
from .selection_check import selection_used
from .selection_elaboration import chosen, entry
from .spaces import Pair
from .table_elaboration import TableReader, list_of, table_item
from .unit_elaboration import compared_units, folded, pooled, reduced
from .units import ANTIDIAGONAL, BOUND, is_pooled, is_unit
from .value_errors import too_deep, too_many_trials, too_wide, violated

reals = ir.reals

_POSITIONS: dict[str, ir.Node] = {side.value: ir.Pos(side) for side in ir.Side}

_LOOPS = {syn.Any: ir.exists, syn.All: ir.forall, syn.Count: ir.count, syn.Total: ir.total}
_NOTHING = {syn.Any: ir.FALSE, syn.All: ir.TRUE, syn.Count: ir.ZERO, syn.Total: ir.ZERO}


class Elaborator(TableReader):
    """One elaboration: a budget, a memo of opened definitions, and the faults so far."""

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
                self._opened[key] = SOME.get(kind or "bool", SOME_BOOL)
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
            required = self.node(constraint, frame)
            if self.layer is not None and origin.span is None:  # a use may stand in a dead branch
                required = ir.substitute(required, {ir.Var("layer"): ir.Const(self.layer)})
            decided = ir.settled(required)
            if decided is ir.FALSE:
                fault = violated(definition, constraint, frame, origin, self.layer)
                self.diagnostics.append(fault)
            elif decided is not ir.TRUE and ir.varies_by_call(required):
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

    def _negative(self, node: syn.Neg, frame: Scope) -> ir.Node:
        return negative(self.node(node.operand, frame))

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
                made = divided(made, right) if self._is_divisor(operand, right) else SOME_INT
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
            return SOME_BOOL if made.sort is ir.Sort.BOOL else SOME_INT
        if (bodies := ir.trials(made)[0]) > ir.MOST_TRIALS:
            self.diagnostics.append(too_many_trials(node.range, bodies))
            return SOME_BOOL if made.sort is ir.Sort.BOOL else SOME_INT
        if is_left:
            self.places.setdefault(loop, node.range.span)
        return made

    # ------------------------------------------------------------------ names

    # ------------------------------------------------------------------ calls

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
        return self._read(list_of(item, ()), node.span)

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
        item = table_item(base, frame)
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

    # ------------------------------------------------------------------ tables and lists

    def _index(self, node: syn.Index, frame: Scope) -> Value:
        if (read := entry(self, node, frame)) is not None:
            return read
        item = table_item(node.base, frame)
        if item is not None:
            indices = own_indices(item.table, node.indices, len(item.table.indexed_dims))
            row = list_of(item, tuple(self._nodes_of(indices, frame)))
            return self._read(row, node.span)
        items, at = self.value(node.base, frame), self.node(node.indices[0], frame)
        if isinstance(items, InputList):
            return self._read(replace(items, index=(*items.index, at)), node.span)
        assert isinstance(items, tuple), "kinds were checked"
        self._spend(len(items), node.span)
        return entry_of(items, at)

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
        table = table_item(row, frame)
        if table is not None and table.table.is_list:
            indices = container.indices if isinstance(container, syn.Index) else ()
            item = self.node(node.item, frame)
            return self._in_row(table, self._nodes_of(indices, frame), item, node.span)
        if table is None and isinstance(container, syn.Name) and container.name not in frame.local:
            assert isinstance(node.item, syn.Name), "names were checked"
            return self._inside(ir.Side(node.item.name), container.name, frame)
        item = self.node(node.item, frame)
        if isinstance(container, syn.ListOf):
            numbers = [each.value for each in container.items if isinstance(each, syn.Int)]
            if len(numbers) == len(container.items):
                self._spend(2 * len(numbers), node.span)
                return one_of_numbers(item, numbers)
        values = self.value(container, frame)
        if isinstance(values, InputList):
            return self._is_entry(item, values, node.span)
        assert isinstance(values, tuple), "kinds were checked"
        self._spend(len(values), node.span)
        return one_of(item, values)

    # ------------------------------------------------------------------ budgets


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
