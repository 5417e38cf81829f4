"""`attndsl list`: the patterns, attentions and helper definitions there are, a line each."""

from __future__ import annotations

import argparse
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from attndsl import patterns
from attndsl.frontend import Signature
from attndsl.sources import describe, is_attention

from .commands import Command
from .terminal import BOLD, FAINT, Terminal

NARROWEST = 40  # columns of text


@dataclass(frozen=True)
class _Item:
    """A pattern or attention and what is said of it; ``row`` of the catalogue where it is a published pattern."""

    signature: Signature
    summary: str
    row: str = ""
    title: str = ""
    is_helper: bool = False
    is_attention: bool = False

    def mentions(self, words: list[str]) -> bool:
        text = f"{self.row} {self.title} {self.signature} {self.signature.doc}".casefold()
        return all(word in text for word in words)

    def record(self) -> dict[str, object]:
        declared = self.signature
        parameters = [
            {"name": p.name, "kind": p.kind, "default": p.default} for p in declared.parameters
        ]
        return {
            "name": declared.name,
            "row": self.row,
            "title": self.title,
            "signature": str(declared),
            "summary": self.summary,
            "parameters": parameters,
            "inputs": [table.name for table in declared.inputs],
            "helper": self.is_helper,
            "attention": self.is_attention,
            "source": str(declared.span),
        }


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "word", nargs="*", metavar="WORD", help="only those that mention every word"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--prelude", action="store_true", help="only the general ones")
    which.add_argument("--library", action="store_true", help="only those of published systems")
    which.add_argument("--attentions", action="store_true", help="only attentions")
    which.add_argument("--selections", action="store_true", help="only sets computed from q and k")
    parser.add_argument("--json", action="store_true", help="signatures and summaries as JSON")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    words = [word.casefold() for word in options.word]
    sections = {
        "prelude": [_prelude, _helpers],
        "library": [_library],
        "attentions": [_attentions],
        "selections": [_selections],
    }
    chosen = [name for name in sections if getattr(options, name)] or [*sections]
    kinds = {
        make: [each for each in make() if each.mentions(words)]
        for name in chosen
        for make in sections[name]
    }
    found = [each for items in kinds.values() for each in items]
    if options.json:
        terminal.say(json.dumps([each.record() for each in found], indent=2))
    elif found:
        for make, items in kinds.items():
            if items and make in _TITLES:
                terminal.head(_TITLES[make])
            if items:
                terminal.say("\n".join(_lines(items, terminal)))
        drawn = sum(not each.is_helper and not each.is_attention for each in found)
        scored = sum(each.is_attention for each in found)
        said = f"{drawn} patterns, {scored} attentions; `attndsl show NAME` draws one"
        terminal.say(f"\n{terminal.paint(FAINT, said)}")
    else:
        terminal.warn(f"no pattern or attention mentions {' and '.join(options.word)}")
    return 0 if found else 1


def _prelude() -> Iterator[_Item]:
    for each in patterns.catalogue():
        yield _Item(each, first_sentence(each.doc))


def _helpers() -> Iterator[_Item]:
    for name in patterns.helpers():
        shown = patterns.describe(name)
        yield _Item(shown, first_sentence(shown.doc), is_helper=True)


def _library() -> Iterator[_Item]:
    for name in patterns.published():
        entry = patterns.entry(name)
        yield _Item(entry.signature, first_sentence(entry.summary), entry.row, entry.title)


def _attentions() -> Iterator[_Item]:
    for name in patterns.attentions():
        shown = patterns.attention_signature(name)
        yield _Item(shown, first_sentence(shown.doc), is_attention=True)


def _selections() -> Iterator[_Item]:
    for name in patterns.selections():
        shown = describe(name)
        yield _Item(shown, first_sentence(shown.doc), is_attention=is_attention(name))


# Titles of sections; the patterns of the prelude need none.
_TITLES: Final[Mapping[Callable[[], Iterator[_Item]], str]] = {
    _helpers: "helper definitions, to write patterns with",
    _library: "published systems, by row of the catalogue",
    _attentions: "published attentions: what is done with the scores of a pattern",
    _selections: "published selections: sets that are computed from q and k",
}


def _lines(found: list[_Item], terminal: Terminal) -> Iterator[str]:
    column = max((len(each.signature.name) for each in found), default=0) + 2
    for each in found:
        name = each.signature.name
        lead = f"{each.row}  " if each.row else ""
        indent = " " * (len(lead) + column)
        wrapped = textwrap.wrap(each.summary, max(NARROWEST, terminal.width - len(indent)))
        first, *rest = wrapped or [""]
        yield f"{lead}{terminal.paint(BOLD, name)}{' ' * (column - len(name))}{first}".rstrip()
        yield from (indent + line for line in rest)


def first_sentence(doc: str) -> str:
    """Up to the first full stop that ends a sentence (the dots of an ellipsis do not), on one line."""
    text = " ".join(doc.split())
    end = re.search(r"(?<!\.)\.(?!\.)(?=\s|$)", text)
    return text[: end.start()] if end else text


COMMAND = Command(
    (
        "attndsl list",
        "attndsl list causal window",
        "attndsl list --library video",
        "attndsl list --json",
    ),
    configure,
    run,
)
