"""A call compiled or exported once serves every size and every content of the inputs."""

import pytest
import torch

import attndsl


class Boxes(torch.nn.Module):
    """3 x 3 boxes on an image [B, C, Y, X], whose size is read off inside."""

    pattern = attndsl.compile("box2d", sy=3)

    def forward(self, x):
        y, w = x.shape[2:]
        t = x.flatten(2).transpose(1, 2)[:, None]
        out = self.pattern(t, t, t, extents={"y": y, "x": w})
        return out[:, 0].transpose(1, 2).unflatten(2, (y, w))


def boxes(x):
    y, w = x.shape[2:]
    i = torch.arange(y * w)
    near = ((i[:, None] // w - i // w).abs() <= 1) & ((i[:, None] % w - i % w).abs() <= 1)
    t = x.double().flatten(2).transpose(1, 2)
    scores = (t @ t.mT / t.shape[2] ** 0.5).masked_fill(~near, -torch.inf)
    return (scores.softmax(-1) @ t).transpose(1, 2).unflatten(2, (y, w)).float()


def image(y: int, x: int) -> torch.Tensor:
    return torch.randn(1, 4, y, x, generator=torch.Generator().manual_seed(y * x))


def test_one_graph_serves_every_size_of_a_grid():
    torch._dynamo.reset()
    graphs = []
    compiled = torch.compile(
        Boxes(), fullgraph=True, dynamic=True, backend=lambda g, _: graphs.append(g) or g.forward
    )
    for n in range(10):
        x = image(3 + n, 5 + n % 3)
        torch.testing.assert_close(compiled(x), boxes(x))
    assert len(graphs) <= 2


def test_an_export_keeps_height_and_width_open():
    y, x = torch.export.Dim("y", min=2, max=64), torch.export.Dim("x", min=2, max=64)
    made = torch.export.export(Boxes(), (image(4, 6),), dynamic_shapes=({2: y, 3: x},))
    for size in ((5, 7), (8, 3)):
        torch.testing.assert_close(made.module()(image(*size)), boxes(image(*size)))


@pytest.mark.parametrize("forgotten", [False, True], ids=["kept", "forgotten"])
def test_gradients_of_a_compiled_call_are_those_of_its_inputs_as_they_were(forgotten):
    """An input that is written to in between: the plan of the forward, or an error; never another's gradients."""
    torch._dynamo.reset()
    p = attndsl.compile("documents_causal")
    q, k, v = torch.randn(3, 1, 2, 300, 8, generator=torch.Generator().manual_seed(0))
    doc = torch.arange(300)[None] // 70
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    truth = torch.autograd.grad(p(*leaves, doc=doc, backend="reference").sin().sum(), leaves)
    compiled = torch.compile(lambda *x, doc: p(*x, doc=doc), fullgraph=True, backend="aot_eager")
    loss = compiled(*leaves, doc=doc).sin().sum()
    doc.numpy()[:] = 0
    if forgotten:
        for other in range(64):
            p(q, k, v, doc=doc + other)
        with pytest.raises(attndsl.AttnDslError, match="A505"):
            torch.autograd.grad(loss, leaves)
        return
    for mine, right in zip(torch.autograd.grad(loss, leaves), truth, strict=True):
        torch.testing.assert_close(mine, right)


@pytest.mark.parametrize(
    "write", [lambda x: x.fill_(7), lambda x: x.numpy().fill(7)], ids=["torch", "numpy"]
)
def test_an_input_may_be_written_to_before_an_eager_backward(write):
    """By torch as well, which knows: the backward does not read it."""
    p, doc = attndsl.compile("documents"), torch.arange(9)[None] // 4
    q = torch.randn(1, 1, 9, 4, requires_grad=True)
    (truth,) = torch.autograd.grad(p(q, q, q, doc=doc, backend="reference").sin().sum(), q)
    loss = p(q, q, q, doc=doc).sin().sum()
    write(doc)
    (mine,) = torch.autograd.grad(loss, q)
    torch.testing.assert_close(mine, truth)


def test_a_call_with_a_selection_is_one_graph():
    p, q = attndsl.compile("select_moba", b=8, n=2), torch.randn(1, 2, 24, 8)
    selection = p.select(q, q)
    call = torch.compile(lambda x: p(x, x, x, selection=selection), backend="eager", fullgraph=True)
    torch.testing.assert_close(call(q), p(q, q, q))
