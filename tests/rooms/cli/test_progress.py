"""A line of progress comes when work takes long, goes when something is said, and is nowhere else."""

import io
import os
import subprocess
import sys
import time

import pytest

from attndsl.cli import progress
from attndsl.cli.terminal import Terminal


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setattr(progress, "PATIENCE", 0.05)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal(io.StringIO(), Tty())


def until(terminal: Terminal, text: str) -> str:
    """The error stream as it is once the text stands there."""
    for _ in range(400):
        if text in terminal.err.getvalue():
            return terminal.err.getvalue()
        time.sleep(0.025)
    raise AssertionError(terminal.err.getvalue())


def test_long_work_has_a_line_with_its_words_and_leaves_no_trace(terminal: Terminal):
    with terminal.progress("check") as say:
        say("3 calls [of many]")
        until(terminal, "check: 3 calls [of many]")
        with terminal.progress("local"):
            say("half")
            until(terminal, "local: half")
        say("done")
        until(terminal, "check: done")
    assert terminal.err.getvalue().endswith("\x1b[2K")  # the line is erased


def test_what_is_said_stands_where_the_line_was_and_the_line_comes_again(terminal: Terminal):
    with terminal.progress("demo"):
        until(terminal, "demo")
        terminal.say("a result")
        assert terminal.err.getvalue().endswith("\x1b[2K")
        before = len(terminal.err.getvalue())
        for _ in range(400):
            if "demo" in terminal.err.getvalue()[before:]:
                break
            time.sleep(0.025)
        else:
            raise AssertionError("the line stays away")
    assert terminal.out.getvalue() == "a result\n"


def test_quick_work_and_streams_that_nobody_watches_have_none(terminal: Terminal):
    with terminal.progress("quick"):
        pass
    silent = Terminal(io.StringIO(), io.StringIO())
    with silent.progress("slow") as say:
        say("half")
        time.sleep(0.15)
    assert silent.err.getvalue() == ""
    assert terminal.err.getvalue() == ""


def test_help_loads_no_compiler_and_rich_only_for_a_line():
    code = (
        "import sys; from attndsl.cli import main; main(['--help']); "
        "print({*sys.modules} & {'numpy', 'lark', 'rich', 'torch', 'attndsl.ir'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("attndsl sh", "show"),
        ("attndsl show swi", "swin"),
        ("attndsl explain --he", "--heads"),
        ("attndsl show cause", None),
    ],
)
def test_a_shell_that_asks_gets_names_of_commands_patterns_and_options(line, found, tmp_path):
    pytest.importorskip("argcomplete")
    asked = tmp_path / "found"
    asked.touch()
    environment = {
        "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_SHELL": "bash", "COMP_TYPE": "9",
        "COMP_LINE": line, "COMP_POINT": str(len(line)), "_ARGCOMPLETE_STDOUT_FILENAME": str(asked),
    }  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "attndsl"], env=os.environ | environment, check=True, timeout=60
    )
    words = [word.strip() for word in asked.read_text().split("\n") if word]
    assert (found in words) if found else words == []
