"""The TextMate grammar of the language, made of its words: what editors/vscode ships."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .words import BUILT_IN, CONSTANTS, CONTEXTUAL, DECLARING, KINDS, NAMING, OPERATORS, RESERVED


def textmate() -> dict[str, Any]:
    """The grammar as plain data; its scopes are those that colour themes know."""
    declaring = DECLARING - {"import"}
    plain = RESERVED - declaring - CONSTANTS - OPERATORS
    rules = [
        {"name": "comment.line.documentation.attn", "match": "##.*$"},
        {"name": "comment.line.number-sign.attn", "match": "#.*$"},
        {"name": "string.quoted.double.attn", "match": '"[^"]*"'},
        {
            "match": rf"\b({_either(declaring)})\s+([A-Za-z_]\w*)",
            "captures": {
                "1": {"name": "storage.type.attn"},
                "2": {"name": "entity.name.function.attn"},
            },
        },
        {
            "match": rf"\b({_either(NAMING)})\s+([A-Za-z_]\w*)(?=\s*(?:[(=]|over\b|per\b|for\b))",
            "captures": {
                "1": {"name": "storage.type.attn"},
                "2": {"name": "entity.name.function.attn"},
            },
        },
        {"name": "constant.language.attn", "match": _word(CONSTANTS)},
        {"name": "keyword.operator.word.attn", "match": _word(OPERATORS)},
        {"name": "keyword.control.attn", "match": _word(plain | declaring)},
        {"name": "keyword.control.attn", "match": rf"{_word(CONTEXTUAL)}(?=\s+[A-Za-z_(\[0-9-])"},
        {"name": "support.type.attn", "match": _word(KINDS)},
        {"name": "variable.language.attn", "match": _word(BUILT_IN)},
        {"name": "entity.name.function.call.attn", "match": r"[A-Za-z_]\w*(?=\s*\()"},
        {"name": "constant.numeric.attn", "match": r"\b[0-9][0-9_]*(\.[0-9][0-9_]*)?([eE][+-]?[0-9]+)?\b"},
        {"name": "keyword.operator.attn", "match": r"->|\+\+|\.\.|//|<=|>=|==|!=|[-+*/%<>=]"},
    ]  # fmt: skip
    return {
        "$schema": "https://raw.githubusercontent.com/martinring/tmlanguage/master/tmlanguage.json",
        "name": "attndsl",
        "scopeName": "source.attn",
        "fileTypes": ["attn"],
        "patterns": rules,
    }


def _either(words: Iterable[str]) -> str:
    return "|".join(sorted(words))


def _word(words: Iterable[str]) -> str:
    return rf"\b({_either(words)})\b"
