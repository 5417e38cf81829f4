"""Every entry of the library is stated in full, compiles, schedules exactly, runs and has gradients."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import attndsl
from attndsl import AttnDslError, library, patterns
from attndsl import syntax as syn
from attndsl.compiler import Program
from attndsl.library import judging
from attndsl.patterns import Entry, Trial
from attndsl.source import Diagnostic
from attndsl.sources import read_mask

FILES = sorted((Path(patterns.__file__).parent / "library").glob("*.attn"))
NAMES = library.names()


def programs(entry: Entry, trial: Trial) -> list[Program]:
    mask = read_mask(entry.name, None, trial.values)
    return [Program(mask, layer) for layer in trial.layers]


def test_every_row_of_the_catalogue_is_stated():
    rows = library.rows()
    assert list(rows) == [f"{number:03}" for number in range(1, 111)]
    assert [name for entries in rows.values() for name in entries] == list(NAMES)
    titles = [library.describe(row).title for row in rows]
    assert len(set(titles)) == 110


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_says_what_it_is(name: str):
    entry = library.describe(name)
    assert entry.summary.endswith(".")
    for text in (entry.compared, entry.reading, entry.edges, entry.part, entry.missing):
        assert not text or text.endswith("."), text
    assert entry.edges
    assert entry.compared.startswith("Catalogue")
    for sentence in entry.missing.removesuffix(".").split(". "):
        assert not sentence or re.match(r"(Selection|Scores|Keys|Branch): [a-z]", sentence), (
            sentence
        )
    assert re.search(r"\b(19|20)\d\d\b", entry.source), "a source has a year"
    assert re.search(r"\b\d{4}\.\d{4,5}\b", library.describe(entry.row).source), "and an id"
    assert all(parameter.default or name in NEEDS for parameter in entry.signature.parameters)
    assert len(entry.text.splitlines()) <= 36, "an entry is short enough to be read at a glance"


NEEDS = {"blockrank", "bench_causal_blockwise", "drsformer"}
"""Entries with a parameter that no paper can give a default for: it follows from the inputs."""


def test_library_and_prelude_share_no_name():
    assert not set(NAMES) & set(patterns.names())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_files_are_in_canonical_layout(path: Path):
    text = path.read_text(encoding="utf-8")
    assert syn.format(syn.parse(text, path.name)) == text
    assert len(text.splitlines()) <= 600
    assert max(len(line) for line in text.splitlines()) <= 100


@pytest.mark.parametrize("grow", [0, 1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_the_schedule_of_an_entry_is_its_meaning(name: str, grow: int):
    entry = library.describe(name)
    trial = patterns.trial(entry, grow, seed=grow)
    for program in programs(entry, trial):
        call = program.call(
            trial.q_len, trial.k_len, trial.batch, trial.heads, trial.extents, trial.inputs
        )
        dense = program.dense(call)
        assert dense.any(), "the example shows nothing"
        schedule = program.schedule(call, (8, 16))
        for b, h in np.ndindex(dense.shape[:2]):
            assert np.array_equal(schedule.cover(b, h), dense[b, h])


@pytest.mark.parametrize("name", NAMES)
def test_what_an_entry_asserts_holds(name: str):
    assert not judging.broken_claims(name)


@pytest.mark.parametrize("row", library.rows())
def test_the_example_of_a_row_runs_in_one_line(row: str):
    for name in library.rows()[row]:
        shown = library.example(name)
        out = shown.call()
        assert out.shape == shown.q.shape
        assert torch.isfinite(out).all()
        torch.testing.assert_close(out, shown.call(backend="reference"), rtol=0, atol=1e-5)


def test_an_example_is_drawn_from_its_seed():
    one, same, other = (library.example("052", seed=seed) for seed in (3, 3, 4))
    assert one.name == "largegt"
    assert torch.equal(one.q, same.q)
    assert torch.equal(one.inputs["neighbors"], same.inputs["neighbors"])
    assert not torch.equal(one.q, other.q)
    assert not torch.equal(one.inputs["neighbors"], other.inputs["neighbors"])
    shown = library.example("maxvit", layer=1, dtype=torch.float64)
    assert shown.pattern == library.load("maxvit", layer=1, block=3, grid_size=3)
    assert shown.call().dtype == torch.float64
    out, lse = shown.call(return_lse=True)
    assert out.shape[:3] == lse.shape
    with pytest.raises(AttnDslError, match="no pattern `grifin`"):
        library.example("grifin")


def test_the_check_notices_a_wrong_backend(monkeypatch: pytest.MonkeyPatch):
    right = judging.attention

    def wrong(*given):
        out, *others = right(*given)
        return out + 1e-6, *others

    monkeypatch.setattr(judging, "attention", wrong)
    (checked,) = library.check(["griffin"])
    assert not checked.ok
    assert "wrong in griffin: the output differs from the textbook's" in str(checked)


def test_the_check_says_a_line_a_row_and_what_is_missing():
    found = list(library.check(["griffin", "rat_window"]))
    assert [each.row for each in found] == ["007", "096"]
    assert [each.name for each in found[0].entries] == ["rat_window"]
    assert str(found[0]) == "007  ok     rat_window  (4 calls)"
    lacking = replace(library.describe("griffin"), missing="Gates.")
    lines = str(library.Checked("096", (lacking,), 2, ())).splitlines()
    assert [line.strip() for line in lines] == [
        "096  part   griffin  (2 calls)",
        "missing in griffin: Gates.",
    ]
    with pytest.raises(AttnDslError, match="no pattern `grifin`"):
        list(library.check(["grifin"]))


def test_an_entry_that_no_oracle_judges_is_a_fault_of_its_row(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(judging, "JOINS", ())
    (checked,) = library.check(["griffin"])
    assert checked.faults == ("griffin: no oracle judges it",)


def test_a_claim_that_is_false_is_a_fault_of_its_row(monkeypatch: pytest.MonkeyPatch):
    broken = attndsl.compile(
        "pattern longlora = (q - 3) % len(k) // 6 == (k - 3) % len(k) // 6\n    assert causal"
    )
    monkeypatch.setattr(judging, "load_pattern", lambda *_, **__: broken)
    (checked,) = library.check(["longlora"])
    assert "wrong in longlora: false: causal" in str(checked)


def test_an_entry_that_does_not_compile_is_a_fault_of_its_row(monkeypatch: pytest.MonkeyPatch):
    def refused(name: str, *_: object):
        raise AttnDslError(Diagnostic("A302", "division by a number that is not positive"))

    monkeypatch.setattr(judging, "load_pattern", refused)
    (checked,) = library.check(["griffin"])
    assert "wrong in griffin: error[A302]" in str(checked)


def test_an_entry_is_found_by_name_and_by_row():
    assert library.load("gna", sy=5, ty=1) == attndsl.compile("gna", sy=5, ty=1)
    assert library.describe("049").name == "gna1d"
    assert attndsl.compile("049", window=5, stride=1) == library.load("gna1d", window=5, stride=1)
    assert library.load("swin", m=4) == attndsl.compile("swin", m=4)  # the prelude's
    assert library.load("maniqa", layer=1) != library.load("maniqa")


def test_an_unknown_entry_is_named_with_a_hint():
    with pytest.raises(AttnDslError, match="did you mean `longlora`") as caught:
        library.describe("longlorra")
    assert caught.value.diagnostics[0].code == "A211"
    with pytest.raises(AttnDslError, match="has no pattern `999`"):
        library.describe("999")


def test_a_clause_that_cannot_be_read_is_no_example():
    from dataclasses import replace

    entry = replace(library.describe("griffin"), example="n=8, window of 5")
    with pytest.raises(AssertionError, match="cannot read 'window of 5'"):
        patterns.trial(entry)


def test_large_trials_have_sizes_of_papers_and_their_parameters():
    for name in NAMES:
        trial = patterns.large_trial(library.describe(name))
        inputs = library.describe(name).signature.inputs
        assert trial is None or not (trial.values or inputs)
        assert trial is not None or inputs
        assert trial is None or max(trial.q_len, trial.k_len) >= 2048
    assert patterns.large_trial(library.describe("maxvit")).layers == (0, 1)


def test_the_library_is_read_on_demand():
    script = (
        "import attndsl, sys\n"
        "assert 'attndsl.patterns' not in sys.modules\n"
        "from attndsl.patterns import entries, names, published\n"
        "names(), published()\n"
        "assert entries._module.cache_info().currsize == 0\n"
        "attndsl.patterns.entry('griffin')\n"
        "assert entries._module.cache_info().currsize == 1\n"
        "print('ok')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.stdout == "ok\n", done.stderr
