"""The examples of every entry of the error manual do as it says."""

import re
import shlex
from pathlib import Path

import pytest

import attndsl
from attndsl.cli import main
from attndsl.source import AttnDslError

PACKAGE = Path(attndsl.__file__).parent
PAGE = (PACKAGE / "cli" / "errors.md").read_text(encoding="utf-8")
ENTRY = re.compile(r"^## (A\d{3}): .*?(?=^## A\d{3}|\Z)", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ENTRIES = {match[1]: match[0] for match in ENTRY.finditer(PAGE)}


def run(language: str, body: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The codes that a block's program is answered with."""
    if language == "console":
        main(shlex.split(body)[1:])
        return re.findall(r"error\[(A\d{3})\]", capsys.readouterr().err)
    try:
        if language == "attn":
            attndsl.compile(body)
        else:
            exec(compile(body, "errors.md", "exec"), {})
    except AttnDslError as error:
        return [each.code for each in error.diagnostics]
    return []


@pytest.mark.parametrize("code", ENTRIES)
def test_the_first_example_is_the_error_and_the_second_is_not(
    code: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    (wrong_language, wrong), (right_language, right) = BLOCK.findall(ENTRIES[code])
    found = run(wrong_language, wrong, capsys)
    assert found
    assert set(found) == {code}
    assert run(right_language, right, capsys) == []


def test_explain_prints_an_entry(capsys: pytest.CaptureFixture[str]):
    assert main(["explain", "a302"]) == 0
    said = capsys.readouterr().out
    assert said.strip() == ENTRIES["A302"].removeprefix("## ").strip()
