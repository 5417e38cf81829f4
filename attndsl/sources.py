"""The module that a source is looked up in: a path, the text of a program or expression, a name."""

from __future__ import annotations

import os
import re
from pathlib import Path

from attndsl import frontend, patterns
from attndsl import syntax as syn

_ROW = re.compile(r"[0-9]{3}")
_COMMENT = re.compile(r"#[^\n]*")
_DECLARES = re.compile(r"\b(?:pattern|def|input|grid|space|import|attention)\b")
# A declaration whose first word is misspelt is better judged as one: `patern p(w: int) = ...`
_RESEMBLES = re.compile(r"\s*(?!let\b)\w+\s+\w+\s*(?:\([^()]*\)\s*)?=(?!=)")

_LONGEST_NAME = 200
_CONSTANTS = frozenset(("true", "false"))  # expressions, and no names


def open_module(
    source: str | os.PathLike[str], entry: str | None = None
) -> tuple[syn.Module, str | None, frontend.Resolve | None]:
    """The module that a path, text or name is to be looked up in, and under what name."""
    text = os.fspath(source)
    path, name = path_in(text)
    if path:
        read = syn.read(path)
        module = syn.parse(read.text, read.name)
        return module, name or entry, frontend.files(Path(path).parent)
    if is_name(text):
        found = None if patterns.is_name(text) else patterns.find(text)
        is_other = found is None and not patterns.is_name(text)
        if is_other and (other := patterns.module_of_other(text)) is not None:
            return other, text, None
        module = patterns.module_of(found) if found else syn.parse("", "<library>")
        return module, found or text, None
    return syn.parse(as_program(text), "<text>"), entry, None


def path_in(text: str) -> tuple[str, str]:
    """The path and the name in "file.attn:name"; two empty texts where there is no path."""
    path, _, name = (text, "", "") if text.endswith(".attn") else text.rpartition(":")
    return (path, name) if path.endswith(".attn") and "\n" not in path else ("", "")


def is_name(text: str) -> bool:
    """Whether it may be the name of a pattern, or a number of the library."""
    is_word = len(text) <= _LONGEST_NAME and text.isidentifier() and text not in _CONSTANTS
    return is_word or bool(_ROW.fullmatch(text))


def as_program(text: str) -> str:
    """A bare expression, ``causal and q - k < 8``, as the body of a pattern; other text as it is."""
    code = _COMMENT.sub("", text)
    is_program = _DECLARES.search(code) or _RESEMBLES.match(code) or not code.strip()
    return text if is_program else f"pattern given = {text}"
