"""Complaints about values, where `kinds` and `scope` complain about names."""

from __future__ import annotations

from attndsl import ir
from attndsl import syntax as syn
from attndsl.source import Diagnostic, Span

from .errors import make_error, quoted
from .frames import DEEPEST, WIDEST_RANGE, Origin, Scope, Value
from .scope import Definition


def violated(
    definition: Definition,
    constraint: syn.Expression,
    frame: Scope,
    origin: Origin,
    layer: int | None = None,
) -> Diagnostic:
    required = f"required here: {quoted(constraint.span)}"
    named = _names_in(constraint)
    values = [f"{n} = {_shown(v)}" for n, v in frame.local.items() if n in named]
    values += [f"layer = {layer}"] if "layer" in named and layer is not None else []
    notes = (f"{', '.join(values)} in this use",) if values else ()
    title = f"`{definition.name}` needs {quoted(constraint.span)}"
    if origin.span is None:
        return make_error("A301", title, constraint.span, "required here", notes=notes)
    return make_error(
        "A301", title, origin.span, "not so in this use",
        also=((constraint.span, required),), notes=notes,
    )  # fmt: skip


def _names_in(root: syn.Expression) -> set[str]:
    found: set[str] = set()
    pending: list[syn.Expression] = [root]
    while pending:
        node = pending.pop()
        if isinstance(node, syn.Name):
            found.add(node.name)
        pending.extend(syn.children(node))
    return found


def _shown(value: Value) -> str:
    match value:
        case ir.Const(value=number):
            return str(number)
        case ir.BoolConst(value=truth):
            return str(truth).lower()
        case tuple():
            return f"[{', '.join(_shown(item) for item in value[:8])}{', ...' * (len(value) > 8)}]"
        case _:
            return "not known yet"


def too_wide(domain: syn.Range, width: int) -> Diagnostic:
    title = f"a range of {width:,} is too wide"
    notes = (f"every number is tried: at most {WIDEST_RANGE}",)
    helps = ("`//` and `%` often say the same without trying",)
    return make_error("A303", title, domain.span, notes=notes, helps=helps)


def too_many_trials(domain: syn.Range, bodies: int) -> Diagnostic:
    title = f"ranges within each other try {bodies:,} combinations"
    notes = (f"`any` and `all` try every combination: at most {ir.MOST_TRIALS:,}",)
    helps = ("an equation that says what one of the variables is makes its range free",)
    return make_error("A303", title, domain.span, notes=notes, helps=helps)


def too_large(span: Span, what: str) -> Diagnostic:
    title = "this program is too large"
    return make_error("A304", title, span, "given up here", notes=(f"it takes {what}",))


def too_deep(span: Span) -> Diagnostic:
    title = f"definitions and expressions are nested more than {DEEPEST} deep"
    return make_error("A304", title, span, "given up here")
