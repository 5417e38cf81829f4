"""Pages that the code writes say what the code says today; `make docs` writes them."""

import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

import attndsl
from attndsl import patterns

from . import asked

DOCS = Path(__file__).parents[2] / "docs"
GENERATOR = runpy.run_path(str(DOCS / "generate.py"))


def test_golden_pages_are_not_stale(golden: Callable[[Path, str], None]):
    for name, text in GENERATOR["pages"]().items():
        golden(DOCS / name, text)


def test_the_page_of_patterns_has_them_all_and_no_sample_is_left_over():
    text = (DOCS / "patterns.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### (\w+)$", text, re.MULTILINE)
    assert tuple(headings) == (*patterns.names(), *patterns.helpers())
    assert set(GENERATOR["SAMPLES"]) <= set(headings)


@pytest.mark.parametrize("name", patterns.names())
def test_a_pattern_of_the_page_is_scheduled_and_called_as_it_is_drawn(name: str):
    sample = GENERATOR["SAMPLES"].get(name, GENERATOR["Sample"]())
    p = attndsl.compile(name, **sample.values)
    given = {"extents": sample.extents, "inputs": sample.inputs}
    asked.check_call(p, sample.q_len, sample.k_len, sample.heads, **given)
    asked.check_drawn(p, seed=0)
