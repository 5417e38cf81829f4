"""Calls that choose are one graph: what is chosen in it is chosen anew for each call."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import attndsl

PROGRAMS = {
    "each head": "select near over blocks(8) = dot(q, mean(k)) where block < q // 8 take top 2",
    "groups, by blocks of queries": (
        "select near over blocks(8) for blocks(16) per group = sum over group: dot(mean(q), mean(k)) take top 3"
    ),
    "inputs, for all heads": (
        "input w: real[batch, pos]\nselect near per heads = w[k] where k <= q take top 5"
    ),
}


def pattern(name: str) -> attndsl.Pattern:
    return attndsl.compile(f"{PROGRAMS[name]}\npattern p = k <= q and k in near[q]")


def tensors(seed: int) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    torch.manual_seed(seed)
    made = [torch.randn(2, heads, 40, 8, requires_grad=True) for heads in (4, 2, 2)]
    return made, {"w": torch.rand(2, 40)}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_call_that_chooses_compiles_as_one_graph(name: str):
    p = pattern(name)
    wanted = {"w"} if "inputs" in name else set()

    @torch.compile(backend="aot_eager", fullgraph=True)
    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, inputs: dict) -> torch.Tensor:
        return p(q, k, v, **inputs).sin()

    for seed in (0, 1):
        given, inputs = tensors(seed)
        inputs = {key: inputs[key] for key in wanted}
        mine, theirs = call(*given, inputs), p(*given, **inputs).sin()
        assert torch.equal(mine, theirs)
        grads = [torch.autograd.grad(x.sum(), given) for x in (mine, theirs)]
        assert all(map(torch.equal, *grads))


@pytest.mark.parametrize("mode", ["real", "fake"])
def test_make_fx_traces_the_choice_as_an_operator(mode: str):
    p, (q, k, v) = pattern("each head"), [x.detach() for x in tensors(0)[0]]

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return p(q, k, v)

    graph = make_fx(call, tracing_mode=mode)(q, k, v)
    assert any("choose" in str(node.target) for node in graph.graph.nodes)
    q, k, v = (x.detach() for x in tensors(1)[0])
    assert torch.equal(graph(q, k, v), p(q, k, v))


def test_selections_that_a_process_does_not_know_are_refused():
    q, k = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    with pytest.raises(attndsl.AttnDslError, match="has not compiled"):
        torch.ops.attndsl.choose(q, k, [], "", 3, 1.0)
