"""Expressions and clauses on one line, with no parentheses but those that are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import assert_never

from . import tree
from .selection_tree import Groups, Numbers, Tiles

# How tightly a form binds; an operand looser than its place needs parentheses.
LOOSE, OR, AND, NOT, COMPARE, SUM, PRODUCT, UNARY, JOIN, ATOM = range(10)


def rows_text(each: str | Groups | Numbers) -> str:
    return (
        f"{each.name} in {flat_text(each.range)}" if isinstance(each, Numbers) else units_text(each)
    )


def units_text(each: str | Groups) -> str:
    return each if isinstance(each, str) else blocks_text(each)


def blocks_text(node: Groups) -> str:
    if isinstance(node, Tiles):
        sizes = ", ".join(f"{side.axis} = {flat_text(side.size)}" for side in node.sizes)
        return f"tiles({sizes}) of {node.grid}"
    every = "" if node.every is None else f", every {flat_text(node.every)}"
    return f"blocks({flat_text(node.size)}{every}){' whole' if node.whole else ''}"


def reduction_head(node: tree.Reduction) -> str:
    where = "" if node.where is None else f" where {flat_text(node.where)}"
    every, rows = "all " if node.every else "", f" in {node.rows}" if node.rows else ""
    return f"{node.how} over {every}{node.over}{rows}{where}:"


def binds(node: tree.Expression) -> int:
    match node:
        case (
            tree.If() | tree.Let() | tree.Any() | tree.All() | tree.Count() | tree.Total()
            | tree.Reduction()
        ):  # fmt: skip
            return LOOSE
        case tree.Or():
            return OR
        case tree.And():
            return AND
        case tree.Not():
            return NOT
        case tree.Compare() | tree.Member() | tree.Range():
            return COMPARE
        case tree.Sum():
            return SUM
        case tree.Product():
            return PRODUCT
        case tree.Neg():
            return UNARY
        case tree.Join():
            return JOIN
        case _:
            return ATOM


def flat_text(node: tree.Expression) -> str:
    match node:
        case tree.Fraction(digits):
            return digits
        case tree.Scored():
            return f"({_before(node)}{score_text(node)})"
        case tree.Int(value):
            return str(value)
        case tree.Bool(value):
            return "true" if value else "false"
        case tree.Name(name):
            return name
        case tree.ListOf(items):
            return f"[{', '.join(map(flat_text, items))}]"
        case tree.Access(base, name):
            return f"{text_at(base, ATOM)}.{name}"
        case tree.Index(base, indices):
            return f"{text_at(base, ATOM)}[{', '.join(map(flat_text, indices))}]"
        case tree.Call(name, arguments):
            return f"{name}({', '.join(map(_argument, arguments))})"
        case tree.Neg() | tree.Not() | tree.Range() | tree.Member():
            return _flat_operator(node)
        case tree.Product() | tree.Sum() | tree.Join() | tree.Compare() | tree.And() | tree.Or():
            return " ".join(lead + text_at(operand, level) for lead, operand, level in chain(node))
        case _:
            return _flat_loose(node)


def _flat_operator(node: tree.Neg | tree.Not | tree.Range | tree.Member) -> str:
    match node:
        case tree.Neg(operand):
            return f"-{text_at(operand, UNARY)}"
        case tree.Not(operand):
            return f"not {text_at(operand, NOT)}"
        case tree.Range(low, high):
            return f"{text_at(low, SUM)}..{text_at(high, SUM)}"
        case tree.Member():
            return member_head(node) + _container(node.container)


def _flat_loose(node: tree.If | tree.Let | tree.Loop | tree.Reduction) -> str:
    match node:
        case tree.If(condition, yes, no):
            return f"if {flat_text(condition)} then {flat_text(yes)} else {flat_text(no)}"
        case tree.Let(bindings, body):
            return f"let {', '.join(map(binding_text, bindings))}: {flat_text(body)}"
        case tree.Reduction(body=body):
            return f"{reduction_head(node)} {flat_text(body)}"
        case loop:
            return f"{loop_head(loop)} {flat_text(loop.body)}"


def text_at(node: tree.Expression, level: int) -> str:
    return flat_text(node) if binds(node) >= level else f"({flat_text(node)})"


def _argument(node: tree.Argument) -> str:
    return flat_text(node.value) if node.name is None else f"{node.name}={flat_text(node.value)}"


def binding_text(node: tree.Binding) -> str:
    return f"{node.name} = {flat_text(node.value)}"


_WORDS = {tree.Any: "any", tree.All: "all", tree.Count: "count", tree.Total: "sum"}


def loop_head(node: tree.Loop) -> str:
    return f"{_WORDS[type(node)]} {node.name} in {flat_text(node.range)}:"


def member_head(node: tree.Member) -> str:
    return f"{text_at(node.item, SUM)} {'not in' if node.negated else 'in'} "


def _container(node: tree.Expression) -> str:
    return flat_text(node) if isinstance(node, tree.Range) else text_at(node, SUM)


def by_text(node: tree.By) -> str:
    return f"by {node.name}" if node.number is None else f"by {node.name} {node.number}"


def _before(node: tree.Scored) -> str:
    """The clauses of a branch in parentheses that stand before its score."""
    over = [] if node.over is None else [f"over {flat_text(node.over)}"]
    clauses = [*over, *map(by_text, node.by)]
    return f"{' '.join(clauses)}: " if clauses else ""


def clauses_of_score(node: tree.Scored) -> list[tuple[str, tree.Expression | None]]:
    """Each clause as its words and the expression behind them."""
    found: list[tuple[str, tree.Expression | None]] = [("score ", node.score)]
    if (weights := node.weights) is not None:
        blank = "" if weights.expression is None else " "
        found.append((f"weights {weights.form}{blank}", weights.expression))
    found += [("factor ", node.factor)] if node.factor is not None else []
    found += [("mass ", node.mass)] if node.mass is not None else []
    return found


def score_text(node: tree.Scored) -> str:
    """The score and the clauses behind it."""
    clauses = clauses_of_score(node)
    return " ".join(lead + ("" if each is None else flat_text(each)) for lead, each in clauses)


_Chain = tree.Product | tree.Sum | tree.Join | tree.Compare | tree.And | tree.Or


def chain(node: _Chain) -> Iterator[tuple[str, tree.Expression, int]]:
    """Operands with the operator in front of each and the level their place asks for."""
    words: Sequence[str]
    match node:
        case tree.Or(operands):
            level, words = AND, ["or"] * (len(operands) - 1)
        case tree.And(operands):
            level, words = NOT, ["and"] * (len(operands) - 1)
        case tree.Compare(operands, words):
            level = SUM
        case tree.Sum(operands, words):
            level = PRODUCT
        case tree.Join(operands):
            level, words = ATOM, ["++"] * (len(operands) - 1)
        case tree.Product(operands, words):
            level = UNARY
        case _:
            assert_never(node)
    for word, operand in zip(["", *words], operands, strict=True):
        yield (f"{word} " if word else ""), operand, level
