"""Colours of the language for Pygments, which finds this by its entry point: ``pygmentize -l attn local.attn``."""

from __future__ import annotations

from typing import Any, ClassVar

from pygments.lexer import RegexLexer, bygroups, words
from pygments.token import Comment, Keyword, Name, Number, Operator, Punctuation, String, Whitespace

from .words import BUILT_IN, CONSTANTS, CONTEXTUAL, DECLARING, KINDS, NAMING, OPERATORS, RESERVED

_DECLARING = "|".join(sorted(DECLARING - {"import"}))
_CONTEXTUAL = "|".join(sorted(CONTEXTUAL))
_NAMING = "|".join(sorted(NAMING))


class AttnLexer(RegexLexer):
    """The language of attention patterns."""

    name = "attndsl"
    aliases: ClassVar[list[str]] = ["attn", "attndsl"]
    filenames: ClassVar[list[str]] = ["*.attn"]
    mimetypes: ClassVar[list[str]] = ["text/x-attndsl"]

    tokens: ClassVar[dict[str, Any]] = {
        "root": [
            (r"\s+", Whitespace),
            (r"##[^\n]*", String.Doc),
            (r"#[^\n]*", Comment.Single),
            (r'"[^"\n]*"', String),
            (
                rf"\b({_DECLARING})(\s+)([A-Za-z_]\w*)",
                bygroups(Keyword.Declaration, Whitespace, Name.Class),
            ),
            (
                rf"\b({_NAMING})(\s+)([A-Za-z_]\w*)(?=\s*(?:[(=]|over\b|per\b|for\b))",
                bygroups(Keyword.Declaration, Whitespace, Name.Class),
            ),
            (words(sorted(CONSTANTS), prefix=r"\b", suffix=r"\b"), Keyword.Constant),
            (words(sorted(OPERATORS), prefix=r"\b", suffix=r"\b"), Operator.Word),
            (words(sorted(RESERVED), prefix=r"\b", suffix=r"\b"), Keyword),
            (rf"\b({_CONTEXTUAL})\b(?=\s+[A-Za-z_(\[0-9-])", Keyword),
            (words(sorted(KINDS), prefix=r"\b", suffix=r"\b"), Keyword.Type),
            (words(sorted(BUILT_IN), prefix=r"\b", suffix=r"\b"), Name.Builtin),
            (r"[A-Za-z_]\w*(?=\s*\()", Name.Function),
            (r"[A-Za-z_]\w*", Name),
            (r"[0-9](_?[0-9])*(\.[0-9](_?[0-9])*([eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)", Number.Float),
            (r"[0-9](_?[0-9])*", Number.Integer),
            (r"->|\+\+|\.\.|//|<=|>=|==|!=|[-+*/%<>=|^!]", Operator),
            (r"[()\[\],:.;]", Punctuation),
        ]
    }
