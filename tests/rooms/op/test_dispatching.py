"""A call is an operator for whoever follows operators, and computes the same where nobody does."""

import contextlib

import numpy as np
import pytest
import torch
from torch.overrides import BaseTorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import attndsl
from attndsl.compiler import Program
from attndsl.op.dispatching import needs_dispatcher


class Listener(TorchDispatchMode):
    """Notes the operators of ours that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if "attndsl" in str(func):
            self.heard.append(str(func))
        return func(*args, **(kwargs or {}))


class Marked(torch.Tensor):
    pass


def tensors(length: int = 40) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 2, length, 8).requires_grad_() for _ in range(3)]


def test_a_plain_call_is_followed_by_nobody():
    q, k, v = tensors()
    assert not needs_dispatcher(q, torch.nn.Parameter(k), v.detach())


@pytest.mark.parametrize("mode", [Listener, BaseTorchFunctionMode, torch.profiler.profile])
def test_modes_and_profilers_follow(mode):
    with mode():
        assert needs_dispatcher(*tensors())


@pytest.mark.parametrize(
    "other", [lambda x: x.as_subclass(Marked), lambda x: x.to("meta")], ids=["subclass", "meta"]
)
def test_other_tensors_are_followed(other):
    q, k, _ = tensors()
    assert needs_dispatcher(q, k, other(q.detach()))


def test_transforms_follow():
    seen = []
    torch.func.vmap(lambda x: (seen.append(needs_dispatcher(x)), x)[1])(torch.zeros(2, 3))
    assert seen == [True]


def test_traces_follow():
    seen = []
    torch.jit.trace(lambda x: (seen.append(needs_dispatcher(x)), x + 1)[1], torch.zeros(2))
    assert seen[0]


@pytest.mark.parametrize("program", ["causal", "pattern p = window(3) zeros max(0, 4 - q)"])
@pytest.mark.parametrize("hears", ["forward", "backward", "both"])
def test_both_ways_give_the_same_bits(program: str, hears: str):
    """And each pass by itself may be followed."""

    def run(listener: Listener | None) -> list[torch.Tensor]:
        silent = contextlib.nullcontext()
        forward = listener if listener and hears != "backward" else silent
        backward = listener if listener and hears != "forward" else silent
        q, k, v = tensors()
        with forward:
            out, lse = attndsl.compile(program)(q, k, v, return_lse=True)
        with backward:
            return [out, lse, *torch.autograd.grad(out.sum() + lse.sin().sum(), (q, k, v))]

    listener = Listener()
    for ours, theirs in zip(run(None), run(listener), strict=True):
        assert torch.equal(ours, theirs)
    names = {"forward": "attention", "backward": "attention_derivative"}
    wanted = [names[hears]] if hears in names else list(names.values())
    assert listener.heard == [f"attndsl.{name}.default" for name in wanted]


def test_a_profile_shows_the_operator():
    q, k, v = tensors()
    with torch.profiler.profile() as profile:
        attndsl.compile("causal")(q, k, v).sum().backward()
    names = {event.key for event in profile.key_averages()}
    assert {"attndsl::attention", "attndsl::attention_derivative"} <= names


def test_an_input_that_is_written_to_is_another_input():
    """Through a NumPy view, too, of which torch knows nothing."""
    q, k, v = (x.detach() for x in tensors())
    doc = torch.zeros(1, 40, dtype=torch.int64).expand(2, -1).contiguous()
    p = attndsl.compile("documents")
    whole = p(q, k, v, doc=doc)
    assert torch.equal(p(q, k, v, doc=doc), whole)
    doc.numpy()[:, 20:] = 1
    parted = p(q, k, v, doc=doc)
    assert not torch.equal(parted, whole)
    torch.testing.assert_close(parted, p(q, k, v, doc=doc, backend="reference"))
    assert torch.equal(p(q, k, v, doc=doc.int()), parted)


def test_the_backward_is_that_of_what_the_forward_computed():
    """Whatever was written to an input in between."""
    p, gradients = attndsl.compile("documents"), []
    for late in (0, 1):
        q, k, v = tensors()
        doc = (torch.arange(40) // 20).repeat(2, 1)
        out = p(q, k, v, doc=doc)
        doc.numpy()[:] *= 1 - late
        gradients.append(torch.autograd.grad(out.sin().sum(), (q, k, v)))
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)


def test_tiles_that_are_asked_for_later_are_those_of_the_input_as_it_was():
    doc, p = np.zeros((1, 64), dtype=np.int64), attndsl.compile("documents")
    call = p._program.call(64, 64, 1, 1, None, {"doc": doc})
    doc[:, 32:] = 1
    assert p._program.schedule(call, (16, 16)).cover().all()


def test_a_call_like_one_before_it_is_planned_no_more(monkeypatch):
    calls, call = [], Program.call
    monkeypatch.setattr(Program, "call", lambda *args: calls.append(args) or call(*args))
    p = attndsl.compile("pattern p = k <= q and q - k < 11")
    for count, length in ((1, 40), (1, 40), (2, 41), (2, 40)):
        q, k, v = tensors(length)
        p(q, k, v).sum().backward()
        assert len(calls) == count
