"""Every planted fault still has its place: the text that it replaces stands in its file, once."""

from pathlib import Path

import pytest

from tests.mutations.faults import FAULTS

PACKAGE = Path(__file__).parents[2] / "attndsl"


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_a_fault_can_be_planted(number: int):
    file, old, *_ = FAULTS[number]
    assert (PACKAGE / file).read_text(encoding="utf-8").count(old) == 1
