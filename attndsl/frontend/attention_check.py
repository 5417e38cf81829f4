"""The check of an attention: which branches it has, and that all expressions in them have their kinds."""

from __future__ import annotations

from typing import Final

from attndsl import syntax as syn
from attndsl.source import Diagnostic, Span

from .attention_terms import NO_PART, NOT_JOINED
from .errors import did_you_mean, listed, make_error
from .order import plain_use, uses
from .real_check import Locals, Numbers
from .scope import FIXED, Definition, spaces_said
from .spaces import FLAT_PAIR, Pair

SCORE: Final = "s"
"""The name of the score of a pair, behind `score`, `weights` and `factor`."""
FORMS: Final = (
    "softmax", "sigmoid", "pointwise", "l1", "entmax", "stick", "columns",
)  # fmt: skip
_WITH_EXPRESSION = ("pointwise", "l1")
_WITH_MASS = ("softmax", "l1")  # that have a denominator for each query
PAIRED: Final = 2  # how many heads `by pair` takes together


def check_attention(checker: Numbers, local: Locals) -> None:
    """Complain of an attention whose parts do not fit."""
    declaration = checker.definition.declaration
    assert isinstance(declaration, syn.Attention)
    for parameter in declaration.parameters:
        if parameter.name == SCORE:
            _complain_of_name(checker, parameter)
    if (item := checker.unit.find(SCORE)) is not None:
        title = f"`{SCORE}` is the score of a pair in attentions, and is declared here"
        also = ((declaration.name_span, "an attention"),)
        checker.diagnostics.append(make_error("A204", title, item.declaration.name_span, also=also))
    check = _Branches(checker, declaration)
    if declaration.over is not None and spaces_said(checker.definition) is None:
        check.pairs(declaration.over, local)
    check.attention(declaration.body, local)


def _complain_of_name(checker: Numbers, parameter: syn.Parameter) -> None:
    title = f"a parameter of an attention cannot be named `{SCORE}`"
    checker.add("A204", title, parameter.name_span, "this is the score of a pair")


def find_spaces(definition: Definition, diagnostics: list[Diagnostic]) -> None:
    """Give an attention that names no space those of the patterns and attentions that it uses."""
    if not definition.is_attention or spaces_said(definition) is not None:
        return
    found: dict[Pair, tuple[Definition, Span]] = {}
    for used, span in uses(definition):
        if used.pair != FLAT_PAIR:
            found.setdefault(used.pair, (used, span))
    if len(found) > 1:
        title = f"`{definition.name}` uses patterns of different spaces"
        (first, one), (second, other) = [*found.values()][:2]
        also = ((one, f"`{first.name}` lives in {_spaces(first)}"),)
        label = f"`{second.name}` lives in {_spaces(second)}"
        helps = (
            "say which is meant, and which pairs in the branches: `over image = (over p: ...)`",
        )
        diagnostics.append(make_error("A210", title, other, label, also=also, helps=helps))
    definition.pair = next(iter(found), FLAT_PAIR)


def _spaces(definition: Definition) -> str:
    return " and ".join(f"`{space.name}`" for space in definition.pair.of(None) if space.name)


def attention_used(definition: Definition, node: syn.Expression) -> Definition | None:
    """The attention that an expression plainly names, with arguments or without."""
    match node:
        case syn.Name(name=name) | syn.Call(name=name):
            item = definition.unit.find(name)
            return item if isinstance(item, Definition) and item.is_attention else None
        case _:
            return None


def call_of(node: syn.Name | syn.Call) -> syn.Call:
    """A use as a call; a name alone has no arguments."""
    return node if isinstance(node, syn.Call) else syn.Call(node.name, (), node.span, node.span)


def is_attention(definition: Definition, node: syn.Expression) -> bool:
    """Whether an expression is meant as an attention: a branch or a name of one stands in it as an operand."""
    match node:
        case syn.Scored() | syn.Join():
            return True
        case syn.Neg(operand=operand):
            return is_attention(definition, operand)
        case syn.Sum(operands=operands) | syn.Product(operands=operands):
            return any(is_attention(definition, each) for each in operands)
        case syn.Let(body=body):
            return is_attention(definition, body)
        case syn.If(yes=yes, no=no):
            return is_attention(definition, yes) or is_attention(definition, no)
        case _:
            return attention_used(definition, node) is not None


class _Branches:
    """The check of the body of one attention."""

    def __init__(self, checker: Numbers, declaration: syn.Attention) -> None:
        self.checker = checker
        self.declaration = declaration
        self.definition = checker.definition

    def attention(self, node: syn.Expression, local: Locals) -> None:
        """The expression must be an attention: a sum of multiples of branches."""
        match node:
            case syn.Scored():
                self._scored(node, local)
            case syn.Join(operands=operands):
                for operand in operands:
                    self._joined(operand, local)
            case syn.Sum(operands=operands):
                for operand in operands:
                    self.attention(operand, local)
            case syn.Neg(operand=operand):
                self.attention(operand, local)
            case syn.Product():
                self._product(node, local)
            case syn.Let(bindings=bindings, body=body):
                inner = dict(local)
                for binding in bindings:
                    inner[binding.name] = self.checker.list_or_kind(binding.value, inner)
                self.attention(body, inner)
            case syn.If() if is_attention(self.definition, node):
                helps = ("choose its factor: `(if c then 1.0 else 0.0) * a`, or its pairs",)
                title = "an attention is not chosen by a condition"
                self.checker.add("A217", title, node.span, helps=helps)
            case syn.Name() | syn.Call() if used := attention_used(self.definition, node):
                self.checker.use(used, call_of(node), local)
            case _:
                self._refuse(node)

    def _refuse(self, node: syn.Expression) -> None:
        """Complain of what is no attention."""
        known = self.definition.unit.declared("attention")
        name = getattr(node, "name", "")
        helps = [did_you_mean(name, known) if isinstance(node, syn.Name | syn.Call) else None]
        if any(isinstance(each, syn.Name) and each.name == SCORE for each in _within(node)):
            text = syn.format_expression(node)
            helps = [f"write `score {text}`"]
            if isinstance(node, syn.Call) and node.name in FORMS:
                helps = [f"write `score s weights {node.name}`"]
        title = "an attention is needed here"
        notes = ("a branch is `(score s)`, `(over causal: score s)`, or the name of an attention",)
        self.checker.add("A217", title, node.span, notes=notes, helps=helps)

    def _product(self, node: syn.Product, local: Locals) -> None:
        found = [each for each in node.operands if is_attention(self.definition, each)]
        if len(found) != 1:
            if not found:
                self._refuse(node)
                return
            title = "attentions are not multiplied"
            also = ((found[0].span, "this is one"),)
            self.checker.add("A217", title, found[1].span, "this is another", also=also)
        for operator, operand in zip(("*", *node.operators), node.operands, strict=True):
            if operator not in ("*", "/") or (operator == "/" and operand in found):
                title = "an attention is multiplied by reals, or divided by them"
                notes = (f"`{operator}` does not divide by an attention, nor one by ints",)
                self.checker.add("A217", title, node.span, notes=notes)
            elif operand not in found:
                self.checker.expect(operand, "real", local)
        self.attention(found[0], local)

    def _joined(self, node: syn.Expression, local: Locals) -> None:
        """An operand of `++`."""
        plain = isinstance(node, syn.Scored | syn.Join)
        if not plain and attention_used(self.definition, node) is None:
            title = "`++` joins branches and attentions, not multiples or sums of them"
            self.checker.add("A217", title, node.span, helps=NOT_JOINED)
            return
        if isinstance(node, syn.Scored) and node.weights and node.weights.form != "softmax":
            title = f"`++` makes one softmax; `{node.weights.form}` cannot be part of it"
            self.checker.add("A217", title, node.weights.span, notes=NO_PART, helps=NOT_JOINED)
        self.attention(node, local)

    def _scored(self, node: syn.Scored, local: Locals) -> None:
        if node.over is not None:
            self.pairs(node.over, local)
        elif self.declaration.over is None:
            title = f"`{self.definition.name}` does not say which pairs have this score"
            helps = ("say so by `over`: `attention a over causal = score s`",)
            self.checker.add("A217", title, node.span, helps=helps)
        inside = {**local, SCORE: "real"} if SCORE not in local else local
        self.checker.expect(node.score, "real", inside)
        if node.factor is not None:
            self.checker.expect(node.factor, "real", inside)
        form = self._form(node.weights, inside)
        if node.mass is not None:
            self.checker.expect(node.mass, "real", local)
            if form not in _WITH_MASS:
                title = f"weights by `{form}` have no denominator of a query for mass to be in"
                self.checker.add("A217", title, node.mass.span)
        for by in node.by:
            self._by(by)

    def _form(self, weights: syn.Weights | None, inside: Locals) -> str:
        if weights is None:
            return "softmax"
        if weights.form not in FORMS:
            title = f"there are no weights `{weights.form}`"
            helps = (did_you_mean(weights.form, FORMS),)
            notes = (f"weights are {listed(FORMS)}",)
            self.checker.add("A217", title, weights.form_span, notes=notes, helps=helps)
        takes = weights.form in _WITH_EXPRESSION
        if weights.expression is not None:
            self.checker.expect(weights.expression, "real", inside)
        if weights.form in FORMS and takes != (weights.expression is not None):
            what = "which function of `s` they are" if takes else "no function of `s`"
            title = f"weights by `{weights.form}` say {what}"
            helps = (f"write `weights {weights.form}{' relu(s)' if takes else ''}`",)
            self.checker.add("A217", title, weights.span, helps=helps)
        return weights.form

    def _by(self, by: syn.By) -> None:
        if by.number is None and by.name in (*FIXED, "v"):
            title = f"keys from elsewhere cannot be named `{by.name}`"
            self.checker.add("A204", title, by.span)
        if by.number is not None and by.number >= PAIRED:
            self.checker.add("A217", "a pair has numbers 0 and 1", by.span)

    def pairs(self, node: syn.Expression, local: Locals) -> None:
        """The expression must say which pairs there are."""
        self.checker.expect(node, "bool", local)
        used = self.checker.facts.padded
        self.checker.facts.padded = None
        if used is not None and plain_use(self.definition, node, local) is None:
            title = f"the zero keys of `{used.name}` are lost in a larger expression"
            helps = ("use a pattern without them, one with `zeros 0` behind its body, and `mass`",)
            self.checker.add("A215", title, node.span, helps=helps)


def _within(root: syn.Expression) -> list[syn.Expression]:
    """An expression and all that stand in it."""
    found = [root]
    for each in found:
        found += syn.children(each)
    return found
