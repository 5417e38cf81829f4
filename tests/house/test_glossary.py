"""The glossary names what exists, and words that it replaced are not names any more."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = sorted(set(re.findall(r"`(attndsl\.[\w.]+)`", (ROOT / "docs/glossary.md").read_text())))
REPLACED = {
    "AtMost", "Bank", "DeviceLists", "Effort", "Equals", "Habit", "MaskBank", "Meeting", "Mistake",
    "Piece", "Price", "Refusal", "Shelf", "Strip", "TooDear", "Walk", "WorkList",
    "is_followed", "told_apart", "untraced",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_the_glossary_exists(name: str):
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)


def test_replaced_words_are_no_names():
    found = {
        f"{path.relative_to(ROOT)}: {node.name}"
        for path in (ROOT / "attndsl").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name in REPLACED
    }
    assert not found
