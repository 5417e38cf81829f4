"""The site names pages that exist, and builds without a warning or a word from the network."""

import html
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAV = re.findall(r"([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
PAGES = sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md"))
# The text of blocks as the button beside each copies it.
COPIED = """() => [...document.querySelectorAll(".md-content .highlight code")].map(code => {
  code.setAttribute("data-md-copying", "");
  return code.innerText;
}).join("")"""


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
        if module.startswith("attndsl.integrations."):  # imports a library that may not be here
            file = ROOT / f"{module.replace('.', '/')}.py"
            assert f"\ndef {attribute}(" in file.read_text(encoding="utf-8"), name
            continue
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), attribute), name


def test_every_public_name_is_in_the_reference():
    import attndsl

    pages = (ROOT / "docs" / "reference").glob("*.md")
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    assert [
        name for name in attndsl.__all__ if not re.search(rf"attndsl(\.\w+)*\.{name}\b", text)
    ] == []


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built once."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_the_site_is_whole_and_loads_nothing_from_elsewhere(site):
    from attndsl import patterns

    for name in patterns.published():
        page = (site / "gallery" / f"{name}.html").read_text(encoding="utf-8")
        assert "<svg" in page
        assert "Call it" in page
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|link|img|iframe)[^>]*?(?:src|href)="(https?:[^"]+)"', text)
        assert loaded == [], page
        assert page.parent.name == "source" or "```" not in re.sub(r"<code>.*?</code>", "", text), (
            page
        )
    found = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    titles = {each["title"] for each in found["docs"]}
    assert {"swin", "Pattern", "A first pattern"} <= titles


@pytest.mark.slow
def test_every_call_of_the_gallery_runs(site):
    for page in sorted((site / "gallery").glob("*.html")):
        text = html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))
        (call,) = re.findall(
            r"^import attndsl\n(?:import torch\n)?\n(?:shown|q, k).*?^out = .*?$",
            text,
            re.DOTALL | re.MULTILINE,
        )
        names: dict = {}
        exec(call, names)
        assert names["out"].isfinite().all(), page.name


@pytest.mark.slow
def test_pages_on_a_disk_are_searched(site):
    driver = pytest.importorskip("playwright.sync_api")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium here")
    with driver.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page, asked = browser.new_page(), []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "tutorials" / "index.html").as_uri())
        page.click("input[name=query]")
        page.keyboard.type("swin", delay=50)
        found = page.locator(".md-search-result__meta")
        driver.expect(found).to_contain_text("matching documents", timeout=30_000)
        page.goto((site / "tutorials" / "first_pattern.html").as_uri())
        copied = page.evaluate(COPIED)
        browser.close()
    assert "import attndsl\nfirst = attndsl.compile" in copied
    assert ">>>" not in copied
    assert all(url.startswith("file:") for url in asked)
