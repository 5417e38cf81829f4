"""A call like an earlier one is asked little, and is the call of the oracle all the same."""

import gc
import weakref

import pytest
import torch

import attndsl
from attndsl.op import repeated
from attndsl.source import AttnDslError
from tests.support.functions import functions_of

TEXT = """
input doc: int[batch, pos]
pattern p = doc[q] == doc[k] and k <= q
"""
N = 80


def tensors(dtype: torch.dtype = torch.float64, n: int = N, dim: int = 8) -> list[torch.Tensor]:
    make = torch.Generator().manual_seed(0)
    return [torch.randn(2, 2, n, dim, dtype=dtype, generator=make) for _ in range(3)]


def documents() -> torch.Tensor:
    return torch.arange(N).div(30, rounding_mode="floor").expand(2, N).clone()


def agrees(pattern: attndsl.Pattern, args: list[torch.Tensor], **given):
    found = pattern(*args, return_lse=True, **given)
    right = pattern(*args, return_lse=True, **given | {"backend": "reference"})
    torch.testing.assert_close(found, right)


def test_what_a_call_holds_is_looked_at_each_time():
    p, args, doc = attndsl.compile(TEXT), tensors(), documents()
    agrees(p, args, doc=doc)
    doc[:, 40:] = 7
    agrees(p, args, doc=doc)
    doc.numpy()[1, 20:] = 9  # of which torch knows nothing
    agrees(p, args, doc=doc)


@pytest.mark.parametrize(
    "other",
    [{"scale": 0.3}, {"backend": "blocked"}, {"layout": "natural"}],
    ids=lambda other: next(iter(other)),
)
def test_options_tell_calls_apart(other: dict):
    p, args, doc = attndsl.compile(TEXT), tensors(), documents()
    for given in ({}, other, {}, other):
        agrees(p, args, doc=doc, **given)


def test_dtypes_lengths_extents_and_gradients_tell_calls_apart():
    p = attndsl.compile("axial2d", axis=0)
    for args in (tensors(), tensors(torch.float32), tensors(n=40), tensors(dim=4), tensors()):
        for x in (10, 8, 10):
            if args[0].shape[2] % x == 0:
                agrees(p, args, extents={"x": x, "y": args[0].shape[2] // x})
    leaves = [x.requires_grad_() for x in tensors()]
    found = []
    for backend in ("auto", "auto", "reference"):
        out = p(*leaves, extents={"x": 10, "y": 8}, backend=backend)
        found.append(torch.autograd.grad(out.sin().sum(), leaves))
    for first, again, right in zip(*found, strict=True):
        assert torch.equal(first, again)
        torch.testing.assert_close(first, right)


SIZES = {"x": 1, "y": N}


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ({"scale": 1.0}, {"scale": True}),
        ({"extents": SIZES}, {"extents": SIZES | {"x": True}}),
        ({"extents": SIZES}, {"extents": [1]}),
        ({"extents": SIZES}, {"extents": SIZES, "backend": ["auto"]}),
        ({"extents": SIZES}, {"extents": SIZES, "doc": 3}),
    ],
    ids=str,
)
def test_a_repeated_call_refuses_what_the_first_would(right: dict, wrong: dict):
    def outcome() -> str:
        try:
            return str(pattern(*tensors(), **wrong).sum())
        except (AttnDslError, TypeError) as error:
            return str(error)

    name, values = ("axial2d", {"axis": 0}) if "extents" in right else ("causal", {})
    pattern = attndsl.compile(name, **values)
    first = outcome()
    pattern(*tensors(), **right)
    assert outcome() == first


def test_a_repeated_call_takes_the_short_way_while_its_plan_is_kept(monkeypatch):
    p, args = attndsl.compile("causal_window(77)"), tensors()  # no other test remembers calls of it
    first = p(*args)
    taken = []
    plain = repeated.run
    monkeypatch.setattr(repeated, "run", lambda *given: taken.append(1) or plain(*given))
    assert torch.equal(p(*args), first)
    assert torch.equal(p.bind(N, heads=2, batch=2)(*args), first)
    assert taken == [1]  # a bound call keeps plans of its own
    kept = weakref.ref(next(iter(p._planner._ready._found.values()))[0][0]())
    p._planner.memo = type(p._planner.memo)(4)
    gc.collect()
    assert kept() is None, "the plan outlives its memory"
    assert torch.equal(p(*args), first)


@pytest.mark.parametrize("name", ["full", "causal"])
def test_a_repeated_call_passes_through_few_functions(name: str):
    p, args = attndsl.compile(name), tensors()
    with torch.no_grad():
        p(*args)
        called = functions_of(lambda: p(*args))
    assert len(called) <= 32, called
