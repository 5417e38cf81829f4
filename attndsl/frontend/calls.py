"""Arguments to parameters."""

from __future__ import annotations

from attndsl import syntax as syn
from attndsl.source import Diagnostic

from .errors import did_you_mean, listed, make_error
from .scope import Definition

Given = dict[str, syn.Expression]


def matched(definition: Definition, call: syn.Call) -> tuple[Given, list[Diagnostic]]:
    """The argument of each parameter that gets one, and what is wrong with the call."""
    given: Given = {}
    diagnostics: list[Diagnostic] = []
    names = [each.name for each in definition.parameters]
    positional = 0
    for argument in call.arguments:
        name = argument.name
        if name is None:
            if len(given) > positional:
                title = "an argument without a name stands behind one with a name"
                diagnostics.append(make_error("A205", title, argument.span))
                continue
            positional += 1
            if positional > len(names):
                title = f"`{definition.name}` takes {_count(len(names))}"
                diagnostics.append(
                    make_error(
                        "A205", title, argument.span, "one too many", notes=_form(definition)
                    )
                )
                break
            name = names[positional - 1]
        if name not in names:
            title = f"`{definition.name}` has no parameter `{name}`"
            helps = (did_you_mean(name, names),)
            diagnostics.append(
                make_error("A205", title, argument.span, notes=_form(definition), helps=helps)
            )
        elif name in given:
            also = ((given[name].span, "first here"),)
            title = f"`{name}` is given twice"
            diagnostics.append(make_error("A205", title, argument.span, "again here", also=also))
        else:
            given[name] = argument.value
    missing = [
        each.name
        for each in definition.parameters
        if each.default is None and each.name not in given
    ]
    if missing and not diagnostics:
        title = f"`{definition.name}` needs {listed(missing)}"
        diagnostics.append(make_error("A205", title, call.span, notes=_form(definition)))
    return given, diagnostics


def _count(number: int) -> str:
    return f"{number} argument{'' if number == 1 else 's'}" if number else "no arguments"


def _form(definition: Definition) -> tuple[str, ...]:
    return (f"it is declared as {form(definition)}",)


def form(definition: Definition) -> str:
    """`window(left: int, right: int = left)`."""
    parts = []
    for each in definition.parameters:
        default = "" if each.default is None else f" = {syn.format_expression(each.default)}"
        parts.append(f"{each.name}: {each.kind}{default}")
    return f"{definition.name}({', '.join(parts)})"
