"""The oracles themselves: they stand alone and say something."""

import ast
from pathlib import Path

import numpy as np
import pytest

from attndsl import oracles
from attndsl.oracles import ORACLES, Oracle

FOLDER = Path(oracles.__file__).parent
ALLOWED = {
    "__future__",
    "collections",
    "dataclasses",
    "inspect",
    "math",
    "numpy",
    "typing",
}
each_oracle = pytest.mark.parametrize("oracle", ORACLES, ids=lambda oracle: oracle.id)


def imports(path: Path) -> set[str]:
    """The top-level packages that a file imports; "." is its own room."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names.add("." * node.level or (node.module or "").partition(".")[0])
    return names


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_an_oracle_shares_no_code_with_the_package(path: Path):
    assert imports(path) <= ALLOWED | {"."}
    assert "attndsl" not in path.read_text(encoding="utf-8")


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
