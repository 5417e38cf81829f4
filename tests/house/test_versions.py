"""The declared versions, those `make oldest` installs and those refused at run time agree."""

import re
import tomllib
from pathlib import Path

import pytest

from attndsl.backends.requirements import OLDEST_TORCH, check_torch

ROOT = Path(__file__).parents[2]


def numbers(version: str) -> tuple[int, ...]:
    """Without zeros at the end: 2.9 is 2.9.0."""
    return tuple(map(int, re.sub(r"(\.0)+$", "", version).split(".")))


def test_the_oldest_versions_are_those_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["triton"]]
    lowest = dict(re.match(r"(\w+)>=([\d.]+)", each).groups() for each in declared)
    text = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8")
    pinned = dict(re.findall(r"^(\w+)==([\d.]+)$", text, re.MULTILINE))
    assert {name: numbers(version) for name, version in pinned.items()} == {
        name: numbers(version) for name, version in lowest.items()
    }
    assert numbers(lowest["torch"]) == OLDEST_TORCH


@pytest.mark.parametrize("version", ["2.8.0", "2.8.1+cu128", "2.5.0a0+git", "1.13"])
def test_an_older_torch_is_refused_in_a_sentence(version: str):
    with pytest.raises(ImportError) as refusal:
        check_torch(version)
    assert str(refusal.value) == f"attndsl needs torch 2.9 or newer, and this is torch {version}"


def test_newer_ones_and_builds_of_vendors_are_not():
    for version in ("2.9.0", "2.9.0a0+50eac811a6.nv25.9", "2.10.0", "3.0", "of no number"):
        check_torch(version)
