"""Sources of patterns and attentions: a path, the text of a program or expression, a name, a Python form, a mask."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from attndsl import frontend, ir, patterns
from attndsl import syntax as syn
from attndsl.source import AttnDslError, Diagnostic, brief

Source: TypeAlias = str | os.PathLike[str] | ir.Mask | frontend.Expr | frontend.PatternFunction

_ROW = re.compile(r"[0-9]{3}")
_COMMENT = re.compile(r"#[^\n]*")
_DECLARES = re.compile(r"\b(?:pattern|def|input|grid|space|import|attention)\b")
# A declaration whose first word is misspelt is better judged as one: `patern p(w: int) = ...`
_RESEMBLES = re.compile(r"\s*(?!let\b)\w+\s+\w+\s*(?:\([^()]*\)\s*)?=(?!=)")

_LONGEST_NAME = 200
_CONSTANTS = frozenset(("true", "false"))  # expressions, and no names


def read_mask(
    source: object,
    entry: Any = None,
    values: Mapping[str, frontend.Given] | None = None,
    align: str | None = None,
    layer: int | None = None,
) -> ir.Mask:
    """The mask of a path ("file.attn" or "file.attn:name"), program or expression text, name, or Python form.

    A name is one of the prelude, else of the library; a row of the library has a number too ("049").
    ``align``: "start" or "end", where the pattern does not say itself how its queries are placed. ``layer``: for which
    constraints on layers are judged.

    Raises:
        AttnDslError: whatever is wrong with the file, the program or the values, located.
    """
    if not isinstance(entry, str | None):
        title = f"`entry` names a pattern of the file, and is not {brief(entry)}"
        helps = ('the value of a parameter of that name: values={"entry": ...}',)
        raise AttnDslError(Diagnostic("A211", title, helps=helps))
    if isinstance(source, str | os.PathLike):
        judged = layer if type(layer) is int else None  # what is no number is refused elsewhere
        module, name, resolve = open_module(source, entry)
        return frontend.elaborate(module, name, values, resolve, align, judged)
    if entry is not None:
        title = (
            f"there is no pattern {brief(entry)} in what is no text: `entry` chooses one of a file"
        )
        raise AttnDslError(Diagnostic("A211", title))
    if isinstance(source, frontend.Expr | frontend.PatternFunction):
        return frontend.to_mask(source, align=align, values=values)
    if not isinstance(source, ir.Mask):
        title = f"a {type(source).__name__} is no pattern"
        note = "a pattern is text of the language, a path, a name, a Python expression, or a mask"
        raise AttnDslError(Diagnostic("A211", title, notes=(note,)))
    if values:
        raise AttnDslError(Diagnostic("A211", f"a mask has no parameter {brief(min(values))}"))
    if align not in (None, source.align):
        title = f"the mask is aligned at the {source.align}, not at the {align}"
        raise AttnDslError(Diagnostic("A212", title))
    return source


def read_attention(
    source: object,
    entry: Any = None,
    values: Mapping[str, frontend.Given] | None = None,
    align: str | None = None,
    layer: int | None = None,
) -> ir.Attention:
    """The attention of a path, program text or name, as `read_mask` reads a pattern; or an attention itself.

    Raises:
        AttnDslError: whatever is wrong with the file, the program or the values, located.
    """
    if isinstance(source, ir.Attention):
        if values or entry is not None or align is not None:
            title = "an attention that is built already has no parameters, entries and alignment"
            raise AttnDslError(Diagnostic("A211", title))
        return source
    if not isinstance(source, str | os.PathLike) or not isinstance(entry, str | None):
        title = f"a {type(source).__name__} is no attention"
        note = "an attention is text of the language, a path, or a name"
        raise AttnDslError(Diagnostic("A211", title, notes=(note,)))
    module, name, resolve = open_module(source, entry)
    judged = layer if type(layer) is int else None
    return frontend.elaborate_attention(module, name, values, resolve, align, judged)


def is_attention(source: object, entry: str | None = None) -> bool:
    """Whether a source, as `compile` takes it, is an attention; what is not text, path or name never is text of one.

    Raises:
        AttnDslError: whatever is wrong with the file or the program, located.
    """
    if isinstance(source, ir.Attention):
        return True
    if not isinstance(source, str | os.PathLike):
        return False
    text = os.fspath(source)
    if not is_name(text):  # a program is not read twice for nothing
        path, _ = path_in(text)
        written = syn.read(path).text if path else text
        if "attention" not in written and "import" not in written:
            return False
    return frontend.kind_of(*open_module(source, entry)) == "attention"


def joined(values: object, named: Mapping[str, frontend.Given]) -> dict[str, frontend.Given]:
    """Values of parameters that were given in a mapping and by name.

    Raises:
        AttnDslError: A211, one is given twice, or there is no mapping.
    """
    given = {} if values is None else values
    if not isinstance(given, Mapping):
        title = f"values are given by the names of parameters, not as a {type(values).__name__}"
        raise AttnDslError(Diagnostic("A211", title, helps=('for example values={"w": 256}',)))
    twice = set(given) & set(named)
    if twice:
        title = f"the value of {min(twice)!r} is given twice: by name and in `values`"
        raise AttnDslError(Diagnostic("A211", title))
    return {**given, **named}


def describe(source: str | os.PathLike[str], entry: str | None = None) -> frontend.Signature:
    """Signature of a pattern or attention, found as `read_mask` finds it, before any value is given.

    Raises:
        AttnDslError: whatever is wrong with the file or the program, located.
    """
    module, name, resolve = open_module(source, entry)
    return frontend.signature(module, name, resolve)


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
