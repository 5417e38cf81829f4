"""The right backend, or the reasons of all that declined."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from attndsl.backends import Request, choose, names, selection
from attndsl.source import AttnDslError

HERE = Path(__file__).parent
CPU = Request(torch.device("cpu"), torch.float32, 64, 64)


def test_a_cpu_call_runs_on_the_cpu_backend():
    assert choose(CPU).name == "blocked"
    assert choose(CPU, "blocked").name == "blocked"
    assert names() == ("blocked", "triton")


def test_all_reasons_are_given_when_none_can(
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    golden: Callable[[Path, str], None],
):
    monkeypatch.setattr(
        selection, "_BACKENDS", {**only_blocked(), "triton": ("attndsl.nowhere", "X")}
    )
    selection._load.cache_clear()
    request.addfinalizer(selection._load.cache_clear)
    with pytest.raises(AttnDslError) as caught:
        choose(Request(torch.device("meta"), torch.float32, 64, 64))
    golden(HERE / "golden" / "none.err", str(caught.value) + "\n")


def test_a_name_that_is_unknown_meets_a_suggestion(golden: Callable[[Path, str], None]):
    with pytest.raises(AttnDslError) as caught:
        choose(CPU, "bloked")
    golden(HERE / "golden" / "unknown.err", str(caught.value) + "\n")


def only_blocked() -> dict[str, tuple[str, str]]:
    return {"blocked": selection._BACKENDS["blocked"]}
