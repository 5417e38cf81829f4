"""Every planted fault still has its place: the text that it replaces stands in its file, once."""

from pathlib import Path

import pytest

from tests.mutations.faults import FAULTS

PACKAGE = Path(__file__).parents[2] / "attndsl"


@pytest.mark.parametrize(("file", "old"), [(file, old) for file, old, _, _ in FAULTS])
def test_a_fault_can_be_planted(file: str, old: str):
    assert (PACKAGE / file).read_text(encoding="utf-8").count(old) == 1
