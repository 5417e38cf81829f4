"""From a module to a mask: which pattern, which values, everything checked on the way."""

from __future__ import annotations

import contextlib
import functools
import math
import numbers
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files as resources
from typing import Any, Literal, TypeAlias

from attndsl import ir
from attndsl import syntax as syn
from attndsl.source import AttnDslError, Diagnostic, Span, brief

from .assertions import check_assertions, claims_of
from .attention_elaboration import attention_of
from .elaboration import Elaborator
from .errors import did_you_mean, listed, make_error, stop_if_any
from .frames import Origin, Value
from .lazy_module import LazyModule
from .linking import Linker, Resolve
from .order import plain_use
from .placing import placed
from .scope import Definition, TableItem, Unit, inputs_never_named
from .typecheck import check

Given: TypeAlias = int | bool | float | Sequence[int]

LONGEST_LIST = 4096


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter as people see it; ``default`` is text of the language."""

    name: str
    kind: syn.Kind
    default: str | None = None


@dataclass(frozen=True, slots=True)
class Signature:
    """Parameters, inputs and spaces of a pattern or attention."""

    name: str
    parameters: tuple[Parameter, ...]
    constraints: tuple[str, ...]
    inputs: tuple[ir.Table, ...]
    queries: ir.Space
    keys: ir.Space
    align: ir.Align
    doc: str
    span: Span

    def __str__(self) -> str:
        """The declaration: `window(left: int, right: int = left)`."""
        parts = [
            f"{p.name}: {p.kind}" + ("" if p.default is None else f" = {p.default}")
            for p in self.parameters
        ]
        over = "" if not self.queries.name else f" over {self.queries.name}"
        over += f" -> {self.keys.name}" if over and self.keys != self.queries else ""
        where = f" where {', '.join(self.constraints)}" if self.constraints else ""
        return self.name + (f"({', '.join(parts)})" if parts else "") + over + where


@functools.cache
def prelude() -> Unit:
    """The definitions visible in every file."""
    # A data file of the package; the room that gives it to people is a floor further up.
    path = resources("attndsl") / "patterns" / "prelude.attn"
    return LazyModule(syn.Outline(path.read_text(encoding="utf-8"), "prelude.attn"))


def checked(linker: Linker, module: syn.Module) -> Unit:
    """The names of a module, every definition in it checked."""
    unit = linker.load(module)
    diagnostics = list(linker.diagnostics)
    check(unit.definitions(), diagnostics)
    for definition in unit.definitions():
        check_assertions(definition, diagnostics)
    stop_if_any(diagnostics)
    return unit


def elaborate(
    module: syn.Module,
    entry: str | None = None,
    values: Mapping[str, Given] | None = None,
    resolve: Resolve | None = None,
    align: str | None = None,
    layer: int | None = None,
) -> ir.Mask:
    """The mask of one pattern of a module.

    Args:
        module: A parsed file. All its definitions are checked, whether used or not.
        entry: The pattern; by default the last one the module declares. A pattern of the prelude
            or of an imported file may be named too.
        values: For its parameters, by name; the others keep their defaults.
        resolve: Brings the module that an import names, see `files`. Without it, imports fail.
        align: "start" or "end", where the pattern does not say itself how its queries are placed.
        layer: For which the pattern's own constraints are judged; without it, those that speak of layers are not.

    Raises:
        AttnDslError: A2xx for names and kinds, A3xx for values and sizes; up to ten together.
    """
    with _enough_stack(module.span):
        unit = checked(Linker(resolve, prelude()), module)
        definition = chosen(unit, entry)
        written = definition.written_align
        span = definition.declaration.name_span
        place = placed(definition.pair, definition.name, written, align, span)
        made = mask_of(definition, outside(definition, values or {}), place, layer)
        return replace(made, unread=(*made.unread, *inputs_never_named(unit)))


def elaborate_attention(
    module: syn.Module,
    entry: str | None = None,
    values: Mapping[str, Given] | None = None,
    resolve: Resolve | None = None,
    align: str | None = None,
    layer: int | None = None,
) -> ir.Attention:
    """The attention of a module, by default the last one; arguments and errors are those of `elaborate`."""
    with _enough_stack(module.span):
        unit = checked(Linker(resolve, prelude()), module)
        definition = chosen(unit, entry, "attention")
        written = definition.written_align or _align_of_pairs(definition)
        span = definition.declaration.name_span
        place = placed(definition.pair, definition.name, written, align, span)
        made = attention_of(definition, outside(definition, values or {}), place, layer)
        return replace(made, unread=(*made.unread, *inputs_never_named(unit)))


def _align_of_pairs(definition: Definition) -> str | None:
    """The alignment that the pattern of an attention says itself."""
    over = getattr(definition.declaration, "over", None)
    used = None if over is None else plain_use(definition, over)
    return used.written_align if used is not None else None


def kind_of(
    module: syn.Module, entry: str | None = None, resolve: Resolve | None = None
) -> Literal["pattern", "attention"]:
    """Whether a name stands for a pattern or an attention; by default what the module declares last.

    Raises:
        AttnDslError: A211, it stands for neither; A2xx for the declarations of the module.
    """
    with _enough_stack(module.span):
        linker = Linker(resolve, prelude())
        unit = linker.load(module)
        stop_if_any(linker.diagnostics)
        return _word(unit, entry)


def _word(unit: Unit, entry: str | None) -> Literal["pattern", "attention"]:
    if entry is None:
        found = [each for each in unit.definitions() if each.is_pattern or each.is_attention]
        return "attention" if found and found[-1].is_attention else "pattern"
    item = unit.find(entry)
    return "attention" if isinstance(item, Definition) and item.is_attention else "pattern"


@contextlib.contextmanager
def _enough_stack(span: Span) -> Iterator[None]:
    """Nesting is limited well within Python's stack, but a caller may have used most of that up."""
    try:
        yield
    except RecursionError:
        title = "too little of Python's stack is left to read this program"
        helps = ("nest it less deeply, or compile it outside of deep recursion",)
        raise AttnDslError(make_error("A304", title, span, helps=helps)) from None


def mask_of(
    definition: Definition, values: Mapping[str, Value], align: ir.Align, layer: int | None = None
) -> ir.Mask:
    """The mask of a checked definition with these values for parameters."""
    elaborator = Elaborator(definition.pair, align, layer=layer)
    span = definition.declaration.name_span
    try:
        root = elaborator.open(definition, values, Origin(), span)
        stop_if_any(elaborator.diagnostics)
        assert isinstance(root, ir.Node), "kinds were checked"
        zeros = elaborator.zeros(definition, values, Origin())
        conditions = tuple(elaborator.conditions.values())  # not those of the claims
        claims = claims_of(definition, values, root, zeros, elaborator)
    except AttnDslError as error:
        elaborator.diagnostics.extend(error.diagnostics)
        stop_if_any(elaborator.diagnostics)
        raise
    stop_if_any(elaborator.diagnostics)
    declared = (definition.facts.tables if definition.facts else {}) | elaborator.tables
    tables = tuple(declared[name] for name in sorted(declared))
    mask = ir.Mask(
        root, definition.pair.queries, definition.pair.keys, tables, align,
        definition.name, definition.declaration.doc, claims, zeros, conditions=conditions,
        places=tuple(elaborator.places.items()), selections=tuple(elaborator.selections.values()),
    )  # fmt: skip
    return mask.with_root(root)


def signature(
    module: syn.Module, entry: str | None = None, resolve: Resolve | None = None
) -> Signature:
    """Signature of a pattern or attention, for help texts and command lines. Raises as `elaborate` does."""
    with _enough_stack(module.span):
        unit = checked(Linker(resolve, prelude()), module)
        return described(chosen(unit, entry, _word(unit, entry)))


def signatures(module: syn.Module, resolve: Resolve | None = None) -> tuple[Signature, ...]:
    """Signatures of all patterns and attentions that a module declares. Raises as `elaborate` does."""
    with _enough_stack(module.span):
        found = checked(Linker(resolve, prelude()), module).definitions()
        return tuple(described(each) for each in found if each.is_pattern or each.is_attention)


def inputs_declared(module: syn.Module) -> tuple[ir.Table, ...]:
    """All inputs that a module without imports declares, by name. Raises as `elaborate` does."""
    with _enough_stack(module.span):
        unit = checked(Linker(None, prelude()), module)
        found = (item.table for item in unit.own.values() if isinstance(item, TableItem))
        return tuple(sorted(found, key=lambda table: table.name))


def described(definition: Definition) -> Signature:
    """The signature of a checked definition."""
    parameters = tuple(
        Parameter(p.name, p.kind, None if p.default is None else syn.format_expression(p.default))
        for p in definition.parameters
    )
    facts = definition.facts
    return Signature(
        definition.name,
        parameters,
        tuple(syn.format_expression(each) for each in definition.constraints),
        tuple(table for _, table in sorted(facts.tables.items())) if facts else (),
        definition.pair.queries,
        definition.pair.keys,
        definition.align,
        definition.declaration.doc,
        definition.declaration.span,
    )


def chosen(
    unit: Unit, entry: str | None, word: Literal["pattern", "attention"] = "pattern"
) -> Definition:
    """The pattern or attention that was asked for, or the last of the file."""
    patterns = [each for each in unit.definitions() if _is(word, each)]
    if entry is None:
        if not patterns:
            title = f"{unit.name} declares no {word}"
            example = {"pattern": "pattern causal = k <= q"}
            helps = (f"a file needs one: `{example.get(word, 'attention a over p = score s')}`",)
            raise AttnDslError(make_error("A211", title, unit.module.span, helps=helps))
        return patterns[-1]
    item = unit.find(entry)
    if isinstance(item, Definition) and _is(word, item):
        return item
    known = unit.declared(word)
    what = f"`{entry}` is no {word}" if item else f"{unit.name} has no {word} `{entry}`"
    notes = (f"its {word}s are {listed(each.name for each in patterns)}",) if patterns else ()
    raise AttnDslError(make_error("A211", what, notes=notes, helps=(did_you_mean(entry, known),)))


def _is(word: str, definition: Definition) -> bool:
    return definition.is_pattern if word == "pattern" else definition.is_attention


# ---------------------------------------------------------------------- values


def outside(definition: Definition, values: Mapping[str, Given]) -> dict[str, Value]:
    """Values given from outside the language, judged and converted."""
    diagnostics: list[Diagnostic] = []
    converted: dict[str, Value] = {}
    parameters = {each.name: each for each in definition.parameters}
    for name, value in values.items():
        if name not in parameters:
            diagnostics.append(_unknown(definition, name))
            continue
        made = convert(parameters[name].kind, value)
        if isinstance(made, str):
            title = f"`{name}` of `{definition.name}` {made}"
            diagnostics.append(make_error("A211", title, parameters[name].span, "declared here"))
        else:
            converted[name] = made
    for each in definition.parameters:
        if each.default is None and each.name not in values:
            title = f"`{definition.name}` needs a value for `{each.name}`"
            helps = (f"give it by name: `{each.name}={_example(each.kind)}`",)
            diagnostics.append(
                make_error("A211", title, each.span, "it has no default", helps=helps)
            )
    stop_if_any(diagnostics)
    return converted


def _unknown(definition: Definition, name: str) -> Diagnostic:
    names = [each.name for each in definition.parameters]
    title = f"`{definition.name}` has no parameter `{name}`"
    notes = (f"its parameters are {listed(names)}" if names else "it has no parameters",)
    span = definition.declaration.name_span
    return make_error("A211", title, span, notes=notes, helps=(did_you_mean(name, names),))


def _example(kind: syn.Kind) -> str:
    return {"int": "1", "bool": "True", "list": "[0, 1]", "real": "1.0"}[kind]


def convert(kind: syn.Kind, value: Any) -> Value | str:
    """A Python value, NumPy's and torch's among them, as a value of the kind; or what is wrong with it."""
    if getattr(value, "ndim", None) == 0:
        value = value.item()
    match kind:
        case "bool":
            if isinstance(value, bool):
                return ir.BoolConst(value)
            return f"must be true or false, not {brief(value)}"
        case "int":
            made = _integer(value)
            return made if made is not None else _bad_int(value)
        case "real":
            return _real(value)
        case "list":
            is_array = getattr(value, "ndim", None) == 1
            if not is_array and (not isinstance(value, Sequence) or isinstance(value, str | bytes)):
                return f"must be a list of ints, not {brief(value)}"
            if len(value) > LONGEST_LIST:
                return f"has {len(value):,} entries; a list holds at most {LONGEST_LIST}"
            items = value.tolist() if is_array else value
            made_items = [_integer(item) for item in items]
            kept = tuple(item for item in made_items if item is not None)
            if len(kept) < len(items):
                return f"must hold ints only, not {brief(items[made_items.index(None)])}"
            return kept


def _real(value: object) -> Value | str:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return f"must be a real number, not {brief(value)}"
    with contextlib.suppress(OverflowError):  # of an int
        if math.isfinite(number := float(value)):
            return ir.reals.Number(number)
    return f"must be finite, not {brief(value)}"


def _integer(value: object) -> ir.Node | None:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        return None
    try:
        number = int(value.__index__())
    except (TypeError, ValueError):  # an array of several numbers has the method, too
        return None
    return ir.Const(number) if abs(number) < ir.LARGEST else None


def _bad_int(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return "must be smaller than 2**62 in magnitude"
    return f"must be an int, not {brief(value)}"
