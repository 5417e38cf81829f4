"""Notebooks of the tutorials: the same words and code, as cells. A page is the source, so the two never differ."""

from __future__ import annotations

import doctest
import json
import re
from collections.abc import Iterator
from pathlib import Path

TUTORIALS = Path(__file__).parent / "tutorials"
_FENCE = re.compile(
    r"^```(?P<language>python|attn)\b(?P<info>[^\n]*)\n(?P<body>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)


def notebooks() -> dict[str, str]:
    """Every notebook by the name of its file, below ``docs``."""
    pages = sorted(page for page in TUTORIALS.glob("*.md") if page.stem != "index")
    return {f"notebooks/{page.stem}.ipynb": notebook(page.read_text("utf-8")) for page in pages}


def notebook(page: str) -> str:
    """A page as a notebook, format 4.5, without outputs: running it makes them."""
    cells = [_cell(number, *cell) for number, cell in enumerate(_cells(page))]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _cell(number: int, kind: str, source: str) -> dict[str, object]:
    made: dict[str, object] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
    made |= {"execution_count": None, "outputs": []} if kind == "code" else {}
    return made | {"source": source.strip("\n").splitlines(keepends=True)}


def _cells(page: str) -> Iterator[tuple[str, str]]:
    """Kinds and sources, in order."""
    last = 0
    for block in _FENCE.finditer(page):
        yield from _words(page[last : block.start()])
        last = block.end()
        name = re.search(r"file=(\S+)", block["info"])
        if block["language"] == "python":
            yield from (("code", source) for source in _statements(block["body"]))
        elif name:
            yield "code", f"%%writefile {name[1]}\n{block['body']}"
        else:
            yield "markdown", block[0]
    yield from _words(page[last:])


def _words(text: str) -> Iterator[tuple[str, str]]:
    """A cell of prose; links lead from the folder of notebooks, to notebooks where there is one."""
    if text.strip():
        yield "markdown", re.sub(r"\]\((\w+)\.md\)", r"](\1.ipynb)", text)


def _statements(body: str) -> Iterator[str]:
    """Cells of a block of code: each ends where something is shown."""
    if not body.lstrip().startswith(">>>"):
        yield body
        return
    gathered = ""
    for example in doctest.DocTestParser().get_examples(body):
        gathered += example.source
        if example.want:
            yield gathered
            gathered = ""
    if gathered:
        yield gathered
