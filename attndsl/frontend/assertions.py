"""The claims beside a pattern: which `assert` says what, and the same as data of the IR.

causal · symmetric · covers · disjoint(a, b) · covers(a) · density(4096) < 0.1
every query sees itself · every query sees at least 1 key · every query sees at most n keys
keys per query == 49 · slots per query == 49 · queries per key <= n · reaches everything within 4 layers
any truth value: it holds for every pair
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, TypeAlias

from attndsl import ir
from attndsl import syntax as syn
from attndsl.source import Diagnostic, Span

from .elaboration import Elaborator
from .errors import did_you_mean, listed, make_error
from .frames import Origin, Scope, Value
from .scope import Definition
from .typecheck import check_expressions

Kind: TypeAlias = Literal[
    "causal", "symmetric", "itself", "includes", "disjoint", "count", "density", "reach", "holds"
]  # fmt: skip

_NUMBER = "#"
_PHRASES: dict[str, tuple[Kind, ir.Side, ir.Comparison | None]] = {
    "every query sees itself": ("itself", ir.Side.QUERY, None),
    "every query sees at least # keys": ("count", ir.Side.QUERY, ">="),
    "every query sees at most # keys": ("count", ir.Side.QUERY, "<="),
    "reaches everything within # layers": ("reach", ir.Side.QUERY, "<="),
}
_COUNTS = {
    "keys per query": ir.Side.QUERY,
    "slots per query": ir.Side.QUERY,  # keys and zero keys
    "queries per key": ir.Side.KEY,
}
_FEW = 32  # relations that are compared pair by pair
_WORDS = ("causal", "symmetric", "covers")
_SINGULAR = {"keys": "key", "layers": "layer"}
_FORMS = (
    "claims of all pairs: `causal`, `symmetric`, `covers(a)`, `disjoint(a, b)`, or a truth value",
    "claims of counts: `every query sees at least 1 key`, `keys per query == 49`, `covers`",
    "claims of the whole: `density(4096) < 0.1`, `reaches everything within 4 layers`",
)


@dataclass(frozen=True, slots=True)
class _Said:
    """One claim, understood: ``parts`` are its expressions, all of one kind."""

    kind: Kind
    parts: tuple[syn.Expression, ...] = ()
    part_kind: syn.Kind = "bool"
    side: ir.Side = ir.Side.QUERY
    operator: ir.Comparison = ">="
    bound: Fraction | None = None  # of a density
    names: tuple[str | None, ...] = ()  # of a density's arguments
    counts_zeros: bool = False


# ---------------------------------------------------------------------- checking


def check_assertions(definition: Definition, diagnostics: list[Diagnostic]) -> None:
    """Complain of claims that mean nothing, and of names and kinds in them."""
    if not isinstance(definition.declaration, syn.Pattern):
        return
    wanted: list[tuple[syn.Expression, syn.Kind]] = []
    for assertion in definition.declaration.assertions:
        said = _understood(definition, assertion)
        if isinstance(said, Diagnostic):
            diagnostics.append(said)
        else:
            wanted += [(part, said.part_kind) for part in said.parts]
        wanted += [(condition, "bool") for condition in assertion.where]
    if wanted:
        check_expressions(definition, wanted, diagnostics)


def _understood(definition: Definition, assertion: syn.Assertion) -> _Said | Diagnostic:
    match assertion.claim:
        case syn.Phrase() as phrase:
            return _phrase(phrase)
        case syn.Measure(subject=syn.Call(name="density") as call, operator=operator, bound=bound):
            return _density(call, operator, Fraction(bound.digits))
        case syn.Measure(bound=bound):
            title = "numbers are whole here"
            notes = ("a fraction bounds `density(4096)` only",)
            return make_error("A213", title, bound.span, notes=notes)
        case syn.Compare(
            operands=(syn.Call(name="density") as call, syn.Int(value=whole)), operators=(operator,)
        ):
            return _density(call, operator, Fraction(whole))
        case syn.Name(name="causal" | "symmetric" as word):
            return _Said(word)
        case syn.Name(name="covers"):
            one = syn.Int(1, assertion.claim.span)
            return _Said("count", (one,), "int", ir.Side.KEY, ">=")
        case syn.Call(name="disjoint" | "covers" as word, arguments=arguments) as call:
            return _relation(word, arguments, call)
        case syn.Name() | syn.Call() as single:
            return _no_claim(definition, single)
        case expression:
            return _Said("holds", (expression,))


def _relation(word: str, arguments: tuple[syn.Argument, ...], call: syn.Call) -> _Said | Diagnostic:
    fewest = 2 if word == "disjoint" else 1
    if len(arguments) < fewest or any(each.name is not None for each in arguments):
        example = "disjoint(a, b)" if word == "disjoint" else "covers(a)"
        title = f"`{word}` takes {fewest} or more patterns"
        return make_error("A213", title, call.span, helps=(f"write `{example}`",))
    kind: Kind = "disjoint" if word == "disjoint" else "includes"
    return _Said(kind, tuple(each.value for each in arguments))


def _density(call: syn.Call, operator: syn.CompareOp, bound: Fraction) -> _Said | Diagnostic:
    names = tuple(each.name for each in call.arguments)
    if not names or names.count(None) > 1 or len(set(names)) < len(names):
        title = "`density` takes a length, or the extents of the axes"
        helps = ("write `density(4096)`, `density(y=64, x=64)` or `density(4096, heads=8)`",)
        return make_error("A213", title, call.span, helps=helps)
    parts = tuple(each.value for each in call.arguments)
    return _Said("density", parts, "int", operator=operator, bound=bound, names=names)


def _no_claim(definition: Definition, node: syn.Name | syn.Call) -> Diagnostic:
    item = definition.unit.find(node.name)
    if node.name == "density":
        helps: tuple[str | None, ...] = ("compare it: `density(4096) < 0.1`",)
        return make_error("A213", "a density alone claims nothing", node.span, helps=helps)
    if isinstance(item, Definition):
        what = node.span.text if len(node.span.text) < 40 else node.name
        title = f"`{node.name}` is a definition, not a claim"
        helps = (f"compare it, `{definition.name} == {what}`, or write `covers({what})`",)
        return make_error("A213", title, node.span, helps=helps)
    title = f"there is no claim `{node.name}`"
    near = did_you_mean(node.name, (*_WORDS, "disjoint", "density"))
    return make_error("A213", title, node.span, notes=() if near else _FORMS, helps=(near,))


def _phrase(phrase: syn.Phrase) -> _Said | Diagnostic:
    said = " ".join(map(str, phrase.words))
    bound = phrase.bound
    if said in _COUNTS and phrase.operator and bound and not isinstance(bound, syn.Fraction):
        slots = said == "slots per query"
        return _Said("count", (bound,), "int", _COUNTS[said], phrase.operator, counts_zeros=slots)
    for form, (kind, side, operator) in _PHRASES.items():
        if phrase.operator is None and (numbers := _fits(phrase, form)) is not None:
            return _Said(kind, numbers, "int", side, operator or ">=")
    return _unknown_phrase(phrase, said)


def _fits(phrase: syn.Phrase, form: str) -> tuple[syn.Expression, ...] | None:
    """The numbers of the phrase, if it has that form."""
    wanted = form.split()
    if len(wanted) != len(phrase.words):
        return None
    numbers: list[syn.Expression] = []
    for want, word in zip(wanted, phrase.words, strict=True):
        if want == _NUMBER:
            made = syn.Int(word, phrase.span) if isinstance(word, int) else None
            numbers.append(made or syn.Name(str(word), phrase.span))
        elif word not in (want, _SINGULAR.get(want)):
            return None
    return tuple(numbers)


def _unknown_phrase(phrase: syn.Phrase, said: str) -> Diagnostic:
    if said in _COUNTS:
        title = f"`{said}` alone claims nothing" if phrase.bound is None else "keys are whole"
        return make_error("A213", title, phrase.span, helps=(f"write `{said} == 49`",))
    forms = [form.replace(_NUMBER, "1").replace("1 keys", "1 key") for form in _PHRASES]
    near = difflib.get_close_matches(said, [*forms, *(f"{c} == 49" for c in _COUNTS)], 1, 0.5)
    helps = (f"did you mean `{near[0]}`?",) if near else ()
    return make_error(
        "A213", "this is no claim", phrase.span, notes=() if near else _FORMS, helps=helps
    )


# ---------------------------------------------------------------------- elaborating


def claims_of(
    definition: Definition,
    values: Mapping[str, Value],
    root: ir.Node,
    zeros: ir.Node,
    elaborator: Elaborator,
) -> tuple[ir.Claim, ...]:
    """The checked claims of a definition that with these values is ``root``, and has ``zeros``."""
    assert isinstance(definition.declaration, syn.Pattern)
    frame = elaborator.frame(definition, values, Origin())
    frame = replace(frame, chain=(definition.pair,))
    return tuple(
        _Claiming(definition, root, zeros, elaborator, frame, each).claim()
        for each in definition.declaration.assertions
    )


class _Claiming:
    """One claim on its way to the IR."""

    def __init__(
        self,
        definition: Definition,
        root: ir.Node,
        zeros: ir.Node,
        elaborator: Elaborator,
        frame: Scope,
        assertion: syn.Assertion,
    ) -> None:
        self.definition = definition
        self.root = root
        self.zeros = zeros
        self.elaborator = elaborator
        self.frame = frame
        self.assertion = assertion

    def claim(self) -> ir.Claim:
        said = _understood(self.definition, self.assertion)
        assert isinstance(said, _Said), "claims were checked"
        parts = [self.elaborator.node(part, self.frame) for part in said.parts]
        if said.counts_zeros:  # as many keys as there are slots without a zero key
            parts = [ir.sub(part, self.zeros) for part in parts]
        what = self._property(said, parts)
        conditions = [self.elaborator.node(each, self.frame) for each in self.assertion.where]
        for node, expression in zip(conditions, self.assertion.where, strict=True):
            self._check_deps(node, _allowed(what), expression.span, "this condition")
        condition = ir.conj(*conditions)
        text = syn.format_assertion(self.assertion)
        tables = self._tables([self.root, condition, *parts])
        return ir.Claim(text, what, condition, tables, self.assertion.span)

    def _tables(self, roots: list[ir.Node]) -> tuple[ir.Table, ...]:
        nodes = itertools.chain.from_iterable(map(ir.postorder, roots))
        read = {node.table for node in nodes if isinstance(node, ir.Load)}
        return tuple(self.elaborator.tables[name] for name in sorted(read))

    def _property(self, said: _Said, parts: list[ir.Node]) -> ir.Property:
        q, k = ir.Pos(ir.Side.QUERY), ir.Pos(ir.Side.KEY)
        match said.kind:
            case "causal":
                return ir.Always(ir.implies(self.root, ir.le(k, q)))
            case "symmetric":
                return ir.Always(ir.implies(self.root, ir.swapped(self.root)), is_square=True)
            case "itself":
                return ir.Always(ir.implies(ir.eq(q, k), self.root), is_square=True)
            case "includes":
                return ir.Always(ir.conj(*(ir.implies(part, self.root) for part in parts)))
            case "disjoint":
                return ir.Always(ir.negate(_two_of(parts)))
            case "count":
                (bound,) = parts
                self._check_deps(bound, said.side.deps, said.parts[0].span, "this bound")
                return ir.Counted(said.side, said.operator, bound)
            case "density":
                return self._density(said, parts)
            case "reach":
                return ir.Reached(self._known(parts[0], said.parts[0].span))
            case "holds":
                return ir.Always(parts[0])

    def _density(self, said: _Said, parts: list[ir.Node]) -> ir.Density:
        numbers = [
            self._known(node, part.span) for node, part in zip(parts, said.parts, strict=True)
        ]
        given = dict(zip(said.names, numbers, strict=True))
        length, heads = given.pop(None, None), given.pop("heads", 1)
        extents = tuple((str(name), size) for name, size in given.items())
        assert said.bound is not None
        return ir.Density(length, extents, heads, said.operator, said.bound)

    def _known(self, node: ir.Node, span: Span) -> int:
        if isinstance(node, ir.Const) and node.value >= 1:
            return node.value
        title = "a number that is known and positive is needed here"
        self.elaborator.diagnostics.append(make_error("A213", title, span))
        return 1

    def _check_deps(self, node: ir.Node, allowed: ir.Deps, span: Span, what: str) -> None:
        wrong = node.deps & ir.Deps.PAIR & ~allowed
        names = listed(side.value for side in ir.Side if wrong & side.deps)
        if wrong:
            title = f"{what} cannot depend on {names}"
            self.elaborator.diagnostics.append(make_error("A213", title, span))


def _two_of(parts: list[ir.Node]) -> ir.Node:
    """Whether two of the parts hold: pair by pair, or by halves where there are many."""
    if len(parts) <= _FEW:
        return ir.disj(*(ir.conj(a, b) for a, b in itertools.combinations(parts, 2)))
    halves = parts[: len(parts) // 2], parts[len(parts) // 2 :]
    return ir.disj(*map(_two_of, halves), ir.conj(*(ir.disj(*half) for half in halves)))


def _allowed(what: ir.Property) -> ir.Deps:
    """The positions that a condition on the claim may speak of."""
    match what:
        case ir.Always():
            return ir.Deps.PAIR
        case ir.Counted(side=side):
            return side.deps
        case _:
            return ir.Deps.NONE
