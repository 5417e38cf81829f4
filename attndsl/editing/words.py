"""The words of the language, by what they are; reserved ones are those of the grammar."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Final

_GRAMMAR: Final = (files("attndsl") / "syntax" / "grammar.lark").read_text(encoding="utf-8")
# Terminals that are one word, `PATTERN: "pattern"`: no name may be spelled so.
RESERVED: Final = frozenset(re.findall(r'^[A-Z]+: "([a-z]+)"$', _GRAMMAR, re.MULTILINE))
# Words that open a declaration.
DECLARING: Final = frozenset({"import", "grid", "space", "input", "def", "pattern", "attention"})
CONSTANTS: Final = frozenset({"true", "false"})
OPERATORS: Final = frozenset({"and", "or", "not", "in"})
# Words that are keywords where the grammar expects them, and names elsewhere.
CONTEXTUAL: Final = frozenset(
    {
        "count",
        "sum",
        "score",
        "weights",
        "factor",
        "mass",
        "by",
        "softmax",
    }  # of expressions and attentions
    | {
        "units",
        "select",
        "every",
        "whole",
        "of",
        "per",
        "for",
        "keeping",
        "take",
        "seed",
        "label",
        "rank",
        "argmax",
        "lse",
    }  # of selections
)
# Contextual words that open a declaration where a name and a clause follow.
NAMING: Final = frozenset({"units", "select", "label", "rank"})
KINDS: Final = frozenset({"int", "bool", "list", "real"})
# Names that are defined by the language, not by the prelude.
BUILT_IN: Final = frozenset(
    {
        "q",
        "k",
        "head",
        "heads",
        "batch",
        "layer",
        "len",
        "min",
        "max",
        "abs",
        "clamp",
        "ilog2",
        "pow2",
    }
)
