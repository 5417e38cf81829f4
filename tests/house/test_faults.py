"""Every planted fault still has its place: the text that it replaces stands in its file, once."""

from pathlib import Path

import pytest

from tests.mutations.faults import FAULTS
from tests.mutations.near import paths

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "attndsl"


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_a_fault_can_be_planted(number: int):
    file, old, new, _ = FAULTS[number]
    text = (PACKAGE / file).read_text(encoding="utf-8")
    assert text.count(old) == 1
    if file.endswith(".py"):  # a wrong program, not a broken one
        compile(text.replace(old, new), file, "exec")


@pytest.mark.parametrize("file", sorted({file for file, *_ in FAULTS}))
def test_a_fault_meets_tests_that_are_there(file: str):
    for group in paths(file, near=False):
        assert all((ROOT / test).exists() for test in group)
