"""Published attentions: scores, weights and branches over patterns.

Attentions that papers name stand in ``scores/published.attn``; the library's systems have theirs beside the patterns in
``library/*.attn``, named after them: `hat_attention` over `hat`.
"""

from __future__ import annotations

import functools
import re
from importlib.resources import files as resources
from typing import Final

from attndsl import syntax as syn
from attndsl.frontend import Signature, signatures

from .entries import module_of, published, signatures_beside

FILE: Final = "published.attn"
_ENDING: Final = "_attention"
_DECLARED: Final = re.compile(rf"^attention (\w+){_ENDING}\b", re.MULTILINE)


@functools.cache
def module_of_named() -> syn.Module:
    """The file of attentions that papers name, parsed."""
    path = resources("attndsl") / "patterns" / "scores" / FILE
    return syn.parse(path.read_text(encoding="utf-8"), f"scores/{FILE}")


def module_of_attention(name: str) -> syn.Module:
    """The file of a published attention, parsed."""
    return module_of(name.removesuffix(_ENDING)) if name in _beside() else module_of_named()


def attention_signature(name: str) -> Signature:
    """The signature of a published attention; a file is checked once for all that it declares."""
    if name in _beside():
        return signatures_beside(name.removesuffix(_ENDING))[name]
    return _named_signatures()[name]


@functools.cache
def _named_signatures() -> dict[str, Signature]:
    return {each.name: each for each in signatures(module_of_named())}


@functools.cache
def named_attentions() -> tuple[str, ...]:
    """Names of the attentions that papers name, in the order of the text."""
    declared = module_of_named().declarations
    return tuple(each.name for each in declared if isinstance(each, syn.Attention))


def attentions() -> tuple[str, ...]:
    """Names of all published attentions: those that papers name, then those of the library's systems, by row."""
    return (*named_attentions(), *_beside())


def attention_of(entry: str) -> str | None:
    """The attention of an entry of the library, where its system has more than a softmax of scaled products."""
    name = entry + _ENDING
    return name if name in _beside() else None


@functools.cache
def _beside() -> dict[str, None]:
    """The attentions that stand beside patterns; only the lines that declare them are looked at."""
    folder = resources("attndsl") / "patterns" / "library"
    texts = (
        path.read_text(encoding="utf-8") for path in folder.iterdir() if path.name.endswith(".attn")
    )
    having = {match for text in texts for match in _DECLARED.findall(text)}
    return {entry + _ENDING: None for entry in published() if entry in having}
