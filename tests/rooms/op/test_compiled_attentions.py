"""Attentions below torch.compile and torch.export: one operator each, with every gradient."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch

import attndsl

ALIBI = "input slope: real[head] attention a over causal = score s - slope[head] * (q - k)"
SINK = "input sink: real[head] attention a over window(3) = score s mass exp(sink[head])"
KEPT = (
    "input keep: bool[batch, head, q, k] input n: int[head] input doc: int[pos]"
    " attention a over causal and doc[q] == doc[k] and (keep[q, k] or q == k) = score s + n[head] * (q - k)"
)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def tensors() -> list[torch.Tensor]:
    return [drawn(2, 4, 19, 8), drawn(2, 2, 19, 8), drawn(2, 2, 19, 5)]


def several() -> attndsl.Attention:
    return 2.0 * attndsl.compile(ALIBI) - 0.5 * attndsl.compile(SINK)


def given(a: attndsl.Attention) -> dict[str, Any]:
    known = {
        "slope": drawn(4),
        "sink": drawn(4),
        "keep": torch.rand(2, 4, 19, 19) < 0.5,
        "n": torch.arange(4),
        "doc": torch.arange(19) // 7,
    }
    return {table.name: known[table.name] for table in a.inputs}


@pytest.mark.parametrize(
    "make",
    [
        lambda: attndsl.compile(ALIBI),
        lambda: attndsl.compile(SINK),
        lambda: attndsl.compile(KEPT),
        lambda: attndsl.compile("attention a over causal = score s weights l1 softplus(s)"),
        lambda: attndsl.compile("attention a over causal = score s weights sigmoid"),
        lambda: attndsl.compile(ALIBI) | attndsl.compile(SINK.partition(" mass")[0]),
        several,
    ],
    ids=["one primitive", "mass", "bool and int inputs", "l1", "sigmoid", "joined", "sum"],
)
def test_one_graph_agrees_with_the_reference_in_outputs_and_every_gradient(make):
    torch._dynamo.reset()
    a = make()
    inputs = given(a) | {"scale": drawn(4)}
    xs, with_lse = [*tensors(), *inputs.values()], a.has_lse

    def call(*xs: torch.Tensor, backend: str = "auto") -> tuple[torch.Tensor, ...]:
        named = dict(zip(inputs, xs[3:], strict=True))
        made = a(*xs[:3], **named, backend=backend, return_lse=with_lse)
        return made if with_lse else (made,)

    whole = torch.compile(call, fullgraph=True, backend="aot_eager")
    leaves = [x for x in xs if x.requires_grad]
    found = [f(*xs) for f in (whole, lambda *xs: call(*xs, backend="reference"))]
    grads = [torch.autograd.grad(sum(x.sin().sum() for x in made), leaves) for made in found]
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(grads[0], grads[1])


def test_the_operators_pass_the_checks_of_torch():
    xs = [*tensors(), drawn(4)]
    call = attndsl.compile(ALIBI)._text, 0, 0.0, "slope", "", [], "", "auto", 0.3
    torch.library.opcheck(torch.ops.attndsl.scored.default, (xs, *call))
    known = [x.detach() for x in torch.ops.attndsl.scored(xs, *call)]
    given = [x.detach() for x in xs], known, known[1:], [False, True], [True, False, True, True]
    torch.library.opcheck(torch.ops.attndsl.scored_derivative.default, (*given, *call))


class Layer(torch.nn.Module):
    """ALiBi with slopes of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = attndsl.compile(ALIBI)
        self.slope = torch.nn.Parameter(torch.randn(4, dtype=torch.float64))

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.attention(q, k, v, slope=self.slope)
        return out


# Raised by torch.export.load of torch 2.9 itself, of any program with parameters.
@pytest.mark.filterwarnings("ignore:The given buffer is not writable:UserWarning")
@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_layer_is_saved_and_loaded_and_serves_every_length(strict):
    layer, xs, file = Layer(), tensors(), io.BytesIO()
    lengths = ({2: torch.export.Dim("length", min=2, max=512)},) * 3
    made = torch.export.export(layer, tuple(xs), strict=strict, dynamic_shapes=lengths)
    torch.export.save(made, file)
    file.seek(0)
    again = torch.export.load(file).module()
    for length in (19, 7):
        short = [x[:, :, :length] for x in xs]
        torch.testing.assert_close(again(*short), layer(*short))


def test_an_input_written_to_before_the_backward_is_refused():
    a, (q, k, v) = attndsl.compile(KEPT), tensors()
    inputs = given(a)
    out = torch.compile(lambda q: a(q, k, v, **inputs), fullgraph=True, backend="aot_eager")(q)
    inputs["doc"].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_seeds_of_dropout_are_inputs_of_one_graph():
    torch._dynamo.reset()
    a, (q, k, v), slope = attndsl.compile(ALIBI), tensors(), drawn(4)

    def call(slope: torch.Tensor, seed: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = a(q, k, v, slope=slope, dropout_p=0.3, dropout_seed=seed)
        return made

    whole = torch.compile(call, fullgraph=True, backend="aot_eager")
    outs = []
    for seed in (3, 4):
        given = slope, torch.tensor(seed)
        outs.append(whole(*given))
        torch.testing.assert_close(outs[-1], call(*given))
        grads = [torch.autograd.grad(f(*given).sin().sum(), slope) for f in (whole, call)]
        torch.testing.assert_close(*grads)
    assert not torch.equal(*outs)


def test_a_call_with_positions_runs_between_two_graphs():
    a, (q, k, v, slope) = attndsl.compile(ALIBI), (x.detach() for x in (*tensors(), drawn(4)))
    held = torch.tensor([12, 19])
    call = torch.compile(lambda q: a(q, k, v, slope=slope, kv_len=held) * 2, backend="aot_eager")
    torch.testing.assert_close(call(q), a(q, k, v, slope=slope, kv_len=held) * 2)
