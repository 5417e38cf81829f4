"""Modules: what their state holds, copies and traces of them, heads of a rank."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import attndsl
from attndsl.nn import PatternAttention, PatternSelfAttention

DIM, HEADS, LENGTH = 16, 4, 12
MIXED = "pattern mixed = causal and (head >= heads // 2 or q - k < 3)"


def x(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self, pattern=MIXED):
        super().__init__()
        self.attention = PatternSelfAttention(pattern, DIM, HEADS, kv_heads=2)

    def forward(self, x):
        return self.attention(x) + 1


def saved(net):
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_a_state_dict_is_loaded_by_the_pattern_that_it_knows():
    trained, same = Net(), Net("causal and (if head < heads // 2 then q - k < 3 else true)")
    assert same.attention.attention.pattern.digest == trained.attention.attention.pattern.digest
    for other in (Net(), same):
        other.load_state_dict(saved(trained))
        assert torch.equal(other(x(1, LENGTH, DIM)), trained(x(1, LENGTH, DIM)))
    state = {n: t for n, t in saved(trained).items() if not n.endswith("_extra_state")}
    Net("causal").load_state_dict(state, strict=False)


@pytest.mark.parametrize(
    "other", ["causal", "pattern mixed = causal and (head >= heads // 2 or q - k < 4)"]
)
def test_a_state_dict_of_another_pattern_is_refused(other):
    with pytest.raises(
        attndsl.AttnDslError, match=r"A508(.|\n)*in the state dict: (.|\n)*in the module: "
    ):
        Net(other).load_state_dict(saved(Net()))


def test_a_state_dict_knows_its_layer_where_the_pattern_reads_it():
    def layer(text, number):
        return PatternAttention(attndsl.compile(text, layer=number))

    layer("causal", 1).load_state_dict(layer("causal", 0).state_dict())
    text = "causal and (layer % 2 == 0 or q - k < 3)"
    layer(text, 1).load_state_dict(layer(text, 1).state_dict())
    with pytest.raises(attndsl.AttnDslError, match=r"layer 0(.|\n)*layer 1"):
        layer(text, 1).load_state_dict(layer(text, 0).state_dict())


def test_a_state_that_is_no_pattern_is_refused():
    net = PatternAttention("causal")
    with pytest.raises(attndsl.AttnDslError, match="A405"):
        net.load_state_dict({"_extra_state": torch.zeros(4, dtype=torch.uint8)})


def test_modules_are_copied_and_pickled():
    net = Net()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(x(1, LENGTH, DIM)), net(x(1, LENGTH, DIM)))


def test_a_symbolic_trace_holds_the_pattern():
    net, doc = Net(), torch.arange(LENGTH)[None] // 5
    traced = pickle.loads(pickle.dumps(torch.fx.symbolic_trace(net)))
    assert torch.equal(traced(x(1, LENGTH, DIM)), net(x(1, LENGTH, DIM)))

    class Call(nn.Module):
        pattern = attndsl.compile("documents")

        def forward(self, q, doc):
            return self.pattern(q, q, q, doc=doc, scale=0.5, q_len=9, return_lse=True)

    for mine, right in zip(
        torch.fx.symbolic_trace(Call())(x(1, 2, LENGTH, 4), doc),
        Call()(x(1, 2, LENGTH, 4), doc),
        strict=True,
    ):
        assert torch.equal(mine, right)


# ------------------------------------------------------------------ heads of a rank


def share(net, start, count):
    """A module with the projections of these heads alone."""
    made = copy.deepcopy(net)
    width, group = made.head_dim, made.heads // made.kv_heads
    q, k = (
        slice(start * width, (start + count) * width),
        slice(start // group * width, (start + count) // group * width),
    )
    with torch.no_grad():
        made.project_q.weight = nn.Parameter(net.project_q.weight[q])
        for name in ("project_k", "project_v"):
            getattr(made, name).weight = nn.Parameter(getattr(net, name).weight[k])
        made.project_out.weight = nn.Parameter(net.project_out.weight[:, q])
    return made


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_shares_of_the_heads_add_up_to_the_whole(kv_heads):
    net = PatternSelfAttention(MIXED, DIM, HEADS, kv_heads=kv_heads)
    total = 0
    for start in (0, 2):
        part = share(net, start, 2)
        with pytest.raises(attndsl.AttnDslError, match="2 of 4 heads: say from which on"):
            part(x(2, LENGTH, DIM))
        part.head_start = start
        total = total + part(x(2, LENGTH, DIM))
    torch.testing.assert_close(total, net(x(2, LENGTH, DIM)))


@pytest.mark.parametrize(("start", "count"), [(0, 2), (2, 2), (1, 1), (3, 1)])
def test_a_share_of_the_query_heads_finds_its_key_heads_among_all(start, count):
    net = PatternSelfAttention(MIXED, DIM, HEADS, kv_heads=2)
    part = share(net, start, count)
    part.project_k, part.project_v, part.project_out = net.project_k, net.project_v, nn.Identity()
    part.head_start = start
    alone, width = copy.deepcopy(net), net.head_dim
    alone.project_out = nn.Identity()
    want = alone(x(2, LENGTH, DIM))[..., start * width : (start + count) * width]
    torch.testing.assert_close(part(x(2, LENGTH, DIM)), want)


def test_query_heads_that_cut_through_a_group_are_refused():
    net = PatternSelfAttention(MIXED, DIM, HEADS, kv_heads=2)
    part = share(net, 1, 2)
    part.project_k, part.project_v, part.head_start = net.project_k, net.project_v, 1
    with pytest.raises(attndsl.AttnDslError, match="query heads 1 to 2 do not go with"):
        part(x(1, LENGTH, DIM))


def test_a_module_may_hold_some_of_the_heads():
    q = x(1, HEADS, LENGTH, 8)
    want = PatternAttention(MIXED)(q, q, q)
    second = PatternAttention(MIXED, heads=HEADS, head_start=2)
    torch.testing.assert_close(second(*[q[:, 2:]] * 3), want[:, 2:])
    torch.testing.assert_close(second(*[q[:, :2]] * 3, head_start=0), want[:, :2])


@pytest.mark.parametrize("name", ["scale", "layout", "backend", "return_lse", "doc"])
def test_inputs_of_a_module_may_have_the_names_of_options(name):
    p = attndsl.compile(f"input {name}: int[batch, pos]\npattern p = {name}[q] == {name}[k]")
    ids, q = torch.arange(LENGTH)[None] // 5, x(1, 2, LENGTH, 8)
    net = PatternAttention(p, scale=0.5)
    want = p(q, q, q, scale=0.5, inputs={name: ids})
    torch.testing.assert_close(net(q, q, q, **{name: ids}), want)
    torch.testing.assert_close(net(q, q, q, inputs={name: ids}), want)
    if name != "scale":
        found = net(q, q, q, **{name: ids}, scale=2.0)
        torch.testing.assert_close(found, p(q, q, q, scale=2.0, inputs={name: ids}))


def test_an_input_by_the_name_of_the_extents_stands_in_inputs():
    p = attndsl.compile("input extents: int[batch, pos]\npattern p = extents[q] == extents[k]")
    ids, q, net = torch.arange(LENGTH)[None] // 5, x(1, 2, LENGTH, 8), PatternAttention(p)
    torch.testing.assert_close(
        net(q, q, q, inputs={"extents": ids}), p(q, q, q, inputs={"extents": ids})
    )
    with pytest.raises(attndsl.AttnDslError, match="A401"):
        net(q, q, q, extents=ids)
