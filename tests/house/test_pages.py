"""Pages that the code writes say what the code says today; `make docs` writes them."""

import re
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from attndsl import patterns

DOCS = Path(__file__).parents[2] / "docs"
GENERATOR = runpy.run_path(str(DOCS / "generate.py"))


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return GENERATOR["pages"]()


def test_golden_pages_are_not_stale(pages: dict[str, str], golden: Callable[[Path, str], None]):
    for name, text in pages.items():
        golden(DOCS / name, text)


def test_the_page_of_patterns_has_them_all_and_no_sample_is_left_over(pages: dict[str, str]):
    headings = re.findall(r"^### (\w+)$", pages["patterns.md"], re.MULTILINE)
    assert tuple(headings) == patterns.names()
    assert set(GENERATOR["SAMPLES"]) <= set(headings)
