"""Commands that compute: check, bench, demo. Budgets are tiny; what they claim is still compared."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import attndsl
from attndsl import demo
from attndsl.cli import main
from attndsl.library import judging


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """One thread, so that workers of the test run do not wait for each other; an empty folder."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


FILE = """\
## Near, or early.
pattern local(w: int) where w >= 1 = causal and (q - k < w or k < 2)
pattern per_layer = if layer == 0 then local(4) else q == k
input ids: int[pos]
pattern packed = ids[q] == ids[k] and local(3)
"""


def test_check_verifies_every_pattern_of_a_file(capsys: pytest.CaptureFixture[str]):
    Path("some.attn").write_text(FILE, encoding="utf-8")
    assert main(["check", "some.attn", "--seconds", "0.05"]) == 0
    out = capsys.readouterr().out
    assert [line.split()[:2] for line in out.splitlines()[:-1]] == [
        ["ok", "local(w=4)"],
        ["ok", "per_layer"],
        ["ok", "packed"],
    ]
    assert out.endswith("3 ok\n")


def test_check_of_the_library_says_a_line_a_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    griffin = attndsl.library.describe("griffin")

    def said(missing: str) -> list[str]:
        with monkeypatch.context() as patched:
            patched.setattr(judging, "describe", lambda _: replace(griffin, missing=missing))
            assert main(["check", "--library", "griffin"]) == 0
        return capsys.readouterr().out.splitlines()

    assert said("") == ["096  ok     griffin  (4 calls)", "1 rows ok, 0 in part, 0 wrong"]
    first, second, last = said("Gates.")
    assert first == "096  part   griffin  (4 calls)"
    assert second.strip() == "missing in griffin: Gates."
    assert last == "0 rows ok, 1 in part, 0 wrong"
    monkeypatch.setattr(judging, "disagreement", lambda *_: "the output differs")
    assert main(["check", "--library", "griffin"]) == 1
    assert "wrong in griffin: the output differs" in capsys.readouterr().out
    assert main(["check", "--library", "grifin"]) == 2
    assert "did you mean `griffin`" in capsys.readouterr().err
    assert main(["check"]) == 2
    assert "--library" in capsys.readouterr().err


def test_check_judges_what_is_asserted(capsys: pytest.CaptureFixture[str]):
    text = "pattern p(w: int = 3) = causal and window(w)\n    assert causal\n    assert symmetric\n"
    Path("claims.attn").write_text(text, encoding="utf-8")
    assert main(["check", "claims.attn", "--seconds", "0.05"]) == 1
    verdict, first, second, *rest = capsys.readouterr().out.splitlines()
    assert verdict.startswith("wrong p ")
    assert first.strip() == "proved: causal"
    assert second.strip() == "false: symmetric"
    assert "query" in rest[0], "a counter-example"
    Path("claims.attn").write_text(text.replace("    assert symmetric\n", ""), encoding="utf-8")
    assert main(["check", "claims.attn", "--seconds", "0.05"]) == 0


def test_check_goes_on_after_a_file_with_errors(capsys: pytest.CaptureFixture[str]):
    Path("bad.attn").write_text("pattern p = k <= qq\n", encoding="utf-8")
    Path("zero.attn").write_text("pattern p(b: int = 0) = block(b)\n", encoding="utf-8")
    Path("helper.attn").write_text("def twice(a: int) = a + a\n", encoding="utf-8")
    status = main(["check", "bad.attn", "zero.attn", "helper.attn", "causal", "--seconds", "0.05"])
    said = capsys.readouterr()
    assert status == 2
    assert "bad.attn:1:18" in said.err
    assert "error[A301]" in said.err
    assert "helper.attn: nothing to check" in said.out
    assert "ok    causal" in said.out
    assert said.out.endswith("1 ok, 2 bad\n")


def test_check_shows_what_is_wrong_and_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Values that run into each other: a mistake in the tensors, not in the pattern."""
    honest = attndsl.Pattern.__call__

    def faulty(self, q, k, v, **options):  # type: ignore[no-untyped-def]
        return honest(self, q, k, v.cumsum(dim=2), **options)

    monkeypatch.setattr(attndsl.Pattern, "__call__", faulty)
    assert main(["check", "window", "-p", "left=2", "--seconds", "0.05"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("wrong window(left=2)")
    assert "made smaller" in out


def test_bench_races_everyone_on_equal_terms(capsys: pytest.CaptureFixture[str]):
    line = (
        "bench streaming -p w=32 --q-len 256 --heads 2 --head-dim 16 --rounds 1 --threads 1 --json"
    )
    assert main([*line.split(), "--no-flex"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = [each["name"] for each in found["results"]]
    assert names == ["attndsl", "SDPA, dense mask"]
    for each in found["results"]:
        assert each["forward"] > 0
        assert each["backward"] > 0
    assert found["results"][0]["forward_ratio"] == 1
    assert torch.get_num_threads() == 1


def test_bench_prints_a_table(capsys: pytest.CaptureFixture[str]):
    line = "bench documents --q-len 64 --heads 2 --rounds 1 --no-flex --no-backward"
    assert main(line.split()) == 0
    out = capsys.readouterr().out
    assert "doc was made up: documents of random lengths" in out
    assert "SDPA, dense mask" in out
    assert "1.00x" in out


def test_the_demo_trains_with_a_pattern_that_chooses(tmp_path: Path):
    said: list[str] = []
    found = demo.run(
        tmp_path, seconds=0.1, verify_seconds=0.05, context=192, choose=True, say=said.append
    )
    assert found["verified"]
    assert [*found["models"]] == ["chooser", "dense"]
    one, other = (each["losses"][0] for each in found["models"].values())
    assert one == pytest.approx(other, abs=0.5)  # equal weights and bytes, all but all keys seen
    assert demo.CHOOSING in "".join(said)
    assert "chosen from random vectors" in "".join(said)


def test_the_demo_runs_and_its_twins_agree_where_they_must(capsys: pytest.CaptureFixture[str]):
    """At 128 bytes the window of 256 holds all of the past: the twins are one function."""
    line = "demo --seconds 0.3 --verify-seconds 0.1 --context 128 --out made/here"
    assert main(line.split()) == 0
    out = capsys.readouterr().out
    found = json.loads(Path("made/here/figures.json").read_text(encoding="utf-8"))
    sparse, full = (each["losses"] for each in found["models"].values())
    both = min(len(sparse), len(full), 5)  # rounding grows from step to step
    assert both >= 1
    assert np.abs(np.subtract(sparse[:both], full[:both])).max() < 1e-3
    assert found["verified"]
    assert demo.PATTERN in out
    assert "reader reads" in out
    assert Path("made/here/loss.png").read_bytes().startswith(b"\x89PNG")
    assert attndsl.compile("made/here/reader.attn").facts()["causal"] == "proved"


def test_twins_are_born_equal_and_read_the_same():
    text = demo.library_text(1 << 16)
    one, other = demo.twins(attndsl.compile("causal"), text, 64, seed=3)
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b)
    for _ in range(3):
        assert torch.equal(next(one.stream), next(other.stream))


def test_the_running_mean_forgets():
    assert demo.smooth([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])
    assert demo.smooth([9.0] + [1.0] * 200)[-1] == pytest.approx(1.0, abs=1e-3)


def test_a_folder_that_cannot_be_made_is_a_mistake_with_its_reason(
    capsys: pytest.CaptureFixture[str],
):
    Path("file").write_text("", encoding="utf-8")
    assert main(["demo", "--out", "file/here", "--seconds", "0.1"]) == 2
    assert "error[A603]" in capsys.readouterr().err
