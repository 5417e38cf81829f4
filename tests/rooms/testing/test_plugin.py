"""The plugin in somebody else's repository: pytest runs in a fresh directory that knows nothing of ours."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[3]
KERNEL = """
import math, pytest, torch

def attend(q, k, v, call, extra=0):
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    i, j = torch.arange(q.shape[2])[:, None] + k.shape[2] - q.shape[2], torch.arange(k.shape[2])
    mask = (j <= i) & (i - j < 9 + extra)
    scores = (q @ k.mT * call.factor).masked_fill(~mask, -math.inf)
    empty = ~mask.any(-1, keepdim=True)
    out = scores.masked_fill(empty, 0.0).softmax(-1).masked_fill(empty, 0.0) @ v
    return out, scores.logsumexp(-1)
"""


@pytest.fixture
def elsewhere(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch):
    """Runs pytest there, with the plugin and no other: as if installed, whether or not it is."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(test: str, *options: str) -> pytest.RunResult:
        pytester.makepyfile(KERNEL + test)
        plugin = ("-p", "attndsl.testing.plugin", "-p", "no:cacheprovider", "--strict-markers")
        return pytester.runpytest_subprocess(*plugin, "-v", *options)

    return run


def test_a_right_kernel_passes_once_for_each_pattern(elsewhere):
    found = elsewhere(
        """
@pytest.mark.attndsl("causal_window", w=9)
@pytest.mark.attndsl("pattern mine = 0 <= q - k < 9")
def test_mine(attndsl_pattern, attndsl_judge):
    assert attndsl_pattern.mask(3).sum() == 6
    attndsl_judge(attend, dtype=[torch.float32, torch.float64], backward=False)
""",
        "--attndsl-calls=6",
    )
    found.assert_outcomes(passed=2)
    found.stdout.fnmatch_lines(
        ["*::test_mine?causal_window-w=9? PASSED*", "*::test_mine?pattern? PASSED*"]
    )


def test_a_wrong_kernel_fails_with_its_smallest_call(elsewhere):
    found = elsewhere(
        """
@pytest.mark.attndsl("causal_window", w=9)
def test_mine(attndsl_judge):
    attndsl_judge(lambda *given: attend(*given, extra=1), dtype=torch.float64, head_dim=4)
"""
    )
    found.assert_outcomes(failed=1)
    found.stdout.fnmatch_lines([
        "E  *AssertionError: causal_window: wrong, the kernel on cpu, out",
        "E  *call *q float64?1, 1, *, 4?*",
        "E  *note *the kernel sees this pair, the pattern says otherwise",
        "E  *again *assert_matches_dense(kernel, p, Case(q_len=*, k_len=10, *dtype=torch.float64*))",
    ])  # fmt: skip
    assert "fault_of" not in found.stdout.str(), "the traceback ends in the user's test"


def test_a_kernel_that_fails_is_shown_with_the_call(elsewhere):
    found = elsewhere(
        """
@pytest.mark.attndsl("causal_window", w=9)
def test_mine(attndsl_judge):
    attndsl_judge(lambda q, k, v, call: 1 / 0)
"""
    )
    found.stdout.fnmatch_lines(["*ZeroDivisionError*", "*attndsl: in the call Case(q_len=*"])


def test_the_example_of_the_documentation_runs(elsewhere):
    page = (ROOT / "docs/verification.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n# test_mine.py\n(.*?)```", page, re.DOTALL)
    found = elsewhere(code)
    found.assert_outcomes(passed=2)


def test_a_mark_that_is_missing_is_asked_for(elsewhere):
    found = elsewhere("def test_mine(attndsl_judge): pass\n")
    found.stdout.fnmatch_lines(
        ['*test_mine: say of which pattern: @pytest.mark.attndsl("causal")*']
    )


def test_pytest_finds_the_plugin_and_loading_it_costs_nothing():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (module,) = told["project"]["entry-points"]["pytest11"].values()
    heavy = "{'torch', 'hypothesis', 'lark', 'networkx'}"
    code = f"import sys, {module}; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
