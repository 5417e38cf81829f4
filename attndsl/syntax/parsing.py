"""Text to tree: files read within limits, lark driven token by token, faults collected."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

import lark

from attndsl.source import AttnDslError, Diagnostic, Label, Source, Span

from . import tree
from .building import Refusal
from .comments import attach
from .grammar import BUILDER, parser
from .mistakes import Mistake, explain

LARGEST_FILE = 1 << 20
DEEPEST = 200
MOST_REPORTED = 10

# What lark may hold at once: each of 200 levels keeps at most one symbol and one operator of every
# precedence. Passing it ends the parse of an endless `not not not ...` early.
_TALLEST_STACK = DEEPEST * 24

_DECLARATION = re.compile(r"^(?:import|grid|space|input|def|pattern)\b", re.MULTILINE)
_BRACKET = re.compile(r'"[^"\n]*"|#[^\n]*|[()\[\]]')


def read(path: str | Path) -> Source:
    """A file as a Source, named by its path; never more than a little over 1 MiB is read.

    Raises:
        AttnDslError: A102, there is no such file, it is too large, or it is not UTF-8 text.
    """
    name = str(path)
    try:
        with Path(path).open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise AttnDslError(Diagnostic("A102", f"cannot read {name}: {reason}")) from error
    if len(raw) > LARGEST_FILE:
        raise AttnDslError(_too_long(name))
    try:
        return _checked(raw.decode("utf-8-sig"), name)
    except UnicodeDecodeError as error:
        sound = raw[: error.start].decode("utf-8-sig")
        source = _normal(f"{sound}\ufffd", name)
        raise AttnDslError(_not_text(source, f"byte 0x{raw[error.start]:02x}")) from error


def parse(text: str, name: str = "<text>") -> tree.Module:
    """The module that a text spells.

    Args:
        text: The program, at most 1 MiB as UTF-8. Line ends of any system are welcome.
        name: What errors call it, usually its path.

    Raises:
        AttnDslError: A1xx. Faults of different declarations are reported together, at most ten.
    """
    source = _checked(text, name)
    try:
        _check_brackets(source)
        module = _run(source, 0)
        _check_depth(module)
    except Refusal as refusal:
        raise AttnDslError(_collect(source, refusal)) from None
    return attach(module, source)


# ------------------------------------------------------------------------------ limits


def _checked(text: str, name: str) -> Source:
    """The text as a source, once it is known to be text of a sane size."""
    if len(text) > LARGEST_FILE or len(text.encode("utf-8", "replace")) > LARGEST_FILE:
        raise AttnDslError(_too_long(name))
    source = _normal(text, name)
    if strange := re.search(r"[\x00\ud800-\udfff]", source.text):
        raise AttnDslError(_not_text(source, f"U+{ord(strange[0]):04X}", strange.start()))
    return source


def _normal(text: str, name: str) -> Source:
    text = text.removeprefix("\ufeff")
    return Source(name, text.replace("\r\n", "\n").replace("\r", "\n"))


def _too_long(name: str) -> Diagnostic:
    return Diagnostic(
        code="A102",
        title=f"{name} is too large",
        notes=("a pattern file holds at most 1 MiB",),
        helps=("data belongs in an `input`, which is given when the pattern runs",),
    )


def _not_text(source: Source, what: str, offset: int | None = None) -> Diagnostic:
    at = len(source.text) - 1 if offset is None else offset
    label = Label(Span(source, at, at + 1), f"{what} cannot stand in a text")
    return Diagnostic("A102", f"{source.name} is not UTF-8 text", (label,))


def _check_brackets(source: Source) -> None:
    depth = 0
    for match in _BRACKET.finditer(source.text):
        if match[0] in ("(", "["):
            depth += 1
            if depth > DEEPEST:
                raise Refusal(_too_deep(Span(source, match.start(), match.end())))
        elif match[0] in (")", "]"):
            depth = max(depth - 1, 0)


def _check_depth(module: tree.Module) -> None:
    """Refuse a tree that those after us could not walk by recursion."""
    pending = [(expression, 1) for expression in _expressions(module)]
    while pending:
        node, depth = pending.pop()
        if depth > DEEPEST:
            raise Refusal(_too_deep(node.span))
        depth += 1
        pending.extend((child, depth) for child in tree.children(node))


def _expressions(module: tree.Module) -> list[tree.Expression]:
    found: list[tree.Expression] = []
    for declaration in module.declarations:
        match declaration:
            case tree.Def(parameters=parameters, body=body):
                found.append(body)
            case tree.Pattern(parameters=parameters, body=body, where=where):
                found += (*where, body)
            case _:
                continue
        found += (each.default for each in parameters if each.default is not None)
    return found


def _too_deep(span: Span) -> Diagnostic:
    return Diagnostic(
        code="A103",
        title="this is nested too deeply",
        labels=(Label(span, f"more than {DEEPEST} levels deep"),),
        notes=("chains such as `a and b and c` are one level, however long",),
        helps=("name a part of it by `let` or `def`",),
    )


# ---------------------------------------------------------------------------- the parse


def _run(source: Source, start: int) -> tree.Module:
    """Parse from an offset on; a Refusal tells what stands in the way first."""
    BUILDER.source = source
    # Blanks in place of what is skipped keep every offset true.
    text = " " * start + source.text[start:] if start else source.text
    steps: Any = parser().parse_interactive(text)  # lark leaves parts of it without types
    stack = steps.parser_state.value_stack
    count, last, before = 0, None, None
    try:
        for last in steps.iter_parse():
            count += 1
            if len(stack) > _TALLEST_STACK:
                raise Refusal(_too_deep(_span(source, last)))
            before = last
        return cast("tree.Module", steps.feed_eof(last))
    except lark.UnexpectedToken as error:
        raise _unexpected(source, text, start, error.token, count, before) from None
    except lark.UnexpectedCharacters as error:
        at = cast("int", error.pos_in_stream)
        raise explain(Mistake(source, start, at, at + 1, "", frozenset())) from None


def _unexpected(
    source: Source, text: str, start: int, token: lark.Token, count: int, before: lark.Token | None
) -> Refusal:
    expected = frozenset(_accepted(text, count - (token.type != "$END")))
    if token.type == "$END":  # shown behind the last thing written, not on some empty last line
        at = (before.end_pos or 0) if before else 0
        return explain(Mistake(source, start, at, at, "$END", expected))
    span = _span(source, token)
    return explain(Mistake(source, start, span.start, span.stop, token.type, expected))


def _accepted(text: str, count: int) -> set[str]:
    """What may follow the first tokens. (By the time lark finds a fault it has forgotten some.)"""
    steps: Any = parser().parse_interactive(text)
    tokens = steps.lexer_thread.lex(steps.parser_state)
    for _ in range(count):
        steps.feed_token(next(tokens))
    return cast("set[str]", steps.accepts())


def _span(source: Source, token: lark.Token) -> Span:
    return Span(source, token.start_pos or 0, token.end_pos or 0)


def _collect(source: Source, refusal: Refusal) -> list[Diagnostic]:
    """The first fault, and those of the declarations that begin a line further down."""
    found = [refusal.diagnostic]
    start = 0
    while len(found) < MOST_REPORTED and refusal.diagnostic.code != "A103":
        match = _DECLARATION.search(source.text, max(refusal.offset, start + 1))
        if not match:
            break
        start = match.start()
        try:
            _run(source, start)
            break
        except Refusal as next_refusal:
            refusal = next_refusal
            found.append(refusal.diagnostic)
    return found
