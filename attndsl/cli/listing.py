"""`attndsl list`: the patterns there are, a line each."""

from __future__ import annotations

import argparse
import json
import re
import textwrap
from collections.abc import Iterable

from attndsl import patterns
from attndsl.frontend import Signature

from . import arguments as args
from .terminal import BOLD, FAINT, Terminal

NARROWEST = 40


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "word", nargs="*", metavar="WORD", help="only entries that mention them all"
    )
    parser.add_argument("--json", action="store_true", help="signatures and documentation as JSON")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    words = [word.casefold() for word in options.word]
    found = [each for each in patterns.catalogue() if _mentions(each, words)]
    if options.json:
        terminal.say(json.dumps([_record(each) for each in found], indent=2))
    elif found:
        terminal.say("\n".join(_lines(found, terminal)))
    else:
        terminal.warn(f"no pattern mentions {' and '.join(options.word)}")
    return 0 if found else 1


def _mentions(each: Signature, words: Iterable[str]) -> bool:
    text = f"{each}\n{each.doc}".casefold()
    return all(word in text for word in words)


def _record(each: Signature) -> dict[str, object]:
    return {
        "name": each.name,
        "signature": str(each),
        "doc": each.doc,
        "inputs": [table.name for table in each.inputs],
        "parameters": [
            {"name": p.name, "kind": p.kind, "default": p.default} for p in each.parameters
        ],
        "source": str(each.span),
    }


def _lines(found: list[Signature], terminal: Terminal) -> Iterable[str]:
    column = max(len(each.name) for each in found) + 2
    room = max(NARROWEST, terminal.width - column)
    for each in found:
        first, *rest = textwrap.wrap(first_sentence(each.doc), room) or ["-"]
        yield f"{terminal.paint(BOLD, each.name)}{' ' * (column - len(each.name))}{first}"
        yield from (" " * column + line for line in rest)
    yield terminal.paint(FAINT, f"\n{len(found)} patterns; `attndsl show NAME` draws one")


def first_sentence(doc: str) -> str:
    """Up to the first full stop that ends a sentence (the dots of an ellipsis do not), on one line."""
    text = " ".join(doc.split())
    end = re.search(r"(?<!\.)\.(?!\.)(?=\s|$)", text)
    return text[: end.start()] if end else text


COMMAND = args.Command(
    "list",
    "the patterns that come with the package, a line each",
    ("attndsl list", "attndsl list causal window", "attndsl list --json"),
    configure,
    run,
)
