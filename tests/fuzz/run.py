"""Random programs until the time is up: `python tests/fuzz/run.py --minutes 10 [--seed N]`.

A program that fails is made small by hypothesis and saved under tests/fuzz/findings/, with the seed that
found it; `tests/fuzz/test_findings.py` runs what lies there in every test run.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import hypothesis  # noqa: E402 - the line above comes first
from hypothesis import HealthCheck, Phase, settings  # noqa: E402

from attndsl.testing import Program, programs  # noqa: E402
from tests.fuzz.checking import check_program  # noqa: E402

FINDINGS = Path(__file__).parent / "findings"
ROUND = 40  # programs of one seed

QUIET = settings(
    max_examples=ROUND,
    deadline=None,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


def run_round(seed: int, deadline: float) -> tuple[int, Program | None, str]:
    """How many programs ran; the smallest that failed, and how."""
    count = 0
    failed: Program | None = None

    @hypothesis.seed(seed)
    @QUIET
    @hypothesis.given(programs(depth=3 + seed % 3))
    def one(program: Program) -> None:
        nonlocal count, failed
        if failed is None and time.monotonic() > deadline:
            return
        count += 1
        try:
            check_program(program, seed)
        except Exception:
            failed = program  # the last one that hypothesis shows is the smallest
            raise

    try:
        one()
    except Exception as error:  # noqa: BLE001 - a crash is a finding like any other
        return count, failed, f"{type(error).__name__}: {error}"
    return count, None, ""


def save(program: Program, seed: int, message: str) -> Path:
    FINDINGS.mkdir(exist_ok=True)
    path = FINDINGS / f"seed_{seed}.attn"
    said = "".join(f"# {line}\n" for line in message.splitlines()[:20])
    path.write_text(f"# found by seed {seed}\n{said}\n{program.text}", encoding="utf-8")
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    seed, programs_run, found = options.seed, 0, 0
    while time.monotonic() < deadline:
        count, program, message = run_round(seed, deadline)
        programs_run += count
        if program is not None:
            found += 1
            print(f"seed {seed}: {save(program, seed, message)}\n{message}", flush=True)
        seed += 1
    print(f"seeds {options.seed}..{seed - 1}: {programs_run} programs, {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
