"""Names and kinds, checked definition by definition before anything is built.

A kind is int, bool, list or real. The type of a definition, the axes it speaks of and the inputs it
reads are found once, for all its uses. After a fault the kind is unknown (None) and silences what
would follow from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from attndsl import ir
from attndsl import syntax as syn
from attndsl.source import Diagnostic, Span

from .attention_check import FORMS, SCORE, check_attention, find_spaces
from .calls import matched
from .errors import did_you_mean, make_error
from .order import callees_first, mentioned, used_alone
from .real_check import DOT, KIND_WORDS, REAL_FUNCTIONS, Locals
from .scope import (
    BUILTINS,
    FIXED,
    Definition,
    Facts,
    SpaceItem,
    TableItem,
    UnitsItem,
    reserved_fault,
)
from .selection_check import check_reduction, check_selection
from .table_check import Tables
from .units import ANTIDIAGONAL, BOUND, check_compared

_NO_JOIN = "numbers are added by `+`; pairs that are in one or the other are `a or b`"
_OF_REALS = ("min", "max", "abs", "clamp")  # give reals where an argument is one
# Faults of a module, past which names near to a wrong one are not looked for: ten are told.
_MOST_HINTS = 100


def check(roots: Iterable[Definition], diagnostics: list[Diagnostic]) -> None:
    """Fill in the facts of all definitions reachable from the roots; faults are appended."""
    order, cycles = callees_first(roots)
    diagnostics.extend(cycles)
    for definition in order:
        definition.facts = facts = Facts()
        find_spaces(definition, diagnostics)
        _Check(definition, facts, diagnostics).run()


def check_expressions(
    definition: Definition,
    wanted: Iterable[tuple[syn.Expression, syn.Kind]],
    diagnostics: list[Diagnostic],
) -> None:
    """Check expressions that stand beside the body of a checked definition, each against its kind."""
    pairs = list(wanted)
    check((used for used, _ in mentioned(definition, (each for each, _ in pairs))), diagnostics)
    checker = _Check(definition, Facts(), diagnostics)
    local = {each.name: each.kind for each in definition.parameters}
    for expression, kind in pairs:
        checker.expect(expression, kind, local)


class _Check(Tables):
    """The check of one definition."""

    def run(self) -> None:
        local: dict[str, syn.Kind | None] = {}
        self.role = "default"
        for parameter in self.definition.parameters:
            if (reserved := reserved_fault(parameter.name, parameter.name_span)) is not None:
                self.diagnostics.append(reserved)
            if parameter.name in local:
                title = f"parameter `{parameter.name}` is declared twice"
                self.diagnostics.append(make_error("A203", title, parameter.name_span))
            if parameter.default is not None:
                self.expect(parameter.default, parameter.kind, local)
            local[parameter.name] = parameter.kind
        self.role = "where"
        for constraint in self.definition.constraints:
            self.expect(constraint, "bool", local)
        self.role = "body"
        body = self.definition.declaration.body
        if self.definition.is_attention:
            check_attention(self, local)
        elif self.definition.is_selection:
            check_selection(self, local)
        elif self.definition.is_pattern:
            self.facts.kind = "bool"
            self.expect(body, "bool", local)
        else:
            self.facts.kind = self.scalar(body, local)
        self._check_zeros(local)

    def _check_zeros(self, local: Locals) -> None:
        """A count of zero keys is the pattern's own, or that of the one it is a plain use of."""
        used, zeros = self.facts.padded, self.definition.zeros
        if zeros is not None:
            self.expect(zeros, "int", local)
            self.facts.padded = None if zeros == syn.Int(0) else self.definition
        elif used is not None and used_alone(self.definition) is None:
            self.facts.padded = None
            title = f"the zero keys of `{used.name}` are lost in `{self.definition.name}`"
            also = ((used.declaration.name_span, "it counts zero keys"),)
            notes = ("a pattern keeps those of another only where its body is a use of that one",)
            advice = "say how many there are behind the body: `zeros 0` for none"
            if not self.definition.is_pattern:
                advice = "use a pattern without them, one with `zeros 0` behind its body"
            span = self.definition.declaration.name_span
            self.add("A215", title, span, also=also, notes=notes, helps=(advice,))

    # ------------------------------------------------------------------ expressions

    def kind(self, node: syn.Expression, local: Locals) -> syn.Kind | None:  # noqa: C901 - an arm a node
        """The kind of an expression."""
        match node:
            case syn.Int():
                return "int"
            case syn.Fraction():
                return "real"
            case syn.Bool():
                return "bool"
            case syn.Name():
                return self._name(node, local)
            case syn.ListOf(items=items):
                self._all(items, "int", local)
                return "list"
            case syn.Access():
                return self._access(node, local)
            case syn.Index():
                return self._index(node, local)
            case syn.Call():
                return self._call(node, local)
            case syn.Neg(operand=operand):
                return self.numbers((operand,), local)
            case syn.Product():
                return self.product(node, local)
            case syn.Sum(operands=operands):
                return self.numbers(operands, local)
            case syn.Range():
                self.add("A202", "a range stands only right of `in`", node.span)
                return None
            case syn.Member():
                self._member(node, local)
                return "bool"
            case syn.Compare():
                self._compare(node, local)
                return "bool"
            case syn.Not(operand=operand):
                self.expect(operand, "bool", local)
                return "bool"
            case syn.And() | syn.Or():
                self._all(syn.unlike(node), "bool", local)
                return "bool"
            case syn.If():
                return self._if(node, local)
            case syn.Let():
                return self._let(node, local)
            case syn.Any() | syn.All() | syn.Count():
                self._loop(node, "bool", local)
                return "int" if isinstance(node, syn.Count) else "bool"
            case syn.Total() if self.definition.is_selection:
                self._loop(node, "real", local)
                return "real"
            case syn.Total():
                self._loop(node, "int", local)
                return "int"
            case syn.Reduction():
                check_reduction(self, node, local)
                return "real"
            case syn.Scored() | syn.Join():
                title = "an attention cannot stand here"
                notes = ("an `attention` is a sum of multiples of attentions",)
                helps = (_NO_JOIN,) if isinstance(node, syn.Join) else ()
                self.add("A217", title, node.span, notes=notes, helps=helps)
                return None
            case _:
                assert_never(node)

    def scalar(self, node: syn.Expression, local: Locals) -> syn.Kind | None:
        """The kind of an expression that may not be a list."""
        found = self.kind(node, local)
        if found == "list":
            self.add("A202", "an int or a bool is needed here", node.span, "this is a list")
            return None
        return found

    def _compare(self, node: syn.Compare, local: Locals) -> None:
        kinds = []
        for operand in node.operands:
            kinds.append(self.scalar(operand, local))  # noqa: PERF401  (no extra frame per level)
        for kind, operand in zip(kinds, node.operands, strict=True):
            if kind == "real" and not self.compares_reals(node):
                self.refuse_comparison(operand)
        if "real" in kinds:
            return
        for place, operator in enumerate(node.operators):
            left, right = kinds[place], kinds[place + 1]
            ordering = operator not in ("==", "!=")
            for kind, operand in ((left, node.operands[place]), (right, node.operands[place + 1])):
                if ordering and kind == "bool":
                    title = f"`{operator}` compares ints"
                    self.add("A202", title, operand.span, "this is a bool")
            if not ordering and left and right and left != right:
                span = node.operands[place].span.to(node.operands[place + 1].span)
                title = f"{KIND_WORDS[left]} is compared with {KIND_WORDS[right]}"
                self.add("A202", title, span)

    def _if(self, node: syn.If, local: Locals) -> syn.Kind | None:
        self.expect(node.condition, "bool", local)
        yes, no = self.scalar(node.yes, local), self.scalar(node.no, local)
        if {yes, no} == {"int", "real"}:
            return "real"
        if yes and no and yes != no:
            also = ((node.yes.span, f"this is {KIND_WORDS[yes]}"),)
            label = f"this is {KIND_WORDS[no]}"
            self.add("A202", "both branches must have one kind", node.no.span, label, also=also)
            return None
        return yes or no

    def _let(self, node: syn.Let, local: Locals) -> syn.Kind | None:
        inner = dict(local)
        for binding in node.bindings:
            self._check_local(binding.name, binding.name_span)
            inner[binding.name] = self.list_or_kind(binding.value, inner)
        return self.kind(node.body, inner)

    def _loop(self, node: syn.Loop, body: syn.Kind, local: Locals) -> None:
        self._check_local(node.name, node.name_span)
        self._all((node.range.low, node.range.high), "int", local)
        found = self.kind(node.body, {**local, node.name: "int"})
        helps = []
        if body == "int" and isinstance(node.body, syn.Compare):
            helps.append(
                f"a body reaches as far as it can: write `(sum {node.name} in ...: ...) <= x`"
            )
        self.judge(found, body, node.body.span, helps)

    def _check_local(self, name: str, span: Span) -> None:
        if (reserved := reserved_fault(name, span)) is not None:
            self.diagnostics.append(reserved)

    # ------------------------------------------------------------------ names

    def _name(self, node: syn.Name, local: Locals) -> syn.Kind | None:
        name = node.name
        if name in local:
            return local[name]
        if name in FIXED:
            return self._fixed(node)
        match self.unit.find(name):
            case Definition() as definition:
                return self._use(definition, syn.Call(name, (), node.span, node.span), local)
            case TableItem(table=table):
                return self._read(table, 0, node.span)
            case SpaceItem():
                self._not_a_value(node, "a space", f"write `q in {name}` or `len({name})`")
            case UnitsItem():
                advice = f"in a selection, it is one of them behind `over {name}`"
                self._not_a_value(node, "the name of units", advice)
            case None:
                self._unknown(node, local)
        return None

    def _not_a_value(self, node: syn.Name, what: str, advice: str) -> None:
        title = f"`{node.name}` is {what}, not a value"
        self.add("A202", title, node.span, helps=(advice,))

    def _unknown(self, node: syn.Name, local: Locals) -> None:
        name = node.name
        if name in BUILTINS:
            self._not_a_value(node, "a function", f"call it: `{name}(...)`")
        elif self.pair.segment(None, name) is not None:
            self._not_a_value(node, "a segment", f"write `q in {name}` or `len({name})`")
        elif self.pair.places(None, name):
            advice = f"write `q.{name}`, `k.{name}` or `len({name})`"
            self._not_a_value(node, "an axis", advice)
        else:
            known = [*local, *FIXED, *BUILTINS, *self.unit.declared("def", "pattern", "input")]
            helps = (did_you_mean(name, known),) if len(self.diagnostics) < _MOST_HINTS else ()
            if name == SCORE and not self.definition.is_pattern:
                helps = ("`s` is the score of a pair behind `score`, `weights` and `factor` only",)
            self.add("A201", f"there is no `{name}`", node.span, "not known here", helps=helps)

    def _access(self, node: syn.Access, local: Locals) -> syn.Kind | None:
        segment, base = None, node.base
        if isinstance(base, syn.Name) and (dotted := f"{base.name}.{node.name}") in local:
            return local[dotted]
        if isinstance(base, syn.Access):
            segment, base = base.name, base.base
        if not (isinstance(base, syn.Name) and base.name in ("q", "k") and base.name not in local):
            title = "only `q` and `k` have coordinates"
            self.add("A206", title, node.span, helps=("write `q.y`, or `q.image.y`",))
            return None
        self._fixed(base)
        self.place(ir.Side(base.name), node.name, segment, node.span)
        return "int"

    # ------------------------------------------------------------------ tables and lists

    # ------------------------------------------------------------------ calls

    def _call(self, node: syn.Call, local: Locals) -> syn.Kind | None:
        item = self.unit.find(node.name)
        if node.name in BUILTINS:
            return self._builtin(node, local)
        if isinstance(item, Definition):
            return self._use(item, node, local)
        if item is None and node.name in (*REAL_FUNCTIONS, DOT):
            return self.function(node, local)
        if item is None and node.name in (BOUND, ANTIDIAGONAL) and self.definition.is_selection:
            check_compared(self, node)
            return "real"
        for argument in node.arguments:
            self.kind(argument.value, local)
        if item is not None or node.name in local or node.name in FIXED:
            title = f"`{node.name}` cannot be called"
            self.add("A205", title, node.name_span)
        else:
            helps: tuple[str | None, ...] = (
                did_you_mean(
                    node.name,
                    [*BUILTINS, *REAL_FUNCTIONS, DOT, *self.unit.declared("def", "pattern")],
                ),
            )
            if node.name in FORMS:
                helps = (f"say it behind the score: `score s weights {node.name}`",)
            if node.name == "softmax":
                helps += ("of units that are scored: `softmax over block: ...`",)
            title = f"there is no pattern or helper `{node.name}`"
            self.add("A201", title, node.name_span, "not known here", helps=helps)
        return None

    def _builtin(self, node: syn.Call, local: Locals) -> syn.Kind:
        least, most = BUILTINS[node.name]
        count = len(node.arguments)
        if count < least or (most is not None and count > most):
            wanted = f"{least}" if most == least else f"{least} or more"
            plural = "" if wanted == "1" else "s"
            title = f"`{node.name}` takes {wanted} argument{plural}, not {count}"
            self.add("A205", title, node.span)
        for argument in node.arguments:
            if argument.name is not None:
                title = f"`{node.name}` has no named parameters"
                self.add("A205", title, argument.span)
            if node.name == "len":
                self._length(argument.value, local)
            elif node.name not in _OF_REALS:
                self.expect(argument.value, "int", local)
        if node.name in _OF_REALS:
            return self.numbers((argument.value for argument in node.arguments), local)
        return "int"

    def _use(self, definition: Definition, call: syn.Call, local: Locals) -> syn.Kind | None:
        """A call of a pattern or helper, or its bare name."""
        if definition.is_selection:
            title = f"`{definition.name}` is a selection: it stands right of `in`"
            helps = (f"write `k in {definition.name}[q]`",)
            if not isinstance(definition.declaration, syn.Select):
                title = f"`{definition.name}` has a number for each token"
                helps = (f"write `{definition.name}[k]`",)
            self.add("A219", title, call.span, helps=helps)
        if definition.is_attention:
            title = f"`{definition.name}` is an attention, which cannot stand here"
            notes = ("an `attention` is a sum of multiples of attentions",)
            self.add("A217", title, call.span, notes=notes)
        return self.use(definition, call, local)

    def use(self, definition: Definition, call: syn.Call, local: Locals) -> syn.Kind | None:
        """A use of a definition: its arguments, axes and inputs are those of this one, too."""
        given, diagnostics = matched(definition, call)
        self.diagnostics.extend(diagnostics)
        kinds = {each.name: each.kind for each in definition.parameters}
        for name, argument in given.items():
            self.expect(argument, kinds[name], local)
        if self.role != "body" and definition.is_pattern:
            self.add("A202", "a pattern cannot be asked before there are pairs", call.span)
        facts = definition.facts
        if facts is None:  # it is being defined by itself, which was reported
            return None
        self.facts.tables |= facts.tables
        are_allowed = [self.allows(table, call.span) for table in facts.tables.values()]
        self.facts.padded = self.facts.padded or facts.padded
        self.check_needs(definition, facts, call)
        return facts.kind if all(are_allowed) else None
