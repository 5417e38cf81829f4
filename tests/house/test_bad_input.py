"""Whatever is put in: a clear error within a second, and memory that stays flat."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

import attndsl
from attndsl import frontend
from attndsl.frontend import k, q
from attndsl.source import AttnDslError
from tests.support.work import A_SECOND, in_memory, within

N = 10_000
MOST_MEMORY = 150 << 20  # bytes that an action may add to what the process holds


def refused(code: str, action: Callable[[], object]) -> AttnDslError:
    """The error of that code, brought soon and without growing."""
    attndsl.compile("causal").mask(2)  # everything is loaded
    with pytest.raises(AttnDslError) as caught:
        in_memory(MOST_MEMORY, lambda: within(A_SECOND, action))
    assert len(str(caught.value)) < 20_000
    assert caught.value.code == code
    return caught.value


PROGRAMS = {
    "brackets": ("A103", "pattern p = " + "(" * N + "q" + ")" * N + " < k"),
    "not": ("A103", "pattern p = " + "not " * N + "q < k"),
    "minus": ("A103", "pattern p = " + "-" * N + "q < k"),
    "if": ("A103", "pattern p = " + "if q < k then true else " * N + "true"),
    "let": ("A103", "pattern p = " + "let a = 1: " * N + "q < k"),
    "any": ("A103", "pattern p = " + "any j in 0..2: " * N + "q < k"),
    "coordinates": ("A103", "grid g(y)\npattern p over g = q" + ".y" * N + " < k"),
    "indices": ("A103", "pattern p = q" + "[0]" * N + " < k"),
    "claims": ("A103", "pattern p = k <= q\n    assert " + "not " * N + "q < k"),
    "wide any": ("A105", "pattern p = any j in 0..1000000000000: q == j * k"),
    "wider any": ("A303", "pattern p = any j in 0..1000000000: q == j * k"),
    "huge number": ("A105", f"pattern p = q < {'9' * 100_000}"),
    "huge extent": ("A105", "grid g(y=1000000000000)\npattern p over g = q.y == k.y"),
    "huge extents": ("A209", "grid g(y=2000000000, x=2000000000)\npattern p over g = q.y == k.y"),
    "no text": ("A102", "pattern p = k <= q\0"),
    "long text": ("A102", "pattern p = k <= q # " + "x" * (20 << 20)),
    "long name": ("A102", "x" * (20 << 20)),
    "deep definitions": (
        "A304",
        "def f0(x: int) = x\n"
        + "".join(f"def f{i}(x: int) = f{i - 1}(x) + 1\n" for i in range(1, 1_000))
        + "pattern p = f999(q) < k",
    ),
    "wide definitions": (
        "A304",
        "def f0(x: int) = x\n"
        + "".join(
            f"def f{i}(x: int) = f{i - 1}(x // 3) + f{i - 1}(x % 7 + 1)\n" for i in range(1, 60)
        )
        + "pattern p = f59(q) < k",
    ),
    "negative window": ("A301", "pattern p = window(-1)"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_that_are_too_much(name):
    code, text = PROGRAMS[name]
    error = refused(code, lambda: attndsl.compile(text))
    if code != "A102":  # what is no text, or too long, is told by its name
        assert error.diagnostics[0].span is not None


def test_a_file_of_100_megabytes(tmp_path):
    path = tmp_path / "large.attn"
    with path.open("wb") as file:
        file.truncate(100 << 20)
    refused("A102", lambda: attndsl.compile(str(path)))
    (tmp_path / "main.attn").write_text('import "large.attn"\npattern p = k <= q')
    refused("A208", lambda: attndsl.compile(str(tmp_path / "main.attn")))


def test_python_forms_of_any_depth_compile_or_are_refused():
    refused("A303", lambda: attndsl.compile(frontend.any_(0, 10**12, lambda j: q == j * k)))
    deep = q
    for number in range(2_000):
        deep = abs(deep - number)
    pattern = in_memory(MOST_MEMORY, lambda: attndsl.compile(deep < k))
    assert "abs" in repr(pattern)


def test_extrema_within_each_other_are_not_multiplied_out():
    distance = q - k
    for number in range(40):
        distance = frontend.maximum(abs(distance - number), q) - k
    pattern = within(A_SECOND, lambda: attndsl.compile(distance < 5))
    assert pattern.mask(9)[0, 0, 8].tolist() == [farthest(8, key) < 5 for key in range(9)]


def farthest(query, key):
    """The same in plain numbers."""
    distance = query - key
    for number in range(40):
        distance = max(abs(distance - number), query) - key
    return distance


def test_conditions_within_each_other_need_no_stack():
    relation = q - k < 3
    for number in range(1_000):
        relation = (relation | (k == q - 2 * number)) & (k <= q + number)
    pattern = attndsl.compile(relation)
    distance = torch.arange(40)[:, None] - torch.arange(40)
    seen = (distance >= 0) & ((distance < 3) | (distance % 2 == 0))
    assert torch.equal(pattern.mask(40)[0, 0], seen)
    assert np.array_equal(pattern.schedule(40, tile=(8, 8)).cover(), seen.numpy())
    assert pattern.facts()["symmetric"] == "false"


SWIN = {"y": 10**12, "x": 10**12}
CALLS = {
    "length": ("A402", lambda: attndsl.compile("causal").schedule(10**30)),
    "long": ("A407", lambda: attndsl.compile("window", left=9).schedule(10**12)),
    "rectangle": ("A407", lambda: attndsl.compile("window", left=9).schedule(128, 10**12)),
    "many tiles": ("A407", lambda: attndsl.compile("causal").schedule(10**7)),
    "facts": ("A407", lambda: attndsl.compile("causal").facts(10**12)),
    "explain": ("A407", lambda: attndsl.compile("causal").explain(10**12)),
    "mask": ("A407", lambda: attndsl.compile("causal").mask(10**6)),
    "masks": ("A407", lambda: attndsl.compile("strided_by_head", s=3).mask(128, heads=1 << 20)),
    "heads": ("A402", lambda: attndsl.compile("causal").schedule(16, heads=10**9)),
    "fewer heads": ("A402", lambda: attndsl.compile("causal").mask(16, heads=-1)),
    "batch": ("A402", lambda: attndsl.compile("causal").mask(16, batch=10**9)),
    "extents": ("A401", lambda: attndsl.compile("swin").schedule(10**6, extents=SWIN)),
    "factors": ("A401", lambda: attndsl.compile("swin").mask(100, extents={"y": 9, "x": 9})),
    "no extents": ("A401", lambda: attndsl.compile("swin").mask(100)),
    "unknown axis": ("A401", lambda: attndsl.compile("swin").mask(100, extents={"z": 9})),
    "fraction": ("A401", lambda: attndsl.compile("swin").mask(9, extents={"y": 1.5, "x": 6})),
    "negative": ("A402", lambda: attndsl.compile("causal").schedule(-1)),
    "part": ("A402", lambda: attndsl.compile("causal").schedule(1.5)),
    "word": ("A402", lambda: attndsl.compile("causal").schedule("16")),
    "flag": ("A402", lambda: attndsl.compile("causal").schedule(True)),
    "tile": ("A402", lambda: attndsl.compile("causal").schedule(16, tile=(10**9, 10**9))),
    "token": ("A402", lambda: attndsl.compile("causal").receptive_field(16, 99)),
    "magnitude": ("A403", lambda: attndsl.compile("pattern p = q*q*q*q*q < k").schedule(10**6)),
    "any": (
        "A404",
        lambda: attndsl.compile("pattern p = any j in 0..len(k): j * j == q").mask(5_000),
    ),
    "any of rows": (
        "A404",
        lambda: attndsl.compile("pattern p = any j in 0..q * 1000000000: j * j == k").mask(10),
    ),
    "any of few rows": (
        "A404",
        lambda: attndsl.compile("pattern p = any j in 0..q * 1000: j * j == k")(QKV, QKV, QKV),
    ),
    "any of entries": (
        "A404",
        lambda: attndsl.compile("input n: int[1]\npattern p = (sum j in 0..n[0]: q % j) > k").mask(
            9, n=[10**9]
        ),
    ),
    "segments that descend": ("A301", lambda: attndsl.compile("segments", ends=[4, 3, 9])),
    "long segments that descend": (
        "A301",
        lambda: attndsl.compile("segments_causal", ends=[*range(4_000), 7]),
    ),
    "window": ("A301", lambda: attndsl.compile("window", left=-1)),
    "wide window": ("A211", lambda: attndsl.compile("window", left=1 << 62)),
    "half a window": ("A211", lambda: attndsl.compile("window", left=1.5)),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls_that_are_too_much(name):
    error = refused(*CALLS[name])
    if error.code in ("A301", "A404"):  # what the program says is told with its place
        assert error.diagnostics[0].span is not None


def test_facts_of_a_quantifier_that_cannot_be_tried():
    pattern = attndsl.compile(
        "pattern p = any j in 0..q * 1000000000: j * j == k\n    assert causal\n"
    )
    assert pattern.facts()["causal"] == "not decided"
    (judgement,) = pattern.claims()
    assert not judgement.ok
    assert "runs over" in str(judgement)


QKV = torch.zeros(2, 3, 16, 8)
IDS = torch.zeros(2, 16, dtype=torch.int64)
INPUTS = {
    "missing": {},
    "too short": {"doc": IDS[:, :15]},
    "too few dims": {"doc": IDS[0]},
    "another batch": {"doc": IDS[[0, 1, 0]]},
    "floats": {"doc": IDS.float()},
    "flags": {"doc": IDS.bool()},
    "complex": {"doc": IDS.to(torch.complex64)},
    "no data": {"doc": IDS.to("meta")},
    "sparse": {"doc": IDS.to_sparse()},
    "word": {"doc": "abc"},
    "nothing": {"doc": None},
    "ragged": {"doc": [[0], [0, 1]]},
    "past int64": {"doc": np.full((2, 16), 2**64 - 1, dtype=np.uint64)},
    "misspelt": {"docs": IDS},
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_inputs_that_do_not_fit(name, backend):
    documents = attndsl.compile("documents")
    refused("A501", lambda: documents(QKV, QKV, QKV, backend=backend, **INPUTS[name]))


TENSORS = {
    "three dims": ("A502", (QKV[0], QKV[0], QKV[0])),
    "head sizes": ("A502", (QKV, torch.zeros(2, 3, 16, 9), QKV)),
    "batches": ("A502", (QKV, QKV[:1], QKV[:1])),
    "heads": ("A502", (QKV, QKV[:, :2], QKV[:, :2])),
    "lengths": ("A502", (QKV, QKV, QKV[:, :, :15])),
    "ints": ("A503", (QKV.long(), QKV.long(), QKV.long())),
    "dtypes": ("A503", (QKV, QKV.double(), QKV)),
    "devices": ("A503", (QKV, QKV.to("meta"), QKV)),
    "arrays": ("A503", (QKV.numpy(), QKV, QKV)),
    "nothing": ("A503", (None, QKV, QKV)),
    "sparse": ("A503", (QKV.to_sparse(), QKV, QKV)),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_do_not_fit(name):
    code, tensors = TENSORS[name]
    refused(code, lambda: attndsl.compile("causal")(*tensors))


def test_a_scale_is_a_number():
    refused("A502", lambda: attndsl.compile("causal")(QKV, QKV, QKV, scale="1"))


@pytest.mark.parametrize("which", [0, 1, 2])
def test_nan_passes_through_as_in_sdpa(which):
    torch.manual_seed(0)
    tensors = [torch.randn(1, 2, 40, 8) for _ in range(3)]
    tensors[which][0, 0, 17, 3] = float("nan")
    out = attndsl.compile("causal")(*tensors)
    expected = torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=True)
    nan, theirs = out.isnan(), expected.isnan()
    assert theirs.any()
    assert not (nan & ~theirs).any()
    if which < 2:  # weights of zero times a NaN in v are SDPA's own affair
        assert torch.equal(nan, theirs)
    else:
        assert nan[0, 0, 17:, 3].all()
    assert torch.allclose(out[~theirs], expected[~theirs], atol=1e-5)
