"""Checks that docstrings and comments can be read alone: run by ``make lint``.

A docstring's first line opens with a verb or a noun phrase; no sentence of a docstring opens with a word that refers
to a neighbour, and no comment does.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

# A sentence that opens so finishes another one: its subject stands in the name beside it, or in the line above.
OPENERS: Final = ("Of", "Those", "These", "What", "As", "Which", "Likewise", "Others", "All that")
FOLDERS: Final = ("attndsl", "benchmarks", "examples", "tests", "docs")
_SENTENCE: Final = re.compile(
    rf"(?:^|[.:!?]\s+|\n\s*\n\s*)({'|'.join(OPENERS)})\b(?! (?:above|follows|a whole)\b)"
)


def complaints(path: Path) -> Iterator[tuple[int, str]]:
    """Yields (line, text) for every docstring and comment of a file that cannot be read alone."""
    text = path.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        docstring = ast.get_docstring(node)
        if docstring and _SENTENCE.search(docstring.partition("Args:")[0]):
            yield node.body[0].lineno, docstring.splitlines()[0]
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and re.match(
            rf"#:? ?({'|'.join(OPENERS)})\b", token.string
        ):
            yield token.start[0], token.string


def main() -> int:
    """Prints what is found, a line each, and returns the exit status."""
    root = Path(__file__).parents[2]
    found = [
        f"{path.relative_to(root)}:{line}: cannot be read alone: {text}"
        for folder in FOLDERS
        for path in sorted((root / folder).rglob("*.py"))
        for line, text in complaints(path)
    ]
    print("\n".join(found))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
