"""Hypothesis profiles, the `--update-golden` option, and the gate before `gpu` tests.

Where there is no GPU, kernels run in Triton's interpreter, which must be chosen before triton is imported.
"""

import functools
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # workers share the cores: more threads than those only wait
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRITON_INTERPRET", "1")
os.environ["ATTNDSL_CACHE_DIR"] = ""  # what this user's machine remembers is no part of a test

# Deadlines are off, and so is `too_slow`: a shared machine that pauses is no defect of ours.
# `differing_executors`: the back ends share one test class, which each of them inherits.
_QUIET = [HealthCheck.differing_executors, HealthCheck.too_slow]
_COMMON = {"deadline": None, "suppress_health_check": _QUIET}
settings.register_profile("dev", max_examples=25, **_COMMON)
settings.register_profile("ci", max_examples=35, derandomize=True, **_COMMON)
# A planted fault is to be found, not understood: nothing is made small.
_FOUND = (Phase.explicit, Phase.generate)
settings.register_profile("mutations", max_examples=50, derandomize=True, phases=_FOUND, **_COMMON)
settings.register_profile("nightly", max_examples=5_000, **_COMMON)
settings.load_profile("dev")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="write the expected texts instead of comparing"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu") and not _has_device():
            item.add_marker(pytest.mark.skip(reason="needs a GPU, and torch sees none"))


@functools.cache
def _has_device() -> bool:
    import torch  # only when a `gpu` test was collected at all

    return torch.cuda.is_available()


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """``golden(path, text)``: the file says exactly this text (or, updating, from now on does)."""
    updating = request.config.getoption("--update-golden")

    def check(path: Path, text: str) -> None:
        if updating:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path} is missing; `make golden` writes it"
        assert text == path.read_text(encoding="utf-8")

    return check
