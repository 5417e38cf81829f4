"""Expressions in lines of at most so many columns, the loosest operator first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from . import tree
from .flat_text import (
    ATOM,
    COMPARE,
    NOT,
    SUM,
    UNARY,
    binding_text,
    binds,
    by_text,
    chain,
    clauses_of_score,
    flat_text,
    loop_head,
    member_head,
    reduction_head,
    score_text,
)

STEP = "    "


_T = TypeVar("_T")


def score_lines(node: tree.Scored, room: int) -> list[str]:
    """A score and the clauses behind it, in lines."""
    if len(flat := score_text(node)) <= room:
        return [flat]
    return [
        line
        for lead, each in clauses_of_score(node)
        for line in ([lead] if each is None else led(lead, lines_of(each, room - len(lead))))
    ]


def _branch_lines(node: tree.Scored, room: int) -> list[str]:
    """A branch in lines: what stands before its score, and below it the score."""
    before = [] if node.over is None else led("over ", lines_of(node.over, room - len("(over ")))
    before += map(by_text, node.by)
    if before:
        before[-1] += ":"
    return ["(", *indented([*before, *score_lines(node, room - len(STEP))]), ")"]


def lines_of(node: tree.Expression, room: int) -> list[str]:
    """The expression in lines of at most `room` columns, as far as its parts allow."""
    if len(flat := flat_text(node)) <= room:
        return [flat]
    match node:
        case tree.Scored():
            return _branch_lines(node, room)
        case tree.Product() | tree.Sum() | tree.Join() | tree.Compare() | tree.And() | tree.Or():
            return [
                line
                for lead, operand, level in chain(node)
                for line in led(lead, _lines_at(operand, level, room - len(lead)))
            ]
        case tree.Neg(operand):
            return led("-", _lines_at(operand, UNARY, room - 1))
        case tree.Not(operand):
            return led("not ", _lines_at(operand, NOT, room - 4))
        case tree.Member(_, container):
            level = COMPARE if isinstance(container, tree.Range) else SUM
            return led(asks := member_head(node), _lines_at(container, level, room - len(asks)))
        case (
            tree.If() | tree.Let() | tree.Any() | tree.All() | tree.Count() | tree.Total()
            | tree.Reduction()
        ):  # fmt: skip
            return _loose_lines(node, room)
        case tree.Call(name, arguments):
            return _bracketed(f"{name}(", arguments, _argument_lines, room, ")")
        case tree.ListOf(items):
            return _list_lines(items, room)
        case tree.Index(base, indices):
            *before, last = _lines_at(base, ATOM, room)
            return [*before, *_bracketed(f"{last}[", indices, lines_of, room, "]")]
        case tree.Access(base, name):
            *before, last = _lines_at(base, ATOM, room)
            return [*before, f"{last}.{name}"]
        case _:
            return [flat]


def _loose_lines(node: tree.If | tree.Let | tree.Loop | tree.Reduction, room: int) -> list[str]:
    match node:
        case tree.If(condition, yes, no):
            return [
                *led("if ", lines_of(condition, room - 3)),
                *led("then ", lines_of(yes, room - 5)),
                *led("else ", lines_of(no, room - 5), chained=isinstance(no, tree.If)),
            ]
        case tree.Let(bindings, body):
            return [*_bound(bindings, room), *lines_of(body, room)]
        case tree.Reduction(body=body):
            return [reduction_head(node), *indented(lines_of(body, room - len(STEP)))]
        case loop:
            return [loop_head(loop), *indented(lines_of(loop.body, room - len(STEP)))]


def _lines_at(node: tree.Expression, level: int, room: int) -> list[str]:
    if binds(node) >= level:
        return lines_of(node, room)
    if len(flat := f"({flat_text(node)})") <= room:
        return [flat]
    return ["(", *indented(lines_of(node, room - len(STEP))), ")"]


def _argument_lines(node: tree.Argument, room: int) -> list[str]:
    lead = "" if node.name is None else f"{node.name}="
    return led(lead, lines_of(node.value, room - len(lead)))


def _bound(bindings: tuple[tree.Binding, ...], room: int) -> list[str]:
    if len(line := f"let {', '.join(map(binding_text, bindings))}:") <= room:
        return [line]
    lines: list[str] = []
    for index, binding in enumerate(bindings):
        lead = f"{'    ' if index else 'let '}{binding.name} = "
        *before, last = led(lead, lines_of(binding.value, room - len(lead) - 1))
        lines += [*before, last + (":" if index == len(bindings) - 1 else ",")]
    return lines


def _bracketed(
    opening: str, parts: Sequence[_T], lay: Callable[[_T, int], list[str]], room: int, closing: str
) -> list[str]:
    """Each part on lines of its own between the brackets."""
    return [opening, *indented(each_on_lines(parts, lay, room - len(STEP) - 1)), closing]


def each_on_lines(parts: Sequence[_T], lay: Callable[[_T, int], list[str]], room: int) -> list[str]:
    """Each part on lines of its own, commas between them."""
    lines: list[str] = []
    for index, part in enumerate(parts):
        *before, last = lay(part, room)
        lines += [*before, last + ("," if index < len(parts) - 1 else "")]
    return lines


def _list_lines(items: tuple[tree.Expression, ...], room: int) -> list[str]:
    """Short items share lines; a list with a long one gets a line for each."""
    texts = [flat_text(item) for item in items]
    if max(map(len, texts), default=0) > room // 4:
        return _bracketed("[", items, lines_of, room, "]")
    lines, line = [], ""
    for text in with_commas(texts):
        if line and len(line) + 1 + len(text) > room - len(STEP):
            lines.append(line)
            line = text
        else:
            line = f"{line} {text}" if line else text
    return ["[", *indented([*lines, line]), "]"]


def with_commas(texts: list[str]) -> list[str]:
    return [*(f"{text}," for text in texts[:-1]), *texts[-1:]]


def indented(lines: Iterable[str]) -> list[str]:
    return [STEP + line for line in lines]


def led(lead: str, lines: list[str], *, chained: bool = False) -> list[str]:
    """The lines behind a lead; what follows the first hangs in, unless a bracket closes it."""
    first, *rest = lines
    hang = "" if chained or (rest and rest[-1][0] in ")]") else STEP
    return [lead + first, *(hang + line for line in rest)]
