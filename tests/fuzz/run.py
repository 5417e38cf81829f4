"""Random programs until the time is up: `python tests/fuzz/run.py --minutes 10 [--seed N]`.

A program that fails is made small by hypothesis and saved under tests/fuzz/findings/, with the seed that
found it; `tests/fuzz/test_findings.py` runs what lies there in every test run.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import hypothesis  # noqa: E402 - the line above comes first
from hypothesis import HealthCheck, Phase, settings, strategies  # noqa: E402

from attndsl.testing import AttentionProgram, Program, attentions, programs  # noqa: E402
from tests.fuzz.checking import check_attention, check_program  # noqa: E402

FINDINGS = Path(__file__).parent / "findings"
Failed = tuple[Program | AttentionProgram, int]
ROUND = 40  # programs of one seed
SCORED = 4  # one seed in so many draws attentions
SHRINKING = 60  # seconds for making a program small

QUIET = settings(
    max_examples=ROUND,
    deadline=None,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


def run_round(seed: int, deadline: float) -> tuple[int, Failed | None, str]:
    """How many programs ran; the smallest that failed, with the number it was checked by, and how."""
    count = 0
    failed: Failed | None = None
    failures: dict[str, float] = {}  # programs, and when the first of them failed
    depth = 3 + seed % 3
    drawn = attentions(depth=depth) if seed % SCORED == 0 else programs(depth=depth)

    @hypothesis.seed(seed)
    @QUIET
    @hypothesis.given(drawn, strategies.integers(0, 999))
    def one(program: Program | AttentionProgram, number: int) -> None:
        nonlocal count, failed
        if failed is None and time.monotonic() > deadline:
            return
        shown = f"{program} {program.tables} {number}"
        begun = min(failures.values(), default=time.monotonic())
        if time.monotonic() > begun + SHRINKING and shown not in failures:
            return  # small enough; hypothesis runs the smallest once more
        count += 1
        try:
            if isinstance(program, Program):
                check_program(program, number)
            else:
                check_attention(program, number)
        except Exception:
            failed = program, number  # the last one that hypothesis shows is the smallest
            failures[shown] = time.monotonic()
            raise

    try:
        one()
    except Exception as error:  # noqa: BLE001 - a crash is a finding like any other
        where = traceback.extract_tb(error.__traceback__)[-1]
        return count, failed, f"{type(error).__name__}: {error}\n{where.filename}:{where.lineno}"
    return count, None, ""


def save(failed: Failed, seed: int, message: str) -> Path:
    FINDINGS.mkdir(exist_ok=True)
    path, (program, number) = FINDINGS / f"seed_{seed}.attn", failed
    call = f"{replace(program, text='')} {program.tables}, number {number}"
    said = "".join(f"# {line}\n" for line in [*message.splitlines()[:20], *call.splitlines()])
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
        count, failed, message = run_round(seed, deadline)
        programs_run += count
        if failed is not None:
            found += 1
            print(f"seed {seed}: {save(failed, seed, message)}\n{message}", flush=True)
        seed += 1
    print(f"seeds {options.seed}..{seed - 1}: {programs_run} programs, {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
