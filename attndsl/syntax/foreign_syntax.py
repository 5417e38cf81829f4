"""Foreign syntax that people write by habit, and what to write here: a table, first match wins."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ForeignSyntax:
    """One row of the table.

    It applies where `at` matches at the fault, `before` just ahead of it, and one of `expected`
    (terminals; none means any) could have stood there. `joined` shows what `before` matched, too.
    """

    help: str
    at: str = ""
    before: str = ""
    expected: str = ""
    joined: bool = False
    code: str = "A101"
    title: str = ""

    def finds(self, text: str, begin: int, start: int, expected: frozenset[str]) -> int | None:
        """Where the mistake starts, or None if this is not it."""
        if self.expected and expected.isdisjoint(self.expected.split()):
            return None
        if not re.compile(self.at).match(text, start):
            return None
        if not self.before:
            return start
        nearby = max(begin, start - 200)
        match = re.search(rf"(?:{self.before})\Z", text[nearby:start])
        if not match:
            return None
        return nearby + match.start() if self.joined else start


HABITS = (
    # ------------------------------------------------------------------------- numbers
    ForeignSyntax(
        "positions, sizes and extents are whole",
        at=r"[0-9][0-9_]*\.[0-9]+",
        joined=True,
        code="A105",
        title="numbers are whole here",
    ),
    ForeignSyntax(
        "write a digit in front of the point: `0.5`",
        at=r"\.[0-9]",
        before=r"(?<!\.)",
        code="A105",
        title="this is not a number",
    ),
    ForeignSyntax(
        "numbers are decimal, with `_` between digits where you like: 1_000",
        at=r"[A-Za-z_]\w*",
        before=r"[0-9][0-9_]*",
        joined=True,
        code="A105",
        title="this is not a number",
    ),
    # ----------------------------------------------------------------------- operators
    ForeignSyntax("write `and`", at=r"&&?"),
    ForeignSyntax("write `or`", at=r"\|\|?"),
    ForeignSyntax("write `not`", at=r"[!~](?!=)"),
    ForeignSyntax("write `pow2(n)` for a power of two, `!=` for exclusive or", at=r"\^"),
    ForeignSyntax(
        "write `pow2(n)` for a power of two, `x * x` for a square",
        at=r"\*",
        before=r"\*",
        joined=True,
    ),
    ForeignSyntax("comments open with `#`", at=r"/\*"),
    ForeignSyntax("comments open with `#`", at=r"//", expected="INT PATTERN"),
    ForeignSyntax("write `x * pow2(n)`", at=r"<", before=r"<", joined=True),
    ForeignSyntax("write `x // pow2(n)`", at=r">", before=r">", joined=True),
    ForeignSyntax("write `==`", at=r"=", before=r"==", joined=True),
    ForeignSyntax("write `!=`", at=r"=", before=r"!=", joined=True),
    ForeignSyntax("write `!=`", at=r">", before=r"<", joined=True),
    ForeignSyntax(
        "write `over queries -> keys`: the arrow has one direction",
        at=r"<->?|<=>",
        expected="ARROW",
    ),
    ForeignSyntax("write `>=` to compare, a plain `=` before a body", at=r"=>"),
    ForeignSyntax(
        "write `>=` to compare, a plain `=` before a body",
        at=r">",
        before=r"=",
        joined=True,
    ),
    ForeignSyntax("write `<=`", at=r"=<"),
    ForeignSyntax("write `let x = e: body`", before=r"\blet\s[^:]*\bin\b[^:]*", expected="COLON"),
    ForeignSyntax("write `let x = e: body`", at=r":=", expected="EQUAL"),
    ForeignSyntax("write `==` to compare", at=r"=", expected="COMPARE PLUS AND"),
    ForeignSyntax("write `==` or `!=`", at=r"is\b", expected="PLUS"),
    ForeignSyntax("write `if c then a else b`", at=r"\?"),
    ForeignSyntax("write `if c then a else b`", at=r"if\b", expected="PLUS"),
    ForeignSyntax(
        "say what the score is before: `score s weights softmax`",
        at=r"(?:weights|factor|mass|by)\b",
        expected="PLUS",
    ),
    ForeignSyntax("there is no unary plus; leave it out", at=r"\+", expected="INT"),
    ForeignSyntax(
        "`in` does not chain; write `a < b and b in c`",
        at=r"in\b|not\s+in\b|[<>=!]=|[<>]",
        expected="AND OR",
    ),
    ForeignSyntax("write `x not in S`", before=r"\bnot\s+", expected="IN"),
    ForeignSyntax(
        "put it in parentheses, as in `a == (not b)`",
        at=r"(?:not|if|let|any|all|(?:count|sum)\s+\w+\s+in)\b",
        before=r"[<>=!+*/%-]\s*",
        expected="INT",
    ),
    ForeignSyntax(
        "write what stands between the two, or drop one",
        at=r"(?:and|or|then|else)\b|[*/%]|[<>!=]=|[<>]",
        before=r"(?:\b(?:and|or|not)|[-+*/%<>=])\s*",
        expected="INT",
    ),
    # -------------------------------------------------------------------------- ranges
    ForeignSyntax(
        "ranges are half-open: `0..16` ends with 15", at=r"\.", before=r"\.\.", joined=True
    ),
    ForeignSyntax("write both ends of a range: `0..16`", before=r"\.\.\s*", expected="INT"),
    ForeignSyntax(
        "write both ends of a range: `0..16`", at=r"\.\.", before=r"\bin\s+", expected="INT"
    ),
    ForeignSyntax("a range stands right of `in` only: `x in 0..16`", at=r"\.\.", expected="PLUS"),
    ForeignSyntax(
        "write `0..16` for the integers 0 to 15",
        before=r"\bin\s+range\s*\([^()]*\)\s*",
        expected="RANGE",
    ),
    ForeignSyntax(
        "`any` and `all` run over a range, `any j in 0..16: ...`; for a list write `x in [1, 2]`",
        before=r"\b(?:any|all)\s+\w+\s+in\b[^:]*",
        expected="RANGE",
    ),
    ForeignSyntax("write `any j in 0..16: body`", at=r"\(", before=r"\b(?:any|all)\s*"),
    ForeignSyntax("write `any j in 0..16: body`", at=r"for\b"),
    ForeignSyntax(
        "write `count j in 0..16: body`", at=r"\w+\s+[0-9]", before=r"\b(?:count|sum)\s+"
    ),
    ForeignSyntax("write `any j in 0..16: body`", before=r"\b(?:any|all)\s+\w+\s*", expected="IN"),
    ForeignSyntax("write `any j in 0..16: body`", before=r"\b(?:any|all)\s[^:]*", expected="COLON"),
    # -------------------------------------------------------------------- if, let, lambda
    ForeignSyntax("write `else if c then a`", at=r"elif\b"),
    ForeignSyntax("write `if c then a else b`", at=r":", expected="THEN"),
    ForeignSyntax("an `if` needs `then` and `else`: `if c then a else b`", expected="THEN"),
    ForeignSyntax("an `if` always has an `else`; without one, write `c and a`", expected="ELSE"),
    ForeignSyntax("write `let x = e: body`", before=r"\blet\s[^:]*", expected="COLON"),
    ForeignSyntax("write a `def` of its own: `def f(x: int) = x + 1`", before=r"\blambda\b\s*"),
    ForeignSyntax("a body is one expression; there is no `return`", before=r"\breturn\s+"),
    # ---------------------------------------------------------------------- declarations
    ForeignSyntax(
        "say the type of each parameter: `left: int`",
        at=r"[,)=]",
        before=r"[(,]\s*\w+\s*",
        expected="COLON",
    ),
    ForeignSyntax(
        "a `def` has parameters, perhaps none: `def f() = ...`",
        at=r"[=:]",
        before=r"\bdef\s+\w+\s*",
    ),
    ForeignSyntax("leave it out: the type of the result is inferred", at=r"->", before=r"\)\s*"),
    ForeignSyntax(
        "an `assert` stands behind the body of the pattern it speaks of",
        at=r"assert\b",
    ),
    ForeignSyntax(
        "`zeros` stands behind the body of a pattern",
        at=r"zeros\b",
    ),
    ForeignSyntax("write `over queries -> keys`", at=r"->", expected="OVER"),
    ForeignSyntax("the body follows `=`", at=r":", expected="EQUAL"),
    ForeignSyntax(
        "write `over` in front of a space: `pattern p over image = ...`",
        at=r"[A-Za-z_]\w*(?=\s*(?:->\s*\w+\s*)?(?:=(?!=)|where\b|align\b))",
        expected="OVER",
    ),
    ForeignSyntax(
        "clauses stand before the `=`: `pattern p over image where m >= 1 = ...`",
        at=r"(?:over|align|where)\b",
        expected="PLUS",
    ),
    ForeignSyntax("write `align start` or `align end`", at=r"[^A-Za-z_]", before=r"\balign\s*"),
    ForeignSyntax(
        "write `input doc: int[batch, pos]`", before=r"\binput\s[^\n=]*", expected="COLON LSQB"
    ),
    ForeignSyntax("name the axis: `y=56`", at=r"[0-9]", before=r"\bgrid\s[^\n]*"),
    ForeignSyntax(
        "a grid has its axes in parentheses: `grid image(y, x)`", before=r"\bgrid\s+\w+\s*"
    ),
    ForeignSyntax(
        "`++` joins segments", at=r"[+,|*]", before=r"\bspace\s[^\n]*", expected="CONCAT"
    ),
    ForeignSyntax(
        "write `space joint = text(77) ++ image(y, x)`",
        before=r"\bspace\s+\w+\s*",
        expected="EQUAL",
    ),
    ForeignSyntax(
        'write a path in quotes, `import "other.attn"`, or `import a from "other.attn"`',
        before=r"\bimport\s[^\n]*\s*",
        expected="FROM STRING",
    ),
    ForeignSyntax('write `import a from "other.attn"`', at=r"from\b", expected="IMPORT"),
    ForeignSyntax("write `pattern name = ...`: the body follows `=`", expected="EQUAL"),
    ForeignSyntax(
        "write the operator: `2 * k`", at=r"[A-Za-z(]", before=r"[0-9][ \t]*", expected="STAR"
    ),
    # ----------------------------------------------------------------------- punctuation
    ForeignSyntax("no comma stands before a closing bracket", at=r"[)\]]", before=r",\s*"),
    ForeignSyntax("there are no slices; index by one number each", at=r":", expected="RSQB"),
    ForeignSyntax("lists are written `[1, 2]`, everything else uses `(` and `)`", at=r"[{}]"),
    ForeignSyntax("nothing ends a declaration; leave it out", at=r";"),
    ForeignSyntax("lines may be broken anywhere; leave it out", at=r"\\"),
    ForeignSyntax('texts occur in imports only, in double quotes: `import "other.attn"`', at=r"'"),
)
