"""Modules that own the real inputs of an attention."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch

import attndsl
from attndsl.beginnings import FIXED, TRAINED
from attndsl.nn import Attention, alibi_slopes, published

T5 = "input bias: real[head, 8] attention a over causal = score s + bias[min(q - k, 7)]"
ALIBI = "input slope: real[head] attention a over causal = score s - slope[head] * (q - k)"


def qkv() -> list[torch.Tensor]:
    return [torch.randn(1, 2, 12, 8) for _ in range(3)]


def test_owned_inputs_are_trained_and_fixed_ones_are_not():
    module = Attention(T5, parameters={"bias": torch.zeros(2, 8)})
    fixed = Attention(ALIBI, buffers={"slope": alibi_slopes(2)})
    assert [name for name, _ in module.named_parameters()] == ["owned.bias"]
    assert list(fixed.parameters()) == []
    optimizer, tensors = torch.optim.SGD(module.parameters(), lr=1.0), qkv()
    before = module(*tensors)
    before.square().mean().backward()
    optimizer.step()
    assert not module(*tensors).equal(before)
    wanted = attndsl.compile(ALIBI)(*tensors, slope=alibi_slopes(2))
    torch.testing.assert_close(fixed(*tensors), wanted)


def test_a_state_dict_carries_inputs_and_refuses_another_attention():
    module = Attention(T5, parameters={"bias": torch.randn(2, 8)})
    again = Attention(T5, parameters={"bias": torch.zeros(2, 8)})
    again.load_state_dict(module.state_dict())
    tensors = qkv()
    torch.testing.assert_close(again(*tensors), module(*tensors))
    other = Attention(T5.replace("q - k, 7", "q - k, 6"), parameters={"bias": torch.zeros(2, 8)})
    with pytest.raises(attndsl.AttnDslError, match="A508"):
        other.load_state_dict(module.state_dict())


def test_inputs_that_are_not_owned_are_given_to_calls_and_unknown_ones_refused():
    module, tensors = Attention(ALIBI), qkv()
    slope = alibi_slopes(2)
    wanted = attndsl.compile(ALIBI)(*tensors, slope=slope)
    torch.testing.assert_close(module(*tensors, slope=slope), wanted)
    with pytest.raises(attndsl.AttnDslError, match="no input 'slop'"):
        Attention(ALIBI, parameters={"slop": slope})
    with pytest.raises(attndsl.AttnDslError, match="PatternAttention"):
        Attention("pattern p = causal")


@pytest.mark.parametrize("heads", [1, 2, 8, 12])
def test_slopes_of_alibi_are_those_of_the_paper(heads):
    published = {1: [1 / 256], 2: [1 / 16, 1 / 256], 8: [2.0**-i for i in range(1, 9)]}
    published[12] = published[8] + [2.0**-x for x in (0.5, 1.5, 2.5, 3.5)]
    torch.testing.assert_close(alibi_slopes(heads), torch.tensor(published[heads]))


def test_attentions_are_saved_loaded_pickled_and_copied_with_their_modules(tmp_path: Path):
    a = attndsl.compile(T5)
    a.save(tmp_path / "a.json")
    assert attndsl.Attention.load(tmp_path / "a.json") == a == pickle.loads(pickle.dumps(a))
    module = Attention(a, parameters={"bias": torch.randn(2, 8)})
    again, tensors = copy.deepcopy(module), qkv()
    torch.testing.assert_close(again(*tensors), module(*tensors))
    (tmp_path / "b.json").write_text("{}", encoding="utf-8")
    with pytest.raises(attndsl.AttnDslError, match="A405"):
        attndsl.Attention.load(tmp_path / "b.json")
    assert repr(a) == "<attndsl.Attention a(bias)>"
    assert attndsl.compile(str(a)) == a


CALLS = {"swin_v1": {"extents": {"y": 3}}, "swin_v2": {"extents": {"y": 3}}}
OTHERS = {
    "llama_adapter": {"prompt": tuple(torch.randn(2, 1, 2, 5, 8))},
    "swin_v2": {"table": torch.zeros(2, 225)},
}


@pytest.mark.parametrize("name", [*FIXED, *TRAINED])
def test_published_attentions_begin_and_are_trained(name: str):
    module = published(name, 2, head_dim=8, **CALLS.get(name, {}))
    q, k, v = (x.requires_grad_() for x in qkv())
    values = v[:, :1] if name == "differential" else v
    module(q, k, values, **OTHERS.get(name, {})).square().sum().backward()
    assert {each for each, _ in module.owned.items()} == set(TRAINED.get(name, {}))
    assert all(x.grad is not None and x.grad.isfinite().all() for x in module.parameters())


def test_first_values_are_those_of_the_papers():
    torch.manual_seed(0)
    tables = published("swin_v1", 16, extents={"y": 7}).owned["table"]
    assert tables.shape == (16, 13 * 13)
    assert tables.std().item() == pytest.approx(0.02, rel=0.05)
    bias = published("t5_encoder", 8, head_dim=64).owned["bias"]
    assert bias.std().item() == pytest.approx(512**-0.5, rel=0.2)
    lam = [published("differential", 4, layer=n).owned["lam"] for n in (0, 2)]
    assert [x.tolist() for x in lam] == [pytest.approx([0.2] * 2), pytest.approx([0.470713] * 2)]
    with pytest.raises(attndsl.AttnDslError, match="did you mean 'alibi'"):
        published("alibbi", 8)
