"""Kinds of numbers in the check of a definition: where reals may stand, and what ints become among them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from attndsl import ir
from attndsl import syntax as syn
from attndsl.source import Span

from .axes import Axes
from .errors import quoted, unbracketed
from .rows import own_indices
from .scope import Definition
from .units import Frame, check_own_vector, check_pooled, is_pooled, is_unit

Locals: TypeAlias = Mapping[str, syn.Kind | None]

KIND_WORDS: Final = {"int": "an int", "bool": "a bool", "list": "a list", "real": "a real"}
REAL_FUNCTIONS: Final = (
    "exp", "exp2", "log", "tanh", "sigmoid", "softplus", "relu", "sqrt",
)  # fmt: skip
"""Functions of one real number beside `abs`; their names may be declared anew."""
DOT: Final = "dot"
_SCALE = "scale both sides: `2 * x <= y` rather than `x <= 0.5 * y`"


class Numbers(Axes):
    """The part of a check that knows ints from reals."""

    frame: Frame | None = None  # of the selection that is checked

    @abstractmethod
    def kind(self, node: syn.Expression, local: Locals) -> syn.Kind | None:
        """The kind of an expression."""

    @abstractmethod
    def list_or_kind(
        self, node: syn.Expression, local: Locals, *, strict: bool = False
    ) -> syn.Kind | None:
        """The kind, where inputs count as lists."""

    @abstractmethod
    def table_of(self, node: syn.Expression, local: Locals) -> ir.Table | None:
        """The run-time table that the expression names."""

    @abstractmethod
    def use(self, definition: Definition, call: syn.Call, local: Locals) -> syn.Kind | None:
        """A use of a definition: its arguments, axes and inputs are those of this one, too."""

    def expect(self, node: syn.Expression, wanted: syn.Kind, local: Locals) -> None:
        """The expression must have the kind; ints are welcome where reals are."""
        if wanted != "list":
            found = self.kind(node, local)
        elif (found := self.list_or_kind(node, local, strict=True)) is None:
            return
        self.judge(found, wanted, node.span, _whole(node) if found == "real" else [])

    def judge(self, found: syn.Kind | None, wanted: syn.Kind, span: Span, helps: list[str]) -> None:
        """Complain of another kind than is wanted."""
        if found is None or found == wanted or (wanted, found) == ("real", "int"):
            return
        if (wanted, found) == ("bool", "int"):
            helps.append("compare it: write `... != 0`")
        if wanted in ("int", "real") and found == "bool" and not helps:
            helps.append(
                f"write `if {unbracketed(span) if len(span.text) < 40 else '...'} then 1 else 0`"
            )
        title = f"{KIND_WORDS[wanted]} is needed here"
        self.add("A202", title, span, f"this is {KIND_WORDS[found]}", helps=helps)

    def numbers(self, nodes: Iterable[syn.Expression], local: Locals) -> syn.Kind:
        """Int where all are, real where one is."""
        made: syn.Kind = "int"
        for node in nodes:
            found = self.kind(node, local)
            if found == "real":
                made = "real"
            else:
                self.judge(found, "int" if self.definition.is_pattern else "real", node.span, [])
        return made

    def product(self, node: syn.Product, local: Locals) -> syn.Kind:
        """The kind of a product; `//` and `%` divide ints, `/` gives a real."""
        first, *others = node.operands
        made = self.numbers((first,), local)
        before = first.span
        for operator, operand in zip(node.operators, others, strict=True):
            found = self.numbers((operand,), local)
            if operator in ("//", "%"):
                self.judge(made, "int", before, [f"`{operator}` divides ints, `/` reals"])
                self.judge(found, "int", operand.span, [f"`{operator}` divides ints, `/` reals"])
                made = "int"
            elif operator == "/" or found == "real":
                made = "real"
            before = before.to(operand.span)
        return made

    def compares_reals(self, node: syn.Compare) -> bool:
        """Whether reals may be compared: as greater or less, where units are chosen."""
        return self.definition.is_selection and not {"==", "!="}.intersection(node.operators)

    def refuse_comparison(self, operand: syn.Expression) -> None:
        """Complain of a real in a comparison."""
        notes = ("what depends on scores is no condition: `min`, `max` and `relu` choose by reals",)
        if self.definition.is_pattern:
            notes = ("which keys a query sees depends on ints and truth values",)
        self.add(
            "A216", "reals are not compared", operand.span, "this is a real", notes=notes,
            helps=_advice(operand),
        )  # fmt: skip

    def allows(self, table: ir.Table, span: Span) -> bool:
        """Whether an input may be read; reals may not in a pattern, which is reported."""
        is_allowed = table.kind is not ir.Sort.REAL or not self.definition.is_pattern
        if not is_allowed:
            title = f"`{table.name}` holds reals, which a pattern does not speak of"
            notes = ("which keys a query sees depends on ints and truth values",)
            helps = ("an `attention` speaks of reals: `attention a over p = score s + bias[q, k]`",)
            self.add("A216", title, span, notes=notes, helps=helps)
        return is_allowed

    def function(self, node: syn.Call, local: Locals) -> syn.Kind | None:
        """The kind of a call of a function of reals."""
        wanted = 2 if node.name == DOT else 1
        if len(node.arguments) != wanted:
            plural = "s" if wanted > 1 else ""
            title = f"`{node.name}` takes {wanted} argument{plural}, not {len(node.arguments)}"
            self.add("A205", title, node.span)
        for argument in node.arguments:
            if argument.name is not None:
                self.add("A205", f"`{node.name}` has no named parameters", argument.span)
            if node.name == DOT:
                self._vector(argument.value, local)
            else:
                self.expect(argument.value, "real", local)
        return "real"

    def _vector(self, node: syn.Expression, local: Locals) -> None:
        """A vector: `q`, `k`, or an input of reals with its last index left out."""
        if isinstance(node, syn.Name) and node.name in ("q", "k") and node.name not in local:
            if self.definition.is_selection:
                check_own_vector(self, node)
            elif not self.definition.is_attention:
                title = f"the vector of `{node.name}` is known to attentions only"
                self.add("A202", title, node.span)
            return
        if self.definition.is_selection and is_pooled(node):
            check_pooled(self, node)
            return
        if self.definition.is_selection and is_unit(node):
            assert isinstance(node, syn.Call), "it looks like one"
            self._vector(node.arguments[0].value, local)
            return
        base, indices = (node.base, node.indices) if isinstance(node, syn.Index) else (node, ())
        table = self.table_of(base, local)
        if table is None or table.kind is not ir.Sort.REAL:
            title = "a vector is needed here"
            note = "vectors are `q`, `k`, and rows of real inputs: `rel[q - k]` of `real[n, d]`"
            self.add("A202", title, node.span, f"{quoted(node.span)} is none", notes=(note,))
            return
        for index in indices:
            self.expect(index, "int", local)
        self.facts.tables[table.name] = table
        self.allows(table, node.span)
        dims = table.indexed_dims
        if len(own_indices(table, indices, len(dims) - 1)) != len(dims) - 1 or dims[-1] in (
            "q",
            "k",
            "pos",
        ):
            title = f"this is no row of `{table.name}`"
            given = ", ".join(map(str, dims))
            note = f"it is indexed by {given or 'nothing'}; a row leaves out the last index, and no other"
            self.add("A205", title, node.span, notes=(note,))


def _whole(node: syn.Expression) -> list[str]:
    """How to write an int, where a real stands."""
    if not isinstance(node, syn.Fraction):
        return [] if _advice(node) == [_SCALE] else _advice(node)
    number = float(node.digits)
    if not number.is_integer():
        return [f"write a whole number: `{math.floor(number)}` or `{math.ceil(number)}`"]
    return [f"write it without a point: `{int(number)}`"] if abs(number) < 2**62 else []


def _advice(node: syn.Expression) -> list[str]:
    match node:
        case syn.Fraction():
            return [_SCALE]
        case syn.Product(operands=operands) if any(isinstance(x, syn.Fraction) for x in operands):
            return [_SCALE]
        case syn.Product(operators=operators) if "/" in operators:
            return ["write `//`: it divides ints, and rounds down"]
        case _:
            return []
