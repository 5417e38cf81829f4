"""The text that the page starts with: that of a file or of a published pattern, with what it needs of its own file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from attndsl import patterns
from attndsl import syntax as syn
from attndsl.source import AttnDslError, Diagnostic, suggest

_WORD: Final = re.compile(r"[A-Za-z_]\w*")
_FIRST: Final = """## The last `w` keys up to the query's own, and the first `g` keys: never the future.
pattern local(w: int = 12, g: int = 3) where w >= 1, g >= 0 = k <= q and (q - k < w or k < g)
"""


@dataclass(frozen=True, slots=True)
class Start:
    """A text to edit, and which of its patterns to show."""

    text: str
    entry: str | None = None
    name: str = "pattern.attn"


def start_of(what: str | None) -> Start:
    """The text of a file ("file.attn" or "file.attn:name"), or of a pattern that comes with the package.

    Raises:
        AttnDslError: A103 and others, the file cannot be read; A211, there is no such name.
    """
    if what is None:
        return Start(_FIRST)
    path, _, name = what.rpartition(":")
    if what.endswith(".attn"):
        path, name = what, ""
    if path.endswith(".attn"):
        return Start(syn.read(path).text, name or None, Path(path).name)
    found = None if patterns.is_name(what) else patterns.find(what)
    if found is not None:
        return Start(_needed(patterns.module_of(found), found), found, f"{found}.attn")
    if (module := patterns.module_of_other(what)) is not None:
        return Start(_needed(module, what), what, f"{what}.attn")
    if patterns.is_name(what):
        declared = patterns.describe(what)
        return Start(
            _commented(declared.span.source.text, declared.span.start, declared.span.text), what
        )
    near = suggest(what, known())
    helps = (f"did you mean `{near}`?",) if near else ("a file's name ends in `.attn`",)
    raise AttnDslError(Diagnostic("A211", f"there is no pattern {what!r}", helps=helps))


def known() -> tuple[str, ...]:
    """Names that `start_of` takes: patterns, published systems, attentions, selections."""
    others = (*patterns.attentions(), *patterns.selections())
    return (*patterns.names(), *patterns.published(), *others)


def _needed(module: syn.Module, entry: str) -> str:
    """The declarations that an entry speaks of, itself the last, as they stand in its file."""
    text = module.span.source.text
    named = {each.name: each for each in module.declarations if not isinstance(each, syn.Import)}
    wanted, open_names = set[str](), [entry]
    while open_names:
        name = open_names.pop()
        if name in named and name not in wanted:
            wanted.add(name)
            open_names += _WORD.findall(named[name].span.text)
    kept = [each for name, each in named.items() if name in wanted and name != entry]
    spans = [each.span for each in (*kept, named[entry])]
    return "\n".join(_commented(text, span.start, span.text) for span in spans)


def _commented(text: str, start: int, declaration: str) -> str:
    """A declaration with the lines of its `##` comment."""
    if declaration.startswith("##"):
        return f"{declaration}\n"
    lines = text[:start].splitlines()
    first = len(lines)
    while first and lines[first - 1].startswith("##"):
        first -= 1
    return "\n".join([*lines[first:], declaration, ""])
