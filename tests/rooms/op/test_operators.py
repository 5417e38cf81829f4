"""The operators as torch sees them: declared by an import, of known shape, counted, held open in compiled graphs."""

import importlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import attndsl
from attndsl.importing import after_import

LENGTH, WIDTH, VALUE = 40, 8, 6


def fresh(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The script, in a process that has compiled nothing."""
    command = [sys.executable, "-c", script, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_import_declares_the_operators_and_imports_nothing_for_it(tmp_path):
    script = """
import sys, attndsl
assert not {"torch", "attndsl.operators"} & set(sys.modules)
import torch
for name in ("attention", "attention_derivative"):
    assert getattr(torch.ops.attndsl, name).default
assert "attndsl.op" not in sys.modules
"""
    done = fresh(script, tmp_path)
    assert done.returncode == 0, done.stderr


class Net(torch.nn.Module):
    pattern = attndsl.compile("documents_causal")

    def forward(self, q, k, v, doc):
        return self.pattern(2 * q, k, v, doc=doc).sin()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own
@pytest.mark.parametrize("ahead", [False, True], ids=["exported", "compiled ahead of time"])
def test_a_saved_program_runs_where_nothing_was_compiled(tmp_path, ahead):
    def example(n: int) -> tuple[torch.Tensor, ...]:
        return *torch.randn(3, 2, 2, n, WIDTH), torch.arange(n).expand(2, n) // 7

    length = torch.export.Dim("length", min=2, max=4096)
    sizes = (*({2: length} for _ in range(3)), {1: length})
    made = torch.export.export(Net(), example(16), dynamic_shapes=sizes)
    path, other = str(tmp_path / "net.pt2"), example(23)
    torch.save((other, Net()(*other)), tmp_path / "example")
    if ahead:
        torch._inductor.aoti_compile_and_package(made, package_path=path)
        load = "torch._inductor.aoti_load_package(path)"
    else:
        torch.export.save(made, path)
        load = "torch.export.load(path).module()"
    script = f"""
import attndsl, sys, torch
path = sys.argv[1] + "/net.pt2"
x, want = torch.load(sys.argv[1] + "/example")
torch.testing.assert_close({load}(*x), want)
"""
    done = fresh(script, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("zipped", [False, True], ids=["a loader each", "one loader of many"])
def test_what_waits_for_an_import_is_done_after_it(tmp_path, monkeypatch, zipped):
    first, second = (f"waited_for_{zipped}{i}" for i in range(2))
    place = tmp_path / "packed.zip" if zipped else tmp_path
    for name in (first, second):
        source = tmp_path / f"{name}.py"
        source.write_text("value = 3")
        if zipped:
            with zipfile.ZipFile(place, "a") as file:
                file.write(source, source.name)
    monkeypatch.syspath_prepend(place)
    seen = []
    after_import(first, lambda: seen.append(sys.modules[first].value))
    assert not seen
    module = importlib.import_module(first)
    importlib.import_module(second)
    assert seen == [3]
    assert module.__spec__.origin == os.fspath(place / f"{first}.py")
    after_import(first, lambda: seen.append(4))
    assert seen == [3, 4]


# ------------------------------------------------------------------ meta tensors


def test_meta_tensors_give_shapes_and_no_schedule(monkeypatch):
    p = attndsl.compile("documents")
    monkeypatch.setattr(type(p._program), "tiled", None)
    q, k = torch.empty(2, 4, 9, WIDTH, device="meta"), torch.empty(2, 2, 9, WIDTH, device="meta")
    v = torch.empty(2, 2, 9, VALUE, device="meta", requires_grad=True)
    for doc in (torch.zeros(2, 9).long(), torch.zeros(2, 9, device="meta").long(), [[0] * 9]):
        for backend in ("auto", "blocked", "reference"):
            out, lse = p(q, k, v, doc=doc, return_lse=True, backend=backend)
            assert out.is_meta
            assert lse.is_meta
            assert (out.shape, lse.shape) == ((2, 4, 9, VALUE), (2, 4, 9))
            (grad,) = torch.autograd.grad(out.sum(), v)
            assert grad.shape == v.shape
    with torch.device("meta"):
        net = attndsl.nn.PatternSelfAttention(p, 32, 4)
        assert net(torch.empty(2, 9, 32), doc=doc).shape == (2, 9, 32)


# ------------------------------------------------------------------ floating-point operations


def counted(act, *args, **given):
    with FlopCounterMode(display=False) as counter:
        act(*args, **given)
    return counter.get_total_flops()


def tensors(device="cpu"):
    sizes = (2, 4, LENGTH, WIDTH), (2, 2, LENGTH, WIDTH), (2, 2, LENGTH, VALUE)
    return [torch.randn(s, device=device, requires_grad=True) for s in sizes]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_flops_are_those_of_live_pairs(device):
    p = attndsl.compile("pattern p = if head == 0 then k == q else 0 <= q - k < 5")
    pairs = 2 * (LENGTH + 3 * (5 * LENGTH - 10))
    qkv = tensors(device)
    assert counted(p, *qkv) == 2 * pairs * (WIDTH + VALUE)
    assert counted(lambda: torch.autograd.grad(p(*qkv).sum(), qkv)) == 2 * pairs * (
        4 * WIDTH + 3 * VALUE
    )
    seen = counted(lambda: torch.func.jvp(p, tuple(qkv), tuple(qkv)))
    assert seen == 2 * pairs * 4 * (WIDTH + VALUE)


def test_flops_of_inputs_whose_content_is_unknown_are_those_of_all_pairs():
    p, qkv = attndsl.compile("documents"), tensors()
    doc = torch.arange(LENGTH).expand(2, LENGTH) // 10
    assert counted(p, *qkv, doc=doc) == 8 * 4 * 100 * 2 * (WIDTH + VALUE)
    unknown = tensors("meta")
    dense = 8 * LENGTH**2 * 2 * (WIDTH + VALUE)
    assert counted(p, *unknown, doc=doc.to("meta")) == dense


# ------------------------------------------------------------------ one graph for many patterns


class Block(torch.nn.Module):
    def __init__(self, pattern):
        super().__init__()
        self.mix = torch.nn.Linear(WIDTH, WIDTH)
        self.attention = attndsl.nn.PatternAttention(pattern)

    def forward(self, x):
        t = self.mix(x)[:, None]
        return x + self.attention(t, t, t)[:, 0]


def test_twelve_layers_of_twelve_patterns_are_compiled_once():
    """dynamo gives a function up after eight graphs."""
    torch._dynamo.reset()
    texts = [f"0 <= q - k < {n}" for n in range(2, 8)] + [
        f"k % {n} == q % {n}" for n in range(2, 8)
    ]
    layers = torch.nn.ModuleList(map(Block, texts))
    x = torch.randn(2, 15, WIDTH)
    loss = lambda: sum(layer(x).square().sum() for layer in layers)
    want = torch.autograd.grad(loss(), layers.parameters())
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph.forward

    for layer in layers:
        layer.compile(fullgraph=True, backend=keep)
    got = torch.autograd.grad(loss(), layers.parameters())
    assert len(graphs) == 1
    for mine, right in zip(got, want, strict=True):
        torch.testing.assert_close(mine, right)


def test_a_graph_whose_pattern_is_not_here_is_refused():
    q = torch.ones(1, 1, 3, 2)
    with pytest.raises(attndsl.AttnDslError, match="names a pattern that this process does not"):
        torch.ops.attndsl.attention(q, q, q, [], "", 12345, "", "", [], "", "auto", 1.0)


def test_patterns_that_share_a_digest_are_told_apart_by_their_texts(monkeypatch):
    monkeypatch.setattr("attndsl.op.planning.digest_of", lambda text: 977)
    one, two = attndsl.compile("q - k == 17"), attndsl.compile("q - k == 18")
    x = torch.randn(1, 1, 30, 4)
    for p in (one, two):
        torch._dynamo.reset()
        compiled = torch.compile(lambda x, p=p: p(x, x, x), fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(x), p(x, x, x, backend="reference"))


# ------------------------------------------------------------------ older ways of torch

PATTERN, DOC = attndsl.compile("documents"), torch.arange(9)[None] // 4


def attend(x):
    return PATTERN(x, x, x, doc=DOC).sin()


def test_the_old_vmap_maps_cotangents():
    x = torch.randn(1, 2, 9, 4, requires_grad=True)
    out = attend(x)
    cotangents = torch.randn(3, *out.shape)
    together = torch.autograd.grad(out, x, cotangents, retain_graph=True, is_grads_batched=True)
    apart = [torch.autograd.grad(out, x, c, retain_graph=True)[0] for c in cotangents]
    torch.testing.assert_close(together[0], torch.stack(apart))
    jacobian = torch.autograd.functional.jacobian
    small = x.detach()[:, :1, :, :2]
    torch.testing.assert_close(jacobian(attend, small, vectorize=True), jacobian(attend, small))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*torch.vmap")
def test_the_old_vmap_maps_calls_at_every_level():
    from torch._vmap_internals import _vmap

    x = torch.randn(2, 3, 1, 2, 9, 4)
    want = torch.stack([torch.stack([attend(one) for one in row]) for row in x])
    torch.testing.assert_close(_vmap(_vmap(attend))(x), want)
    torch.testing.assert_close(_vmap(attend)(x[0]), want[0])
    torch.testing.assert_close(_vmap(attend)(x[0, :1]), want[0, :1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_call_can_be_traced_by_jit():
    x = torch.randn(1, 2, 9, 4)
    traced = torch.jit.trace(attend, x)
    torch.testing.assert_close(traced(2 * x), attend(2 * x))


# ------------------------------------------------------------------ modes


def test_tables_made_in_inference_mode_serve_every_kind_of_call():
    with torch.inference_mode():
        doc = torch.arange(9)[None] // 4
        fixed = torch.randn(1, 2, 9, 4)
        inside = PATTERN(fixed, fixed, fixed, doc=doc)
    x = fixed.clone().requires_grad_()
    out = PATTERN(x, x, x, doc=DOC)
    (want,) = torch.autograd.grad(out.sin().sum(), x)
    for made in (inside, PATTERN(fixed, fixed, fixed, doc=doc), PATTERN(x, x, x, doc=doc)):
        torch.testing.assert_close(made, out)

    def loss(x):
        return PATTERN(x, x, x, doc=doc).sin().sum()

    torch.testing.assert_close(torch.autograd.grad(loss(x), x)[0], want)
    torch.testing.assert_close(torch.func.grad(loss)(x.detach()), want)


def test_autocast_says_why_a_float64_tensor_does_not_fit():
    q, wide = torch.randn(1, 1, 3, 4), torch.randn(1, 1, 3, 4).double()
    p = attndsl.compile("causal")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert p(wide, wide, wide).dtype == torch.float64
        with pytest.raises(attndsl.AttnDslError, match="autocast leaves float64 as it is"):
            p(wide, q, q)
    with pytest.raises(attndsl.AttnDslError) as caught:
        p(wide, q, q)
    assert "autocast" not in str(caught.value)
