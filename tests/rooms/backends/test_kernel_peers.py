"""Our loops carry no more than those of other kernels of the same tile."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="there is no compiler without triton"
)


def causal_case(width: int, length: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """q, k, v of 8 heads, and attention over them."""
    leaves = [torch.randn(1, 8, length, width) for _ in range(3)]
    return leaves, torch.nn.functional.scaled_dot_product_attention(*leaves, is_causal=True)


def test_the_rendered_template_is_attention(tmp_path: Path):
    pytest.importorskip("tests.support.kernel_peers", exc_type=ImportError)  # torch before 2.10
    from tests.support.kernel_peers import PATTERNS, flex_kernel

    length, blocks = 256, 2
    (q, k, v), want = causal_case(16, length)
    kernel = flex_kernel(tmp_path, PATTERNS["causal"], 16, (64, 32), length)
    lse, most, out = torch.empty(1, 8, length), torch.empty(1, 8, length), torch.empty_like(q)
    ones = torch.ones(1, 1, blocks, dtype=torch.int32)
    diagonal = torch.tensor([[[[0, 1], [1, 0]]]], dtype=torch.int32)
    before = torch.tensor([[[0, 1]]], dtype=torch.int32)
    kernel[(length // 64, 1, 8)](
        q, k, v, lse, most, ones, diagonal, before, torch.zeros_like(diagonal), out
    )
    torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-5)


def test_the_plain_kernel_is_attention():
    from tests.support.flash_kernel import flash

    length, width = 128, 16
    (q, k, v), want = causal_case(width, length)
    out, lse = torch.empty_like(q), torch.empty(8, length)
    strides = (length * width, width) * 4
    flash[(length // 64, 8)](
        q, k, v, out, lse, width**-0.5 * 1.4426950408889634, *strides, length, D=width, BQ=64, BK=32
    )
    torch.testing.assert_close(out, want, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cuda:80", "cuda:90", "cuda:100"])
def test_loops_are_no_longer_than_those_of_others(target: str):
    calls = [
        {"target": target, "pattern": pattern, "width": width}
        for pattern in ("causal", "pattern p = 0 <= q - k < 512")
        for width in (64, 128)
    ]
    for call, found in zip(calls, compared(calls), strict=True):
        ours = found.pop("ours")
        assert not ours["spills"], call
        for which, most in (("unmasked", 1.1), ("masked", 1.3)):
            loop, flex = ours[which], found["flex"][which]
            assert loop["matrix"] == flex["matrix"], call
            assert loop["instructions"] <= flex["instructions"], call
            if "flash" in found:  # knows its keys without reading which
                assert loop["instructions"] <= most * found["flash"][which]["instructions"], call


def compared(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In a process of its own: here, kernels are interpreted."""
    asked = [sys.executable, "-m", "tests.support.kernel_peers", json.dumps(calls)]
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    root = Path(__file__).parents[3]
    done = subprocess.run(asked, capture_output=True, text=True, cwd=root, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
