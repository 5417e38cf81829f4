"""Plant a fault, run the tests, see whether one fails; then the next fault.

    python tests/mutations/run.py [--only WORDS] [--undecided] [--near] [--workers N] [--report FILE]

Every fault is planted in a copy of the tree, so that the working tree stays as it is. Tests near the
fault run first; a fault survives when all of them pass. A test that fails is run once more without the
fault: only if it passes then, it has caught something. Libraries are imported once, before the runs are
forked. Verdicts are merged into the report as they come, so a run may be cut short and taken up again
with ``--undecided``.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
ROOT = Path(__file__).parents[2]
Fault = tuple[str, str]  # the file and what breaks
sys.path.insert(0, str(ROOT))

import hypothesis.strategies  # noqa: E402, F401 - imported for the runs that are forked
import lark  # noqa: E402, F401
import networkx as nx  # noqa: E402, F401
import pytest  # noqa: E402
import torch  # noqa: E402, F401

from tests.mutations.faults import FAULTS  # noqa: E402
from tests.mutations.near import paths  # noqa: E402

OPTIONS = (
    "-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow and not gpu",
    "--hypothesis-profile=mutations", "-W", "ignore::pytest.PytestAssertRewriteWarning",
)  # fmt: skip
SECONDS = 3600  # for the tests of one fault


@dataclass(frozen=True)
class Outcome:
    """``by`` is the first test that fails with the fault and passes without; ``note`` why there is no verdict.

    Without either, all tests passed: the fault survives.
    """

    file: str
    what: str
    by: str
    seconds: float
    note: str = ""

    def __str__(self) -> str:
        verdict = self.by or self.note or "NOT CAUGHT"
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
        seconds = time.monotonic() - self.begin
        if seconds > SECONDS:
            return Outcome(file, what, "", seconds, f"not done after {SECONDS} s")
        if status == 0:
            return Outcome(file, what, "", seconds)
        test = _failed_test(said)
        if test and _fails_without_a_fault(test):
            return Outcome(file, what, "", seconds, f"{short(test)} fails without the fault, too")
        if status not in (1, 2) and status > 0 and not test:
            return Outcome(file, what, "", seconds, f"no tests were run: status {status}")
        signal = f"signal {-status}" if status < 0 else ""
        by = ", ".join(filter(None, [short(test), signal])) or f"status {status}"
        return Outcome(file, what, by, seconds)


def _failed_test(said: str) -> str:
    """The test that failed, or in which the process ended: pytest names it when a signal comes."""
    if found := re.search(r"^(?:FAILED|ERROR) ([^\s\[]+)", said, re.MULTILINE):
        return found[1]
    found = re.search(r'File ".*?(tests/[^"]+)", line \d+ in (test_\w+)', said)
    return "::".join(found.groups()) if found else ""


def _fails_without_a_fault(test: str) -> bool:
    tree = copy()
    _, status = os.waitpid(forked(tree, [[test]]), 0)
    said = (tree / "said").read_text(encoding="utf-8", errors="replace")
    shutil.rmtree(tree)
    # a method of a shared class is named by its file: no test of that name is no failure
    return status != 0 and "not found" not in said


def copy() -> Path:
    tree = Path(tempfile.mkdtemp())
    for name in (
        "attndsl",
        "tests",
        "benchmarks",
        "docs",
        "editors",
        "examples",
        "pyproject.toml",
        "README.md",
    ):
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
    if path.suffix == ".py":
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
    os.environ["PYTHONPATH"] = str(tree)  # processes that a test starts meet the fault, too
    out = os.open("said", os.O_WRONLY | os.O_CREAT)
    os.dup2(out, 1)
    os.dup2(out, 2)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("attndsl", "tests")]:
        del sys.modules[name]
    sys.path = [str(tree), *(path for path in sys.path if Path(path) != ROOT)]
    status = 1
    try:
        for some in wanted:
            status = int(pytest.main([*OPTIONS, *some]))
            if status:
                break
    except BaseException:  # noqa: BLE001 - nothing may return into the parent's loop
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def outcomes(chosen: Sequence[int], workers: int, near: bool) -> Iterator[Outcome]:
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
            running[forked(tree, paths(file, near))] = Run(fault, tree, time.monotonic())
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            yield running.pop(child).outcome(os.waitstatus_to_exitcode(status))
        for process, run in running.items():
            if time.monotonic() - run.begin > SECONDS:
                with suppress(ProcessLookupError):
                    os.killpg(process, 9)
        time.sleep(0.1)


# ---------------------------------------------------------------------- the report


def report(verdicts: Mapping[Fault, str | None]) -> str:
    """The page; a verdict is the test that caught the fault, or empty when none did."""
    faults = [(file, what) for file, _, _, what in FAULTS]
    known = [fault for fault in faults if verdicts.get(fault) is not None]
    caught = [fault for fault in known if verdicts[fault]]
    missed = [fault for fault in known if not verdicts[fault]]
    open_ones = [fault for fault in faults if fault not in known]
    lines = [
        "# Planted faults", "",
        "`make mutations` plants the faults of `tests/mutations/faults.py` one at a time, in a copy of the tree, and",
        "runs the tests until one fails, those near the fault first; what failed must pass without the fault. It",
        "rewrites this page.",
        "",
        f"Of {len(faults)} faults {len(caught)} are caught, {len(missed)} are not, {len(open_ones)} have no verdict.",
        "",
    ]  # fmt: skip
    for title, some in (("Not caught", missed), ("No verdict yet", open_ones)):
        if some:
            lines += [f"## {title}", "", "| file | fault |", "|---|---|"]
            lines += [f"| `{file}` | {_cell(what)} |" for file, what in some] + [""]
    lines += ["## Caught", "", "| file | fault | first caught by |", "|---|---|---|"]
    lines += [f"| `{f}` | {_cell(what)} | `{verdicts[f, what]}` |" for f, what in caught]
    return "\n".join(lines) + "\n"


def known_verdicts(path: Path) -> dict[Fault, str | None]:
    """Verdicts of the report about faults that still exist: the test that caught each, if any."""
    known = {(file, _cell(what)): (file, what) for file, _, _, what in FAULTS}
    found: dict[Fault, str | None] = {}
    section = ""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        section = line if line.startswith("## ") else section
        cells = [cell.strip(" `") for cell in line.split("|")[1:-1]]
        if tuple(cells[:2]) in known and section != "## No verdict yet":
            found[known[cells[0], cells[1]]] = cells[2] if len(cells) > 2 else ""
    return found


def _cell(text: str) -> str:
    return text.replace("|", "\N{DIVIDES}")  # the bar ends a cell


def short(test: str) -> str:
    return re.sub(r"\[.*", "", test.removeprefix("tests/").removeprefix("rooms/"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="faults whose file or words contain this")
    parser.add_argument(
        "--undecided", action="store_true", help="those that the report has no verdict on"
    )
    parser.add_argument(
        "--near", action="store_true", help="only tests near the fault: none is found to survive"
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--report", type=Path, help="the page to merge verdicts into")
    options = parser.parse_args()
    verdicts = known_verdicts(options.report) if options.report else {}
    chosen = [
        i
        for i, (file, _, _, what) in enumerate(FAULTS)
        if (options.only in file or options.only in what)
        and not (options.undecided and (file, what) in verdicts)
    ]
    found = []
    for outcome in outcomes(chosen, options.workers, options.near):
        found.append(outcome)
        print(outcome, flush=True)
        if outcome.by or not (outcome.note or options.near):
            verdicts[outcome.file, outcome.what] = outcome.by
            if options.report:
                options.report.write_text(report(verdicts), encoding="utf-8")
    print(f"{sum(bool(o.by) for o in found)} of {len(found)} caught")
    return 0 if all(o.by for o in found) else 1


if __name__ == "__main__":
    sys.exit(main())
