"""Files and functions stay small enough to be read in one sitting."""

import ast
import statistics
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "attndsl"
FILES = sorted(PACKAGE.rglob("*.py"))
MOST_LINES_OF_A_FILE = 600  # the goal is 400
MOST_LINES_OF_A_FUNCTION = 60
MOST_LINES_OF_A_MATCH = (
    90  # a function that is one `match`: an arm for each node, read one at a time
)
KERNELS = PACKAGE / "backends" / "kernels"  # a kernel is one function by nature


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> list[Function]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, Function)]


def body(function: Function) -> list[ast.stmt]:
    """The statements, without the docstring."""
    skip = ast.get_docstring(function) is not None and len(function.body) > 1
    return function.body[skip:]


def size(function: Function) -> int:
    """Lines of code: the `def` and its body."""
    statements = body(function)
    return statements[-1].end_lineno - statements[0].lineno + 2


def is_too_long(function: Function) -> bool:
    is_match = any(
        isinstance(statement, ast.Match)
        and statement.end_lineno - statement.lineno + 10 >= size(function)
        for statement in body(function)
    )
    return size(function) > (MOST_LINES_OF_A_MATCH if is_match else MOST_LINES_OF_A_FUNCTION)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_or_function_grows_beyond_reading(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES_OF_A_FILE
    if not path.is_relative_to(KERNELS):
        assert not [f"{f.name}: {size(f)} lines" for f in functions(path) if is_too_long(f)]


def test_the_typical_function_is_short():
    sizes = [size(function) for path in FILES for function in functions(path)]
    assert statistics.median(sizes) <= 10
