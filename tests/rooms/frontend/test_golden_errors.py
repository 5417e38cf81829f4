"""Errors of names and of values, every character: `x.attn` beside `x.err`, found by listing."""

from collections.abc import Callable
from pathlib import Path

import pytest

from attndsl import frontend
from attndsl import syntax as syn
from attndsl.source import AttnDslError

ROOT = Path(__file__).parents[2] / "golden" / "errors"
PROGRAMS = sorted(path for family in ("A2", "A3") for path in (ROOT / family).glob("*.attn"))


def elaborated(module: syn.Module, resolve: frontend.Resolve) -> object:
    is_attention = isinstance(module.declarations[-1], syn.Attention)
    read = frontend.elaborate_attention if is_attention else frontend.elaborate
    return read(module, resolve=resolve)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_golden_frontend_error(
    path: Path, golden: Callable[[Path, str], None], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(path.parent)  # so that errors show the bare name
    source = syn.read(path.name)
    with pytest.raises(AttnDslError) as caught:
        elaborated(syn.parse(source.text, source.name), frontend.files("."))
    assert caught.value.code.startswith(path.parent.name)
    assert all(each.labels for each in caught.value.diagnostics), "a fault without a place"
    golden(path.with_suffix(".err"), f"{caught.value}\n")


def test_golden_programs_and_texts_are_paired():
    assert PROGRAMS
    for family in ("A2", "A3"):
        texts = [path.stem for path in sorted((ROOT / family).glob("*.err"))]
        assert [path.stem for path in PROGRAMS if path.parent.name == family] == texts
