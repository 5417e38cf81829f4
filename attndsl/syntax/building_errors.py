"""Errors of programs that the grammar takes and the language does not: too deep, too large, misspelt words."""

from __future__ import annotations

from attndsl.source import Diagnostic, Label, Span, suggest

from . import tree
from .clauses import TreeError, clip

DEEPEST = 200  # levels of nesting
MOST_DIGITS = 20  # on either side of the point: any float64 near 1 can be written


def check_chain(node: tree.Expression) -> None:
    """Refuse an endless `q.y.y.y...` while it is read, for it nests without any bracket."""
    length = 1
    while isinstance(node, tree.Access | tree.Index):
        node = node.base
        length += 1
        if length > DEEPEST:
            raise TreeError(too_deep(node.span))


def too_deep(span: Span) -> Diagnostic:
    return Diagnostic(
        code="A103",
        title="this is nested too deeply",
        labels=(Label(span, f"more than {DEEPEST} levels deep"),),
        notes=("chains such as `a and b and c` are one level, however long",),
        helps=("name a part of it by `let` or `def`",),
    )


_LARGEST_INT = "2147483647 (2**31 - 1) is the largest that can be written"


def too_large(span: Span, label: str = _LARGEST_INT) -> Diagnostic:
    return Diagnostic("A105", "this number is too large", (Label(span, label),))


def too_long(span: Span) -> Diagnostic:
    title = "this fraction is too long"
    label = f"at most {MOST_DIGITS} digits on either side of the point"
    return Diagnostic("A105", title, (Label(span, label),))


def no_space(span: Span) -> Diagnostic:
    labels = (Label(span, "expected the name of a space"),)
    helps = ("write `over queries -> keys`",)
    return Diagnostic("A101", "an arrow stands between two spaces", labels, (), helps)


def no_keys(span: Span) -> Diagnostic:
    labels = (Label(span, "expected `by pair 0`, `by pair 1`, or `by` and the name of keys"),)
    note = "a pair has numbers, keys from elsewhere have a name: `by memory`"
    return Diagnostic("A101", "this says not whose keys", labels, (note,))


def no_kind(span: Span, word: str) -> Diagnostic:
    usual = {"integer": "int", "Int": "int", "i32": "int", "i64": "int", "int32": "int"}
    usual |= {"int64": "int", "long": "int", "boolean": "bool", "Bool": "bool", "List": "list"}
    usual |= dict.fromkeys(("float", "float16", "bfloat16", "float32", "float64", "double"), "real")
    hint = usual.get(word) or suggest(word, ("int", "bool", "list", "real"))
    return Diagnostic(
        code="A108",
        title=f"there is no type `{clip(word)}`",
        labels=(Label(span, "expected `int`, `bool`, `list` or `real`"),),
        notes=("patterns are made of integers and truth values; reals are for attentions",)
        if hint == "real"
        else (),
        helps=(f"did you mean `{hint}`?",) if hint else (),
    )


def no_side(span: Span, word: str) -> Diagnostic:
    labels = (Label(span, "expected `start` or `end`"),)
    hint = suggest(word, ("start", "end"))
    helps = (f"did you mean `{hint}`?",) if hint else ()
    return Diagnostic("A101", f"unexpected `{clip(word)}`", labels, (), helps)
