"""Commands through `main`: what they print, where, and with which exit status."""

import io
import json
import re
import shlex
import sys
from collections.abc import Callable
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import attndsl
from attndsl import ir, patterns
from attndsl.cli import main, running
from attndsl.testing import Program, programs

GOLDEN = Path(__file__).parents[2] / "golden"
Shell = Callable[[str], tuple[int, str, str]]


@pytest.fixture
def shell(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Shell:
    """Runs a command line in an empty folder: status, output, error stream."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def run(line: str) -> tuple[int, str, str]:
        status = main(shlex.split(line))
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


SHOWN = {
    "streaming": "show streaming -p w=6 -p n=2 --q-len 20 --ascii",
    "swin": "show swin -p m=4 -p s=2 --extents y=9,x=10 --query 23",
    "documents": "show documents --seed 3",
    "chosen": "show neighborhood1d --q-len 24",
    "spaces": "show captioned_box -p s=3 --extents n=6,y=5,x=6",
    "heads": "show strided_by_head -p s=4 --head 1",
    "tiles": "show longformer --q-len 20_000 --tiles 512 --ascii",
    "layout": "show dilated -p left=2 -p d=8 --q-len 128 --tiles 8 --layout 'residues(8)'",
    "attention": "show gemma2 -p c=2.5 -p w=6 --q-len 12",
    "expression": "show 'causal and (q - k < 4 or k % 8 == 7)' --q-len 24 --k-len 32",
}


@pytest.mark.parametrize("name", SHOWN)
def test_golden_show(name: str, shell: Shell, golden: Callable[[Path, str], None]):
    status, out, err = shell(SHOWN[name])
    assert (status, err) == (0, "")
    assert all(len(line) <= 120 for line in out.splitlines())
    out = re.sub(r"((?:prelude|published)\.attn):\d+:\d+", r"\1", out)  # these grow
    golden(GOLDEN / "cli" / f"{name}.txt", f"$ attndsl {SHOWN[name]}\n{out}")


MISTAKEN = {
    "no_such_command": "shwo causal",
    "no_such_option": "show causal --qlen 3",
    "lacking_argument": "show causal --q-len",
    "no_pattern_given": "show",
    "bad_length": "show causal --q-len -3",
    "fraction": "show window -p left=2.5",
    "code_as_value": "show window -p 'left=__import__(1)'",
    "not_a_pair": "show window -p left",
    "given_twice": "show window -p left=1 -p left=2",
    "bad_extent": "show swin --extents y=8,x=-1",
    "no_such_head": "show causal --head 2",
    "no_such_query": "show causal --q-len 8 --query 8",
    "too_many_pairs": "show causal --q-len 100000",
    "too_much_to_make_up": "show documents --q-len 1000000000000 --tiles 128",
    "no_such_part": "show llama_adapter --part 2",
    "attention_raced": "bench alibi",
    "too_large_to_race": "bench causal --q-len 1000000000",
    "no_such_input_file": "show documents --input doc=ids.npy",
    "nowhere_to_write": "show causal --png none/causal.png",
    "no_such_code": "explain A299",
}


@pytest.mark.parametrize("name", MISTAKEN)
def test_golden_mistakes_on_the_command_line(
    name: str, shell: Shell, golden: Callable[[Path, str], None]
):
    status, _, err = shell(MISTAKEN[name])
    assert status == 2
    assert "Traceback" not in err
    golden(GOLDEN / "errors" / "A6" / f"{name}.err", err)


def test_mistakes_in_patterns_and_lengths_name_what_to_type(shell: Shell):
    status, _, err = shell("show swin --q-len 13")
    assert status == 2
    assert "error[A401]" in err
    assert "--extents y=8,x=8" in err
    status, _, err = shell("show documents --input dok=x.npy")
    assert (status, "A603" in err) == (2, True)
    np.save("x.npy", np.zeros(4, dtype=int))
    status, _, err = shell("show documents --input dok=x.npy")
    assert (status, "did you mean 'doc'" in err) == (2, True)
    status, _, err = shell("show widnow")
    assert (status, "did you mean `window`" in err) == (2, True)
    status, _, err = shell("show window -p lfet=3")
    assert (status, "did you mean `left`" in err) == (2, True)
    status, _, err = shell("show block -p b=0")
    assert (status, "error[A301]" in err) == (2, True)


@pytest.mark.parametrize("name", patterns.named_attentions())
def test_every_published_attention_can_be_shown_and_explained(name: str, shell: Shell):
    status, out, err = shell(f"show {name}")
    assert (status, err) == (0, "")
    assert f"attention {name}" in out
    assert "sees" in out
    small = "--extents y=4,x=4" if "over image" in out else "--q-len 64"
    status, out, err = shell(f"explain {name} {small} --json")
    said = json.loads(out)
    a = attndsl.compile(name)
    assert (status, said["digest"]) == (0, a.digest)
    assert [each["meaning"] for each in said["parts"]] == [ir.show(p.ir.root) for p in a.patterns]


def test_attentions_of_a_file_are_listed_shown_explained_and_checked(shell: Shell):
    Path("a.attn").write_text(
        "input b: real[head]\nattention a(c: real = 1.0) over causal = score c * tanh(s / c) + b[head] * q\n"
        "attention both = a(2.0) ++ a(c=0.5)\n",
        encoding="utf-8",
    )
    assert "b[head] * q" in shell("show a.attn:a")[1]
    assert "part 1 of 2" in shell("show a.attn --part 1")[1]
    status, out, _ = shell("explain a.attn:a -p c=2.5 --q-len 64")
    assert (status, "2.5 * tanh(s / 2.5)" in out) == (0, True)
    assert "tanh(s / 2.5)) + 1.0) / 2.5  per s\n" in out
    assert "  q  per b\n" in out
    status, out, _ = shell("check a.attn --seconds 0.01")
    assert (status, "2 ok" in out) == (0, True)
    assert shell("fmt --check a.attn")[0] == 1
    assert shell("fmt a.attn")[0] == shell("fmt --check a.attn")[0] == 0
    names = [each["name"] for each in json.loads(shell("list --attentions --json")[1])]
    assert names == [*patterns.attentions()]


@pytest.mark.parametrize("name", patterns.names())
def test_every_pattern_of_the_prelude_can_be_shown_unasked(name: str, shell: Shell):
    status, out, err = shell(f"show {name}")
    assert (status, err) == (0, "")
    assert patterns.describe(name).doc.split()[0] in out
    assert "sees" in out


@pytest.mark.parametrize("name", patterns.published())
def test_every_entry_of_the_library_can_be_shown_with_its_example(name: str, shell: Shell):
    status, out, err = shell(f"show {name}")
    assert (status, err) == (0, "")
    assert f"(row {patterns.entry(name).row} of the catalogue)" in " ".join(out.split())
    assert "query 0 sees" in out


def test_a_row_of_the_library_is_its_first_entry(shell: Shell):
    assert shell("show 049")[1] == shell("show gna1d")[1]
    assert "no default" not in shell("show gna1d -p window=8 --q-len 40")[1]


def test_a_file_of_ids_sets_the_length_and_serves_every_head(shell: Shell):
    np.save("ids.npy", np.array([0, 0, 1, 1, 1]))
    status, out, _ = shell("show documents --input doc=ids.npy --heads 3")
    assert status == 0
    assert "made up" not in out
    assert "query 2 sees 3 keys: 2..4" in out


def test_files_that_are_no_array_are_refused(shell: Shell):
    Path("text.npy").write_text("0 0 1 1", encoding="utf-8")
    np.save("objects.npy", np.array([{}, None], dtype=object), allow_pickle=True)
    np.savez("several.npz", a=np.zeros(3), b=np.ones(3))
    np.save("short.npy", np.zeros(4, dtype=int))
    whole = Path("short.npy").read_bytes()
    Path("short.npy").write_bytes(whole.replace(b"(4,), }          ", b"(4000000000,), }"))
    Path("empty.npy").write_bytes(b"")
    for name in ("text.npy", "objects.npy", "several.npz", "short.npy", "empty.npy", "."):
        status, _, err = shell(f"show documents --input doc={name}")
        assert (status, "error[A603]" in err) == (2, True), name
    np.save("fractions.npy", np.zeros(4))
    status, _, err = shell("show documents --input doc=fractions.npy")
    assert (status, "error[A501]" in err) == (2, True)


KNOWN = """\
    show list fmt explain check causal window swin documents A302 - -- -p left=3 left= =3 --q-len --k-len
    --heads --extents y=3,x=3 y=,x 7 1_0 0 -1 --query --head --tiles --layout auto --input doc=x.npy
    --seed --ascii --json --check --png out.png --help
"""
WORDS = st.one_of(st.sampled_from(KNOWN.split()), st.text(max_size=6))
COMMANDS_TO_TRY = st.sampled_from(["show", "list", "fmt", "explain A101", "check"])


@given(COMMANDS_TO_TRY, st.lists(WORDS, max_size=6))
def test_no_command_line_brings_the_program_down(
    tmp_path_factory: pytest.TempPathFactory, command: str, words: list[str]
):
    with (
        chdir(tmp_path_factory.getbasetemp()),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()) as err,
    ):
        limit = ["--seconds", "0.01"] if command == "check" else []
        with patch.object(sys, "stdin", io.StringIO("pattern p = q == k")):
            status = main([*command.split(), *limit, *words])
    assert status in (0, 1, 2)
    assert status != 2 or "error[A" in err.getvalue()


def test_what_one_query_sees_is_what_the_meaning_says(shell: Shell):
    status, out, _ = shell("show dilated -p left=3 -p d=5 --q-len 40 --query 20")
    assert status == 0
    assert "query 20 sees 7 keys: 5, 10, 15, 20, 25, 30, 35" in out


def test_pictures_are_written_as_files(shell: Shell):
    status, out, _ = shell("show strided -p s=16 --q-len 256 --layout auto --png m.png --svg m.svg")
    assert status == 0
    assert out.endswith("wrote m.png\nwrote m.svg\n")
    assert Path("m.png").read_bytes().startswith(b"\x89PNG")
    assert Path("m.svg").read_text(encoding="utf-8").startswith("<svg")


def test_hostile_comments_cannot_steer_the_terminal(shell: Shell):
    Path("evil.attn").write_text("## \x1b[2Jgone\npattern p = k <= q\n", encoding="utf-8")
    status, out, _ = shell("show evil.attn")
    assert status == 0
    assert "\x1b" not in out


def test_a_stream_that_knows_ascii_only_gets_ascii(monkeypatch: pytest.MonkeyPatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["show", "wrapped_swin"]) == 0
    out.flush()
    assert b"#" in out.buffer.getvalue()  # type: ignore[attr-defined]


def test_an_output_that_cannot_be_written_is_a_mistake_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    class Full(io.StringIO):
        encoding = "utf-8"

        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    assert main(["list"]) == 2
    assert "cannot write the output: No space left on device" in capsys.readouterr().err


class Tty(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_tiles_have_colours_on_a_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stdout", Tty())
    assert main(shlex.split("show causal --q-len 64 --tiles 16")) == 0
    drawn = sys.stdout.getvalue()
    assert re.search("\x1b\\[38;5;\\d+m██████\x1b", drawn), "three FULL tiles in one colour"
    colours = [set(re.findall(f"(\x1b\\[38;5;\\d+m){cell}", drawn)) for cell in "█▒"]
    assert len(colours[0]) == len(colours[1]) == 1
    assert colours[0] != colours[1]


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TERM", "xterm")
    for plain in (False, True):
        monkeypatch.setenv("NO_COLOR", "1" if plain else "")
        err = Tty()
        monkeypatch.setattr(sys, "stderr", err)
        assert main(["shwo"]) == 2
        assert ("\x1b[" in err.getvalue()) is not plain


ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SPOKEN = [
    *(line for name in running.SUMMARIES for line in running.load(name).examples),
    *(
        line
        for page in PAGES
        for line in re.findall(r"^\$ (attndsl .*)$", page.read_text(), re.MULTILINE)
    ),
]


@pytest.mark.parametrize("line", sorted(set(SPOKEN)))
def test_every_command_line_that_help_and_docs_show_is_understood(
    line: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    words = shlex.split(line.rpartition("| ")[2])
    assert words.pop(0) == "attndsl"
    ran: list[str] = []
    load = running.load
    quick = lambda name: replace(load(name), run=lambda *_: ran.append("ran") or 0)
    monkeypatch.setattr(running, "load", quick)
    status = main(words)
    assert (status, capsys.readouterr().err) == (0, "")
    assert ran or {"--help", "--version"} & {*words}


def test_help_of_every_command_has_its_examples(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 0
    overview = capsys.readouterr().out
    for name in running.SUMMARIES:
        assert name in overview
        assert main([name, "--help"]) == 0
        said = capsys.readouterr().out
        assert all(example in said for example in running.load(name).examples)


# ---------------------------------------------------------------------------- list, fmt, explain


def test_list_has_every_pattern_with_a_line_of_its_documentation(shell: Shell):
    status, out, _ = shell("list")
    assert status == 0
    named = [line.split()[0] for line in out.splitlines() if line and not line.startswith(" ")]
    assert {*patterns.names(), *(f"{patterns.entry(n).row}" for n in patterns.published())} <= {
        *named
    }
    assert all(name in out for name in patterns.published())
    assert max(map(len, out.splitlines())) <= 80
    record = json.loads(shell("list window dilated --json")[1])
    assert "dilated" in [each["name"] for each in record]
    assert shell("list nothing_mentions_this")[0] == 1
    only = [json.loads(shell(f"list --{which} --json")[1]) for which in ("prelude", "library")]
    assert [{each["name"] for each in found} for found in only] == [
        {*patterns.names(), *patterns.helpers()},
        {*patterns.published()},
    ]
    assert {each["name"] for each in only[0] if each["helper"]} == {*patterns.helpers()}


@pytest.mark.parametrize("name", ["segment_of", "clamped", "within"])
def test_helpers_are_listed_and_shown_as_they_are_defined(name: str, shell: Shell):
    assert f"\n{name} " in shell("list --prelude")[1]
    status, out, err = shell(f"show {name}")
    assert (status, err) == (0, "")
    declared = patterns.describe(name)
    assert str(declared) in " ".join(out.split())
    assert all(line in out for line in declared.span.text.splitlines())
    assert declared.doc.split(",")[0].split(":")[0] in " ".join(out.split())


CANONICAL = "pattern p(w: int = 4) = 0 <= q - k < w\n"
LOOSE = "pattern   p( w:int=4 )=0<=q-k<w"


def test_fmt_rewrites_what_is_not_canonical(shell: Shell):
    Path("a.attn").write_text(LOOSE, encoding="utf-8")
    Path("b.attn").write_text(CANONICAL, encoding="utf-8")
    Path("a.attn").chmod(0o600)
    assert shell("fmt --check a.attn b.attn")[:2] == (1, "a.attn would be reformatted\n")
    assert Path("a.attn").read_text(encoding="utf-8") == LOOSE
    assert shell("fmt a.attn b.attn")[:2] == (0, "reformatted a.attn\n")
    assert Path("a.attn").read_text(encoding="utf-8") == CANONICAL
    assert Path("a.attn").stat().st_mode & 0o777 == 0o600
    assert shell("fmt --check a.attn b.attn")[:2] == (0, "")
    assert sorted(path.name for path in Path().iterdir()) == ["a.attn", "b.attn"]


def test_fmt_goes_on_after_a_file_that_does_not_parse(shell: Shell):
    Path("bad.attn").write_text("pattern = k", encoding="utf-8")
    Path("good.attn").write_text(LOOSE, encoding="utf-8")
    status, out, err = shell("fmt bad.attn good.attn none.attn")
    assert (status, out) == (2, "reformatted good.attn\n")
    assert "bad.attn:1:9" in err
    assert "A102" in err
    assert Path("bad.attn").read_text(encoding="utf-8") == "pattern = k"


def test_fmt_reads_the_standard_input(shell: Shell, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO(LOOSE))
    assert shell("fmt -") == (0, CANONICAL, "")
    monkeypatch.setattr(sys, "stdin", io.StringIO(LOOSE))
    assert shell("fmt --check -")[0] == 1


def test_explain_gives_facts_and_work(shell: Shell):
    status, out, err = shell("explain streaming -p w=512 --q-len 8192")
    assert (status, err) == (0, "")
    assert "causal" in out
    assert "proved" in out
    record = json.loads(shell("explain streaming -p w=512 --q-len 8192 --json")[1])
    assert record["facts"]["causal"] == "proved"
    assert record["q_len"] == 8192
    pairs = sum(min(q + 1, 512) + max(0, min(4, q - 511)) for q in range(8192))
    assert record["cost"]["pairs"] == pairs


def test_show_and_explain_count_zero_keys(shell: Shell):
    status, out, _ = shell("show padded_window -p left=2 --q-len 6")
    assert status == 0
    assert "and so many zero keys" in out
    assert "query 0 sees 3 keys: 0..2; and 2 zero keys" in out
    assert "query 3 sees 5 keys: 1..5\n" in out
    status, out, _ = shell("explain padded_window -p left=2 --q-len 64 --json")
    assert status == 0
    assert json.loads(out)["zeros"].endswith("+ 5")


def test_explain_says_what_it_chose(shell: Shell):
    status, _, err = shell("explain chosen_blocks --q-len 64")
    assert status == 0
    assert "b = 4 was chosen here" in err
    assert "chosen was made up here" in err


@given(programs())
def test_a_generated_program_is_shown_or_refused_but_never_brings_the_command_down(
    tmp_path_factory: pytest.TempPathFactory, program: Program
):
    path = tmp_path_factory.getbasetemp() / "generated.attn"
    path.write_text(program.text, encoding="utf-8")
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        status = main(["show", str(path), "--ascii"])
    assert (status == 0 and "query 0 sees" in out.getvalue()) or "error[A" in err.getvalue()


def test_an_attention_is_emitted(shell: Shell):
    status, out, _ = shell("emit alibi")
    assert (status, "def derivatives_1(" in out) == (0, True)
