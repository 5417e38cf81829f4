"""The README and the docs are programs: their python and attn blocks run, in order, page by page.

A page is one session: its blocks share their names and a fresh folder. An ``attn`` block must
compile; one headed "attn file=name.attn" is also saved under that name, for the blocks below to
read. A python block that opens with ``>>>`` is a doctest, output included. Console blocks are for
the eye.
"""

import doctest
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import attndsl

from . import asked

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>python|attn)\b(?P<info>[^\n]*)\n(?P<body>.*?)^(?P=indent)```$",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    language: str
    info: str
    body: str
    line: int  # of the first line of the body, counted from 0


def blocks(text: str) -> Iterator[Block]:
    for match in FENCE.finditer(text):
        body = re.sub(rf"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
        line = text.count("\n", 0, match.start("body"))
        yield Block(match["language"], match["info"].strip(), body, line)


def run_python(block: Block, page: str, names: dict[str, object]) -> None:
    if block.body.lstrip().startswith(">>>"):
        test = doctest.DocTestParser().get_doctest(block.body, names, page, page, block.line)
        test.globs = names
        report: list[str] = []
        failed = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(
            test, out=report.append, clear_globs=False
        )
        assert failed.failed == 0, "".join(report)
    else:  # the blank lines make a traceback name the line of the page
        exec(compile("\n" * block.line + block.body, page, "exec"), names)


def run_attn(block: Block, heard: asked.Listener) -> None:
    if name := re.match(r"file=(\S+)$", block.info):
        Path(name[1]).write_text(block.body, encoding="utf-8")
    heard.patterns |= dict.fromkeys(asked.patterns_of(block.body))


def run_page(text: str, page: str) -> tuple[int, asked.Listener]:
    """How many blocks ran, and what they asked for."""
    names: dict[str, object] = {"__name__": "__main__"}
    found = list(blocks(text))
    with asked.listening(page) as heard:
        for block in found:
            match block.language:
                case "python":
                    run_python(block, page, names)
                case "attn":
                    run_attn(block, heard)
    return len(found), heard


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"^```python needs=(\w+)$", text, re.MULTILINE):
        pytest.importorskip(name)  # `make integrations` has it
    _, heard = run_page(text, str(page))
    assert text.count("```") % 2 == 0, "a fence is left open"
    asked.check_asked(heard)


def test_the_runner_shares_names_and_notices_a_wrong_block():
    good = "```python\nx = 6\n```\ntext\n```python\n>>> x * 7\n42\n```\n"
    assert run_page(good, "good.md")[0] == 2
    with pytest.raises(AssertionError, match="Expected"):
        run_page(good.replace("42", "43"), "bad.md")
    with pytest.raises(ZeroDivisionError) as caught:
        run_page("# title\n\n```python\n1 / 0\n```\n", "bad.md")
    assert caught.traceback[-1].lineno == 3  # counted from 0: the fourth line of the page


def test_the_masks_of_a_page_are_scheduled_and_called(monkeypatch: pytest.MonkeyPatch):
    page = "```attn\npattern a(w: int) = q - k < w\npattern p = a(2)\n```\n"
    page += "```python\n>>> import attndsl\n>>> attndsl.compile('causal').mask(3).sum().item()\n6\n```\n"
    _, heard = run_page(page, "page.md")
    assert [p.name for p in heard.patterns] == ["a", "p", "causal"]
    assert [args for _, args, _ in heard.masks] == [(3,)]
    assert asked.check_asked(heard) == 1 + 3 * asked.SEEDS
    strict = attndsl.compile("k < q").schedule(3)
    monkeypatch.setattr(attndsl.Pattern, "schedule", lambda *_, **__: strict)
    with pytest.raises(AssertionError, match="causal"):
        asked.check_asked(heard)


COMMANDS = re.findall(
    r"^\$ attndsl (.+)$",
    "\n".join(page.read_text(encoding="utf-8") for page in PAGES),
    re.MULTILINE,
)
LONG = ("demo", "bench", "explore", "lsp")  # of minutes or without an end, and tested on their own


@pytest.mark.parametrize("words", [each for each in COMMANDS if not each.startswith(LONG)])
def test_a_command_of_the_pages_runs(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from attndsl.cli import main

    monkeypatch.chdir(tmp_path)
    Path("local.attn").write_text("pattern local = 0 <= q - k < 4\n", encoding="utf-8")
    assert main(shlex.split(words)) == 0, capsys.readouterr().err


def test_links_between_our_pages_lead_somewhere():
    dead = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert not dead
