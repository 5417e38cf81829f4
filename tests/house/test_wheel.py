"""The wheel holds every data file and works far from the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # The build tool is installed with the `dev` extra, so building asks no index.
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=ROOT)
    (built,) = folder.glob("attndsl-*.whl")
    return built


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: Path):
    here = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "attndsl").rglob("*")
        if path.is_file()
        and path.suffix
        in {
            ".py",
            ".attn",
            ".json",
            ".lark",
            ".md",
            ".txt",
            ".typed",
            ".html",
            ".css",
            ".js",
            ".svg",
        }
    }
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert inside == here
    assert "attndsl/py.typed" in inside


def test_the_installed_wheel_works_in_an_empty_folder(wheel: Path, tmp_path: Path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    offline = ("--quiet", "--no-deps", "--no-index")
    run("-m", "pip", "install", *offline, "--target", str(site), str(wheel), cwd=tmp_path)
    script = (
        "import attndsl, pathlib; print(pathlib.Path(attndsl.__file__).parents[1]); "
        "[getattr(attndsl, name) for name in attndsl.__all__]"
    )
    assert run("-c", script, cwd=elsewhere, PYTHONPATH=str(site)) == str(site)
    said = run("-m", "attndsl", "--version", cwd=elsewhere, PYTHONPATH=str(site))
    assert said.startswith("attndsl ")
    said = run("-m", "attndsl", "explain", "A302", cwd=elsewhere, PYTHONPATH=str(site))
    assert said.startswith("A302: ")
