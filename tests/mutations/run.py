"""Plant a fault, run the tests, see whether one fails; then the next fault.

    python tests/mutations/run.py [--only WORDS] [--workers N] [--report FILE]

Every fault is planted in a copy of the tree, so that the working tree stays as it is. Tests near the
fault run first; a fault survives when all of them pass. Libraries are imported once, before the runs
are forked.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import hypothesis.strategies  # noqa: E402, F401 - imported for the runs that are forked
import lark  # noqa: E402, F401
import networkx as nx  # noqa: E402, F401
import pytest  # noqa: E402
import torch  # noqa: E402, F401

from tests.mutations.faults import FAULTS  # noqa: E402

# Where tests of a file's faults are, nearest first; then all others in turn.
NEAR = {
    "analysis": (
        "rooms/analysis/test_ranges.py",
        "rooms/analysis",
        "laws",
        "rooms/schedule/test_exact.py",
    ),
    "schedule": ("rooms/schedule/test_exact.py", "laws"),
    "passes": (
        "rooms/passes/test_separate.py",
        "rooms/passes",
        "laws",
        "rooms/schedule/test_exact.py",
    ),
    "ir": ("rooms/ir/test_building.py", "rooms/passes", "laws"),
    "backends": ("rooms/backends/test_blocked.py", "laws"),
    "op": ("rooms/op", "laws"),
    "compiler.py": ("rooms/op", "laws"),
}
REST = (
    "fuzz", "rooms/ir", "rooms/passes", "rooms/analysis", "rooms/op", "rooms/verification", "rooms/patterns",
    "rooms/schedule", "rooms/claims", "rooms/backends", "rooms/frontend", "library",
)  # fmt: skip
OPTIONS = (
    "-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow and not gpu",
    "--hypothesis-profile=ci", "-W", "ignore::pytest.PytestAssertRewriteWarning",
)  # fmt: skip
SECONDS = 1200  # for the tests of one fault


@dataclass(frozen=True)
class Outcome:
    """``by`` is the first test that failed, or empty when all passed."""

    file: str
    what: str
    by: str
    seconds: float
    note: str = ""

    def __str__(self) -> str:
        verdict = short(self.by) or self.note or "NOT CAUGHT"
        return f"{self.seconds:6.1f} s  {self.file}: {self.what}: {verdict}"


@dataclass(frozen=True)
class Run:
    """A forked run of the tests on a copy of the tree."""

    fault: int
    tree: Path
    begin: float

    def outcome(self, status: int) -> Outcome:
        file, _, _, what = FAULTS[self.fault]
        said = (self.tree / "said").read_text(encoding="utf-8", errors="replace")
        shutil.rmtree(self.tree)
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
        by = "" if status == 0 else found[1] if found else f"status {status}"
        return Outcome(file, what, by, time.monotonic() - self.begin)


def paths(file: str) -> list[list[str]]:
    """Where tests are: those near the file, then all others."""
    near = NEAR[file.partition("/")[0]]
    return [[f"tests/{name}" for name in names] for names in (near, REST)]


def copy() -> Path:
    tree = Path(tempfile.mkdtemp())
    for name in ("attndsl", "tests", "benchmarks", "docs", "examples", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            skip = shutil.ignore_patterns("__pycache__", ".hypothesis")
            shutil.copytree(source, tree / name, ignore=skip)
        else:
            shutil.copy(source, tree / name)
    return tree


def planted(fault: int) -> Path | None:
    """A copy of the tree with that fault, or nothing where its text is gone."""
    file, before, after, _ = FAULTS[fault]
    tree = copy()
    path = tree / "attndsl" / file
    text = path.read_text(encoding="utf-8")
    if text.count(before) != 1:
        shutil.rmtree(tree)
        return None
    changed = text.replace(before, after)
    compile(changed, file, "exec")  # a fault is a wrong program, not a broken one
    path.write_text(changed, encoding="utf-8")
    return tree


def forked(tree: Path, wanted: Sequence[Sequence[str]]) -> int:
    """The process that runs those tests in the tree, one list after the other; it writes ``said``."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    os.chdir(tree)
    out = os.open("said", os.O_WRONLY | os.O_CREAT)
    os.dup2(out, 1)
    os.dup2(out, 2)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("attndsl", "tests")]:
        del sys.modules[name]
    sys.path = [str(tree), *(path for path in sys.path if Path(path) != ROOT)]
    status = 1
    try:
        for some in wanted:
            status = int(pytest.main([*OPTIONS, *(path for path in some if Path(path).exists())]))
            if status:
                break
    except BaseException:  # noqa: BLE001 - nothing may return into the parent's loop
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def outcomes(chosen: Sequence[int], workers: int) -> Iterator[Outcome]:
    waiting = list(chosen)
    running: dict[int, Run] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            fault = waiting.pop(0)
            file, _, _, what = FAULTS[fault]
            tree = planted(fault)
            if tree is None:
                yield Outcome(file, what, "", 0.0, "stale: its text is not there, or not once")
                continue
            running[forked(tree, paths(file))] = Run(fault, tree, time.monotonic())
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            yield running.pop(child).outcome(os.waitstatus_to_exitcode(status))
        for process, run in running.items():
            if time.monotonic() - run.begin > SECONDS:
                with suppress(ProcessLookupError):
                    os.killpg(process, 9)
        time.sleep(0.1)


def failure_without_a_fault() -> str:
    """A test that fails in any case: with one, every fault would count as caught."""
    tree = copy()
    _, status = os.waitpid(forked(tree, paths("ir/")), 0)
    said = (tree / "said").read_text(encoding="utf-8", errors="replace")
    shutil.rmtree(tree)
    return "" if status == 0 else said[-2000:]


def report(found: Sequence[Outcome]) -> str:
    caught = [o for o in found if o.by]
    missed = [o for o in found if not o.by]
    lines = [
        "# Planted faults", "",
        "`make mutations` plants the faults of `tests/mutations/faults.py` one at a time and runs the tests until",
        f"one fails. {len(found)} were planted, {len(caught)} were caught.", "",
    ]  # fmt: skip
    if missed:
        lines += ["## Not caught", "", "| file | fault | why |", "|---|---|---|"]
        lines += [f"| `{o.file}` | {o.what} | {o.note} |" for o in missed]
        lines.append("")
    lines += ["## Caught", "", "| file | fault | first caught by |", "|---|---|---|"]
    lines += [f"| `{o.file}` | {o.what} | `{short(o.by)}` |" for o in caught]
    return "\n".join(lines) + "\n"


def short(test: str) -> str:
    return re.sub(r"\[.*", "", test.removeprefix("tests/").removeprefix("rooms/"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="faults whose file or words contain this")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    if broken := failure_without_a_fault():
        print(f"{broken}\nthis fails before any fault is planted")
        return 2
    chosen = [i for i, f in enumerate(FAULTS) if options.only in f[0] or options.only in f[3]]
    found = []
    for outcome in outcomes(chosen, options.workers):
        found.append(outcome)
        print(outcome, flush=True)
    print(f"{sum(bool(o.by) for o in found)} of {len(found)} caught")
    if options.report:
        order = {fault[3]: place for place, fault in enumerate(FAULTS)}
        found.sort(key=lambda outcome: order[outcome.what])
        options.report.write_text(report(found), encoding="utf-8")
    return 0 if all(o.by for o in found) else 1


if __name__ == "__main__":
    sys.exit(main())
