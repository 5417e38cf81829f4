"""The oracles themselves: they stand alone, keep to their table, and say something."""

import ast
import inspect
import re
from pathlib import Path

import numpy as np
import pytest

from tests.library.oracles import ORACLES, Oracle

FOLDER = Path(__file__).parent / "oracles"
ALLOWED = {"collections", "dataclasses", "inspect", "itertools", "math", "numpy", "typing"}
each_oracle = pytest.mark.parametrize("oracle", ORACLES, ids=lambda oracle: oracle.id)


def imports(path: Path) -> set[str]:
    """Imports of a file: top-level packages, and whole paths inside ``tests``."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name if name.startswith("tests") else name.partition(".")[0] for name in names}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_an_oracle_shares_no_code_with_the_package(path: Path):
    foreign = {name for name in imports(path) if not name.startswith("tests.library.oracles")}
    assert foreign <= ALLOWED
    assert "attndsl" not in path.read_text(encoding="utf-8")
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 600


@each_oracle
def test_the_cases_are_few_and_give_a_mask(oracle: Oracle):
    assert 2 <= len(oracle.cases) <= 6
    for case in oracle.cases:
        mask = oracle.expected(case)
        assert mask.dtype == np.bool_
        assert mask.shape[:2] == (case.batch, case.heads)
        assert mask.ndim == 4
        assert mask.size


@each_oracle
def test_no_oracle_says_yes_or_no_to_everything(oracle: Oracle):
    said = np.concatenate([oracle.expected(case).ravel() for case in oracle.cases])
    assert said.any()
    assert said.all() == oracle.dense


@each_oracle
def test_one_case_has_a_short_axis_and_one_does_not(oracle: Oracle):
    """Edges: somewhere an axis of length 1 (or the shortest that the pattern allows)."""
    shortest = [min(case.extents.values()) for case in oracle.cases]
    assert min(shortest) <= 3


@each_oracle
def test_a_causal_oracle_never_looks_ahead(oracle: Oracle):
    masks = [oracle.expected(case) for case in oracle.cases]
    ahead = any(np.triu(mask, k=1 + mask.shape[3] - mask.shape[2]).any() for mask in masks)
    square = all(mask.shape[2] == mask.shape[3] for mask in masks)
    assert oracle.causal != ahead or not square


def table() -> list[list[str]]:
    lines = (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if re.fullmatch(r"\d{3}", row[0])]


def test_the_table_of_the_readme_lists_every_oracle_and_its_arguments():
    told = {(int(row), what, tuple(re.findall(r"\w+", takes))) for row, what, takes, _ in table()}
    known = {
        (
            oracle.row,
            oracle.name + (f" · {oracle.part}" if oracle.part else ""),
            tuple(
                name
                for name in inspect.signature(oracle.rule).parameters
                if name not in {"head", "heads", "layer"}
            ),
        )
        for oracle in ORACLES
    }
    assert told == known
