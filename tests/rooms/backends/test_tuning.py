"""The search for a config finds what is fastest among what fits, without a GPU: its clock is ours to set."""

import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import attndsl
from attndsl.backends import Backend, Request, configs, protocol, tuning
from attndsl.backends.configs import Config
from attndsl.backends.tuning import climb, neighbours

START = Config(64, 64, 4, 2)
PASSES = ("forward", "backward_queries", "backward_keys")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTNDSL_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tuning, "_KNOWN", {})
    return tmp_path


def every(config: Config):
    """Configs that differ from the given one in one thing, however large."""
    for name in ("bq", "bk", "warps", "stages"):
        for factor in (0.5, 2):
            value = {**tuning.asdict(config), name: int(getattr(config, name) * factor)}
            if min(value.values()) >= 1:
                yield Config(**value)


def distance(config: Config, goal: Config) -> float:
    pairs = zip(tuning.asdict(config).values(), tuning.asdict(goal).values(), strict=True)
    return 1.0 + sum(abs(math.log2(a / b)) for a, b in pairs)


def test_it_climbs_to_the_cheapest():
    goal = Config(256, 32, 8, 4)
    best, known = climb(START, every, lambda config: distance(config, goal), most=100)
    assert best == goal
    assert known[best] == min(known.values()) == 1.0


def test_it_tries_no_more_than_it_may():
    tried = []
    climb(START, every, lambda config: tried.append(config) or 1 / len(tried), most=7)
    assert len(tried) == 7
    assert tried[0] == START


def test_what_cannot_run_is_not_chosen():
    best, _ = climb(START, every, lambda config: 1.0 if config == START else math.inf)
    assert best == START


def test_a_gain_within_noise_changes_nothing():
    cost = {START: 1.0}
    assert climb(START, every, lambda config: cost.get(config, 0.99))[0] == START
    assert climb(START, every, lambda config: cost.get(config, 0.9))[0] != START


def tensors(width: int = 16, length: int = 64, dtype: torch.dtype = torch.float16):
    make = torch.Generator().manual_seed(0)
    return [torch.randn(1, 2, length, width, generator=make).to(dtype) for _ in range(3)]


@pytest.mark.parametrize("arch", ["sm80", "sm86", "sm90", "sm100", "gfx942"])
@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("width", [30, 64, 128, 256])
def test_what_is_tried_fits(
    arch: configs.Arch, which: configs.Pass, width: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tuning, "architecture", lambda device: arch)
    q, _, v = tensors(width)
    start = configs.fitting(which, arch, 2, width, width)
    request = Request.of(q, q, v, gradient=True)
    around = neighbours(which, request)
    near = list(around(start))
    assert near, "there is something to choose"
    for config in {start, *near, *itertools.chain(*map(around, near))}:
        taken = configs.shared_memory(which, arch, config, 2, width, width)
        assert taken <= configs.SHARED_MEMORY[arch]
        assert tuning._fits(config, which, request), "the default is no worse than its neighbours"


def request_of(p: attndsl.Pattern, q: torch.Tensor, k: torch.Tensor | None = None) -> Request:
    k = q if k is None else k
    return Request.of(q, k, k, gradient=False, name=p._program.key)


def kernels(
    p: attndsl.Pattern, q: torch.Tensor, backend: Backend, k: torch.Tensor | None = None
) -> Any:
    """The passes of a back end over the whole pattern."""
    request = request_of(p, q, k)
    call = p._program.call(q.shape[2], request.k_len, 1, q.shape[1], None, {})
    (part,) = p._program.tiled(call, "natural", *backend.tiles(request))
    return backend.lower(part, request)


class Second:
    """A clock to which the second config that is tried seems the fastest, after one that fails."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, run) -> float:
        self.calls += 1
        if self.calls == 2:
            raise RuntimeError("out of resource: shared memory")
        run()
        return {1: 10.0, 3: 1.0}.get(self.calls, 5.0)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch):
    """(pattern, tensors, what was found) of a search that the clock leads astray."""
    triton = pytest.importorskip("attndsl.backends.triton")
    monkeypatch.setattr(climb, "__defaults__", (4,))
    p, (q, k, v) = attndsl.compile("causal"), tensors()
    (tuned,) = kernels(p, q, triton.Triton(clock=Second())).tune(q, k, v, scale=0.25)
    return p, (q, k, v), tuned


def test_the_fastest_is_used_and_found_by_later_processes(found, monkeypatch, folder: Path):
    p, (q, _k, _v), tuned = found
    assert (tuned.which, tuned.milliseconds, tuned.default_milliseconds) == ("forward", 1.0, 10.0)
    assert tuned.config != tuned.default
    assert tuned.tried == 4
    assert tuning.configured("forward", request_of(p, q)) == tuned.config
    monkeypatch.setattr(tuning, "_KNOWN", {})  # as in another process
    assert tuning.configured("forward", request_of(p, q)) == tuned.config
    longer = tensors(length=200)
    assert tuning.configured("forward", request_of(p, longer[0])) == tuned.default
    assert tuning.configured("backward_keys", request_of(p, q)) != tuned.config
    assert len(list((folder / "configs").iterdir())) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"bq": 48},
        {"bq": "64"},
        {"bq": True},
        {"bk": 16},
        {"warps": 0},
        {"stages": -1},
        {"more": 1},
        {"bq": 1 << 20},
    ],
    ids=str,
)
def test_an_entry_that_is_no_config_is_ignored(found, wrong, monkeypatch, folder: Path):
    """Even one whose hash is right: another version may have written it."""
    p, (q, _k, _v), tuned = found
    request = request_of(p, q)
    key = tuning._key("forward", request)
    assert tuning.cache.keep("configs", key, tuning.asdict(tuned.config) | wrong)
    monkeypatch.setattr(tuning, "_KNOWN", {})
    assert tuning.configured("forward", request) == tuned.default


def test_without_a_disk_what_was_found_lasts_as_long_as_the_process(monkeypatch, folder: Path):
    triton = pytest.importorskip("attndsl.backends.triton")
    (folder / "configs").write_text("a file where the folder should be")
    monkeypatch.setattr(climb, "__defaults__", (4,))
    p, (q, k, v) = attndsl.compile("causal"), tensors()
    (tuned,) = kernels(p, q, triton.Triton(clock=Second())).tune(q, k, v, scale=0.25)
    assert tuning.configured("forward", request_of(p, q)) == tuned.config != tuned.default


def test_the_whole_way_with_a_real_clock(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setattr(climb, "__defaults__", (3,))
    p = attndsl.compile("causal_window", w=20)
    q, k, v = (x.requires_grad_() for x in tensors(length=100, dtype=torch.float32))
    tuned = p.tune(q, k, v, backend="triton")
    assert [one.which for one in tuned] == list(PASSES)
    for one in tuned:
        assert str(one).startswith(one.which)
        assert one.milliseconds <= one.default_milliseconds
        assert one.tried == 3
    out, exact = (p(q, k, v, backend=name) for name in ("triton", "reference"))
    torch.testing.assert_close(out, exact)
    for mine, theirs in zip(
        *(torch.autograd.grad(x.sum(), (q, k, v)) for x in (out, exact)), strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_a_forward_of_few_queries_is_tuned_by_itself(monkeypatch):
    triton = pytest.importorskip("attndsl.backends.triton")
    monkeypatch.setattr(climb, "__defaults__", (4,))
    p, (_, k, v) = attndsl.compile("causal"), tensors(length=70)
    q = torch.randn(1, 4, 3, 16).half()
    (tuned,) = kernels(p, q, triton.Triton(clock=Second()), k).tune(q, k, v, scale=0.25)
    assert (tuned.which, tuned.tried) == ("forward", 4)
    assert tuned.config != tuned.default
    assert tuned.config.bq == tuned.default.bq == 4
    request = request_of(p, q, k)
    assert tuning.configured("few_queries", request) == tuned.config
    assert tuning.configured("forward", request) != tuned.config  # of a call that wants a gradient
    found = kernels(p, q, triton.Triton(), k)
    assert found.configs["forward"] == tuned.config
    exact = p(q, k, v, backend="reference")
    torch.testing.assert_close(found.forward(q, k, v, scale=0.25)[0], exact, atol=4e-3, rtol=4e-3)


def test_inputs_that_are_scheduled_on_a_device_are_tuned_too(monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setattr(climb, "__defaults__", (2,))
    monkeypatch.setattr(protocol, "SCHEDULING", {"cpu", "cuda"})
    p, (q, k, v) = attndsl.compile("documents"), tensors()
    doc = torch.arange(64)[None] // 9
    (tuned,) = p.tune(q, k, v, doc=doc, backend="triton")
    assert math.isfinite(tuned.default_milliseconds)


def test_each_config_that_may_be_found_gives_the_same_results():
    triton = pytest.importorskip("attndsl.backends.triton")
    p, (q, k, v) = attndsl.compile("pattern p = q - k < 30 and k <= q or k < 2"), tensors(length=70)
    exact = p(q, k, v, backend="reference")
    for config in neighbours("forward", request_of(p, q))(Config(32, 32, 4, 1)):
        one = triton.Triton(lambda *_, c=config: c)
        out, _ = kernels(p, q, one).forward(q, k, v, scale=0.25)
        torch.testing.assert_close(out, exact, atol=4e-3, rtol=4e-3)


def test_nothing_is_chosen_on_the_cpu_and_nothing_for_no_tokens():
    p, (q, k, v) = attndsl.compile("causal"), tensors()
    assert p.tune(q, k, v, backend="blocked") == ()
    assert p.tune(q, k, v, backend="reference") == ()
    pytest.importorskip("triton")
    assert p.tune(*(x[:, :, :0] for x in (q, k, v)), backend="triton") == ()


@pytest.mark.slow
def test_a_second_process_compiles_nothing(tmp_path: Path):
    """The kernel, the functions that the pattern became, and the types: for Triton all of them are the same again."""
    pytest.importorskip("triton")
    text = "input doc: int[pos]\npattern p = doc[q] == doc[k] and q - k < 30 or k < 2"
    call = {"target": "cuda:90", "head_dim": 64, "length": 64, "pattern": text}
    call |= {"passes": ["forward"], "inputs": {"doc": [i // 9 for i in range(64)]}}
    asked = [sys.executable, "-m", "tests.support.crosscompile", json.dumps([call])]
    found = []
    for seed in ("1", "2"):
        env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        env |= {"PYTHONHASHSEED": seed, "TRITON_CACHE_DIR": str(tmp_path / "triton")}
        root = Path(__file__).parents[3]
        done = subprocess.run(asked, capture_output=True, text=True, env=env, cwd=root, check=False)
        assert done.returncode == 0, done.stderr
        files = (tmp_path / "triton").rglob("*")
        found.append({path: path.stat().st_mtime_ns for path in files if path.is_file()})
    assert any(path.suffix == ".cubin" for path in found[0])
    assert found[0] == found[1]
