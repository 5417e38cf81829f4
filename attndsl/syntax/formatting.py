"""Tree to text: the one canonical layout. `parse(format(m)) == m`, and formatting twice is once.

Canonical means: one line where 100 columns hold it, else broken, loosest operator first, each
operand on its own line behind its operator; no parentheses but those that are needed, and those
around an `if`, a `let` or a loop that is an operand; clauses in the order over, align, where, zeros; a
blank line between declarations, except between one-liners of a kind without documentation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeGuard

from . import tree
from .flat_text import (
    SUM,
    blocks_text,
    by_text,
    flat_text,
    rows_text,
    score_text,
    text_at,
    units_text,
)
from .tall_text import STEP, each_on_lines, indented, led, lines_of, score_lines, with_commas

WIDTH = 100


def format_module(module: tree.Module) -> str:
    """The module in canonical layout, ending in a newline unless it is empty.

    Comments are kept: documentation and remarks stand above their declaration, the comment behind
    it stays there; those from within a declaration have moved above it when it was parsed.
    """
    lines: list[str] = []
    previous: tree.Declaration | None = None
    previous_tall = False
    for declaration in module.declarations:
        layout = _declaration(declaration)
        tall = len(layout) > 1
        if previous is not None and (
            tall or previous_tall or type(previous) is not type(declaration)
        ):
            lines.append("")
        lines += layout
        previous, previous_tall = declaration, tall
    if lines and module.remarks:
        lines.append("")
    lines += module.remarks
    return "".join(f"{line}\n" for line in lines)


def format_expression(expression: tree.Expression) -> str:
    """The expression on one line, with no parentheses around the whole."""
    return flat_text(expression)


def format_assertion(assertion: tree.Assertion) -> str:
    """The claim and its conditions on one line, without the word `assert`."""
    where = f" where {', '.join(map(flat_text, assertion.where))}" if assertion.where else ""
    return _claim(assertion.claim) + where


# ------------------------------------------------------------------------ declarations


def _declaration(node: tree.Declaration) -> list[str]:
    doc = [f"## {line}".rstrip() for line in node.doc.split("\n")] if node.doc else []
    *body, last = _plain(node)
    beside = f"  {node.remarks.beside}" if node.remarks.beside else ""
    return [*node.remarks.above, *doc, *body, last + beside]


def _plain(node: tree.Declaration) -> list[str]:
    match node:
        case tree.Import(path, names):
            listed = ", ".join(_import_name(name) for name in names)
            return [f'import {listed} from "{path}"' if names else f'import "{path}"']
        case tree.Grid(name, axes):
            return [f"grid {name}({_axes(axes)})"]
        case tree.Space(name, segments):
            return [f"space {name} = {' ++ '.join(map(_segment, segments))}"]
        case tree.Input(name, kind, dims):
            return [f"input {name}: {kind}[{', '.join(str(dim.value) for dim in dims)}]"]
        case tree.Def():
            return _definition(node)
        case tree.Pattern(assertions=assertions):
            claims = [line for each in assertions for line in indented(_assertion(each))]
            return [*_definition(node), *indented(_zeros(node)), *claims]
        case tree.Attention():
            return _definition(node)
        case tree.Units(name, blocks):
            return [f"units {name} = {blocks_text(blocks)}"]
        case tree.Select():
            return _select(node)
        case tree.Label() | tree.Rank():
            return _numbering(node)


def _import_name(node: tree.ImportName) -> str:
    return node.name if node.alias is None else f"{node.name} as {node.alias}"


def _axes(axes: Iterable[tree.Axis]) -> str:
    return ", ".join(
        axis.name if axis.extent is None else f"{axis.name}={axis.extent}" for axis in axes
    )


def _segment(node: tree.Segment) -> str:
    if node.length is not None:
        return f"{node.name}({node.length})"
    return f"{node.name}({_axes(node.axes)})" if node.axes else node.name


_Defined = tree.Def | tree.Pattern | tree.Attention


def _definition(node: _Defined) -> list[str]:
    """One line, or the head and then the body below it, or a head of several lines as well."""
    parameters = [_parameter(parameter) for parameter in node.parameters]
    is_def = isinstance(node, tree.Def)
    head = f"{type(node).__name__.lower()} {node.name}"
    opened = f"{head}({', '.join(parameters)})" if parameters or is_def else head
    title = " ".join((opened, *_clauses(node)))
    if len(line := f"{title} = {_flat_body(node.body)}") <= WIDTH:
        return [line]
    room = WIDTH - len(STEP)
    if len(title) + 2 <= WIDTH:
        return [f"{title} =", *indented(_body_lines(node.body, room))]
    if len(opened) > WIDTH:
        heads = [f"{head}(", *indented(with_commas(parameters)), ")"]
    else:
        heads = [opened]
    body = led("= ", _body_lines(node.body, room - len(STEP)))
    return [*heads, *indented([*_tall_clauses(node, room), *body])]


def _select(node: tree.Select) -> list[str]:
    """One line, or the head, the score below it, and each clause on a line of its own."""
    parameters = f"({', '.join(map(_parameter, node.parameters))})" if node.parameters else ""
    words = [f"select {node.name}{parameters}"]
    words += [] if node.over is None else [f"over {units_text(node.over)}"]
    words += [] if node.per is None else [f"per {node.per}"]
    words += [] if node.queries is None else [f"for {rows_text(node.queries)}"]
    words += [] if node.align is None else [f"align {node.align}"]
    words += [f"where {', '.join(map(flat_text, node.where))}"] if node.where else []
    flat = [line for clause in _stages(node, None) for line in clause]
    if len(line := " ".join((*words, "=", flat_text(node.body), *flat))) <= WIDTH:
        return [line]
    room = WIDTH - len(STEP)
    stages = [line for clause in _stages(node, room) for line in clause]
    if len(head := " ".join((*words, "="))) <= WIDTH:
        return [head, *indented((*lines_of(node.body, room), *stages))]
    body = led("= ", lines_of(node.body, room - len("= ")))
    return [words[0], *indented((*words[1:], *body, *stages))]


def _stages(node: tree.Select, room: int | None) -> Iterator[list[str]]:
    """The clauses behind the score, each on a line, or on several where the room is too small."""
    if node.candidates:
        laid = [f"where {', '.join(map(flat_text, node.candidates))}"]
        if room is not None and len(laid[0]) > room:
            first, *rest = each_on_lines(node.candidates, lines_of, room - len("where "))
            laid = [f"where {first}", *indented(rest)]
        yield laid
    if node.keeping is not None:
        flat = flat_text(node.keeping)
        fits = room is None or len(f"keeping {flat}") <= room
        yield led("keeping ", [flat] if fits else lines_of(node.keeping, (room or 0) - len(STEP)))
    seed = "" if node.take.seed is None else f" seed {flat_text(node.take.seed)}"
    by = "" if node.take.by is None else f" by {node.take.by}"
    taken = f"take {node.take.how} {flat_text(node.take.amount)}{seed}{by}"
    if room is None or len(taken) <= room:
        yield [taken]
    else:
        *amount, last = lines_of(node.take.amount, room - len(STEP))
        yield [f"take {node.take.how}", *indented((*amount, last + seed + by))]


def _numbering(node: tree.Label | tree.Rank) -> list[str]:
    """One line, or the head and then the body below it."""
    parameters = f"({', '.join(map(_parameter, node.parameters))})" if node.parameters else ""
    words = [f"{type(node).__name__.lower()} {node.name}{parameters}"]
    words += [] if node.align is None else [f"align {node.align}"]
    words += [f"where {', '.join(map(flat_text, node.where))}"] if node.where else []
    if isinstance(node, tree.Rank):
        return [" ".join((*words, "= by", ", ".join(map(flat_text, (node.body, *node.others)))))]
    head = " ".join((*words, f"= argmax {rows_text(node.numbers)}:"))
    if len(line := f"{head} {flat_text(node.body)}") <= WIDTH:
        return [line]
    return [head, *indented(lines_of(node.body, WIDTH - len(STEP)))]


def _flat_body(body: tree.Expression) -> str:
    return (
        " ".join((score_text(body), *map(by_text, body.by)))
        if _is_plain_score(body)
        else flat_text(body)
    )


def _body_lines(body: tree.Expression, room: int) -> list[str]:
    if not _is_plain_score(body):
        return lines_of(body, room)
    flat = _flat_body(body)
    return [flat] if len(flat) <= room else [*score_lines(body, room), *map(by_text, body.by)]


def _is_plain_score(body: tree.Expression) -> TypeGuard[tree.Scored]:
    """Whether it needs no parentheses as the body of an attention."""
    return isinstance(body, tree.Scored) and body.over is None


def _clauses(node: _Defined) -> list[str]:
    if isinstance(node, tree.Def):
        return []
    clauses = []
    if isinstance(node, tree.Attention):
        keys = "" if node.keys is None else f" -> {node.keys}"
        clauses += [] if node.over is None else [f"over {flat_text(node.over)}{keys}"]
    elif node.over is not None:
        keys = "" if node.over.keys is None else f" -> {node.over.keys}"
        clauses.append(f"over {node.over.queries}{keys}")
    if node.align is not None:
        clauses.append(f"align {node.align}")
    if node.where:
        clauses.append(f"where {', '.join(map(flat_text, node.where))}")
    return clauses


def _tall_clauses(node: _Defined, room: int) -> list[str]:
    """The clauses, each on its line; conditions too, where one line does not hold them."""
    clauses = _clauses(node)
    if isinstance(node, tree.Def) or not node.where or len(clauses[-1]) <= room:
        return clauses
    laid = each_on_lines(node.where, lines_of, room - len("where "))
    return [*clauses[:-1], f"where {laid[0]}", *indented(laid[1:])]


def _zeros(node: tree.Pattern) -> list[str]:
    if node.zeros is None:
        return []
    room = WIDTH - len(STEP)
    return led("zeros ", lines_of(node.zeros, room - len("zeros ")))


def _assertion(node: tree.Assertion) -> list[str]:
    """One line, or the claim and then its conditions below."""
    room = WIDTH - len(STEP)
    if len(line := f"assert {format_assertion(node)}") <= room:
        return [line]
    claim = led("assert ", _claim_lines(node.claim, room - len("assert ")))
    if not node.where:
        return claim
    where = f"where {', '.join(map(flat_text, node.where))}"
    if len(where) <= room - len(STEP):
        return [*claim, STEP + where]
    laid = each_on_lines(node.where, lines_of, room - len(STEP) - len("where "))
    return [*claim, *indented([f"where {laid[0]}", *indented(laid[1:])])]


def _claim_lines(claim: tree.Expression | tree.Phrase | tree.Measure, room: int) -> list[str]:
    if isinstance(claim, tree.Phrase | tree.Measure):
        return [_claim(claim)]
    return lines_of(claim, room)


def _claim(claim: tree.Expression | tree.Phrase | tree.Measure) -> str:
    match claim:
        case tree.Phrase(words=words, operator=operator, bound=bound):
            said = " ".join(map(str, words))
            return said if operator is None else f"{said} {operator} {_bound_of(bound)}"
        case tree.Measure(subject=subject, operator=operator, bound=bound):
            return f"{text_at(subject, SUM)} {operator} {_bound_of(bound)}"
        case expression:
            return flat_text(expression)


def _bound_of(bound: tree.Expression | None) -> str:
    assert bound is not None
    return text_at(bound, SUM)


def _parameter(node: tree.Parameter) -> str:
    default = "" if node.default is None else f" = {flat_text(node.default)}"
    return f"{node.name}: {node.kind}{default}"


# ------------------------------------------------------------------ expressions, one line


# ------------------------------------------------------------------------ scores


# ---------------------------------------------------------------- expressions, several lines
