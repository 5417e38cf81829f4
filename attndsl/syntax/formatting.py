"""Tree to text: the one canonical layout. `parse(format(m)) == m`, and formatting twice is once.

Canonical means: one line where 100 columns hold it, else broken, loosest operator first, each
operand on its own line behind its operator; no parentheses but those that are needed, and those
around an `if`, a `let` or a loop that is an operand; clauses in the order over, align, where, zeros; a
blank line between declarations, except between one-liners of a kind without documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeGuard, TypeVar, assert_never

from . import tree
from .selection_tree import Blocks, Numbers

WIDTH = 100
_STEP = "    "
_T = TypeVar("_T")

# How tightly a form binds; an operand looser than its place needs parentheses.
_LOOSE, _OR, _AND, _NOT, _COMPARE, _SUM, _PRODUCT, _UNARY, _JOIN, _ATOM = range(10)


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
    return _flat(expression)


def format_assertion(assertion: tree.Assertion) -> str:
    """The claim and its conditions on one line, without the word `assert`."""
    where = f" where {', '.join(map(_flat, assertion.where))}" if assertion.where else ""
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
            claims = [line for each in assertions for line in _indented(_assertion(each))]
            return [*_definition(node), *_indented(_zeros(node)), *claims]
        case tree.Attention():
            return _definition(node)
        case tree.Units(name, blocks):
            return [f"units {name} = {_blocks(blocks)}"]
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
    room = WIDTH - len(_STEP)
    if len(title) + 2 <= WIDTH:
        return [f"{title} =", *_indented(_body_lines(node.body, room))]
    if len(opened) > WIDTH:
        heads = [f"{head}(", *_indented(_separated(parameters)), ")"]
    else:
        heads = [opened]
    body = _lead("= ", _body_lines(node.body, room - len(_STEP)))
    return [*heads, *_indented([*_tall_clauses(node, room), *body])]


def _select(node: tree.Select) -> list[str]:
    """One line, or the head, the score below it, and each clause on a line of its own."""
    parameters = f"({', '.join(map(_parameter, node.parameters))})" if node.parameters else ""
    words = [f"select {node.name}{parameters}"]
    words += [] if node.over is None else [f"over {_units(node.over)}"]
    words += [] if node.per is None else [f"per {node.per}"]
    words += [] if node.queries is None else [f"for {_rows(node.queries)}"]
    words += [] if node.align is None else [f"align {node.align}"]
    words += [f"where {', '.join(map(_flat, node.where))}"] if node.where else []
    candidates = f"where {', '.join(map(_flat, node.candidates))}"
    clauses = [candidates] if node.candidates else []
    clauses += [] if node.keeping is None else [f"keeping {_flat(node.keeping)}"]
    seed = "" if node.take.seed is None else f" seed {_flat(node.take.seed)}"
    by = "" if node.take.by is None else f" by {node.take.by}"
    clauses.append(f"take {node.take.how} {_flat(node.take.amount)}{seed}{by}")
    line = " ".join((*words, "=", _flat(node.body), *clauses))
    if len(line) <= WIDTH:
        return [line]
    body = _lines(node.body, WIDTH - len(_STEP))
    return [" ".join((*words, "=")), *_indented((*body, *clauses))]


def _numbering(node: tree.Label | tree.Rank) -> list[str]:
    """One line, or the head and then the body below it."""
    parameters = f"({', '.join(map(_parameter, node.parameters))})" if node.parameters else ""
    words = [f"{type(node).__name__.lower()} {node.name}{parameters}"]
    words += [] if node.align is None else [f"align {node.align}"]
    words += [f"where {', '.join(map(_flat, node.where))}"] if node.where else []
    if isinstance(node, tree.Rank):
        return [" ".join((*words, "= by", ", ".join(map(_flat, (node.body, *node.others)))))]
    head = " ".join((*words, f"= argmax {_rows(node.numbers)}:"))
    if len(line := f"{head} {_flat(node.body)}") <= WIDTH:
        return [line]
    return [head, *_indented(_lines(node.body, WIDTH - len(_STEP)))]


def _rows(each: str | Blocks | Numbers) -> str:
    return f"{each.name} in {_flat(each.range)}" if isinstance(each, Numbers) else _units(each)


def _units(each: str | Blocks) -> str:
    return each if isinstance(each, str) else _blocks(each)


def _blocks(node: Blocks) -> str:
    every = "" if node.every is None else f", every {_flat(node.every)}"
    return f"blocks({_flat(node.size)}{every}){' whole' if node.whole else ''}"


def _reduction(node: tree.Reduction) -> str:
    where = "" if node.where is None else f" where {_flat(node.where)}"
    every, rows = "all " if node.every else "", f" in {node.rows}" if node.rows else ""
    return f"{node.how} over {every}{node.over}{rows}{where}:"


def _flat_body(body: tree.Expression) -> str:
    return " ".join((_score(body), *map(_by, body.by))) if _is_plain_score(body) else _flat(body)


def _body_lines(body: tree.Expression, room: int) -> list[str]:
    if not _is_plain_score(body):
        return _lines(body, room)
    flat = _flat_body(body)
    return [flat] if len(flat) <= room else [*_score_lines(body, room), *map(_by, body.by)]


def _is_plain_score(body: tree.Expression) -> TypeGuard[tree.Scored]:
    """Whether it needs no parentheses as the body of an attention."""
    return isinstance(body, tree.Scored) and body.over is None


def _clauses(node: _Defined) -> list[str]:
    if isinstance(node, tree.Def):
        return []
    clauses = []
    if isinstance(node, tree.Attention):
        keys = "" if node.keys is None else f" -> {node.keys}"
        clauses += [] if node.over is None else [f"over {_flat(node.over)}{keys}"]
    elif node.over is not None:
        keys = "" if node.over.keys is None else f" -> {node.over.keys}"
        clauses.append(f"over {node.over.queries}{keys}")
    if node.align is not None:
        clauses.append(f"align {node.align}")
    if node.where:
        clauses.append(f"where {', '.join(map(_flat, node.where))}")
    return clauses


def _tall_clauses(node: _Defined, room: int) -> list[str]:
    """The clauses, each on its line; conditions too, where one line does not hold them."""
    clauses = _clauses(node)
    if isinstance(node, tree.Def) or not node.where or len(clauses[-1]) <= room:
        return clauses
    laid = _each(node.where, _lines, room - len("where "))
    return [*clauses[:-1], f"where {laid[0]}", *_indented(laid[1:])]


def _zeros(node: tree.Pattern) -> list[str]:
    if node.zeros is None:
        return []
    room = WIDTH - len(_STEP)
    return _lead("zeros ", _lines(node.zeros, room - len("zeros ")))


def _assertion(node: tree.Assertion) -> list[str]:
    """One line, or the claim and then its conditions below."""
    room = WIDTH - len(_STEP)
    if len(line := f"assert {format_assertion(node)}") <= room:
        return [line]
    claim = _lead("assert ", _claim_lines(node.claim, room - len("assert ")))
    if not node.where:
        return claim
    where = f"where {', '.join(map(_flat, node.where))}"
    if len(where) <= room - len(_STEP):
        return [*claim, _STEP + where]
    laid = _each(node.where, _lines, room - len(_STEP) - len("where "))
    return [*claim, *_indented([f"where {laid[0]}", *_indented(laid[1:])])]


def _claim_lines(claim: tree.Expression | tree.Phrase | tree.Measure, room: int) -> list[str]:
    if isinstance(claim, tree.Phrase | tree.Measure):
        return [_claim(claim)]
    return _lines(claim, room)


def _claim(claim: tree.Expression | tree.Phrase | tree.Measure) -> str:
    match claim:
        case tree.Phrase(words=words, operator=operator, bound=bound):
            said = " ".join(map(str, words))
            return said if operator is None else f"{said} {operator} {_bound_of(bound)}"
        case tree.Measure(subject=subject, operator=operator, bound=bound):
            return f"{_at(subject, _SUM)} {operator} {_bound_of(bound)}"
        case expression:
            return _flat(expression)


def _bound_of(bound: tree.Expression | None) -> str:
    assert bound is not None
    return _at(bound, _SUM)


def _parameter(node: tree.Parameter) -> str:
    default = "" if node.default is None else f" = {_flat(node.default)}"
    return f"{node.name}: {node.kind}{default}"


# ------------------------------------------------------------------ expressions, one line


def _binds(node: tree.Expression) -> int:
    match node:
        case (
            tree.If() | tree.Let() | tree.Any() | tree.All() | tree.Count() | tree.Total()
            | tree.Reduction()
        ):  # fmt: skip
            return _LOOSE
        case tree.Or():
            return _OR
        case tree.And():
            return _AND
        case tree.Not():
            return _NOT
        case tree.Compare() | tree.Member() | tree.Range():
            return _COMPARE
        case tree.Sum():
            return _SUM
        case tree.Product():
            return _PRODUCT
        case tree.Neg():
            return _UNARY
        case tree.Join():
            return _JOIN
        case _:
            return _ATOM


def _flat(node: tree.Expression) -> str:
    match node:
        case tree.Fraction(digits):
            return digits
        case tree.Scored():
            return f"({_before(node)}{_score(node)})"
        case tree.Int(value):
            return str(value)
        case tree.Bool(value):
            return "true" if value else "false"
        case tree.Name(name):
            return name
        case tree.ListOf(items):
            return f"[{', '.join(map(_flat, items))}]"
        case tree.Access(base, name):
            return f"{_at(base, _ATOM)}.{name}"
        case tree.Index(base, indices):
            return f"{_at(base, _ATOM)}[{', '.join(map(_flat, indices))}]"
        case tree.Call(name, arguments):
            return f"{name}({', '.join(map(_argument, arguments))})"
        case tree.Neg() | tree.Not() | tree.Range() | tree.Member():
            return _flat_operator(node)
        case tree.Product() | tree.Sum() | tree.Join() | tree.Compare() | tree.And() | tree.Or():
            return " ".join(lead + _at(operand, level) for lead, operand, level in _chain(node))
        case _:
            return _flat_loose(node)


def _flat_operator(node: tree.Neg | tree.Not | tree.Range | tree.Member) -> str:
    match node:
        case tree.Neg(operand):
            return f"-{_at(operand, _UNARY)}"
        case tree.Not(operand):
            return f"not {_at(operand, _NOT)}"
        case tree.Range(low, high):
            return f"{_at(low, _SUM)}..{_at(high, _SUM)}"
        case tree.Member():
            return _asks(node) + _container(node.container)


def _flat_loose(node: tree.If | tree.Let | tree.Loop | tree.Reduction) -> str:
    match node:
        case tree.If(condition, yes, no):
            return f"if {_flat(condition)} then {_flat(yes)} else {_flat(no)}"
        case tree.Let(bindings, body):
            return f"let {', '.join(map(_binding, bindings))}: {_flat(body)}"
        case tree.Reduction(body=body):
            return f"{_reduction(node)} {_flat(body)}"
        case loop:
            return f"{_loop(loop)} {_flat(loop.body)}"


def _at(node: tree.Expression, level: int) -> str:
    return _flat(node) if _binds(node) >= level else f"({_flat(node)})"


def _argument(node: tree.Argument) -> str:
    return _flat(node.value) if node.name is None else f"{node.name}={_flat(node.value)}"


def _binding(node: tree.Binding) -> str:
    return f"{node.name} = {_flat(node.value)}"


_WORDS = {tree.Any: "any", tree.All: "all", tree.Count: "count", tree.Total: "sum"}


def _loop(node: tree.Loop) -> str:
    return f"{_WORDS[type(node)]} {node.name} in {_flat(node.range)}:"


def _asks(node: tree.Member) -> str:
    return f"{_at(node.item, _SUM)} {'not in' if node.negated else 'in'} "


def _container(node: tree.Expression) -> str:
    return _flat(node) if isinstance(node, tree.Range) else _at(node, _SUM)


# ------------------------------------------------------------------------ scores


def _by(node: tree.By) -> str:
    return f"by {node.name}" if node.number is None else f"by {node.name} {node.number}"


def _before(node: tree.Scored) -> str:
    """The clauses of a branch in parentheses that stand before its score."""
    over = [] if node.over is None else [f"over {_flat(node.over)}"]
    clauses = [*over, *map(_by, node.by)]
    return f"{' '.join(clauses)}: " if clauses else ""


def _clauses_of_score(node: tree.Scored) -> list[tuple[str, tree.Expression | None]]:
    """Each clause as its words and the expression behind them."""
    found: list[tuple[str, tree.Expression | None]] = [("score ", node.score)]
    if (weights := node.weights) is not None:
        blank = "" if weights.expression is None else " "
        found.append((f"weights {weights.form}{blank}", weights.expression))
    found += [("factor ", node.factor)] if node.factor is not None else []
    found += [("mass ", node.mass)] if node.mass is not None else []
    return found


def _score(node: tree.Scored) -> str:
    """The score and the clauses behind it."""
    clauses = _clauses_of_score(node)
    return " ".join(lead + ("" if each is None else _flat(each)) for lead, each in clauses)


def _score_lines(node: tree.Scored, room: int) -> list[str]:
    """The same in lines."""
    if len(flat := _score(node)) <= room:
        return [flat]
    return [
        line
        for lead, each in _clauses_of_score(node)
        for line in ([lead] if each is None else _lead(lead, _lines(each, room - len(lead))))
    ]


def _branch_lines(node: tree.Scored, room: int) -> list[str]:
    """A branch in lines: what stands before its score, and below it the score."""
    before = [] if node.over is None else _lead("over ", _lines(node.over, room - len("(over ")))
    before += map(_by, node.by)
    if before:
        before[-1] += ":"
    return ["(", *_indented([*before, *_score_lines(node, room - len(_STEP))]), ")"]


_Chain = tree.Product | tree.Sum | tree.Join | tree.Compare | tree.And | tree.Or


def _chain(node: _Chain) -> Iterator[tuple[str, tree.Expression, int]]:
    """Operands with the operator in front of each and the level their place asks for."""
    words: Sequence[str]
    match node:
        case tree.Or(operands):
            level, words = _AND, ["or"] * (len(operands) - 1)
        case tree.And(operands):
            level, words = _NOT, ["and"] * (len(operands) - 1)
        case tree.Compare(operands, words):
            level = _SUM
        case tree.Sum(operands, words):
            level = _PRODUCT
        case tree.Join(operands):
            level, words = _ATOM, ["++"] * (len(operands) - 1)
        case tree.Product(operands, words):
            level = _UNARY
        case _:
            assert_never(node)
    for word, operand in zip(["", *words], operands, strict=True):
        yield (f"{word} " if word else ""), operand, level


# ---------------------------------------------------------------- expressions, several lines


def _lines(node: tree.Expression, room: int) -> list[str]:
    """The expression in lines of at most `room` columns, as far as its parts allow."""
    if len(flat := _flat(node)) <= room:
        return [flat]
    match node:
        case tree.Scored():
            return _branch_lines(node, room)
        case tree.Product() | tree.Sum() | tree.Join() | tree.Compare() | tree.And() | tree.Or():
            return [
                line
                for lead, operand, level in _chain(node)
                for line in _lead(lead, _lines_at(operand, level, room - len(lead)))
            ]
        case tree.Neg(operand):
            return _lead("-", _lines_at(operand, _UNARY, room - 1))
        case tree.Not(operand):
            return _lead("not ", _lines_at(operand, _NOT, room - 4))
        case tree.Member(_, container):
            level = _COMPARE if isinstance(container, tree.Range) else _SUM
            return _lead(asks := _asks(node), _lines_at(container, level, room - len(asks)))
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
            *before, last = _lines_at(base, _ATOM, room)
            return [*before, *_bracketed(f"{last}[", indices, _lines, room, "]")]
        case tree.Access(base, name):
            *before, last = _lines_at(base, _ATOM, room)
            return [*before, f"{last}.{name}"]
        case _:
            return [flat]


def _loose_lines(node: tree.If | tree.Let | tree.Loop | tree.Reduction, room: int) -> list[str]:
    match node:
        case tree.If(condition, yes, no):
            return [
                *_lead("if ", _lines(condition, room - 3)),
                *_lead("then ", _lines(yes, room - 5)),
                *_lead("else ", _lines(no, room - 5), chained=isinstance(no, tree.If)),
            ]
        case tree.Let(bindings, body):
            return [*_bound(bindings, room), *_lines(body, room)]
        case tree.Reduction(body=body):
            return [_reduction(node), *_indented(_lines(body, room - len(_STEP)))]
        case loop:
            return [_loop(loop), *_indented(_lines(loop.body, room - len(_STEP)))]


def _lines_at(node: tree.Expression, level: int, room: int) -> list[str]:
    if _binds(node) >= level:
        return _lines(node, room)
    if len(flat := f"({_flat(node)})") <= room:
        return [flat]
    return ["(", *_indented(_lines(node, room - len(_STEP))), ")"]


def _argument_lines(node: tree.Argument, room: int) -> list[str]:
    lead = "" if node.name is None else f"{node.name}="
    return _lead(lead, _lines(node.value, room - len(lead)))


def _bound(bindings: tuple[tree.Binding, ...], room: int) -> list[str]:
    if len(line := f"let {', '.join(map(_binding, bindings))}:") <= room:
        return [line]
    lines: list[str] = []
    for index, binding in enumerate(bindings):
        lead = f"{'    ' if index else 'let '}{binding.name} = "
        *before, last = _lead(lead, _lines(binding.value, room - len(lead) - 1))
        lines += [*before, last + (":" if index == len(bindings) - 1 else ",")]
    return lines


def _bracketed(
    opening: str, parts: Sequence[_T], lay: Callable[[_T, int], list[str]], room: int, closing: str
) -> list[str]:
    """Each part on lines of its own between the brackets."""
    return [opening, *_indented(_each(parts, lay, room - len(_STEP) - 1)), closing]


def _each(parts: Sequence[_T], lay: Callable[[_T, int], list[str]], room: int) -> list[str]:
    """Each part on lines of its own, commas between them."""
    lines: list[str] = []
    for index, part in enumerate(parts):
        *before, last = lay(part, room)
        lines += [*before, last + ("," if index < len(parts) - 1 else "")]
    return lines


def _list_lines(items: tuple[tree.Expression, ...], room: int) -> list[str]:
    """Short items share lines; a list with a long one gets a line for each."""
    texts = [_flat(item) for item in items]
    if max(map(len, texts), default=0) > room // 4:
        return _bracketed("[", items, _lines, room, "]")
    lines, line = [], ""
    for text in _separated(texts):
        if line and len(line) + 1 + len(text) > room - len(_STEP):
            lines.append(line)
            line = text
        else:
            line = f"{line} {text}" if line else text
    return ["[", *_indented([*lines, line]), "]"]


def _separated(texts: list[str]) -> list[str]:
    return [*(f"{text}," for text in texts[:-1]), *texts[-1:]]


def _indented(lines: Iterable[str]) -> list[str]:
    return [_STEP + line for line in lines]


def _lead(lead: str, lines: list[str], *, chained: bool = False) -> list[str]:
    """The lines behind a lead; what follows the first hangs in, unless a bracket closes it."""
    first, *rest = lines
    hang = "" if chained or (rest and rest[-1][0] in ")]") else _STEP
    return [lead + first, *(hang + line for line in rest)]
