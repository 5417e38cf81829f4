"""A plugin for pytest: a mark names a pattern or attention, a fixture judges a kernel by it.

    @pytest.mark.attndsl("causal_window", w=20)
    @pytest.mark.attndsl("documents_causal")
    def test_mine(attndsl_judge):
        attndsl_judge(lambda q, k, v, call: mine(q, k, v, scale=call.factor))

pytest imports this in every run where attndsl is installed: nothing here loads torch before it is used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from attndsl.attentions import Attention
    from attndsl.compiled import Pattern


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of this plugin."""
    group = parser.getgroup("attndsl", "attention kernels judged by patterns")
    group.addoption(
        "--attndsl-calls", type=int, default=25, metavar="N",
        help="how many calls a kernel is judged on, for each pattern; default 25",
    )  # fmt: skip
    group.addoption(
        "--attndsl-seed",
        type=int,
        default=0,
        metavar="N",
        help="of the calls; equal seeds, equal calls",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The mark, for `--strict-markers` and `pytest --markers`."""
    config.addinivalue_line(
        "markers",
        "attndsl(pattern, **values): a pattern or attention that `attndsl_pattern` and `attndsl_judge` are about, as"
        " attndsl.compile takes it; the test runs once for each mark",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each mark."""
    if "attndsl_pattern" not in metafunc.fixturenames:
        return
    marks = [*metafunc.definition.iter_markers("attndsl")][::-1]  # as they are written
    if not marks:
        name = metafunc.function.__name__
        raise pytest.UsageError(f'{name}: say of which pattern: @pytest.mark.attndsl("causal")')
    names = [_name(mark) for mark in marks]
    ids = [name if names.count(name) == 1 else f"{name}-{at}" for at, name in enumerate(names)]
    metafunc.parametrize("attndsl_pattern", marks, ids=ids, indirect=True)


def _name(mark: pytest.Mark) -> str:
    """The pattern as part of a test's name."""
    source = mark.args[0] if mark.args else ""
    name = str(getattr(source, "name", source))
    name = Path(name).name if "\n" not in name else ""
    values = [f"{name}={value}" for name, value in mark.kwargs.items()]
    return "-".join(
        [name if name.replace(".", "").replace(":", "").isidentifier() else "pattern", *values]
    )


@pytest.fixture
def attndsl_pattern(request: pytest.FixtureRequest) -> Pattern | Attention:
    """The compiled pattern or attention of the mark."""
    import attndsl

    mark: pytest.Mark = request.param
    pattern: Pattern | Attention = attndsl.compile(*mark.args, **mark.kwargs)
    return pattern


@pytest.fixture
def attndsl_judge(
    request: pytest.FixtureRequest, attndsl_pattern: Pattern | Attention
) -> Callable[..., None]:
    """``attndsl_judge(kernel, **options)``: ``attndsl.testing.sweep`` for what the mark names."""
    from attndsl.testing import sweep

    given: dict[str, Any] = {
        name: request.config.getoption(f"--attndsl-{name}") for name in ("calls", "seed")
    }
    return functools.partial(sweep, p=attndsl_pattern, **given)
