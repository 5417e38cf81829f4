"""Everything wrong with a text at once, for whoever edits it: faults of syntax, of names and kinds, and of values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from attndsl import frontend
from attndsl import syntax as syn
from attndsl.source import AttnDslError, Diagnostic
from attndsl.sources import as_program

_MOST: Final = 100  # faults that are told


@dataclass(frozen=True, slots=True)
class Problems:
    """The faults of a text, in its order, and the signatures of its patterns and attentions, if it can be read."""

    faults: tuple[Diagnostic, ...]
    signatures: tuple[frontend.Signature, ...] = ()


def find_problems(
    text: str, name: str = "<text>", resolve: frontend.Resolve | None = None
) -> Problems:
    """Reads a text, a program or a bare expression; raises nothing and, without ``resolve``, reads no file.

    Patterns and attentions whose parameters all have defaults are elaborated with them, so that faults of values are
    found as well.
    """
    try:
        module = syn.parse(as_program(text), name)
        signatures = frontend.signatures(module, resolve)
    except AttnDslError as error:
        return Problems(error.diagnostics[:_MOST])
    found: dict[tuple[str, str], Diagnostic] = {}
    for each in signatures:
        if any(parameter.default is None for parameter in each.parameters):
            continue
        is_attention = frontend.kind_of(module, each.name, resolve) == "attention"
        elaborate = frontend.elaborate_attention if is_attention else frontend.elaborate
        try:
            elaborate(module, each.name, None, resolve)
        except AttnDslError as error:
            found |= {(fault.title, str(fault.span)): fault for fault in error.diagnostics}
    faults = sorted(found.values(), key=lambda fault: fault.span.start if fault.span else 0)
    return Problems(tuple(faults[:_MOST]), signatures)


def shift(text: str) -> int:
    """How many characters stand before a bare expression in the program that is made of it."""
    return len(as_program(text)) - len(text)


def as_text(text: str) -> str:
    """The same program, which nobody takes for a name or a path."""
    return text if "\n" in text else f"{text}\n"
