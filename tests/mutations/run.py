"""Plant a fault, run the tests, see whether one fails; then the next fault.

    python tests/mutations/run.py [--only TEXT] [--workers N] [--report docs/mutations.md]

Every fault is planted in a copy of the tree, so that the working tree stays as it is. Tests near the
fault run first; a fault survives when all of them pass.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.mutations.faults import FAULTS  # noqa: E402 - the line above makes it importable

# Where the tests of a room's faults are looked for, nearest first; then everything else in turn.
NEAR = {
    "analysis": ("analysis", "schedule"),
    "schedule": ("schedule",),
    "passes": ("passes", "frontend"),
    "ir": ("ir", "passes", "frontend"),
    "backends": ("backends", "op"),
    "op": ("op",),
    "compiler.py": ("op", "schedule"),
}
REST = (
    "passes",
    "ir",
    "analysis",
    "schedule",
    "op",
    "verification",
    "backends",
    "patterns",
    "frontend",
)
SECONDS = 900  # for the tests of one fault


@dataclass(frozen=True)
class Outcome:
    """``by`` is the first test that failed, or empty when all passed."""

    file: str
    what: str
    by: str
    seconds: float
    note: str = ""


def folders(file: str) -> tuple[list[str], list[str]]:
    """Where tests of the room are, and where all others are."""
    room = file.partition("/")[0]
    far = [name for name in REST if name not in NEAR[room]]
    near, rest = ([f"tests/rooms/{name}" for name in names] for names in (NEAR[room], far))
    return near, [*rest, "tests/laws"]


def copy(target: Path) -> None:
    for name in ("attndsl", "tests", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            skip = shutil.ignore_patterns("__pycache__", ".hypothesis")
            shutil.copytree(source, target / name, ignore=skip)
        else:
            shutil.copy(source, target / name)


def try_fault(fault: tuple[str, str, str, str]) -> Outcome:
    file, before, after, what = fault
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy(tree)
        path = tree / "attndsl" / file
        text = path.read_text(encoding="utf-8")
        if text.count(before) != 1:
            return Outcome(
                file, what, "", 0.0, f"stale: the text occurs {text.count(before)} times"
            )
        path.write_text(text.replace(before, after), encoding="utf-8")
        near, far = folders(file)
        by = first_failure(tree, near) or first_failure(tree, far)
    return Outcome(file, what, by, time.monotonic() - begin)


def failure_without_a_fault() -> str:
    """A test that fails in any case: with one, every fault would count as caught."""
    with tempfile.TemporaryDirectory() as folder:
        copy(Path(folder))
        near, far = folders("ir/")
        return first_failure(Path(folder), near + far)


def first_failure(tree: Path, paths: list[str]) -> str:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider"]
    command += ["-m", "not slow and not gpu", "--hypothesis-profile=ci", *paths]
    environment = os.environ | {
        "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"
    }  # fmt: skip
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no end within {SECONDS} s"
    if done.returncode == 0:
        return ""
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return found[1] if found else f"exit {done.returncode}"


def report(outcomes: list[Outcome]) -> str:
    caught = [o for o in outcomes if o.by]
    lines = [
        "# Planted faults", "",
        f"{len(outcomes)} faults planted one at a time, {len(caught)} caught. `make mutations` makes this page.",
        "",
    ]  # fmt: skip
    missed = [o for o in outcomes if not o.by]
    if missed:
        lines += ["## Not caught", "", "| file | fault | why |", "|---|---|---|"]
        lines += [f"| `{o.file}` | {o.what} | {o.note} |" for o in missed]
        lines.append("")
    lines += ["## Caught", "", "| file | fault | by |", "|---|---|---|"]
    lines += [f"| `{o.file}` | {o.what} | `{short(o.by)}` |" for o in caught]
    return "\n".join(lines) + "\n"


def short(test: str) -> str:
    return re.sub(r"\[.*", "", test.removeprefix("tests/").removeprefix("rooms/"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="faults whose file or words contain this")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    chosen = [f for f in FAULTS if options.only in f[0] or options.only in f[3]]
    if broken := failure_without_a_fault():
        print(f"{broken} fails before any fault is planted")
        return 2
    outcomes = []
    with ThreadPoolExecutor(options.workers) as pool:
        for outcome in pool.map(try_fault, chosen):
            outcomes.append(outcome)
            verdict = short(outcome.by) or outcome.note or "NOT CAUGHT"
            print(
                f"{outcome.seconds:6.1f} s  {outcome.file}: {outcome.what}: {verdict}", flush=True
            )
    print(f"{sum(bool(o.by) for o in outcomes)} of {len(outcomes)} caught")
    if options.report:
        options.report.write_text(report(outcomes), encoding="utf-8")
    return 0 if all(o.by for o in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
