"""What people write by habit from elsewhere, and what to write here: a table, first match wins."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Habit:
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
    Habit(
        "scale both sides: `2 * x <= y` rather than `x <= 0.5 * y`",
        at=r"[0-9][0-9_]*\.[0-9]+",
        joined=True,
        code="A105",
        title="numbers are whole here",
    ),
    Habit(
        "scale both sides: `2 * x <= y` rather than `x <= .5 * y`",
        at=r"\.[0-9]",
        before=r"(?<!\.)",
        code="A105",
        title="numbers are whole here",
    ),
    Habit(
        "numbers are decimal, with `_` between digits where you like: 1_000",
        at=r"[A-Za-z_]\w*",
        before=r"[0-9][0-9_]*",
        joined=True,
        code="A105",
        title="this is not a number",
    ),
    # ----------------------------------------------------------------------- operators
    Habit("write `and`", at=r"&&?"),
    Habit("write `or`", at=r"\|\|?"),
    Habit("write `not`", at=r"[!~](?!=)"),
    Habit("write `pow2(n)` for a power of two, `!=` for exclusive or", at=r"\^"),
    Habit(
        "write `pow2(n)` for a power of two, `x * x` for a square",
        at=r"\*",
        before=r"\*",
        joined=True,
    ),
    Habit("comments open with `#`", at=r"/\*"),
    Habit("comments open with `#`", at=r"//", expected="INT PATTERN"),
    Habit("write `//`: division floors, everywhere", at=r"/(?!/)"),
    Habit("write `x * pow2(n)`", at=r"<", before=r"<", joined=True),
    Habit("write `x // pow2(n)`", at=r">", before=r">", joined=True),
    Habit("write `==`", at=r"=", before=r"==", joined=True),
    Habit("write `!=`", at=r"=", before=r"!=", joined=True),
    Habit("write `!=`", at=r">", before=r"<", joined=True),
    Habit(
        "write `over queries -> keys`: the arrow has one direction",
        at=r"<->?|<=>",
        expected="ARROW",
    ),
    Habit("write `>=` to compare, a plain `=` before a body", at=r"=>"),
    Habit(
        "write `>=` to compare, a plain `=` before a body",
        at=r">",
        before=r"=",
        joined=True,
    ),
    Habit("write `<=`", at=r"=<"),
    Habit("write `let x = e: body`", before=r"\blet\s[^:]*\bin\b[^:]*", expected="COLON"),
    Habit("write `let x = e: body`", at=r":=", expected="EQUAL"),
    Habit("write `==` to compare", at=r"=", expected="COMPARE PLUS AND"),
    Habit("write `==` or `!=`", at=r"is\b", expected="PLUS"),
    Habit("write `if c then a else b`", at=r"\?"),
    Habit("write `if c then a else b`", at=r"if\b", expected="PLUS"),
    Habit("`++` joins segments in a `space`; integers are added by `+`", at=r"\+\+"),
    Habit("there is no unary plus; leave it out", at=r"\+", expected="INT"),
    Habit(
        "`in` does not chain; write `a < b and b in c`",
        at=r"in\b|not\s+in\b|[<>=!]=|[<>]",
        expected="AND OR",
    ),
    Habit("write `x not in S`", before=r"\bnot\s+", expected="IN"),
    Habit(
        "put it in parentheses, as in `a == (not b)`",
        at=r"(?:not|if|let|any|all)\b",
        before=r"[<>=!+*/%-]\s*",
        expected="INT",
    ),
    Habit(
        "write what stands between the two, or drop one",
        at=r"(?:and|or|then|else)\b|[*/%]|[<>!=]=|[<>]",
        before=r"(?:\b(?:and|or|not)|[-+*/%<>=])\s*",
        expected="INT",
    ),
    # -------------------------------------------------------------------------- ranges
    Habit("ranges are half-open: `0..16` ends with 15", at=r"\.", before=r"\.\.", joined=True),
    Habit("write both ends of a range: `0..16`", before=r"\.\.\s*", expected="INT"),
    Habit("write both ends of a range: `0..16`", at=r"\.\.", before=r"\bin\s+", expected="INT"),
    Habit("a range stands right of `in` only: `x in 0..16`", at=r"\.\.", expected="PLUS"),
    Habit(
        "write `0..16` for the integers 0 to 15",
        before=r"\bin\s+range\s*\([^()]*\)\s*",
        expected="RANGE",
    ),
    Habit(
        "`any` and `all` run over a range, `any j in 0..16: ...`; for a list write `x in [1, 2]`",
        before=r"\b(?:any|all)\s+\w+\s+in\b[^:]*",
        expected="RANGE",
    ),
    Habit("write `any j in 0..16: body`", at=r"\(", before=r"\b(?:any|all)\s*"),
    Habit("write `any j in 0..16: body`", at=r"for\b"),
    Habit("write `any j in 0..16: body`", before=r"\b(?:any|all)\s+\w+\s*", expected="IN"),
    Habit("write `any j in 0..16: body`", before=r"\b(?:any|all)\s[^:]*", expected="COLON"),
    # -------------------------------------------------------------------- if, let, lambda
    Habit("write `else if c then a`", at=r"elif\b"),
    Habit("write `if c then a else b`", at=r":", expected="THEN"),
    Habit("an `if` needs `then` and `else`: `if c then a else b`", expected="THEN"),
    Habit("an `if` always has an `else`; without one, write `c and a`", expected="ELSE"),
    Habit("write `let x = e: body`", before=r"\blet\s[^:]*", expected="COLON"),
    Habit("write a `def` of its own: `def f(x: int) = x + 1`", before=r"\blambda\b\s*"),
    Habit("a body is one expression; there is no `return`", before=r"\breturn\s+"),
    # ---------------------------------------------------------------------- declarations
    Habit(
        "say the type of each parameter: `left: int`",
        at=r"[,)=]",
        before=r"[(,]\s*\w+\s*",
        expected="COLON",
    ),
    Habit(
        "a `def` has parameters, perhaps none: `def f() = ...`",
        at=r"[=:]",
        before=r"\bdef\s+\w+\s*",
    ),
    Habit("leave it out: the type of the result is inferred", at=r"->", before=r"\)\s*"),
    Habit(
        "an `assert` stands behind the body of the pattern it speaks of",
        at=r"assert\b",
    ),
    Habit(
        "`zeros` stands behind the body of a pattern",
        at=r"zeros\b",
    ),
    Habit("write `over queries -> keys`", at=r"->", expected="OVER"),
    Habit("the body follows `=`", at=r":", expected="EQUAL"),
    Habit(
        "write `over` in front of a space: `pattern p over image = ...`",
        at=r"[A-Za-z_]\w*(?=\s*(?:->\s*\w+\s*)?(?:=(?!=)|where\b|align\b))",
        expected="OVER",
    ),
    Habit(
        "clauses stand before the `=`: `pattern p over image where m >= 1 = ...`",
        at=r"(?:over|align|where)\b",
        expected="PLUS",
    ),
    Habit("write `align start` or `align end`", at=r"[^A-Za-z_]", before=r"\balign\s*"),
    Habit("write `input doc: int[batch, pos]`", before=r"\binput\s[^\n=]*", expected="COLON LSQB"),
    Habit("name the axis: `y=56`", at=r"[0-9]", before=r"\bgrid\s[^\n]*"),
    Habit("a grid has its axes in parentheses: `grid image(y, x)`", before=r"\bgrid\s+\w+\s*"),
    Habit("`++` joins segments", at=r"[+,|*]", before=r"\bspace\s[^\n]*", expected="CONCAT"),
    Habit(
        "write `space joint = text(77) ++ image(y, x)`",
        before=r"\bspace\s+\w+\s*",
        expected="EQUAL",
    ),
    Habit(
        'write a path in quotes, `import "other.attn"`, or `import a from "other.attn"`',
        before=r"\bimport\s[^\n]*\s*",
        expected="FROM STRING",
    ),
    Habit('write `import a from "other.attn"`', at=r"from\b", expected="IMPORT"),
    Habit("write `pattern name = ...`: the body follows `=`", expected="EQUAL"),
    Habit("write the operator: `2 * k`", at=r"[A-Za-z(]", before=r"[0-9][ \t]*", expected="STAR"),
    # ----------------------------------------------------------------------- punctuation
    Habit("no comma stands before a closing bracket", at=r"[)\]]", before=r",\s*"),
    Habit("there are no slices; index by one number each", at=r":", expected="RSQB"),
    Habit("lists are written `[1, 2]`, everything else uses `(` and `)`", at=r"[{}]"),
    Habit("nothing ends a declaration; leave it out", at=r";"),
    Habit("lines may be broken anywhere; leave it out", at=r"\\"),
    Habit('texts occur in imports only, in double quotes: `import "other.attn"`', at=r"'"),
)
