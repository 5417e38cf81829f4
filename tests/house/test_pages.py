"""Pages that the code writes say what the code says today; `make docs` writes them."""

import re
import runpy
from collections.abc import Callable
from pathlib import Path

from attndsl import patterns

DOCS = Path(__file__).parents[2] / "docs"
GENERATOR = runpy.run_path(str(DOCS / "generate.py"))


def test_golden_pages_are_not_stale(golden: Callable[[Path, str], None]):
    for name, text in GENERATOR["pages"]().items():
        golden(DOCS / name, text)


def test_the_page_of_patterns_has_them_all_and_no_sample_is_left_over():
    text = (DOCS / "patterns.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### (\w+)$", text, re.MULTILINE)
    assert tuple(headings) == patterns.names()
    assert set(GENERATOR["SAMPLES"]) <= set(headings)
