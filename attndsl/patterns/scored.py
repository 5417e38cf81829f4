"""Published attentions: scores, weights and branches over patterns, in ``scores/*.attn``."""

from __future__ import annotations

import functools
from importlib.resources import files as resources

from attndsl import syntax as syn

FILE = "published.attn"


@functools.cache
def module_of_attentions() -> syn.Module:
    """The file of published attentions, parsed."""
    path = resources("attndsl") / "patterns" / "scores" / FILE
    return syn.parse(path.read_text(encoding="utf-8"), f"scores/{FILE}")


@functools.cache
def attentions() -> tuple[str, ...]:
    """Names of all published attentions, in the order of the text."""
    declared = module_of_attentions().declarations
    return tuple(each.name for each in declared if isinstance(each, syn.Attention))
