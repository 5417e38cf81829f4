"""The GPU benchmark compares like with like: each mask_mod is the pattern that it stands beside."""

import runpy
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch

FOLDER = Path(__file__).parents[3] / "benchmarks"
with mock.patch.object(sys, "path", [str(FOLDER), *sys.path]):
    GPU = runpy.run_path(str(FOLDER / "gpu.py"), run_name="gpu")


@pytest.mark.parametrize(
    "contest", GPU["CONTESTS"], ids=lambda contest: contest.name.replace(" ", "-")
)
def test_a_mask_mod_is_the_pattern(contest):
    n = 6_144 if contest.name.startswith("video") else 2_048
    mask = contest.ours().mask(n, heads=2, extents=contest.extents(n), **contest.inputs(n))
    q, k = torch.arange(n)[:, None], torch.arange(n)
    for head in range(2 if contest.name == "bigbird" else 1):
        assert torch.equal(contest.mod(n)(0, head, q, k).expand(n, n), mask[0, head])


def test_a_page_is_made_of_what_was_found():
    times = {"attndsl": 1.0, "flex": 2.0, "sdpa causal": 4.0}
    row = {"live": 0.1, "live of causal": 0.5, "forward": times, "forward and backward": times}
    rows = {"causal, 8192, 64": row, "causal, 8192, 128": {"error": "OutOfMemoryError: ..."}}
    page = GPU["render"]({"gpu": "X", "rows": rows, "checks": {"a": "", "b": "dq: error"}})
    assert "| causal | 8192 | 64 | forward | 1.000 | 2.000 | 2.00 | 0.80 |" in page
    assert "OutOfMemoryError" in page
    assert "2 checks against float64, 1 failed." in page
