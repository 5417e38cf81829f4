"""Editors get the words of the grammar, and answers that stand at the right places."""

import json
import re
from importlib.resources import files
from pathlib import Path

import pytest

from attndsl import editing, patterns
from attndsl import syntax as syn
from attndsl.source import AttnDslError

ROOT = Path(__file__).parents[3]
FILES = sorted((ROOT / "attndsl" / "patterns").rglob("*.attn"))
TEXT = """## The last `w` keys: <b>never</b> the future.
pattern near(w: int = 4) = causal and q - k < w

pattern both = near(8) or k < 2
"""


def test_reserved_words_are_those_that_no_name_may_be():
    for word in editing.RESERVED:
        with pytest.raises(AttnDslError):
            syn.parse(f"pattern {word} = k <= q\n")
    assert {"pattern", "attention", "where", "over", "zeros"} <= editing.RESERVED
    for word in editing.CONTEXTUAL | editing.KINDS:
        syn.parse(f"pattern {word} = k <= q\n")


def test_the_page_of_the_explorer_colours_the_same_words():
    text = (files("attndsl") / "explorer" / "page" / "editor.js").read_text(encoding="utf-8")
    (words,) = re.findall(r"const WORDS = new Set\((\[.*?\])\)", text)
    assert set(json.loads(words)) == editing.RESERVED | editing.CONTEXTUAL


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_lexer_reads_every_file_of_the_package(path):
    pytest.importorskip("pygments")
    from pygments.token import Error

    from attndsl.editing.lexer import AttnLexer

    text = path.read_text(encoding="utf-8")
    tokens = list(AttnLexer(stripnl=False).get_tokens(text))
    assert "".join(part for _, part in tokens) == text
    assert [part for kind, part in tokens if kind in Error] == []


def test_words_have_their_colours():
    pytest.importorskip("pygments")
    from pygments.token import Keyword, Name, Operator, String

    from attndsl.editing.lexer import AttnLexer

    kinds = {part: kind for kind, part in AttnLexer().get_tokens(TEXT)}
    assert kinds["pattern"] is Keyword.Declaration
    assert kinds["and"] is Operator.Word
    assert kinds["both"] is Name.Class
    assert kinds["q"] is Name.Builtin
    assert kinds["## The last `w` keys: <b>never</b> the future."] is String.Doc


def test_the_extension_ships_the_grammar_that_is_made_of_the_words():
    shipped = (ROOT / "editors/vscode/syntaxes/attn.tmLanguage.json").read_text(encoding="utf-8")
    assert json.loads(shipped) == editing.textmate(), "run `make docs`"


def test_rules_of_the_textmate_grammar_are_regular_expressions():
    for rule in editing.textmate()["patterns"]:
        re.compile(rule["match"])


def test_hover_gives_definition_documentation_and_picture():
    found = editing.hover(TEXT, TEXT.index("near(8)") + 1)
    assert "pattern near(w: int = 4) = causal and q - k < w" in found
    assert "never" in found
    assert "q\\k" in found
    assert "## " not in found


def test_hover_knows_the_prelude_and_says_nothing_of_other_words():
    assert "pattern causal" in editing.hover(TEXT, TEXT.index("causal"))
    assert editing.hover(TEXT, TEXT.index("int")) is None
    assert editing.hover("", 0) is None


def test_definitions_are_found_in_the_text_and_in_the_prelude():
    place = editing.definition(TEXT, TEXT.index("near(8)"))
    assert (place.path, TEXT[place.start : place.stop]) == (None, "near")
    assert place.start < TEXT.index("near(8)")
    prelude = editing.definition(TEXT, TEXT.index("causal") + 2)
    text = prelude.path.read_text(encoding="utf-8")
    assert text == patterns.source()
    assert text[: prelude.stop].endswith("pattern causal")


def test_completion_offers_own_names_first_and_keywords():
    found = [word for word, _, _ in editing.complete(TEXT)]
    assert found[:2] == ["near", "both"]
    assert {"window", "pattern", "clamp"} <= set(found)


def test_layout_is_that_of_fmt_and_nothing_where_the_text_is_wrong():
    assert editing.formatted("pattern p=k<=q") == "pattern p = k <= q\n"
    assert editing.formatted("pattern p=") is None


def test_the_language_server_speaks_of_a_document():
    pytest.importorskip("pygls")
    from lsprotocol import types as lsp
    from pygls.workspace import TextDocument

    from attndsl.editing import server

    text = "## 𝑤\npattern p = widow(3) and q.z == 1\n"
    document = TextDocument("file:///nowhere/p.attn", text)
    told = [server._told(fault, document) for fault in editing.faults(text)]
    assert [each.code for each in told] == ["A201", "A206"]
    assert told[0].range == lsp.Range(lsp.Position(1, 12), lsp.Position(1, 17))
    assert "did you mean `window`" in told[0].message
    made = server.server()
    assert lsp.TEXT_DOCUMENT_HOVER in made.protocol.fm.features
