"""The floors hold, every room has its door, and thinking needs no tensor library."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "attndsl"
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
TENSOR_ROOMS = {
    "backends",
    "cli",
    "editing",
    "explorer",
    "export",
    "integrations",
    "interop",
    "library",
    "op",
    "selecting",
    "verification",
    "testing",
}  # floor 5 and up
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
    "importlinter"
]["contracts"]


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)


def test_the_import_contracts_are_kept():
    beside = Path(sys.executable).parent / "lint-imports"
    done = run(str(beside), "--no-cache")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("room", ROOMS)
def test_outsiders_enter_a_room_by_its_door_only(room: str):
    protected = [contract.get("protected_modules", []) for contract in CONTRACTS]
    assert [f"attndsl.{room}.*"] in protected, f"add a contract door-{room} to pyproject.toml"


def test_every_room_below_the_backends_is_a_thinking_room():
    thinking = next(contract for contract in CONTRACTS if contract["id"] == "thinking")
    listed = {name.removeprefix("attndsl.") for name in thinking["source_modules"]}
    assert listed == set(ROOMS) - TENSOR_ROOMS


def test_every_room_is_on_the_map():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [−\d½]+ \| (.+?) \|", text, re.MULTILINE)
    on_the_map = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert set(ROOMS) <= on_the_map


@pytest.mark.parametrize("room", ROOMS)
def test_a_door_lists_what_it_gives_and_says_what_it_is(room: str):
    door = importlib.import_module(f"attndsl.{room}")
    assert door.__all__, "an empty door"
    assert len(set(door.__all__)) == len(door.__all__)
    missing = [name for name in door.__all__ if not hasattr(door, name)]
    assert not missing
    given = {name: getattr(door, name) for name in door.__all__}
    silent = [
        name
        for name, value in given.items()
        if (inspect.isfunction(value) or inspect.isclass(value)) and not value.__doc__
    ]
    assert not silent, f"no docstring: {silent}"


def test_every_public_name_resolves():
    door = importlib.import_module("attndsl")
    assert len(set(door.__all__)) == len(door.__all__)
    assert set(door._HOMES) == set(door.__all__) - {"__version__"}
    for name in door.__all__:
        assert getattr(door, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = door.nonsense


def test_type_checkers_see_every_public_name():
    """The lazy door imports under TYPE_CHECKING what it gives by a table."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    imports = [
        node
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
    ]
    seen = {alias.asname or alias.name for node in imports for alias in node.names}
    assert seen == set(importlib.import_module("attndsl")._HOMES)


def test_thinking_loads_no_tensor_library_and_nothing_slow():
    rooms = [room for room in ROOMS if room not in TENSOR_ROOMS]
    heavy = {"torch", "triton", "hypothesis", "matplotlib", "networkx"}
    script = (
        f"import sys, attndsl\nfor room in {rooms!r}: __import__('attndsl.' + room)\n"
        f"print(sorted({heavy!r} & set(sys.modules)))"
    )
    done = run(sys.executable, "-c", script)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
