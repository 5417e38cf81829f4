"""Every error a user can meet has a golden text that shows it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CODE = re.compile(r"A[1-6](?!00)\d\d")  # A9 is ours: no program provokes it; A100 is a GPU


def codes_in_the_package() -> set[str]:
    """Codes that stand in the package as string literals."""
    literals = (
        node.value
        for path in (ROOT / "attndsl").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return {text for text in literals if CODE.fullmatch(text)}


def codes_in_golden_texts() -> set[str]:
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.err"))
    return {code for text in texts for code in re.findall(r"error\[(A\d{3})\]", text)}


def test_every_error_code_has_a_golden_text():
    assert sorted(codes_in_the_package() - codes_in_golden_texts()) == []


def test_no_golden_text_shows_a_code_that_is_gone():
    assert sorted(codes_in_golden_texts() - codes_in_the_package()) == []


def test_every_error_code_has_an_entry_that_explain_prints():
    page = (ROOT / "attndsl" / "cli" / "errors.md").read_text(encoding="utf-8")
    entries = re.findall(r"^## (A\d{3}): ", page, re.MULTILINE)
    assert entries == sorted(codes_in_the_package()), "see CONTRIBUTING, to add an error"
