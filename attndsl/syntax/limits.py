"""How large and how deep a program may be. Each limit is told with its place, and told soon."""

from __future__ import annotations

import re

from attndsl.source import AttnDslError, Diagnostic, Label, Source, Span

from . import tree
from .building_errors import DEEPEST, too_deep
from .clauses import TreeError
from .selection_tree import asides, blocks_of

LARGEST_FILE = 1 << 20
MOST_TOKENS = 200_000

# Symbols that lark may hold at once: each level keeps at most six symbols of an unfinished rule. Passing
# it ends the parse of an endless `not not not ...` early.
TALLEST_STACK = 8 * DEEPEST

# A declaration at the start of a line closes whatever the one before it left open.
_BRACKET = re.compile(
    r'"[^"\n]*"|#[^\n]*|[()\[\]]|^(?:import|grid|space|input|def|pattern|attention)\b|^(?:select|label|rank)\s+\w',
    re.MULTILINE,
)
_STRANGE = re.compile(r"[\x00\ud800-\udfff]")


def checked(text: str, name: str) -> Source:
    """The text as a source, once it is known to be text of a sane size."""
    if len(text) > LARGEST_FILE or len(text.encode("utf-8", "replace")) > LARGEST_FILE:
        raise AttnDslError(too_long(name, "1 MiB"))
    source = normal(text, name)
    if strange := _STRANGE.search(source.text):
        raise AttnDslError(not_text(source, f"U+{ord(strange[0]):04X}", strange.start()))
    return source


def normal(text: str, name: str) -> Source:
    """The text without byte order mark, its lines ended by newlines alone."""
    text = text.removeprefix("\ufeff")
    return Source(name, text.replace("\r\n", "\n").replace("\r", "\n"))


def too_long(name: str, most: str) -> Diagnostic:
    return Diagnostic(
        code="A102",
        title=f"{name} is too large",
        notes=(f"a pattern file holds at most {most}",),
        helps=("data belongs in an `input`, which is given when the pattern runs",),
    )


def not_text(source: Source, what: str, offset: int) -> Diagnostic:
    label = Label(Span(source, offset, offset + 1), f"{what} cannot stand in a text")
    return Diagnostic("A102", f"{source.name} is not UTF-8 text", (label,))


def check_brackets(source: Source, start: int, stop: int) -> None:
    """Refuse deep nesting in the characters [start, stop) before anything is built from them."""
    depth = 0
    for match in _BRACKET.finditer(source.text, start, stop):
        match match[0][0]:
            case "(" | "[":
                depth += 1
                if depth > DEEPEST:
                    raise TreeError(too_deep(Span(source, match.start(), match.end())))
            case ")" | "]":
                depth = max(depth - 1, 0)
            case '"' | "#":
                pass
            case _:
                depth = 0


def check_depth(module: tree.Module) -> None:
    """Refuse a tree that those after us could not walk by recursion."""
    level, depth = _expressions(module), 1
    while level:
        if depth > DEEPEST:
            raise TreeError(too_deep(level[0].span))
        level = [child for node in level for child in tree.unlike(node)]
        depth += 1


def _expressions(module: tree.Module) -> list[tree.Expression]:
    found: list[tree.Expression] = []
    for declaration in module.declarations:
        match declaration:
            case tree.Def(parameters=parameters, body=body):
                found.append(body)
            case tree.Pattern(parameters=parameters, body=body, where=where):
                found += (*where, body)
                found += (declaration.zeros,) if declaration.zeros is not None else ()
                found += (part for each in declaration.assertions for part in tree.parts(each))
            case tree.Attention(parameters=parameters, body=body, where=where, over=over):
                found += (*where, body)
                found += () if over is None else (over,)
            case (
                tree.Select(parameters=parameters, body=body, where=where)
                | tree.Label(parameters=parameters, body=body, where=where)
                | tree.Rank(parameters=parameters, body=body, where=where)
            ):
                found += (*where, body, *asides(declaration))
            case tree.Units(blocks=blocks):
                found += blocks_of(blocks)
                continue
            case _:
                continue
        found += (each.default for each in parameters if each.default is not None)
    return found
