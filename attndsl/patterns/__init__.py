"""Floor 3: the patterns people know by name, written in the language itself.

Patterns of the prelude (prelude.attn) are Python functions here too, made from their definitions:
`window(256) | (q < 4)`; `names`, `helpers`, `catalogue` and `describe` tell what there is. Published systems are
in the library (library/*.attn): `published` names them, `entry` tells of one, `trial` and `large_trial`
give sizes and inputs to try it on.
"""

from __future__ import annotations

import functools
import sys

from attndsl import syntax as syn
from attndsl.frontend import Definition, PatternFunction, Signature, described, prelude, python_form
from attndsl.source import AttnDslError, Diagnostic, suggest

from .entries import Entry, entry, find, module_of, published
from .scored import (
    attention_of,
    attention_signature,
    attentions,
    module_of_attention,
    module_of_named,
    named_attentions,
)
from .selected import module_of_selection, selection, selections, selections_of
from .trials import Trial, large_trial, trial

__all__ = [
    "Entry", "Trial", "attention_of", "attention_signature", "attentions", "catalogue", "describe", "entry", "find",
    "helpers", "is_helper", "is_name", "large_trial", "module_of", "module_of_attention", "module_of_named",
    "module_of_other", "module_of_selection", "named_attentions", "names", "published", "selection", "selections",
    "selections_of", "source", "trial",
]  # fmt: skip


@functools.cache
def _definitions() -> dict[str, Definition]:
    return {each.name: each for each in prelude().definitions()}


def module_of_other(name: str) -> syn.Module | None:
    """The file of a published attention or selection; None where there is none of that name."""
    if name in attentions():
        return module_of_attention(name)
    return module_of_selection(name) if name in selections() else None


def names() -> tuple[str, ...]:
    """The patterns of the prelude, in the order of its text."""
    return tuple(name for name, each in _definitions().items() if each.is_pattern)


def helpers() -> tuple[str, ...]:
    """The documented helper definitions of the prelude, in the order of its text."""
    return tuple(name for name in _definitions() if is_helper(name))


def is_name(text: str) -> bool:
    """Whether the prelude has a pattern of that name; of its text no more is read than that takes."""
    found = prelude().find(text)
    return isinstance(found, Definition) and found.is_pattern


def is_helper(text: str) -> bool:
    """Whether the prelude has a documented helper of that name."""
    found = prelude().find(text)
    if not isinstance(found, Definition) or found.is_pattern:
        return False
    return bool(found.declaration.doc)


def catalogue() -> tuple[Signature, ...]:
    """Signatures of all patterns, in the order of the text."""
    return tuple(describe(name) for name in names())


def describe(name: str) -> Signature:
    """One pattern or helper: parameters, inputs, documentation, and the place of its text.

    Raises:
        AttnDslError: A211, there is none of that name.
    """
    found = _definitions().get(name)
    if found is None:
        near = suggest(name, _definitions())
        helps = (f"did you mean `{near}`?",) if near else ()
        raise AttnDslError(Diagnostic("A211", f"the prelude has no pattern `{name}`", helps=helps))
    return described(found)


def source() -> str:
    """The text of the prelude."""
    return prelude().module.span.source.text


@functools.cache
def _python(name: str) -> PatternFunction:
    return python_form(_definitions()[name])


def __getattr__(name: str) -> PatternFunction:
    if name.startswith("_") or name not in _definitions():
        raise AttributeError(f"module {sys.modules[__name__].__name__!r} has no attribute {name!r}")
    return _python(name)


def __dir__() -> list[str]:
    return sorted([*__all__, *_definitions()])
