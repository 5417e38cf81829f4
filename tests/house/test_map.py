"""CONTRIBUTING and the tests' own page name folders and files that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = {"CONTRIBUTING.md": [ROOT, ROOT / "attndsl"], "tests/README.md": [ROOT, ROOT / "tests"]}
NAMED = [
    (page, name)
    for page in PAGES
    for name in sorted(
        set(re.findall(r"`(\w[\w./]*(?:/|\.py|\.md|\.toml|\.attn))`", (ROOT / page).read_text()))
    )
]


@pytest.mark.parametrize(("page", "name"), NAMED)
def test_a_path_that_a_page_names_exists(page: str, name: str):
    pattern = re.sub(r"\bx\.", "*.", name)
    assert any(list(folder.glob(f"**/{pattern}".rstrip("/"))) for folder in PAGES[page])
