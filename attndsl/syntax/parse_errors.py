"""Syntax errors in the user's words: what was found, what could have stood there, what to write.

lark tells where a text stops making sense and which terminals would have been fine. Nothing of
lark's vocabulary leaves this file.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from attndsl.source import Diagnostic, Label, Source, Span, suggest

from .clauses import TreeError, clip
from .foreign_syntax import HABITS, ForeignSyntax

END = "$END"

_DECLARING = (
    "import",
    "grid",
    "space",
    "input",
    "def",
    "pattern",
    "attention",
    "units",
    "select",
    "label",
    "rank",
)
_WORDS = (
    *_DECLARING[:-4], "from", "as", "where", "zeros", "assert", "over", "align", "if", "then", "else",
    "let", "any", "all", "in", "and", "or", "not", "true", "false",
)  # fmt: skip
_CLAUSES = (  # words of an attention or a selection, names elsewhere
    "score", "weights", "factor", "mass", "by",
    "every", "whole", "of", "per", "for", "keeping", "take", "seed",
)  # fmt: skip
# Words that never stand in an expression: there they were surely meant as names.
_NAMELIKE = frozenset((*_DECLARING[:-4], "zeros", "assert", "from", "as", "over", "align"))
_SIGNS = {
    "LPAR": "(", "RPAR": ")", "LSQB": "[", "RSQB": "]", "COMMA": ",", "COLON": ":", "EQUAL": "=",
    "ARROW": "->", "CONCAT": "++", "RANGE": "..", "DOT": ".", "PLUS": "+", "MINUS": "-",
    "STAR": "*", "SLASH": "/", "FLOORDIV": "//", "PERCENT": "%",
}  # fmt: skip
_KINDS = {
    "NAME": "a name", "INT": "a number", "FRACTION": "a fraction", "STRING": "a path in quotes",
    "COMPARE": "`<=`",
}  # fmt: skip
_OPENS_EXPRESSION = frozenset(
    "NAME INT FRACTION LPAR LSQB MINUS NOT IF LET ANY ALL FOLD REDUCE TRUE FALSE OVER SCORE BY".split()  # noqa: SIM905  (a word list)
)
_GOES_ON = frozenset(
    "AND OR COMPARE PLUS MINUS STAR SLASH FLOORDIV PERCENT CONCAT IN NOT DOT LSQB LPAR".split()  # noqa: SIM905
)
_LOOKALIKES = {
    "≤": "<=", "≥": ">=", "≠": "!=", "∧": "and", "∨": "or", "¬": "not", "×": "*", "·": "*",
    "÷": "//", "−": "-", "–": "-", "—": "-", "∈": "in", "∉": "not in", "→": "->", "…": "..",
    "∃": "any", "∀": "all", "⊕": "++", "“": '"', "”": '"',
}  # fmt: skip
_CLOSING = {"(": ")", "[": "]"}
_BRACKET = re.compile(r'"[^"\n]*"|#[^\n]*|[()\[\]]')


@dataclass(frozen=True, slots=True)
class ParseProblem:
    """Where reading stopped, in the part of the source that was read from `begin` on.

    `found` is a terminal, END, or "" for a character that no terminal starts with; `expected` are
    the terminals that could have stood there.
    """

    source: Source
    begin: int
    start: int
    stop: int
    found: str
    expected: frozenset[str]

    @property
    def span(self) -> Span:
        return Span(self.source, self.start, self.stop)

    @property
    def is_at_next_declaration(self) -> bool:
        """The file ended, or a declaration began on a line of its own, before this one was over."""
        if self.found == END:
            return True
        begins_line = self.start == 0 or self.source.text[self.start - 1] == "\n"
        return begins_line and self.span.text in _DECLARING


def explain(mistake: ParseProblem) -> TreeError:
    """The mistake as something to tell the user."""
    diagnostic = _explained(mistake)
    return TreeError(diagnostic, mistake.start)


def _explained(mistake: ParseProblem) -> Diagnostic:
    opened = _open_bracket(mistake)
    if opened and mistake.is_at_next_declaration and _closes(opened) in mistake.expected:
        return _never_closed(mistake, opened)
    if mistake.is_at_next_declaration:
        return _unfinished(mistake, opened)
    if mistake.found == "" and mistake.span.text == '"':
        return _open_quote(mistake.span)
    if _is_reserved_name(mistake):
        return _reserved(mistake)
    if "OVER" in mistake.expected and (helps := _misspelt(mistake)):
        return _unexpected(mistake, opened, helps)
    for habit in HABITS:
        source, begin, start = mistake.source, mistake.begin, mistake.start
        where = habit.finds(source.text, begin, start, mistake.expected)
        if where is not None:
            return _habitual(mistake, habit, where)
    if mistake.found == "":
        return _foreign(mistake)
    return _unexpected(mistake, opened, _misspelt(mistake) or _wrong_bracket(mistake, opened))


# ----------------------------------------------------------------------- kinds of mistake


def _unexpected(mistake: ParseProblem, opened: Span | None, helps: tuple[str, ...]) -> Diagnostic:
    labels = [Label(mistake.span, f"expected {words(mistake.expected)}")]
    if opened and _closes(opened) in mistake.expected:
        labels += _opening(opened)
    return Diagnostic("A101", f"unexpected {_quoted(mistake.span)}", tuple(labels), (), helps)


def _habitual(mistake: ParseProblem, habit: ForeignSyntax, start: int) -> Diagnostic:
    match = re.compile(habit.at).match(mistake.source.text, mistake.start)
    stop = max(mistake.stop, match.end() if match else 0)  # operators are shown whole: `&&`
    span = Span(mistake.source, start, stop)
    remark = f"expected {words(mistake.expected)}" if mistake.expected else ""
    if habit.joined or mistake.found == "":
        remark = ""
    unknown = mistake.found == "" and habit.code == "A101"
    title = habit.title or f"unexpected {_quoted(span)}"
    return Diagnostic(
        "A104" if unknown else habit.code, title, (Label(span, remark),), (), (habit.help,)
    )


def _unfinished(mistake: ParseProblem, opened: Span | None) -> Diagnostic:
    """Point behind the last thing written; the next declaration is not to blame."""
    at = _written_until(mistake)
    labels = [Label(Span(mistake.source, at, at), f"expected {words(mistake.expected)} here")]
    labels += _opening(opened)
    if mistake.found != END:
        text = "the next declaration begins before this one is complete"
        labels.append(Label(mistake.span, text, primary=False))
    helps = [
        habit.help
        for habit in HABITS
        if not habit.at and habit.finds(mistake.source.text, mistake.begin, at, mistake.expected)
    ][:1]
    return Diagnostic("A101", f"{_what(mistake)} is not complete", tuple(labels), (), tuple(helps))


def _never_closed(mistake: ParseProblem, opened: Span) -> Diagnostic:
    closing = _CLOSING[opened.text]
    at = _written_until(mistake)
    labels = (
        Label(opened, f"no `{closing}` belongs to it"),
        Label(Span(mistake.source, at, at), f"`{closing}` expected by here", primary=False),
    )
    return Diagnostic("A107", f"this `{opened.text}` is never closed", labels)


def _open_quote(span: Span) -> Diagnostic:
    label = Label(span, 'expected another `"` on the same line')
    return Diagnostic("A107", 'this `"` is never closed', (label,))


def _reserved(mistake: ParseProblem) -> Diagnostic:
    word = mistake.span.text
    return Diagnostic(
        code="A106",
        title=f"`{word}` is a reserved word, not a name",
        labels=(Label(mistake.span, "expected a name"),),
        helps=(f"call it `{word}_` or something else",),
    )


def _foreign(mistake: ParseProblem) -> Diagnostic:
    char = mistake.span.text
    like = _LOOKALIKES.get(char)
    if like:
        helps: tuple[str, ...] = (f"write `{like}`",)
    elif char.isalpha():
        helps = ("names are made of the letters a to z, digits and `_`",)
    elif char.isspace() or unicodedata.category(char) == "Cf":
        helps = ("use an ordinary blank, or nothing",)
    else:
        helps = ()
    name = unicodedata.name(char, "")
    notes = (f"it is U+{ord(char):04X} {name}".rstrip(),) if not char.isascii() else ()
    title = f"{_quoted(mistake.span)} is not part of the language"
    return Diagnostic("A104", title, (Label(mistake.span),), notes, helps)


# ---------------------------------------------------------------------------------- words


def words(expected: Iterable[str]) -> str:
    """Terminals as a reader would name them: "a name, `,` or `)`"."""
    left = set(expected)
    phrases: list[str] = []
    if {"NAME", "INT", "LPAR"} <= left:
        phrases.append("an expression")
        left -= _OPENS_EXPRESSION
    if {"PLUS", "STAR"} <= left:
        phrases.append("an operator")
        left -= _GOES_ON
    declares = "PATTERN" in left
    if declares:
        left -= {END, "ASSERT", "ZEROS", *(word.upper() for word in _DECLARING)}
    phrases += [phrase for terminal, phrase in _KINDS.items() if terminal in left]
    phrases += [f"`{sign}`" for terminal, sign in _SIGNS.items() if terminal in left]
    phrases += [f"`{word}`" for word in (*_WORDS, *_CLAUSES) if word.upper() in left]
    if declares:
        phrases.append("a declaration" if not phrases else "the next declaration")
    *most, last = phrases or ["nothing more"]
    return f"{', '.join(most)} or {last}" if most else last


def _quoted(span: Span) -> str:
    text = span.text
    if not text.isprintable() or text.isspace():
        return f"U+{ord(text[0]):04X}"
    return f"`{clip(text)}`" if "`" not in text else "a back quote"


def _what(mistake: ParseProblem) -> str:
    """This `pattern`, this `grid`: the declaration that holds the mistake."""
    before = mistake.source.text[mistake.begin : mistake.start]
    found = re.findall(rf"^(?:{'|'.join(_DECLARING)})\b", before, re.MULTILINE)
    return f"this `{found[-1]}`" if found else "this declaration"


def _misspelt(mistake: ParseProblem) -> tuple[str, ...]:
    """Help for a word where one of the reserved words could have stood."""
    if mistake.found != "NAME":
        return ()
    word = mistake.span.text
    likely = [known for known in (*_WORDS, *_CLAUSES) if known.upper() in mistake.expected]
    hint = {"fn": "def", "func": "def", "function": "def", "mask": "pattern"}.get(word)
    hint = hint if hint in likely else suggest(word, likely)
    if hint:
        return (f"did you mean `{hint}`?",)
    if {"PATTERN"} == mistake.expected & {"PATTERN", "PLUS"}:
        return (
            "a declaration opens with `pattern`, `attention`, `select`, `units`, `def`, `grid`, `space` or `input`",
            "an expression is the body of one: `pattern name = k <= q`",
        )
    return ()


def _wrong_bracket(mistake: ParseProblem, opened: Span | None) -> tuple[str, ...]:
    text = mistake.span.text
    if text not in (")", "]"):
        return ()
    if opened is None:
        return (f"no bracket is open here; leave the `{text}` out",)
    closing = _CLOSING[opened.text]
    return (f"`{opened.text}` is closed by `{closing}`",) if text != closing else ()


def _is_reserved_name(mistake: ParseProblem) -> bool:
    word = mistake.span.text
    if "NAME" not in mistake.expected or word not in _WORDS:
        return False
    return "INT" not in mistake.expected or "LPAR" not in mistake.expected or word in _NAMELIKE


# --------------------------------------------------------------------------------- places


def _opening(opened: Span | None) -> list[Label]:
    return [Label(opened, f"this `{opened.text}` is open", primary=False)] if opened else []


def _open_bracket(mistake: ParseProblem) -> Span | None:
    """The innermost bracket that is open where reading stopped."""
    opened: list[Span] = []
    for match in _BRACKET.finditer(mistake.source.text, mistake.begin, mistake.start):
        if match[0] in _CLOSING:
            opened.append(Span(mistake.source, match.start(), match.end()))
        elif match[0] in (")", "]") and opened:
            opened.pop()
    return opened[-1] if opened else None


def _closes(opened: Span) -> str:
    return "RPAR" if opened.text == "(" else "RSQB"


def _written_until(mistake: ParseProblem) -> int:
    """The end of the last token before the mistake: neither blanks nor comments count."""
    text = mistake.source.text
    at = mistake.begin
    for match in re.finditer(r'"[^"\n]*"|#[^\n]*|\S', text[mistake.begin : mistake.start]):
        if not match[0].startswith("#"):
            at = mistake.begin + match.end()
    return at
