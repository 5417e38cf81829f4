"""Text to tree: files read within limits, walked word by word, faults collected."""

from __future__ import annotations

import itertools
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from attndsl.files import open_file
from attndsl.source import AttnDslError, Diagnostic, Source, Span, suggest

from . import tree
from .building_errors import too_deep
from .clauses import TreeError, Word
from .comments import attach
from .grammar import BUILDER
from .limits import (
    LARGEST_FILE,
    MOST_TOKENS,
    TALLEST_STACK,
    check_brackets,
    check_depth,
    checked,
    normal,
    not_text,
    too_long,
)
from .machine import STRANGE, Stack, machine
from .parse_errors import END, ParseProblem, explain
from .repeats import SEPARATORS, Repeats

MOST_REPORTED = 10
_BUSY = threading.Lock()  # the builder within the parser knows one source at a time
_DECLARATION = re.compile(
    r"^(?:(?:import|grid|space|input|def|pattern|attention)\b|(?:units|select|label|rank)\s+\w)",
    re.MULTILINE,
)


_OPENERS = frozenset(
    "IMPORT GRID SPACE INPUT DEF PATTERN ATTENTION UNITS SELECT LABEL RANK".split()  # noqa: SIM905
)
MOST_NAMES = 1000  # files of a folder whose names are looked at for a misspelt one
_CLAUSES = {  # words of a declaration that are names elsewhere
    "ATTENTION": frozenset(("score", "weights", "factor", "mass", "by")),
    "UNITS": frozenset(("every", "whole", "of")),
    "SELECT": frozenset(("every", "whole", "of", "per", "for", "keeping", "take", "seed", "by")),
    "RANK": frozenset(("by",)),
}


def read(path: str | Path) -> Source:
    """A file as a Source, named by its path; never more than a little over 1 MiB is read.

    Raises:
        AttnDslError: A102, there is no such file, it is none (a pipe, a folder), too large, or not UTF-8 text.
    """
    name = str(path)
    try:
        with open_file(path) as file:
            raw = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        title, near = f"cannot read {name}: {reason}", _neighbour(Path(path), error)
        helps = (f"did you mean `{near}`?",) if near else ()
        raise AttnDslError(Diagnostic("A102", title, helps=helps)) from error
    return decode(raw, name)


def _neighbour(path: Path, error: Exception) -> Path | None:
    """A file of patterns in the same folder whose name is near that of one that is not there."""
    if not isinstance(error, FileNotFoundError) or not path.parent.is_dir():
        return None
    files = (file.name for file in itertools.islice(path.parent.glob("*.attn"), MOST_NAMES))
    near = suggest(path.name, files)
    return None if near is None else path.with_name(near)


def decode(raw: bytes, name: str) -> Source:
    """The bytes of a file as a Source.

    Raises:
        AttnDslError: A102, there are too many, or they are not UTF-8 text.
    """
    if len(raw) > LARGEST_FILE:
        raise AttnDslError(too_long(name, "1 MiB"))
    try:
        return checked(raw.decode("utf-8-sig"), name)
    except UnicodeDecodeError as error:
        sound = raw[: error.start].decode("utf-8-sig")
        source = normal(f"{sound}\ufffd", name)
        what = f"byte 0x{raw[error.start]:02x}"
        raise AttnDslError(not_text(source, what, len(source.text) - 1)) from error


def parse(text: str, name: str = "<text>") -> tree.Module:
    """The module that a text spells.

    Args:
        text: The program, at most 1 MiB as UTF-8. Line ends of any system are welcome.
        name: What errors call it, usually its path.

    Raises:
        AttnDslError: A1xx. Faults of different declarations are reported together, at most ten.
    """
    source = checked(text, name)
    return parse_part(source, 0, len(source.text))


def parse_part(source: Source, start: int, stop: int) -> tree.Module:
    """The declarations in the characters [start, stop) of a source, with their places in all of it."""
    with _BUSY:
        try:
            check_brackets(source, start, stop)
            module = _run(source, start, stop)
            check_depth(module)
        except TreeError as refusal:
            raise AttnDslError(_collect(source, refusal)) from None
    return attach(module, source, start, stop)


def _run(source: Source, start: int, stop: int | None = None) -> tree.Module:
    """Parse from an offset on; a Refusal tells what stands in the way first."""
    BUILDER.source = source
    # Blanks in place of what is skipped keep every offset true.
    text = " " * start + source.text[start:stop]
    parse, stop, count = Stack(machine()), 0, 0
    feed, stack, repeats = parse.feed, parse.stack, Repeats(machine(), source, text, parse)
    words = _words(text, parse)
    while (word := next(words, None)) is not None:
        if not feed(word.kind, word):
            raise _unexpected(source, start, word, _before(text, count))
        count, stop = count + 1, word.stop
        if word.kind in SEPARATORS and (skipped := repeats.behind(word, MOST_TOKENS - count)):
            count, stop = count + skipped.words, skipped.stop
            words = _words(text, parse, stop)
        if count > MOST_TOKENS:
            raise TreeError(too_long(source.name, f"{MOST_TOKENS:,} words and signs"))
        if len(stack) > TALLEST_STACK:
            raise TreeError(too_deep(Span(source, word.start, word.stop)))
    if not parse.feed(END, None):  # behind the last thing written, not on some empty last line
        expected = _before(text, sys.maxsize).expected()
        raise explain(ParseProblem(source, start, stop, stop, END, expected))
    return cast("tree.Module", parse.values[-1])


def _words(text: str, parse: Stack, start: int = 0) -> Iterator[Word]:
    """The words of a text; one that opens a clause of a declaration, and is a name elsewhere, where that may begin."""
    for word in machine().words(text, start):
        kind = word.kind
        if kind in _OPENERS:
            parse.clauses = _CLAUSES.get(kind, frozenset())
        elif word in parse.clauses and parse.allows(word.upper()):
            word.kind = word.upper()
        yield word


def _unexpected(source: Source, start: int, word: Word, before: Stack) -> TreeError:
    if word.kind == STRANGE:
        problem = ParseProblem(source, start, word.start, word.start + 1, "", frozenset())
    else:
        expected = before.expected()
        problem = ParseProblem(source, start, word.start, word.stop, word.kind, expected)
    return explain(problem)


def _before(text: str, count: int) -> Stack:
    """The parse after the first words; by the time that the next one is refused some of it is forgotten."""
    parse = Stack(machine())
    for word in itertools.islice(_words(text, parse), count):
        parse.feed(word.kind, word)
    return parse


def _collect(source: Source, refusal: TreeError) -> list[Diagnostic]:
    """The first fault, and those of the declarations that begin a line further down."""
    found = [refusal.diagnostic]
    start = 0
    while len(found) < MOST_REPORTED and refusal.diagnostic.code not in ("A102", "A103"):
        match = _DECLARATION.search(source.text, max(refusal.offset, start + 1))
        if not match:
            break
        start = match.start()
        try:
            _run(source, start)
            break
        except TreeError as next_refusal:
            refusal = next_refusal
            found.append(refusal.diagnostic)
    return found
