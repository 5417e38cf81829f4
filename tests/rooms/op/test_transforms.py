"""Every transform of torch gives what it gives of dense attention, in any nesting: never zeros, never an old number."""

import copy

import pytest
import torch
from torch import func
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import attndsl

# Heads that differ, rows without keys, rows of zero keys only, keys that several heads share.
PROGRAM = """
input n: int[batch, q]
pattern p = (if head == 0 then k < q else window(2, 0)) and q != 5 zeros n[q] * head
"""
PATTERN = attndsl.compile(PROGRAM)
N = torch.arange(9)[None] % 3 * torch.tensor([[1], [0]])


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


Q, K, V = normal(2, 2, 9, 3), normal(2, 1, 9, 3, seed=1), normal(2, 1, 9, 2, seed=2)
T = tuple(torch.sin(17 * x) for x in (Q, K, V))


def loss(attend):
    def of(*x):
        out, lse = attend(*x)
        return (out * out.cos()).sum() + torch.where(lse.isfinite(), lse, 0).sin().sum()

    return of


def leaves():
    return [x.clone().requires_grad_() for x in (Q, K, V)]


def forward_mode(f):
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(x, t) for x, t in zip((Q, K, V), T, strict=True)]
        return [forward_ad.unpack_dual(x).tangent for x in f(*duals)]


def forward_over_reverse(f):
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(x, t) for x, t in zip(leaves(), T, strict=True)]
        grads = torch.autograd.grad(loss(f)(*duals), duals, create_graph=True)
        return [forward_ad.unpack_dual(x).tangent for x in grads]


def gradient_penalty(f):
    x = leaves()
    grads = torch.autograd.grad(loss(f)(*x), x, create_graph=True)
    more = torch.autograd.grad(sum(g.square().sum() for g in grads), x, create_graph=True)
    return *more, *torch.autograd.grad(sum(g.square().sum() for g in more), x)


def penalty_through_lse(f):
    q, k, v = leaves()
    lse = f(q, k, v)[1]
    level = torch.where(lse.isfinite(), lse, 0).sin().sum()
    grads = torch.autograd.grad(level, (q, k), create_graph=True)
    return torch.autograd.grad(sum(g.square().sum() for g in grads), (q, k))


class Listener(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


def under_a_mode(f):
    with Listener():
        return gradient_penalty(f)


def checkpointed(f):
    x = leaves()
    return torch.autograd.grad(checkpoint(loss(f), *x, use_reentrant=False), x)


def linearized(f):
    out, push = func.linearize(f, Q, K, V)
    return out, push(*T)


def third_derivative(f):
    first = func.grad(lambda a: loss(f)(a, K, V))
    second = func.grad(lambda a: first(a).square().sum())
    return func.grad(lambda a: second(a).square().sum())(Q)


def stacked(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x, 2 * x, x - 1])


TRANSFORMS = {
    "jvp": lambda f: func.jvp(f, (Q, K, V), T),
    "jvp of jvp": lambda f: func.jvp(lambda *x: func.jvp(f, x, T)[1], (Q, K, V), T),
    "forward mode": forward_mode,
    "forward over reverse": forward_over_reverse,
    "linearize": linearized,
    "grad": lambda f: func.grad(loss(f), (0, 1, 2))(Q, K, V),
    "jacrev": lambda f: func.jacrev(lambda *x: f(*x)[0], (0, 1, 2))(Q, K, V),
    "jacfwd": lambda f: func.jacfwd(lambda *x: f(*x)[0], (0, 1, 2))(Q, K, V),
    "hessian": lambda f: func.hessian(lambda v: loss(f)(Q, K, v))(V),
    "reverse over reverse": lambda f: func.jacrev(func.jacrev(loss(f)))(Q[:, :, :4], K, V),
    "reverse over forward": lambda f: func.grad(
        lambda *x: func.jvp(f, x, T)[1][0].square().sum(), (0, 1, 2)
    )(Q, K, V),
    "third derivative": third_derivative,
    "gradient penalty": gradient_penalty,
    "penalty through the log-sum-exp": penalty_through_lse,
    "gradient penalty under a mode": under_a_mode,
    "checkpoint": checkpointed,
    "vmap of queries": lambda f: func.vmap(lambda q: f(q, K, V))(stacked(Q)),
    "vmap of keys, last dim": lambda f: func.vmap(f, (None, -1, None))(Q, stacked(K).movedim(0, -1), V),
    "vmap of grad": lambda f: func.vmap(func.grad(loss(f), (0, 1, 2)))(*map(stacked, (Q, K, V))),
    "functionalize": lambda f: func.functionalize(f)(Q, K, V),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*get_attr.*")
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_agree_with_dense_attention(name):
    results = [
        TRANSFORMS[name](
            lambda *x, b=b: PATTERN(*x, return_lse=True, backend=b, n=N[:, : x[0].shape[2]])
        )
        for b in ("auto", "reference")
    ]
    mine, truth = map(torch.utils._pytree.tree_leaves, results)
    assert len(mine) == len(truth)
    for ours, theirs in zip(mine, truth, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def test_the_tangent_of_causal_attention_is_that_of_the_definition():
    """By differences, over 3 tokens: what is asked of forward mode most, on every back end."""
    p = attndsl.compile("causal")
    q = torch.tensor([[[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]]], dtype=torch.float64)
    k = torch.tensor([[[[1.0, 2.0], [0.0, -1.0], [0.5, 0.5]]]], dtype=torch.float64)
    v = torch.tensor([[[[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]]]], dtype=torch.float64)
    t = torch.tensor([[[[1.0, 1.0], [2.0, -1.0], [0.0, 3.0]]]], dtype=torch.float64)
    step = 1e-6
    expected = (p(q + step * t, k, v) - p(q - step * t, k, v)) / (2 * step)
    assert expected.abs().max() > 1
    for backend in ("auto", "blocked", "reference"):
        _, tangent = func.jvp(lambda x, b=backend: p(x, k, v, backend=b), (q,), (t,))
        torch.testing.assert_close(tangent, expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("text", ["full", "block(64)", "causal and (k < 64 or q - k < 8)"])
def test_tangents_pass_through_full_tiles(text):
    p = attndsl.compile(text)
    x = [normal(1, 1, 192, 3, seed=seed) for seed in range(3)]
    t = [torch.sin(17 * each) for each in x]
    assert len(p.schedule(192, tile=(64, 64)).full) > 0
    seen = [
        func.jvp(lambda *y, b=backend: p(*y, return_lse=True, backend=b), (*x,), (*t,))
        for backend in ("auto", "reference")
    ]
    for ours, theirs in zip(*map(torch.utils._pytree.tree_leaves, seen), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tangents_of_lower_precision_are_computed_in_float32(dtype):
    p = attndsl.compile("causal_window", w=3)
    low = [x.to(dtype) for x in (Q, K, V, *T)]
    _, mine = func.jvp(p, tuple(low[:3]), tuple(low[3:]))
    exact = [x.double() for x in low]
    _, truth = func.jvp(p, tuple(exact[:3]), tuple(exact[3:]))
    assert mine.dtype == dtype
    epsilon = torch.finfo(dtype).eps
    torch.testing.assert_close(mine.double(), truth, rtol=2 * epsilon, atol=4 * epsilon)


def test_what_a_query_without_keys_holds_reaches_no_derivative():
    p = attndsl.compile("pattern p = k < q")
    q, tangent = Q[:, :1].clone(), T[0][:, :1].clone()
    q[:, :, 0], tangent[:, :, 0] = torch.nan, torch.inf
    _, moved = func.jvp(p, (q, K, V), (tangent, *T[1:]))
    assert not moved[:, :, 0].any()
    assert moved.isfinite().all()
    second = func.grad(lambda k: func.grad(lambda k: p(q, k, V).sin().sum())(k).square().sum())(K)
    assert second.isfinite().all()
    assert second.any()


BATCHES = {
    "an input by batch element": "input w: int[batch]\npattern p = causal and q - k < w",
    "an input by head": "input w: int[head]\npattern p = causal and q - k < w",
    "the batch element itself": "input w: int[batch]\npattern p = causal and q - k < w + batch",
}


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("name", BATCHES)
def test_vmap_maps_inputs_too(name, mapped):
    """One call for all where elements of a batch stand for it; else one call each."""
    p, w = attndsl.compile(BATCHES[name]), torch.tensor([[1, 3], [2, 5], [4, 1]])
    xs = [stacked(x) for x in (Q, K, V)]

    def gradients(q, k, v, w):
        return func.grad(lambda *x: p(*x, w=w).sin().sum(), (0, 1, 2))(q, k, v)

    mine = func.vmap(gradients, (0, 0, 0, 0 if mapped else None))(*xs, w if mapped else w[0])
    for i in range(3):
        x = [x[i].clone().requires_grad_() for x in xs]
        out = p(*x, w=w[i if mapped else 0], backend="reference")
        truth = torch.autograd.grad(out.sin().sum(), x)
        for ours, theirs in zip(mine, truth, strict=True):
            torch.testing.assert_close(ours[i], theirs, rtol=1e-9, atol=1e-10)


COMPILED = {
    "jvp": lambda f: func.jvp(f, (Q, K, V), T),
    "vmap of grad": lambda f: func.vmap(func.grad(loss(f)))(*map(stacked, (Q, K, V))),
}


@pytest.mark.parametrize("name", COMPILED)
def test_transforms_are_compiled(name):
    """In one graph; a tangent that is lost on the way would be zero."""
    torch._dynamo.reset()
    p = attndsl.compile("pattern p = causal_window(3) and q != 5")

    def run(backend):
        return COMPILED[name](lambda *x: p(*x, return_lse=True, backend=backend))

    compiled = torch.compile(lambda: run("auto"), fullgraph=True, backend="aot_eager")
    mine, truth = (torch.utils._pytree.tree_leaves(x) for x in (compiled(), run("reference")))
    for ours, theirs in zip(mine, truth, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def test_a_copy_of_a_pattern_is_the_pattern():
    again = copy.deepcopy(PATTERN)
    assert again == PATTERN
    assert torch.equal(again(Q, K, V, n=N), PATTERN(Q, K, V, n=N))
