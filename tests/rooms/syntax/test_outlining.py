"""A declaration read alone is the one that is read with all others."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.resources import files

import pytest

from attndsl import syntax as syn
from attndsl.frontend import prelude

PRELUDE = files("attndsl").joinpath("patterns", "prelude.attn").read_text(encoding="utf-8")
WHOLE = [each for each in syn.parse(PRELUDE).declarations if not isinstance(each, syn.Import)]


def test_an_outline_names_what_the_text_declares() -> None:
    outline = syn.Outline(PRELUDE, "prelude.attn")
    assert outline.names == tuple(each.name for each in WHOLE)
    assert "causal" in outline
    assert "casual" not in outline
    words = {"pattern": syn.Pattern, "def": syn.Def, "grid": syn.Grid, "input": syn.Input}
    for word, kind in words.items():
        assert outline.declared(word) == [each.name for each in WHOLE if isinstance(each, kind)]


@pytest.mark.parametrize("whole", WHOLE, ids=lambda each: each.name)
def test_alone_it_is_the_same_at_the_same_place(whole: syn.Pattern) -> None:
    alone = syn.Outline(PRELUDE, "prelude.attn").declaration(whole.name)
    assert (alone.span.start, alone.span.stop) == (whole.span.start, whole.span.stop)
    assert alone.span.line == whole.span.line
    assert replace(alone, remarks=syn.Remarks()) == replace(whole, remarks=syn.Remarks())
    assert alone.doc == whole.doc


def test_documentation_with_an_empty_line_is_the_declarations_own() -> None:
    text = "pattern a = true\n\n## One.\n##\n## Two.\npattern b = false\n"
    outline = syn.Outline(text, "two.attn")
    assert outline.names == ("a", "b")
    assert outline.declaration("b").doc == "One.\n\nTwo."
    assert outline.declaration("a").doc == ""


def test_a_program_reads_of_the_prelude_what_it_names() -> None:
    shelf = type(prelude())(syn.Outline(PRELUDE, "prelude.attn"))
    assert shelf.find("casual") is None
    assert not shelf.own
    found = shelf.find("longformer")
    assert found is not None
    assert "longformer" in shelf.own
    assert len(shelf.own) < 8  # and what its own text names


MISTAKEN = """
import attndsl
from attndsl.frontend import prelude
for text in ("pattern p = q - kk < 5 or dok[q] == 0", "pattern p = widnow(3)", "widnow", "zzzzzzzz"):
    try:
        attndsl.compile(text)
    except attndsl.AttnDslError as error:
        print(*[each.helps for each in error.diagnostics])
print(len(prelude().own))
"""


def test_a_hint_reads_nothing_of_the_prelude() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MISTAKEN], check=True, capture_output=True, text=True
    )
    *helps, count = done.stdout.splitlines()
    assert [line.count("did you mean") for line in helps] == [2, 1, 1, 0]
    assert count == "0"


def test_threads_do_not_mix_their_texts() -> None:
    texts = [f"pattern p{n}(w: int = {n}) = q - k < w" for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        modules = list(pool.map(syn.parse, texts, [f"{n}.attn" for n in range(40)]))
    for n, module in enumerate(modules):
        assert module.span.source.text == texts[n]
        (pattern,) = module.declarations
        assert isinstance(pattern, syn.Pattern)
        assert pattern.body.span.source.name == f"{n}.attn"
