"""Commands as programs of their own: their streams, the terminal around them, the files they write."""

import io
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import attndsl
from attndsl.cli import main
from attndsl.files import replace_file, write_file

PATTERN = "## Näher als 4.\npattern local = 0 <= q - k < 4\n"
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("a.attn").write_text(PATTERN, encoding="utf-8")
    return tmp_path


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line for bash, in which `attndsl` is the program."""
    source = Path(attndsl.__file__).parents[1]
    found = {**os.environ, "PYTHONPATH": str(source), "PY": sys.executable, **environment}
    script = f'set -o pipefail; attndsl() {{ "$PY" -m attndsl "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", script], env=found, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_reader_who_leaves_costs_no_file():
    ran = shell("attndsl show a.attn --png f.png --svg f.svg | head -1")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert Path("f.png").read_bytes().startswith(b"\x89PNG")
    assert Path("f.svg").read_text(encoding="utf-8").rstrip().endswith("</svg>")


def test_pictures_are_written_before_a_word_is_said(monkeypatch: pytest.MonkeyPatch):
    class Full(io.StringIO):
        encoding = "utf-8"

        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert main(["show", "a.attn", "--png", "f.png", "--svg", "f.svg"]) == 2
    assert Path("f.png").exists()
    assert Path("f.svg").exists()


def test_a_reader_who_leaves_does_not_change_the_verdict():
    Path("wrong.attn").write_text("pattern p = k <= q\n    assert symmetric\n", encoding="utf-8")
    ran = shell("attndsl check a.attn wrong.attn --seconds 0.01 | true")
    assert (ran.returncode, ran.stderr) == (1, "")


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("attndsl show a.attn --png f.png >&- 2>&- <&-", 0),
        ("attndsl show none.attn 2>/dev/full", 2),
        ("attndsl list >/dev/full", 2),
        ("attndsl --help >&-", 0),
        ("attndsl --help | true", 0),
        ("attndsl fmt - <&-", 2),
    ],
)
def test_no_stream_brings_a_command_down(line: str, status: int):
    ran = shell(line)
    assert ran.returncode == status
    assert re.fullmatch(r"(error\[A603\]: .*\n)?", ran.stderr)


@pytest.mark.parametrize(
    "line", ["show swin", "show 049", "list causal", "show --help", "explain A101"]
)
def test_no_terminal_is_too_narrow(line: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "1")
    assert main(line.split()) == 0


def test_a_file_opened_while_the_error_stream_is_closed_holds_what_was_written_to_it():
    assert shell("attndsl emit a.attn -o f.py <&- >&- 2>&-").returncode == 0
    assert Path("f.py").read_text(encoding="utf-8") == attndsl.compile("a.attn").emit(
        definition="pattern local = 0 <= q - k < 4"
    )


def test_programs_are_utf_8_under_every_locale():
    ran = shell("attndsl fmt - < a.attn; attndsl show a.attn; attndsl show 'k <= ä'", **ASCII)
    assert ran.stdout.startswith(f"{PATTERN}local  a.attn:2:1\n\n  N\\xe4her")
    assert "Traceback" not in ran.stderr


INTERRUPTED = """
import sys
from attndsl.cli import main

class Interrupt:
    def find_spec(self, name, *_):
        if name == "numpy":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
sys.exit(main(["list"]))
"""


def test_an_interrupt_while_the_package_loads_is_an_exit_status():
    ran = shell('"$PY" -c "$PROGRAM"', PROGRAM=INTERRUPTED)
    assert (ran.returncode, ran.stderr) == (130, "")


# ---------------------------------------------------------------------------- files that are read


def test_a_named_pipe_is_refused_at_once(capsys: pytest.CaptureFixture[str]):
    os.mkfifo("pipe.attn")
    Path("main.attn").write_text(
        'import local from "pipe.attn"\npattern p = local\n', encoding="utf-8"
    )
    assert main(["show", "pipe.attn"]) == 2
    assert "A102" in (said := capsys.readouterr().err)
    assert "a pipe or a device" in said
    assert main(["show", "main.attn"]) == 2
    assert "A208" in (said := capsys.readouterr().err)
    assert "a pipe or a device" in said
    os.mkfifo("doc.npy")
    assert main(["show", "documents", "--input", "doc=doc.npy"]) == 2
    assert "A603" in capsys.readouterr().err


def test_links_that_go_round_in_circles_are_refused(capsys: pytest.CaptureFixture[str]):
    Path("x.attn").symlink_to("y.attn")
    Path("y.attn").symlink_to("x.attn")
    Path("main.attn").write_text(
        'import local from "x.attn"\npattern p = local\n', encoding="utf-8"
    )
    assert main(["show", "main.attn"]) == 2
    assert "error[A208]: `x.attn` cannot be imported" in capsys.readouterr().err
    assert main(["fmt", "x.attn"]) == 2
    assert "error[A102]" in capsys.readouterr().err
    assert main(["emit", "causal", "-o", "x.attn"]) == 2
    assert "error[A603]" in capsys.readouterr().err


# ---------------------------------------------------------------------------- files that are written


@pytest.mark.parametrize(
    "line",
    [
        "emit a.attn -o a.attn",
        "emit a.attn:local -o a.attn",
        "emit a.attn -o link.py",
        "emit b.attn -o c.txt",
        "show a.attn --svg a.attn",
        "show a.attn --png ./a.attn",
        "emit main.attn -o a.attn",
        "show documents --input doc=doc.npy --png doc.npy",
    ],
)
def test_what_a_command_reads_it_does_not_overwrite(line: str, capsys: pytest.CaptureFixture[str]):
    np.save("doc.npy", np.zeros(8, dtype=int))
    Path("link.py").symlink_to("a.attn")
    Path("c.txt").write_text(PATTERN, encoding="utf-8")
    Path("b.attn").symlink_to("c.txt")
    Path("main.attn").write_text(
        'import local from "a.attn"\npattern p = local\n', encoding="utf-8"
    )
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    assert main(line.split()) == 2
    assert "error[A603]" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before


def test_a_write_that_fails_loses_nothing(monkeypatch: pytest.MonkeyPatch):
    p = attndsl.compile("causal")
    p.save("p.json")
    assert main(["emit", "causal", "-o", "p.py"]) == 0
    assert main(["show", "causal", "--svg", "p.svg"]) == 0
    before = {path.name: path.read_bytes() for path in Path().iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert main(["emit", "block", "-p", "b=4", "-o", "p.py"]) == 2
    assert main(["show", "block", "-p", "b=4", "--svg", "p.svg"]) == 2
    with pytest.raises(OSError, match="No space"):
        attndsl.compile("block", b=4).save("p.json")
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before


def test_a_full_disk_leaves_the_old_file_and_no_draft():
    line = "ulimit -f 1; trap '' XFSZ; attndsl emit causal -o old.py"  # files of at most a kilobyte
    Path("old.py").write_text("old", encoding="utf-8")
    ran = shell(line, PYTHONDONTWRITEBYTECODE="1", ATTNDSL_CACHE_DIR="")
    assert (ran.returncode, "cannot write old.py" in ran.stderr) == (2, True)
    assert Path("old.py").read_text(encoding="utf-8") == "old"
    assert sorted(path.name for path in Path().iterdir()) == ["a.attn", "old.py"]


def test_written_files_have_the_permissions_that_files_have():
    before = os.umask(0o027)
    try:
        write_file("new", b"1")
        Path("kept").write_bytes(b"0")
        Path("kept").chmod(0o755)
        Path("link").symlink_to("kept")
        write_file("link", b"2")
        replace_file("private", b"3", 0o600)
    finally:
        os.umask(before)
    modes = {name: stat.S_IMODE(Path(name).stat().st_mode) for name in ("new", "kept", "private")}
    assert modes == {"new": 0o640, "kept": 0o755, "private": 0o600}
    assert Path("link").is_symlink()
    assert Path("kept").read_bytes() == b"2"
    write_file(os.devnull, b"4")
    assert not Path(os.devnull).is_file()


# ---------------------------------------------------------------------------- verdicts


def test_an_assert_that_is_not_decided_is_not_called_wrong(capsys: pytest.CaptureFixture[str]):
    undecided = "pattern p = k <= q\n    assert symmetric where len(k) > 1000\n"
    Path("undecided.attn").write_text(undecided, encoding="utf-8")
    Path("wrong.attn").write_text("pattern p = k <= q\n    assert symmetric\n", encoding="utf-8")
    assert main(["check", "undecided.attn", "--seconds", "0.01"]) == 3
    assert capsys.readouterr().out.startswith("not decided p ")
    assert main(["check", "a.attn", "undecided.attn", "--seconds", "0.01"]) == 3
    assert capsys.readouterr().out.endswith("\n1 ok, 1 not decided\n")
    assert main(["check", "undecided.attn", "wrong.attn", "--seconds", "0.01"]) == 1
    assert capsys.readouterr().out.endswith("\n1 not decided, 1 wrong\n")
    assert main(["check", "undecided.attn", "none.attn", "--seconds", "0.01"]) == 2
