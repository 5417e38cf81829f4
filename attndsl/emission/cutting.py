"""Source text cut to a purpose: branches that cannot be taken, parameters that nobody reads, other words.

Statements that stay as they are keep their very text, comments and line breaks; others are written anew,
as the formatter would write them.
"""

from __future__ import annotations

import ast
import copy
import re
import tokenize
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias, TypeVar

WIDTH: Final = 100
_SKIP: Final = "# fmt: skip"

Function: TypeAlias = ast.FunctionDef
Word: TypeAlias = Callable[[ast.Call, str], ast.expr | None]
Said = TypeVar("Said", bound=ast.AST)


@dataclass(frozen=True)
class Edit:
    """What is to change.

    ``known`` are names whose values are settled. ``calls`` says of a call by name, in the function of the
    other name, what stands in its place; ``statements`` of an assignment from a call what it is, None to
    drop it; ``elements`` of a name in a tuple what stands in its place; ``parameters`` of a parameter, or
    of "function.parameter", those in its place, in ``entries``.
    """

    known: Mapping[str, object] = field(default_factory=dict)
    calls: Mapping[str, Word] = field(default_factory=dict)
    statements: Mapping[str, Callable[[ast.Assign], ast.Assign | None]] = field(
        default_factory=dict
    )
    entries: frozenset[str] = frozenset()
    parameters: Mapping[str, Sequence[str]] = field(default_factory=dict)
    unspecialised: Sequence[str] = ()  # parameters among the new ones
    elements: Mapping[str, Callable[[str], list[ast.expr]]] = field(default_factory=dict)
    dropped: Mapping[str, frozenset[int]] = field(default_factory=dict)  # of functions, by place
    docs: Mapping[str, str] = field(default_factory=dict)  # of functions


def cut(source: str, edit: Edit) -> str:
    """The text with the edit made."""
    printer = _Printer(source, edit)
    printer.block(ast.parse(source).body, 0, 0)
    return "\n".join(printer.out).strip("\n") + "\n"


def without_idle_parameters(source: str, entries: frozenset[str]) -> str:
    """The text without parameters of device functions that nobody reads; ``entries`` keep theirs."""
    while True:
        functions = [each for each in ast.parse(source).body if isinstance(each, Function)]
        idle = {x.name: _idle(x) for x in functions if _is_jit(x) and x.name not in entries}
        idle = {name: places for name, places in idle.items() if places}
        if not idle:
            return source
        source = cut(source, Edit(dropped=idle))


def definitions(source: str, names: Iterable[str]) -> str:
    """These functions, classes and constants of a text, in its order."""
    wanted, lines = set(names), source.splitlines()
    found = [
        "\n".join(lines[_commented_from(lines, _start(node) - 1) : node.end_lineno])
        for node in ast.parse(source).body
        if _defines(node) in wanted
    ]
    assert len(found) == len(wanted), f"the text lacks some of {wanted}"
    return "\n\n\n".join(found) + "\n"


def _commented_from(lines: Sequence[str], start: int) -> int:
    """Where the comment that stands right above a line begins."""
    while start and lines[start - 1].startswith("# ") and not lines[start - 1].startswith("# --"):
        start -= 1
    return start


def defined(source: str) -> list[str]:
    """The functions, classes and constants of a text."""
    return [name for node in ast.parse(source).body if (name := _defines(node))]


def _defines(node: ast.stmt) -> str:
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
        case _:
            return ""


def called(node: ast.expr | None) -> str:
    """The name that is called, if a name is."""
    match node:
        case ast.Call(func=ast.Name(id=name)):
            return name
        case _:
            return ""


def _is_jit(function: Function) -> bool:
    return any("triton.jit" in ast.unparse(each) for each in function.decorator_list)


def _idle(function: Function) -> frozenset[int]:
    read = {x.id for part in function.body for x in ast.walk(part) if isinstance(x, ast.Name)}
    arguments = function.args.args
    return frozenset(place for place, each in enumerate(arguments) if each.arg not in read)


def _start(node: ast.stmt) -> int:
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(each.lineno for each in decorators)])


class _Printer:
    def __init__(self, source: str, edit: Edit) -> None:
        self._lines, self._edit = source.splitlines(), edit
        self._editor = _Editor(edit)
        spoken = {*edit.known, *edit.calls, *edit.statements, *edit.elements, *edit.dropped}
        spoken |= {name.rpartition(".")[2] for name in edit.parameters}
        self._words = re.compile(rf"\b(?:{'|'.join(sorted(map(re.escape, spoken)))})\b")
        self.out: list[str] = []

    def block(
        self, body: Sequence[ast.stmt], before: int, shift: int, *, is_first: bool = True
    ) -> None:
        """The statements of a block whose header ends on line ``before``, ``shift`` columns to the left."""
        opened, lead = len(self.out) if is_first else -1, False
        for node in body:
            leading = self._lines[before : _start(node) - 1]
            before = node.end_lineno or node.lineno
            lead = self._statement(node, leading, lead, shift, len(self.out) == opened)

    def _statement(
        self, node: ast.stmt, leading: list[str], lead: bool, shift: int, is_first: bool
    ) -> bool:
        """Print one; whether a blank line is left over from one that was dropped."""
        lead = lead or (bool(leading) and not leading[0].strip())
        if isinstance(node, ast.If) and (truth := self._editor.truth(node.test)) is not None:
            chosen = node.body if truth else node.orelse
            if chosen:
                inner = shift + chosen[0].col_offset - node.col_offset
                self._lead(leading, lead, shift, is_first)
                self.block(chosen, self._after_header(node, chosen), inner)
                return False
            return lead
        changed = self._editor.settled(node) if self._is_concerned(node) else node
        if changed is None:
            return lead
        self._lead(leading, lead, shift, is_first)
        self._print(node, changed, shift)
        return False

    def _is_concerned(self, node: ast.stmt) -> bool:
        """Whether a statement, or its header, has a word that the edit speaks of."""
        body: list[ast.stmt] = getattr(node, "body", [])
        last = _start(body[0]) - 1 if body else node.end_lineno
        return any(map(self._words.search, self._lines[_start(node) - 1 : last]))

    def _after_header(self, node: ast.If, chosen: list[ast.stmt]) -> int:
        """The line behind ``if ...:`` or ``else:``, from where on comments belong to the branch."""
        if chosen is node.body:
            return node.test.end_lineno or node.lineno
        place = _start(chosen[0]) - 1
        while self._lines[place - 1].strip() != "else:" and place > (node.body[-1].end_lineno or 0):
            place -= 1
        return place

    def _lead(self, leading: list[str], lead: bool, shift: int, is_first: bool) -> None:
        kept = [line[shift:] for line in leading]
        kept = kept if kept or not lead else [""]
        while is_first and kept and not kept[0]:
            kept.pop(0)
        self.out += kept

    def _print(self, node: ast.stmt, changed: ast.stmt, shift: int) -> None:
        match node, changed:
            case ast.FunctionDef(), ast.FunctionDef():
                self._function(node, changed, shift)
            case ast.ClassDef() | ast.If() | ast.For() | ast.While() | ast.With(), _:
                self._compound(node, changed, shift)
            case _:
                self._simple(node, changed, shift)

    def _simple(self, node: ast.stmt, changed: ast.stmt, shift: int) -> None:
        text = self._lines[node.lineno - 1 : node.end_lineno]
        if node is changed or ast.dump(node) == ast.dump(changed):
            self.out += [line[shift:] for line in text]
            return
        indent = " " * (node.col_offset - shift)
        comment = _comment("\n".join(text))
        self.out += formatted(changed, indent, comment.replace(_SKIP, "").strip(), _SKIP in comment)

    def _compound(
        self,
        node: ast.ClassDef | ast.If | ast.For | ast.While | ast.With,
        changed: ast.stmt,
        shift: int,
    ) -> None:
        first = _start(node.body[0]) - 1
        header = [line[shift:] for line in self._lines[_start(node) - 1 : first]]
        if node is not changed and ast.dump(_bodiless(node)) != ast.dump(_bodiless(changed)):
            spelled = ast.unparse(_bodiless(changed)).splitlines()[0]
            header = [" " * (node.col_offset - shift) + double_quoted(spelled)]
        self.out += header
        self.block(node.body, first, shift)
        other = getattr(node, "orelse", [])
        if other:
            last, begin = node.body[-1].end_lineno or 0, _start(other[0]) - 1
            self.out += [line[shift:] for line in self._lines[last:begin]]
            self.block(other, begin, shift)

    def _function(self, node: Function, changed: Function, shift: int) -> None:
        first = _start(node.body[0]) - 1
        doc = self._edit.docs.get(node.name)
        if ast.dump(node.args) == ast.dump(changed.args):
            self.out += [line[shift:] for line in self._lines[_start(node) - 1 : first]]
        else:
            indent = " " * (node.col_offset - shift)
            for decorator in changed.decorator_list:
                self.out += _decorator(double_quoted(ast.unparse(decorator)), indent)
            self.out += self._signature(node, changed, indent)
        rest = node.body
        if doc is not None:
            self.out += [" " * (node.body[0].col_offset - shift) + f'"""{doc}"""']
            first, rest = node.body[0].end_lineno or 0, node.body[1:]
        self._editor.within = node.name
        self.block(rest, first, shift, is_first=doc is None)

    def _signature(self, node: Function, changed: Function, indent: str) -> list[str]:
        """On one line; else on the lines that it had."""
        new = self._editor.parameters(node)
        everything = ", ".join(spelled for _, group in new for spelled in group)
        whole = f"{indent}def {node.name}({everything}):"
        if len(whole) <= WIDTH:
            return [whole]
        if len(indent) + 4 + len(everything) <= WIDTH:
            return [f"{indent}def {node.name}(", f"{indent}    {everything}", f"{indent}):"]
        lines: dict[int, list[str]] = {}
        for line, group in new:
            lines.setdefault(line, []).extend(group)
        filled = (_rows(row, len(indent) + 4) for row in lines.values() if row)
        rows = [f"{indent}    {row}" for group in filled for row in group]
        return [f"{indent}def {node.name}(", *rows, f"{indent}):  {_SKIP}"]


def _decorator(text: str, indent: str) -> list[str]:
    """On one line; else its argument on one line; else each name of that on one."""
    if len(indent) + 1 + len(text) <= WIDTH:
        return [f"{indent}@{text}"]
    name, _, argument = text.removesuffix(")").partition("(")
    if len(indent) + 4 + len(argument) <= WIDTH:
        return [f"{indent}@{name}(", f"{indent}    {argument}", f"{indent})"]
    head, _, items = argument.removesuffix("]").partition("[")
    names = [f"{indent}        {each}," for each in items.split(", ")]
    return [f"{indent}@{name}(", f"{indent}    {head}[", *names, f"{indent}    ]", f"{indent})"]


def _bodiless(node: Said) -> Said:
    """A copy without the statements in it."""
    made = copy.copy(node)
    for name in ("body", "orelse", "finalbody"):
        if getattr(made, name, None):
            setattr(made, name, [ast.Pass()] if name == "body" else [])
    return copy.deepcopy(made)


def _comment(text: str) -> str:
    """The comment at the end of a statement."""
    lines = iter([f"{line}\n" for line in _dedented(text)])
    found = [token.string for token in _tokens(lines) if token.type == tokenize.COMMENT]
    return found[-1] if found else ""


def _dedented(text: str) -> list[str]:
    lines = text.splitlines()
    return [lines[0].lstrip(), *lines[1:]]


def _tokens(lines: Iterable[str]) -> list[tokenize.TokenInfo]:
    found = iter(lines)
    return list(tokenize.generate_tokens(lambda: next(found, "")))


class _Editor(ast.NodeTransformer):
    def __init__(self, edit: Edit) -> None:
        self._edit = edit
        self.within = ""  # which function

    def settled(self, node: ast.stmt) -> ast.stmt | None:
        """The statement as it is to be, but for the statements in it; None to drop it."""
        match node:
            case ast.Assign(value=value) if called(value) in self._edit.statements:
                made = self._edit.statements[called(value)](copy.deepcopy(node))
                return None if made is None else self._whole(made)
            case ast.FunctionDef():
                return self._function(_bodiless(node))
            case ast.ClassDef() | ast.If() | ast.For() | ast.While() | ast.With():
                return self._whole(_bodiless(node))
            case _:
                return self._whole(copy.deepcopy(node))

    def _whole(self, node: ast.stmt) -> ast.stmt:
        made = self.visit(node)
        assert isinstance(made, ast.stmt)
        return made

    def truth(self, test: ast.expr) -> bool | None:
        """What a condition is, as far as known names settle it."""
        match test:
            case ast.Name(id=name) if name in self._edit.known:
                return bool(self._edit.known[name])
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                found = self.truth(operand)
                return None if found is None else not found
            case ast.Compare(
                left=ast.Name(id=name), ops=[op], comparators=[ast.Constant(value=None)]
            ) if name in self._edit.known:
                return (self._edit.known[name] is None) == isinstance(op, ast.Is)
            case ast.BoolOp(op=op, values=values):
                found_all = [self.truth(value) for value in values]
                decisive = isinstance(op, ast.Or)
                if decisive in found_all:
                    return decisive
                return None if None in found_all else not decisive
            case _:
                return None

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        """Of a conditional expression, the part that is taken."""
        truth = self.truth(node.test)
        if truth is None:
            return self.generic_visit(node)
        chosen: ast.AST = self.visit(node.body if truth else node.orelse)
        return chosen

    def visit_Tuple(self, node: ast.Tuple) -> ast.AST:
        """What is starred in it and settled stands in it, and so does what a name stands for."""
        self.generic_visit(node)
        found = []
        for each in _spread(node.elts):
            name = each.id if isinstance(each, ast.Name) and isinstance(node.ctx, ast.Load) else ""
            made = self._edit.elements.get(name)
            found += made(self.within) if made else [each]
        node.elts = found
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Another expression in place of a call; or fewer arguments."""
        name = called(node)
        places = self._edit.dropped.get(name, frozenset())
        if places:
            node.args = [each for place, each in enumerate(node.args) if place not in places]
        self.generic_visit(node)
        node.args = _spread(node.args)
        made = self._edit.calls[name](node, self.within) if name in self._edit.calls else None
        return node if made is None else made

    def _function(self, node: Function) -> Function:
        dropped = self._edit.dropped.get(node.name, frozenset())
        changed = [name for _, group in self.parameters(node) for name in group]
        if dropped or changed != [_parameter(each) for each in node.args.args]:
            node.args.args = [ast.arg(name) for name in changed]
            kept = {name.partition(":")[0] for name in changed}
            node.decorator_list = [self._decorator(each, kept) for each in node.decorator_list]
        return node

    def _decorator(self, node: ast.expr, kept: set[str]) -> ast.expr:
        """``do_not_specialize`` names parameters: those that there are."""
        if not isinstance(node, ast.Call):
            return node
        for keyword in node.keywords:
            if isinstance(keyword.value, ast.List):
                names = [
                    each.value for each in keyword.value.elts if isinstance(each, ast.Constant)
                ]
                names += [x for x in self._edit.unspecialised if x not in names]
                keyword.value.elts = [ast.Constant(name) for name in names if name in kept]
        return node

    def parameters(self, node: Function) -> list[tuple[int, list[str]]]:
        """Of each parameter its line, and what stands in its place."""
        dropped = self._edit.dropped.get(node.name, frozenset())
        found = []
        for place, each in enumerate(node.args.args):
            kept = [_parameter(each)]
            if node.name in self._edit.entries:
                general = self._edit.parameters.get(each.arg, kept)
                kept = list(self._edit.parameters.get(f"{node.name}.{each.arg}", general))
            found.append((each.lineno, [] if place in dropped else kept))
        return found


def _parameter(argument: ast.arg) -> str:
    note = argument.annotation
    return f"{argument.arg}: {ast.unparse(note)}" if note else argument.arg


def _spread(items: list[ast.expr]) -> list[ast.expr]:
    found: list[ast.expr] = []
    for item in items:
        match item:
            case ast.Starred(value=ast.Tuple(elts=inner)):
                found += inner
            case _:
                found.append(item)
    return found


def double_quoted(text: str) -> str:
    """The strings of one line of code in double quotes."""
    pieces, at = [], 0
    for token in _tokens([f"{text}\n"]):
        if token.type == tokenize.STRING and token.string[0] == "'" and '"' not in token.string:
            pieces += [text[at : token.start[1]], f'"{token.string[1:-1]}"']
            at = token.end[1]
    return "".join([*pieces, text[at:]])


def spelled(node: ast.stmt) -> str:
    """One statement on one line; no parentheses around a tuple that needs none."""
    match node:
        case ast.Return(value=ast.Tuple(elts=elts)) if len(elts) > 1:
            return double_quoted(f"return {', '.join(map(ast.unparse, elts))}")
        case ast.Assign(targets=[ast.Tuple() as target], value=ast.Tuple(elts=elts)) if (
            len(elts) > 1
        ):
            plain = ast.fix_missing_locations(ast.Assign([target], ast.Constant(0)))
            left = ast.unparse(plain).removesuffix(" = 0")
            return double_quoted(f"{left} = {', '.join(map(ast.unparse, elts))}")
        case _:
            return double_quoted(ast.unparse(ast.fix_missing_locations(node)))


def formatted(node: ast.stmt, indent: str, comment: str = "", filled: bool = False) -> list[str]:
    """A statement as the formatter would write it; ``filled``: many arguments a line, where it may not."""
    text = indent + spelled(node)
    tail = f"  {comment}" if comment else ""
    if len(text) + len(tail) <= WIDTH:
        return [text + tail]
    match node:
        case ast.Assign(
            targets=[ast.Name() as target], value=ast.BinOp(left=ast.Call() as call) as whole
        ):
            whole.left = target  # one step after the other
            first = formatted(ast.Assign([target], call), indent, "", filled)
            return [*first, *formatted(node, indent, comment)]
        case ast.Assign(targets=[ast.Tuple(elts=left)], value=ast.Tuple(elts=right)):
            each = [ast.Assign([a], b) for a, b in zip(left, right, strict=True)]
            return [line for one in each for line in formatted(one, indent, comment)]
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Tuple(elts=elts)):
            rows = [f"{indent}    {double_quoted(ast.unparse(each))}," for each in elts]
            return [f"{indent}{name} = (", *rows, f"{indent}){tail}"]
        case (
            ast.Assign(value=ast.Call() as call)
            | ast.Return(value=ast.Call() as call)
            | ast.Expr(value=ast.Call() as call)
        ):
            head, arguments = text[: -len(_inside(call)) - 1], _arguments(call)
        case _:
            raise AssertionError(f"too long to be written on one line: {text}")
    inner = f"{indent}    "
    if len(inner) + len(", ".join(arguments)) <= WIDTH:
        return [head, inner + ", ".join(arguments), f"{indent}){tail}"]
    if filled:
        return [head, *(inner + row for row in _rows(arguments, len(inner))), f"{indent})  {_SKIP}"]
    return [head, *(f"{inner}{each}," for each in arguments), f"{indent}){tail}"]


def _inside(call: ast.Call) -> str:
    return ", ".join(_arguments(call))


def _arguments(call: ast.Call) -> list[str]:
    keywords = [f"{each.arg}={ast.unparse(each.value)}" for each in call.keywords]
    return [double_quoted(each) for each in [*map(ast.unparse, call.args), *keywords]]


def _rows(items: Sequence[str], used: int) -> list[str]:
    rows = [""]
    for item in items:
        longer = f"{rows[-1]} {item},".lstrip()
        if used + len(longer) > WIDTH:
            rows.append(f"{item},")
        else:
            rows[-1] = longer
    return rows
