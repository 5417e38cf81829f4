"""The site names pages that exist, and builds without a warning or a word from the network."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAV = re.findall(r"([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
PAGES = sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md"))


def test_every_page_has_its_place_in_the_navigation():
    assert sorted(NAV) == PAGES
    assert len(set(NAV)) == len(NAV)


def test_every_directive_of_the_reference_names_something():
    import importlib

    pages = (ROOT / "docs" / "reference").glob("*.md")
    for name in (
        each
        for page in pages
        for each in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
    ):
        module, _, attribute = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), attribute), name


@pytest.mark.slow
def test_the_site_builds_and_is_whole(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    from attndsl import patterns

    for name in patterns.published():
        page = (tmp_path / "gallery" / f"{name}.html").read_text(encoding="utf-8")
        assert "<svg" in page
        assert "Call it" in page
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|link|img|iframe)[^>]*?(?:src|href)="(https?:[^"]+)"', text)
        assert loaded == [], page
    found = json.loads((tmp_path / "search" / "search_index.json").read_text(encoding="utf-8"))
    titles = {each["title"] for each in found["docs"]}
    assert {"swin", "Pattern", "A first pattern"} <= titles
