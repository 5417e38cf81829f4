"""Check and timing of the kernels on a GPU, by one command of ten minutes at most.

    python benchmarks/gpu.py [--minutes 9.5] [--fresh] [--only causal] [--out FOLDER]

First every kernel against attention in float64, and whether repeated runs give equal bits; these run in
several processes, which also compile what is timed later. Then, one row at a time and the contestants by
turns: attndsl, compiled flex_attention on the same pattern, and the fastest dense causal SDPA, whose time
times the share of live tiles is the least that any kernel of that quality could take.

Each finished row is kept in benchmarks/results/<gpu>.json, and the next call goes on where this one
stopped. A row that failed is tried again; rows of other sources of attndsl are measured anew.
docs/performance.md is written from those files. ``--missing`` only names what must be installed first.

Exit status: 0 all is done (or there is no GPU here), 1 a kernel is wrong or a row failed, 2 time is up.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from report import page, results_in

ROOT = Path(__file__).parents[1]
NEEDED = ("torch", "triton", "numpy", "networkx", "lark")
LONGEST_STEP = 240.0  # seconds
PARALLEL_SHARE = 0.6  # of the time, at most, goes to what runs in parallel; the rest is for timing
KINDS = ("checks", "repeats", "rows", "latency", "score_checks", "score_rows")


class Worker:
    """A process that does one step after another; started when needed, and again if it died."""

    def __init__(self, rehearse: bool) -> None:
        self._rehearse = rehearse
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()

    def perform(self, line: str, end: float) -> dict[str, Any] | None:
        """The answer to a step, which may be the fault of its process; None if time ran out."""
        process = self._process or self._start()
        allowed = min(LONGEST_STEP, max(0.0, end - time.monotonic()))
        try:
            assert process.stdin is not None
            process.stdin.write(line)
            process.stdin.flush()
            answer = self._lines.get(timeout=allowed)
        except queue.Empty:
            self.stop()
            return {"fault": f"took over {LONGEST_STEP:.0f} s"} if allowed == LONGEST_STEP else None
        except OSError:
            answer = ""
        if not answer:
            self.stop()
            return {"fault": f"its process died, status {process.returncode}"}
        read: dict[str, Any] = json.loads(answer)
        if read["last"]:
            self.stop()
        found: dict[str, Any] = read["found"]
        return found

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> subprocess.Popen[str]:
        asked = [sys.executable, str(ROOT / "benchmarks" / "gpu_steps.py")]
        # one compile thread each: there are as many processes as there is work for
        env = os.environ | {"TORCHINDUCTOR_COMPILE_THREADS": "1"}
        if self._rehearse:
            asked, env = [*asked, "--rehearse"], env | {"TRITON_INTERPRET": "1"}
        pipe = subprocess.PIPE
        process = subprocess.Popen(asked, stdin=pipe, stdout=pipe, text=True, env=env)
        self._process, lines = process, queue.Queue()
        self._lines = lines

        def read() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.put(line)
            lines.put("")

        threading.Thread(target=read, daemon=True).start()
        return process


class Results:
    """The file of results, and the page; both are written after each step."""

    def __init__(self, path: Path, page: Path, about: dict[str, Any], fresh: bool) -> None:
        self._path, self._page = path, page
        self._lock = threading.Lock()
        self.kept: dict[str, Any] = {**about, "code": code()}
        earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if earlier.get("code", code()) != code():
            print("the sources have changed since the results were kept; starting anew")
        use = {} if fresh or earlier.get("code") != code() else earlier
        self.kept |= {kind: use.get(kind, {}) for kind in KINDS}
        self.write()

    def has(self, kind: str, label: str) -> bool:
        """Whether that is done, and went well."""
        return label in self.kept[kind] and "fault" not in self.kept[kind][label]

    def keep(self, kind: str, label: str, found: dict[str, Any]) -> None:
        """Note it, tell it, write it."""
        with self._lock:
            self.kept[kind][label] = found
            print(f"{kind:8} {label}: {told(found)}", flush=True)
            self.write()

    def write(self) -> None:
        """The file, replaced at once, and the page of all GPUs."""
        others = [found for path, found in results_in(self._path.parent) if path != self._path]
        for path, text in (
            (self._path, json.dumps(self.kept, indent=1) + "\n"),
            (self._page, page([*others, self.kept])),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(".draft")
            draft.write_text(text, encoding="utf-8")
            draft.replace(path)

    def faults(self) -> int:
        """How many steps went wrong."""
        return sum("fault" in found for kind in KINDS for found in self.kept[kind].values())


def told(found: dict[str, Any]) -> str:
    """In one line."""
    if "fault" in found:
        return f"FAULT: {found['fault']}"
    if not found:
        return "right"
    times = found.get("forward and backward", found)
    return ", ".join(f"{name} {value:g}" for name, value in times.items())


def code() -> str:
    """A hash of the sources that the numbers depend on."""
    made = hashlib.blake2b(digest_size=8)
    files = [*(ROOT / "attndsl").rglob("*"), *(ROOT / "benchmarks").glob("*.py")]
    for path in sorted(files):
        if path.suffix in {".py", ".attn", ".json", ".lark"}:
            made.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return made.hexdigest()


def measure(todo: Iterable[Any], results: Results, given: argparse.Namespace) -> bool:
    """Do what is left; False if time ran out."""
    from gpu_steps import line_of

    started = time.monotonic()
    end = started + 60 * given.minutes
    left = [
        step for step in todo if step.kind == "prepare" or not results.has(step.kind, step.label)
    ]
    wanted = {step.label for step in left if step.kind == "rows"}
    groups: dict[str, list[Any]] = {}
    for step in left:
        if step.kind in ("checks", "repeats", "score_checks") or (
            step.kind == "prepare" and step.label in wanted
        ):
            groups.setdefault(step.contest, []).append(step)
    timed = [step for step in left if step.kind in ("rows", "latency", "score_rows")]
    workers = {step.contest: Worker(given.rehearse) for step in left}
    in_time = True

    def parallel(name: str) -> None:
        nonlocal in_time
        until = started + 60 * given.minutes * (PARALLEL_SHARE if timed else 1.0)
        for step in groups[name]:
            if step.kind == "prepare" and time.monotonic() > until:
                return
            found = workers[name].perform(line_of(step), end)
            if found is None:
                in_time = False
                return
            if step.kind != "prepare":
                results.keep(step.kind, step.label, found)

    try:
        with ThreadPoolExecutor(given.workers) as pool:
            list(pool.map(parallel, groups))
        for step in timed:
            found = workers[step.contest].perform(line_of(step), end)
            if found is None:
                return False
            results.keep(step.kind, step.label, found)
    finally:
        for worker in workers.values():
            worker.stop()
    return in_time


def missing() -> list[str]:
    """Packages that have to be installed first."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def main() -> int:
    """Run what is left to do, and keep each result as it comes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=9.5)
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--only", default="", help="names of patterns, by commas")
    parser.add_argument("--workers", type=int, default=min(10, os.cpu_count() or 1))
    parser.add_argument("--out", type=Path, help="a folder for the results and the page")
    parser.add_argument("--missing", action="store_true", help="print what must be installed first")
    parser.add_argument("--rehearse", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.missing:
        print(*missing())
        return 0
    if missing():
        print(f"this needs {', '.join(missing())}; see `make gpu`")
        return 1
    import torch
    import triton
    from gpu_steps import ON_GPU, REHEARSAL, steps
    from machine import circumstances

    if not given.rehearse and not torch.cuda.is_available():
        print("there is no GPU here; nothing was measured")
        return 0
    gpu = "rehearsal" if given.rehearse else torch.cuda.get_device_name()
    assert given.out or not given.rehearse, "what is rehearsed must not be taken for a result"
    name = re.sub(r"[^a-z0-9]+", "-", gpu.lower())
    folder, docs = (given.out,) * 2 if given.out else (ROOT / "benchmarks/results", ROOT / "docs")
    about = {"gpu": gpu, "circumstances": circumstances() | {"triton": triton.__version__}}
    results = Results(folder / f"{name}.json", docs / "performance.md", about, given.fresh)
    todo = steps(REHEARSAL if given.rehearse else ON_GPU)
    chosen = given.only.split(",")
    if given.only:
        todo = [step for step in todo if step.contest in chosen]
    in_time = measure(todo, results, given)
    print((docs / "performance.md").read_text(encoding="utf-8"))
    if results.faults():
        print(f"{results.faults()} steps went wrong")
        return 1
    if not in_time:
        print("time is up; call again to go on")
    return 0 if in_time else 2


if __name__ == "__main__":
    sys.exit(main())
