"""The reference of the language says what the language is: its words, and a grammar that reads the same files."""

import re
from collections.abc import Iterator
from pathlib import Path

import lark
import pytest

from attndsl import syntax as syn
from attndsl.source import AttnDslError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
GRAMMAR = (ROOT / "attndsl" / "syntax" / "grammar.lark").read_text(encoding="utf-8")
FILES = sorted(
    path
    for folder in ("attndsl", "examples", "tests/golden")
    for path in (ROOT / folder).rglob("*.attn")
    if path.stat().st_size < 100_000
)


# Words that are names elsewhere, as the page says: they open where these follow, and what is between.
OPENING = {
    "units": r"/units(?=\s+\w+\s*=)/",
    "select": r"/select(?=\s+\w+\s*(\(|=|over|per|for|where))/",
    "label": r"/label(?=\s+\w+\s*(\(|=|align|where))/",
    "rank": r"/rank(?=\s+\w+\s*(\(|=|align|where))/",
    "argmax": r"/argmax(?=\s+\w+\s+in\b)/",
}
SOFT = ("every", "whole", "of", "per", "for", "keeping", "take", "seed")


class Soft:
    """Makes words of names in the declarations whose words they are."""

    always_accept = ()
    openers = ("UNITS", "SELECT", "PATTERN", "ATTENTION", "INPUT", "GRID", "SPACE", "DEF", "IMPORT")

    def process(self, stream: Iterator[lark.Token]) -> Iterator[lark.Token]:
        inside = False
        for token in stream:
            if token.type in self.openers:
                inside = token.type in ("UNITS", "SELECT")
            elif inside and token.type == "NAME" and token in SOFT:
                token.type = token.upper()
            yield token


def words_behind(title: str) -> set[str]:
    (text,) = re.findall(rf"\*\*{title}\*\*(.*?)(?=\n- |\n\n)", PAGE, re.DOTALL)
    return set(re.findall(r"`(\w+)`", text))


def test_the_reserved_words_are_those_of_the_grammar():
    reserved = re.findall(r'^[A-Z]+: "(\w+)"$', GRAMMAR, re.MULTILINE)
    assert words_behind("Reserved words") == set(reserved)


def test_the_fixed_names_are_those_that_cannot_be_declared():
    def can_be_declared(name: str) -> bool:
        import attndsl

        try:
            attndsl.compile(f"pattern p = let {name} = 1: k == q")
        except AttnDslError:
            return False
        return True

    fixed = words_behind("Fixed names")
    assert "batch" in fixed
    assert not [name for name in fixed if can_be_declared(name)]
    assert can_be_declared("causal")


def reader() -> lark.Lark:
    """A parser made of the grammar on the page, and nothing else."""
    text = PAGE[PAGE.index("## Grammar") :]
    text = "\n".join(re.findall(r"^    (.*)$", text[: text.index("## Limits")], re.MULTILINE))
    rules = re.sub(r"^(\w+) +=", r"\1_ :", text, flags=re.MULTILINE)
    strings = iter(re.findall(r'"[^"]+"', rules))
    bare = re.sub(r'"[^"]+"', '"', rules)  # so that brackets below are those of the notation
    bare = re.sub(r"\b([a-z]+)\b", r"\1_", bare)
    bare = bare.replace("{", "(").replace("}", ")*").replace("[", "(").replace("]", ")?")
    rules = re.sub('"', lambda _: next(strings), bare)
    for word in (*OPENING, *SOFT):
        rules = rules.replace(f'"{word}"', word.upper())
    terminals = (
        'name_: NAME\nnumber_: INT\nfraction_: FRACTION\n'
        'FRACTION.1: /[0-9](_?[0-9])*(\\.[0-9](_?[0-9])*([eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+)/\n'
        'string_: STRING\nNAME: /[A-Za-z_][A-Za-z0-9_]*/\n'
        'INT: /[0-9](_?[0-9])*/\nSTRING: /"[^"\\n]*"/\n%ignore /\\s+|#[^\\n]*/\n'
    )  # fmt: skip
    terminals += "".join(f"{word.upper()}.2: {regex}\n" for word, regex in OPENING.items())
    terminals += f"%declare {' '.join(SOFT).upper()}\n"
    text = f"{rules}\n{terminals}"
    return lark.Lark(text, start="file_", parser="lalr", lexer="basic", postlex=Soft())


@pytest.fixture(scope="module")
def grammar() -> lark.Lark:
    return reader()


def follows(grammar: lark.Lark, text: str) -> bool:
    try:
        grammar.parse(text)
    except lark.exceptions.UnexpectedInput:
        return False
    return True


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_grammar_of_the_page_reads_what_the_parser_reads(path: Path, grammar: lark.Lark):
    try:
        source = syn.read(path)
        syn.parse(source.text, source.name)
    except AttnDslError as error:
        beyond = {"A102", "A103", "A105", "A109"}  # sizes, depths and counts are no grammar
        if not beyond & {each.code for each in error.diagnostics}:
            assert not follows(grammar, path.read_text(encoding="utf-8"))
    else:
        assert follows(grammar, source.text)
