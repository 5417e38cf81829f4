"""The published forms of benchmarks/natives.py are what their patterns mean."""

import importlib
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[3] / "benchmarks"


def test_each_published_form_is_its_pattern(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(FOLDER)
    gaps = {}
    for native in importlib.import_module("native_rows").NATIVES:
        *leaves, dout = native.tiny.tensors(torch.float64)
        leaves = [x.requires_grad_() for x in leaves]
        found = []
        for run, options in (
            (native.published(native.tiny), {}),
            (native.ours(native.tiny), {"backend": "reference"}),
        ):
            out = run(*leaves, **options)
            found.append([out.detach(), *torch.autograd.grad(out, leaves, dout)])
        gaps[native.name] = max(float((x - y).abs().max()) for x, y in zip(*found, strict=True))
    assert len(gaps) >= 24
    assert not {name: gap for name, gap in gaps.items() if not gap < 1e-12}
