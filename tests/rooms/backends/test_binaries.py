"""Binaries of the kernels for GPUs that are not here: a chosen part of `make crosscheck`."""

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from attndsl.backends import configs

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="there is no compiler without triton"
)

ADDING = ("lists_merge", "lists_sum_queries", "lists_sum_keys")  # kernels without a product
CALLS = [
    {"target": "cuda:90", "head_dim": 128, "length": 500},
    {
        "target": "cuda:90",
        "head_dim": 64,
        "length": 512,
        "predicate": False,
        "longest": 1,
        "group": 3,
    },
    {  # not the default: what `tune` tries must fit, too
        "target": "cuda:90",
        "head_dim": 64,
        "length": 500,
        "passes": ["forward"],
        "predicate": False,
        "config": {"bq": 64, "bk": 128, "warps": 4, "stages": 2},
    },
    {  # what one side decides is dear: four quotients
        "target": "cuda:100",
        "head_dim": 128,
        "passes": ["forward"],
        "pattern": "swin",
        "length": 196,
        "extents": {"y": 14, "x": 14},
    },
    {  # the assembler would spill to have two programs at once
        "target": "cuda:100",
        "head_dim": 128,
        "passes": ["backward_queries"],
        "pattern": "dilated",
        "values": {"left": 8, "d": 4},
    },
    {"target": "cuda:80", "head_dim": 64, "passes": ["backward_keys"]},
    {"target": "hip:gfx942", "head_dim": 128, "passes": ["forward"]},
    {"target": "cuda:90", "head_dim": 64, "passes": ["forward"], "length": 500, "page": 64},
    {  # one new token, split over keys in pages that are shorter than a tile
        "target": "cuda:90",
        "head_dim": 128,
        "passes": ["forward"],
        "length": 1,
        "k_length": 500,
        "group": 4,
        "page": 16,
        "longest": 2,
        "gradient": False,
    },
    {
        "target": "cuda:80",
        "head_dim": 128,
        "passes": ["forward"],
        "pattern": "longformer",
        "length": 5,
        "k_length": 500,
        "group": 4,
        "page": 64,
        "gradient": False,
    },
    {"target": "cuda:90", "head_dim": 64, "passes": ["forward"], "attention": "alibi"},
    {"target": "cuda:90", "head_dim": 128, "lists": "documents"},
    {"target": "hip:gfx942", "head_dim": 64, "lists": "blocks"},
    {"target": "cuda:90", "head_dim": 128, "choice": 16},
]


def compiled(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In a process of its own: here, kernels are interpreted."""
    asked = [sys.executable, "-m", "tests.support.crosscompile", json.dumps(calls)]
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    root = Path(__file__).parents[3]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=root, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def reports() -> list[dict[str, Any]]:
    return compiled(CALLS)


def test_nothing_spills(reports: list[dict[str, Any]]):
    assert [item for item in reports if item["spills"]] == []


def test_shared_memory_is_what_the_model_says_at_most(reports: list[dict[str, Any]]):
    for item in reports:
        assert item["shared"] <= item.get("modelled", item["limit"]) <= item["limit"], item


def test_matrix_instructions_of_the_target_are_used(reports: list[dict[str, Any]]):
    wanted = {"cuda:80": "mma.sync", "cuda:90": "wgmma.mma_async", "cuda:100": "tcgen05.mma"}
    for item in reports:
        if item["kernel"] in ADDING:
            continue
        assert item["matrix"] > 0
        is_plain = item["queries"] < 16 or item["kernel"] == "choose_units"  # of float64
        instruction = "mma.sync" if is_plain else wanted.get(item["target"], "v_mfma")
        assert instruction in item["instructions"], item


def test_no_loop_divides(reports: list[dict[str, Any]]):
    for item in reports:
        assert not any(item.get("divisions", [])), item


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cuda:80", "cuda:90", "cuda:100", "hip:gfx942"])
@pytest.mark.parametrize(
    "attention", ["alibi", "capped", "sunk", "paired", "weighed", "dropped", "columns"]
)
def test_scores_of_ones_own_do_not_spill_either(target: str, attention: str):
    given = {"target": target, "attention": attention}
    # Triton 3.5 keeps two registers of one kernel in memory; newer ones do not.
    is_old = importlib.metadata.version("triton").startswith("3.5.")
    most = 8 if is_old and (target, attention) == ("cuda:80", "alibi") else 0
    for item in compiled([given | {"head_dim": head_dim} for head_dim in (64, 128)]):
        assert item["spills"] <= most, item
        assert item["matrix"] > 0
        if "modelled" in item:
            assert item["shared"] <= item["modelled"] <= item["limit"], item


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cuda:80", "cuda:90", "cuda:100", "hip:gfx942"])
def test_broken_sticks_do_not_spill(target: str):
    given = {"target": target, "stick": "biased"}
    found = compiled([given | {"head_dim": head_dim} for head_dim in (64, 128)])
    assert len(found) == 6
    for item in found:
        assert item["spills"] == 0, item
        assert item["matrix"] > 0
        assert item["shared"] <= item["limit"], item


@pytest.mark.parametrize("arch", ["sm80", "sm86", "sm90", "sm100", "gfx942"])
@pytest.mark.parametrize("which", ["forward", "backward_queries", "backward_keys"])
@pytest.mark.parametrize("size", [2, 4])
def test_a_config_is_found_that_fits(arch: configs.Arch, which: configs.Pass, size: int):
    for width in (16, 30, 64, 96, 128, 192, 256):
        for value_width in (16, 128, 256):
            config = configs.fitting(which, arch, size, width, value_width)
            if config is None:
                assert (arch, size, configs.padded(max(width, value_width))) == ("sm86", 4, 256)
                continue
            taken = configs.shared_memory(which, arch, config, size, width, value_width)
            assert taken <= configs.SHARED_MEMORY[arch]
            assert config.bq >= 16
            assert config.bk % 32 == 0
