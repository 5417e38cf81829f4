"""Questions of an editor about a place in a text, answered as plain values; the text may be one that cannot be read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final, Literal

from attndsl import frontend, patterns, problems, views
from attndsl import syntax as syn
from attndsl.compiler import Program
from attndsl.settings import Asked, setting, with_values
from attndsl.source import AttnDslError, Diagnostic, Span

from .words import BUILT_IN, CONTEXTUAL, KINDS, RESERVED

_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_PICTURE: Final = 24  # tokens a side up to which a hover draws
_NAME: Final = "<text>"


@dataclass(frozen=True, slots=True)
class Place:
    """The characters ``[start, stop)`` of a file; of the text itself where ``path`` is None."""

    path: Path | None
    start: int
    stop: int


def faults(text: str, path: Path | None = None) -> tuple[Diagnostic, ...]:
    """Everything wrong with a text; ``path`` says where its imports are looked for."""
    resolve = None if path is None else frontend.files(path.parent)
    return problems.find_problems(text, _NAME if path is None else str(path), resolve).faults


def hover(text: str, at: int) -> str | None:
    """Markdown about the word at an offset: its definition, documentation, and for a pattern a small picture."""
    word = _word_at(text, at)
    found = None if word is None else _declaration(text, word)
    if word is None or found is None:
        return None
    doc, code = _split(found.text)
    drawn = _picture(text, word)
    parts = [f"```attn\n{code}\n```", doc, f"```\n{drawn}\n```" if drawn else ""]
    return "\n\n".join(filter(None, parts))


def definition(text: str, at: int) -> Place | None:
    """The declaration of the word at an offset: in the text, or in the prelude."""
    word = _word_at(text, at)
    found = None if word is None else _declaration(text, word)
    if word is None or found is None:
        return None
    named = re.compile(rf"\b{word}\b").search(found.source.text, _code_starts(found))
    start = found.start if named is None else named.start()
    path = None if found.source.name == _NAME else Path(str(_prelude_path()))
    return Place(path, start, start + len(word))


def complete(text: str) -> Iterator[tuple[str, Literal["keyword", "function", "variable"], str]]:
    """The words that may be meant: (word, kind, one line about it); names of the text come first."""
    outline = syn.Outline(text, _NAME)
    for name in outline.names:
        yield name, "function", "of this file"
    for signature in patterns.catalogue():
        yield signature.name, "function", str(signature)
    for name in patterns.helpers():
        yield name, "function", str(patterns.describe(name))
    for word in sorted(BUILT_IN | KINDS):
        yield word, "variable", "of the language"
    for word in sorted(RESERVED | CONTEXTUAL):
        yield word, "keyword", ""


def formatted(text: str) -> str | None:
    """The text in its canonical layout; None where it cannot be read."""
    try:
        return syn.format(syn.parse(text, _NAME))
    except AttnDslError:
        return None


def _word_at(text: str, at: int) -> str | None:
    start = at
    while start > 0 and (text[start - 1].isalnum() or text[start - 1] == "_"):
        start -= 1
    found = _WORD.match(text, start)
    return found[0] if found else None


def _declaration(text: str, word: str) -> Span | None:
    """The declaration of a name with its comment, in the text or else in the prelude."""
    for outline in (syn.Outline(text, _NAME), syn.Outline(patterns.source(), "prelude.attn")):
        if word in outline:
            return outline.place(word)
    return None


def _prelude_path() -> object:
    return files("attndsl") / "patterns" / "prelude.attn"


def _code_starts(declaration: Span) -> int:
    """Where the declaration itself begins, behind the lines of its comment."""
    lead = re.compile(r"(?:##[^\n]*\n)*").match(declaration.source.text, declaration.start)
    return lead.end() if lead else declaration.start


def _split(declaration: str) -> tuple[str, str]:
    """Documentation and code of a declaration."""
    lines = declaration.strip().splitlines()
    count = next((i for i, line in enumerate(lines) if not line.startswith("##")), len(lines))
    doc = "\n".join(line.removeprefix("##").strip() for line in lines[:count])
    code = [line for line in lines[count:] if not line.startswith("#")]
    return doc, "\n".join(code).strip()


def _picture(text: str, word: str) -> str | None:
    """The mask of a pattern in a call small enough for a hover; None for anything else."""
    source = problems.as_text(text) if word in syn.Outline(text, _NAME) else "\n"
    try:
        module = syn.parse(source, _NAME)
        declared = frontend.signatures(module)
        known = [each for each in declared if each.name == word]
        if not known and not patterns.is_name(word):
            return None
        signature = known[0] if known else patterns.describe(word)
        about = with_values(source, signature, {}, word)
        made = setting(about.mask, Asked(), {0: 16, 1: 16, 2: 5, 3: 3})
        pairs = Program(about.mask).dense(made.call(Program(about.mask)))[0, 0]
    except AttnDslError:
        return None
    return views.draw_mask(pairs) if max(pairs.shape) <= _PICTURE else None
