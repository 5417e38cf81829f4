"""Every example runs in seconds, is one idea with a `main`, and agrees with dense attention."""

import ast
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support.work import A_SECOND, within

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
CHECK = re.compile(r"^largest difference from dense attention: (\S+)$", re.MULTILINE)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Threads that wait for each other on a busy machine burn processor time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_agrees_with_dense_attention(
    path: Path, capsys: pytest.CaptureFixture[str]
):
    within(A_SECOND, runpy.run_path(str(path))["main"])
    (difference,) = CHECK.findall(capsys.readouterr().out)
    assert float(difference) < 1e-4  # float32, a few steps of training at most


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_script_that_says_what_it_shows(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)
    assert isinstance(tree.body[-1], ast.If), "ends in `if __name__ ...: main()`"
    assert re.match(r"\d\d_", path.name)


def test_there_are_examples():
    assert len(EXAMPLES) >= 8
