"""Syntax errors, every character of them: `x.attn` beside `x.err`, found by listing the folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

from attndsl import syntax as syn
from attndsl.source import AttnDslError

FOLDER = Path(__file__).parents[2] / "golden" / "errors" / "A1"
PROGRAMS = sorted(FOLDER.glob("*.attn"))


def parse_file(name: str) -> syn.Module:
    source = syn.read(name)
    return syn.parse(source.text, source.name)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_golden_syntax_error(
    path: Path, golden: Callable[[Path, str], None], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(FOLDER)  # so that errors show the bare name
    with pytest.raises(AttnDslError) as caught:
        parse_file(path.name)
    golden(path.with_suffix(".err"), f"{caught.value}\n")


def test_golden_programs_and_texts_are_paired():
    assert PROGRAMS
    assert [path.stem for path in PROGRAMS] == [path.stem for path in sorted(FOLDER.glob("*.err"))]
