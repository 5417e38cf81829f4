"""Dependency order of definitions: callees before callers, and no definition within itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from attndsl import syntax as syn
from attndsl.source import Diagnostic, Span

from .errors import make_error
from .scope import FIXED, Definition

Use: TypeAlias = tuple[Definition, Span]
# Visit an expression; or from here on a local name is bound once more, or once less.
_Job: TypeAlias = syn.Expression | tuple[str, int]
_NUMBERS = (syn.Int, syn.Bool, syn.Fraction)


def uses(definition: Definition) -> Iterator[Use]:
    """The definitions that one mentions, with the places, in the order of the text."""
    roots = [each.default for each in definition.parameters if each.default is not None]
    body = [definition.declaration.body]
    body += [] if definition.zeros is None else [definition.zeros]
    over = getattr(definition.declaration, "over", None)
    if definition.is_attention and over is not None:
        body.append(over)
    if isinstance(definition.declaration, syn.Choosing):
        body += syn.asides(definition.declaration)
    return mentioned(definition, [*roots, *definition.constraints, *body])


def used_alone(definition: Definition) -> Definition | None:
    """The definition whose plain use is the whole body."""
    bound = Counter(each.name for each in definition.parameters)
    return _mentioned(definition, definition.declaration.body, bound)


def plain_use(
    definition: Definition, node: syn.Expression, local: Iterable[str] = ()
) -> Definition | None:
    """The pattern or helper that an expression is nothing but a use of; ``local`` are names of values."""
    return _mentioned(definition, node, Counter(local))


def mentioned(definition: Definition, roots: Iterable[syn.Expression]) -> Iterator[Use]:
    """The definitions that expressions mention which stand in this one."""
    bound = Counter(each.name for each in definition.parameters)
    pending: list[_Job] = [*reversed(list(roots))]
    while pending:
        job = pending.pop()
        if isinstance(job, tuple):
            bound[job[0]] += job[1]
            continue
        if isinstance(job, _NUMBERS) or (isinstance(job, syn.Name) and job.name in FIXED):
            continue
        found = _mentioned(definition, job, bound)
        if found is not None:
            yield found, job.span
        pending.extend(reversed(_inside(job)))


def _mentioned(
    definition: Definition, node: syn.Expression, bound: Counter[str]
) -> Definition | None:
    """The definition that this very node names."""
    match node:
        case syn.Call(name=name):
            item = definition.unit.find(name)
        case syn.Name(name=name) if not bound[name]:
            item = definition.unit.find(name)
        case _:
            return None
    return item if isinstance(item, Definition) else None


def _inside(node: syn.Expression) -> list[_Job]:
    """Pushes the parts of a node, local names included."""
    match node:
        case syn.Let(bindings=bindings, body=body):
            jobs: list[_Job] = []
            for binding in bindings:
                jobs += [binding.value, (binding.name, 1)]
            return [*jobs, body, *((binding.name, -1) for binding in bindings)]
        case syn.Any() | syn.All() | syn.Count() | syn.Total():
            return [node.range, (node.name, 1), node.body, (node.name, -1)]
        case _:
            return [*syn.unlike(node)]


def callees_first(roots: Iterable[Definition]) -> tuple[list[Definition], list[Diagnostic]]:
    """Lists the reachable definitions that are not yet checked, callees before callers; reports cycles."""
    done: dict[Definition, None] = {}
    diagnostics: list[Diagnostic] = []
    for root in roots:
        if root not in done and root.facts is None:
            _descend(root, done, diagnostics)
    return list(done), diagnostics


def _descend(root: Definition, done: dict[Definition, None], diagnostics: list[Diagnostic]) -> None:
    path: dict[Definition, Iterator[Use]] = {root: uses(root)}
    while path:
        last = next(reversed(path))
        callee, span = next(path[last], (None, None))
        if callee is None or span is None:
            done[last] = None
            del path[last]
        elif callee in path:
            diagnostics.append(_cycle(list(path), callee, span))
        elif callee not in done and callee.facts is None:
            path[callee] = uses(callee)


def _cycle(path: list[Definition], back: Definition, span: Span) -> Diagnostic:
    turn = [*path[path.index(back) :], back]
    names = [each.name for each in turn]
    shown = names if len(names) <= 8 else [*names[:4], "...", *names[-3:]]
    also = ((back.declaration.name_span, "defined here"),)
    helps = ("the language has no recursion; repeat with `any j in lo..hi: ...`",)
    title = f"`{back.name}` is defined by itself"
    notes = (" uses ".join(shown),)
    return make_error("A207", title, span, "used here", also=also, notes=notes, helps=helps)
