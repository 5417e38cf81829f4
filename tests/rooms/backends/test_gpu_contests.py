"""`make gpu`, as far as it can be tried without one."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def scripts() -> SimpleNamespace:
    """The scripts of the folder, imported as they import each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        names = ("contests", "gpu", "report")
        return SimpleNamespace(**{name: importlib.import_module(name) for name in names})


@pytest.mark.parametrize(
    "name",
    [
        *("causal", "window 512", "window 4096", "documents", "longformer", "bigbird"),
        *("dilated 8", "strided 128", "image 13x13", "video 5x7x7"),
    ],
    ids=lambda name: name.replace(" ", "-"),
)
def test_a_mask_mod_is_the_pattern(name: str, scripts: SimpleNamespace):
    contest, n = scripts.contests.CONTESTS[name], 2_048
    mask = contest.ours().mask(n, heads=2, extents=contest.extents(n), **contest.inputs(n))
    q, k = torch.arange(n)[:, None], torch.arange(n)
    for head in range(2 if contest.heads_differ else 1):
        assert torch.equal(contest.mod(n, "cpu")(0, head, q, k).expand(n, n), mask[0, head])


def results(**more: object) -> dict:
    """Invented: a GPU that is four times as fast as it should be at one thing, and fails at another."""
    times = {"attndsl": 1.0, "flex": 2.0, "sdpa causal": 4.0}
    row = {"live": 0.1, "live of causal": 0.5, "forward": times, "forward and backward": times}
    return {
        "gpu": "Invented 1",
        "circumstances": {"torch": "2.11.0", "triton": "3.6.0", "date": "2000-01-01T00:00"},
        "checks": {"a": {}, "b": {"fault": "dq: error 1e-1"}},
        "repeats": {"causal, 8192, 128": {"runs": 10}},
        "rows": {"window 512, 8192, 64": row, "causal, 8192, 128": {"fault": "OutOfMemoryError"}},
        "latency": {"causal, 512, 64": {"attndsl": 0.5, "sdpa": 0.25}},
    } | more


def test_the_page_is_made_of_what_was_found(scripts: SimpleNamespace):
    page = scripts.report.page([results()])
    row = "| window 512 | 8192 | 64 | 10.00% | forward | 1.000 | 2.000 | 4.000 | 2.00 | 0.80 |"
    assert row in page
    assert "| causal | 8192 | 128 |  | OutOfMemoryError |" in page
    assert "- b: dq: error 1e-1" in page
    assert "3 checks against float64 and of equal bits, 1 failed." in page
    assert "| flex / attndsl, geometric mean | ≥ 1.3 | 2.00 | reached |" in page
    assert "documents, longformer | ≥ 0.85 | 0.80 | **not reached** |" in page
    assert "attndsl / SDPA, most | ≤ 1.3 | 2.00 | **not reached** |" in page


def test_a_page_without_results_says_so(scripts: SimpleNamespace):
    assert "No GPU has been measured yet." in scripts.report.page([])


def kept(scripts: SimpleNamespace, folder: Path, first_writer: bool = False):
    about = {key: results()[key] for key in ("gpu", "circumstances")}
    return scripts.gpu.Results(folder / "invented-1.json", folder / "page.md", about, first_writer)


def test_results_are_kept_one_by_one(scripts: SimpleNamespace, tmp_path: Path):
    first = kept(scripts, tmp_path)
    first.keep("checks", "a", {})
    first.keep("checks", "b", {"fault": "out: error"})
    again = kept(scripts, tmp_path)
    assert again.has("checks", "a")
    assert not again.has("checks", "b"), "what went wrong is tried again"
    assert again.faults() == 1
    assert "out: error" in (tmp_path / "page.md").read_text(encoding="utf-8")
    assert not kept(scripts, tmp_path, first_writer=True).has("checks", "a")


def test_results_of_other_sources_are_forgotten(scripts: SimpleNamespace, tmp_path: Path):
    kept(scripts, tmp_path).keep("checks", "a", {})
    path = tmp_path / "invented-1.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"code": "another"}))
    assert not kept(scripts, tmp_path).has("checks", "a")


def test_a_process_that_dies_is_the_fault_of_its_step(
    scripts: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "benchmarks").mkdir()
    script = """
        import json, os, sys
        for line in sys.stdin:
            if line == "die\\n":
                os._exit(3)
            print(json.dumps({"found": {"pid": os.getpid()}, "last": line == "last\\n"}), flush=True)
            sys.stdin.read(0 if line != "hang\\n" else -1)
    """
    text = "\n".join(line[8:] for line in script.splitlines())
    (tmp_path / "benchmarks" / "gpu_steps.py").write_text(text)
    monkeypatch.setattr(scripts.gpu, "ROOT", tmp_path)
    worker, far = scripts.gpu.Worker(rehearse=False), 1e12
    one, same = worker.perform("step\n", far), worker.perform("last\n", far)
    assert one == same
    other = worker.perform("step\n", far)
    assert other != one, "a process that called its answer the last is replaced"
    assert worker.perform("die\n", far) == {"fault": "its process died, status 3"}
    assert worker.perform("hang\n", far) != other
    assert worker.perform("step\n", 0.0) is None, "no time left, no fault"
    worker.stop()


def rehearse(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    asked = [sys.executable, str(FOLDER / "gpu.py"), "--rehearse", "--out", str(folder), *options]
    return subprocess.run(asked, capture_output=True, text=True, check=False)


def test_a_rehearsal_of_one_pattern_runs_and_is_not_repeated(tmp_path: Path):
    pytest.importorskip("triton")
    first = rehearse(tmp_path, "--only", "causal", "--workers", "1")
    assert first.returncode == 0, first.stdout + first.stderr
    kinds = [line.split()[0] for line in first.stdout.splitlines()[:4]]
    assert kinds == ["checks", "repeats", "rows", "latency"]
    path = tmp_path / "rehearsal.json"
    before = json.loads(path.read_text(encoding="utf-8"))
    assert set(before["rows"]["causal, 320, 16"]["forward"]) == {"attndsl", "flex", "sdpa causal"}
    again = rehearse(tmp_path, "--only", "causal")
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.splitlines()[0].startswith("# Performance")
    assert json.loads(path.read_text(encoding="utf-8"))["rows"] == before["rows"]
    late = rehearse(tmp_path, "--only", "strided 128", "--minutes", "0")
    assert (late.returncode, "time is up" in late.stdout) == (2, True)


@pytest.mark.slow
def test_every_pattern_is_rehearsed(tmp_path: Path):
    pytest.importorskip("triton")
    done = rehearse(tmp_path, "--minutes", "30", "--workers", "2")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    asked = [sys.executable, str(FOLDER / "gpu.py")]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "there is no GPU here; nothing was measured\n")
