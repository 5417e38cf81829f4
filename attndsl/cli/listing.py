"""`attndsl list`: the patterns and helper definitions there are, a line each."""

from __future__ import annotations

import argparse
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from attndsl import patterns
from attndsl.frontend import Signature

from . import arguments as args
from .terminal import BOLD, FAINT, Terminal

NARROWEST = 40  # columns of text


@dataclass(frozen=True)
class _Item:
    """A pattern and what is said of it; ``row`` of the catalogue where it is a published one."""

    signature: Signature
    summary: str
    row: str = ""
    title: str = ""
    is_helper: bool = False

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
            "source": str(declared.span),
        }


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "word", nargs="*", metavar="WORD", help="only those that mention every word"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--prelude", action="store_true", help="only the general ones")
    which.add_argument("--library", action="store_true", help="only those of published systems")
    parser.add_argument("--json", action="store_true", help="signatures and summaries as JSON")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    words = [word.casefold() for word in options.word]
    prelude = [] if options.library else [each for each in _prelude() if each.mentions(words)]
    helpers = [] if options.library else [each for each in _helpers() if each.mentions(words)]
    library = [] if options.prelude else [each for each in _library() if each.mentions(words)]
    found = [*prelude, *helpers, *library]
    if options.json:
        terminal.say(json.dumps([each.record() for each in found], indent=2))
    elif found:
        if prelude:
            terminal.say("\n".join(_lines(prelude, terminal)))
        if helpers:
            terminal.head("helper definitions, to write patterns with")
            terminal.say("\n".join(_lines(helpers, terminal)))
        if library:
            terminal.head("published systems, by row of the catalogue")
            terminal.say("\n".join(_lines(library, terminal)))
        drawn = len(prelude) + len(library)
        said = f"{drawn} patterns; `attndsl show NAME` draws one"
        terminal.say(f"\n{terminal.paint(FAINT, said)}")
    else:
        terminal.warn(f"no pattern mentions {' and '.join(options.word)}")
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


COMMAND = args.Command(
    "list",
    "the patterns that come with the package, a line each",
    (
        "attndsl list",
        "attndsl list causal window",
        "attndsl list --library video",
        "attndsl list --json",
    ),
    configure,
    run,
)
