"""Text to tree: files read within limits, lark driven token by token, faults collected."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any, cast

import lark

from attndsl.files import open_file
from attndsl.source import AttnDslError, Diagnostic, Source, Span

from . import tree
from .building import too_deep
from .clauses import TreeError
from .comments import attach
from .grammar import BUILDER, parser
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
from .parse_errors import END, ParseProblem, explain

MOST_REPORTED = 10
_BUSY = threading.Lock()  # the builder within the parser knows one source at a time
_DECLARATION = re.compile(
    r"^(?:(?:import|grid|space|input|def|pattern|attention)\b|(?:units|select)\s+\w)", re.MULTILINE
)


_OPENERS = frozenset("IMPORT GRID SPACE INPUT DEF PATTERN ATTENTION UNITS SELECT".split())  # noqa: SIM905
_CLAUSES = {  # words of a declaration that are names elsewhere
    "ATTENTION": frozenset(("SCORE", "WEIGHTS", "FACTOR", "MASS", "BY")),
    "UNITS": frozenset(("EVERY", "WHOLE")),
    "SELECT": frozenset(("EVERY", "WHOLE", "PER", "FOR", "KEEPING", "TAKE", "SEED")),
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
        raise AttnDslError(Diagnostic("A102", f"cannot read {name}: {reason}")) from error
    return decode(raw, name)


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
    steps: Any = parser().parse_interactive(text)  # lark leaves parts of it without types
    stack = steps.parser_state.value_stack
    count, last, before = 0, None, None
    reader = _Words()
    try:
        for last in steps.iter_parse():
            reader.see(steps, last)
            count += 1
            if count > MOST_TOKENS:
                raise TreeError(too_long(source.name, f"{MOST_TOKENS:,} words and signs"))
            if len(stack) > TALLEST_STACK:
                raise TreeError(too_deep(_span(source, last)))
            before = last
        return cast("tree.Module", steps.feed_eof(last))
    except lark.UnexpectedToken as error:
        raise _unexpected(source, text, start, error.token, count, before) from None
    except lark.UnexpectedCharacters as error:
        at = cast("int", error.pos_in_stream)
        raise explain(ParseProblem(source, start, at, at + 1, "", frozenset())) from None


class _Words:
    """Tells the words of a declaration that open clauses from names, as long as they are not fed to the parser."""

    def __init__(self) -> None:
        self._clauses = frozenset[str]()

    def see(self, steps: Any, token: lark.Token) -> None:
        """Makes a clause's word of a name, where a clause or a branch may begin."""
        if token.type in _OPENERS:
            self._clauses = _CLAUSES.get(token.type, frozenset())
        elif token.type == "NAME" and (word := token.upper()) in self._clauses:
            state = steps.parser_state
            allowed = state.parse_conf.parse_table.states[state.position]
            if token == word.lower() and word in allowed:
                token.type = word


def _unexpected(
    source: Source, text: str, start: int, token: lark.Token, count: int, before: lark.Token | None
) -> TreeError:
    expected = frozenset(_accepted(text, count - (token.type != END)))
    if token.type == END:  # shown behind the last thing written, not on some empty last line
        at = (before.end_pos or 0) if before else 0
        return explain(ParseProblem(source, start, at, at, END, expected))
    span = _span(source, token)
    return explain(ParseProblem(source, start, span.start, span.stop, token.type, expected))


def _accepted(text: str, count: int) -> set[str]:
    """The tokens that may follow the first ones; by the time lark reports an error it has forgotten some."""
    steps: Any = parser().parse_interactive(text)
    tokens = steps.lexer_thread.lex(steps.parser_state)
    reader = _Words()
    for _ in range(count):
        token = next(tokens)
        reader.see(steps, token)
        steps.feed_token(token)
    return cast("set[str]", steps.accepts())


def _span(source: Source, token: lark.Token) -> Span:
    return Span(source, token.start_pos or 0, token.end_pos or 0)


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
