"""Packed sequences and nested tensors: what may be given, what comes back, and what is refused."""

import itertools
from pathlib import Path

import pytest
import torch

import attndsl
from attndsl import packed

GOLDEN = Path(__file__).parents[2] / "golden/errors/A4"
CAUSAL = attndsl.compile("causal")
LENGTHS = [5, 0, 1, 150, 7, 5]
BOUNDS = [0, 5, 5, 6, 156, 163, 168]


def tensors(dtype=torch.float64, heads=4, kv_heads=2, width=3, tokens=168):
    make = torch.Generator().manual_seed(0)
    shapes = (tokens, heads, 8), (tokens, kv_heads, 8), (tokens, kv_heads, width)
    return [torch.randn(shape, generator=make, dtype=torch.float64).to(dtype) for shape in shapes]


def alone(p, q, k, v, bounds=BOUNDS, **options):
    """Sequence by sequence."""
    outs = []
    for low, high in itertools.pairwise(bounds):
        own = (x[low:high].transpose(0, 1)[None] for x in (q, k, v))
        outs.append(p(*own, **options)[0].transpose(0, 1))
    return torch.cat(outs)


@pytest.mark.parametrize("bounds", [
    BOUNDS, tuple(BOUNDS), torch.tensor(BOUNDS), torch.tensor(BOUNDS, dtype=torch.int32),
])  # fmt: skip
def test_bounds_are_lists_or_tensors_of_integers(bounds):
    out, lse = attndsl.varlen("causal")(*tensors(), bounds, return_lse=True)
    torch.testing.assert_close(out, alone(CAUSAL, *tensors(), backend="reference"))
    assert out.shape == (168, 4, 3)
    assert lse.shape == (168, 4)


def test_queries_and_keys_have_lengths_of_their_own():
    q, (_, k, v) = tensors(tokens=9)[0], tensors(tokens=30)
    of_q, of_k = [0, 1, 4, 4, 9], [0, 10, 14, 20, 30]
    out = attndsl.varlen("causal")(q, k, v, of_q, of_k)
    for s in range(4):
        rows, keys = slice(*of_q[s : s + 2]), slice(*of_k[s : s + 2])
        own = [x.transpose(0, 1)[None] for x in (q[rows], k[keys], v[keys])]
        torch.testing.assert_close(out[rows], CAUSAL(*own)[0].transpose(0, 1))


def test_batch_is_the_number_of_a_sequence():
    out = attndsl.varlen("pattern p = k <= q and (q - k) % (batch + 1) == 0")(*tensors(), BOUNDS)
    for s, (low, high) in enumerate(itertools.pairwise(BOUNDS)):
        own = [x[low:high].transpose(0, 1)[None] for x in tensors()]
        wanted = attndsl.compile(f"k <= q and (q - k) % {s + 1} == 0")(*own)[0].transpose(0, 1)
        torch.testing.assert_close(out[low:high], wanted)


def test_sequences_over_a_grid_have_sizes_of_their_own():
    p = attndsl.compile("grid g(y, x=2)\npattern p over g = q.y + k.y >= len(y) - 1")
    given = tensors(tokens=18)
    bounds = [0, 4, 12, 18]
    torch.testing.assert_close(attndsl.varlen(p)(*given, bounds), alone(p, *given, bounds))


def test_inputs_of_heads_are_packed_along_their_own_dim():
    p = attndsl.compile("input w: int[batch, head, pos]\npattern p = k <= q and w[k] <= w[q]")
    w = torch.randint(0, 3, (4, 168), generator=torch.Generator().manual_seed(1))
    out = attndsl.varlen(p)(*tensors(), BOUNDS, w=w)
    for low, high in itertools.pairwise(BOUNDS):
        own = [x[low:high].transpose(0, 1)[None] for x in tensors()]
        wanted = p(*own, w=w[None, :, low:high])[0].transpose(0, 1)
        torch.testing.assert_close(out[low:high], wanted)


def test_short_sequences_of_several_lengths_are_called_together():
    bounds = torch.randint(1, 65, (200,), generator=torch.Generator().manual_seed(0)).cumsum(0)
    bounds = torch.cat([torch.zeros(1, dtype=torch.int64), bounds])
    names = [f"<{name}>" for name in ("cu_seqlens_q", "cu_seqlens_k")]
    tokens = int(bounds[-1])
    call = packed.read_call(
        CAUSAL._program, (tokens, tokens, 1, 2), {}, dict.fromkeys(names, bounds)
    )
    assert len(call.groups) == 4
    assert sum(group.queries.size for group in call.groups) < 1.5 * tokens


def test_an_input_has_an_entry_for_each_token_or_each_sequence():
    p, random = attndsl.compile("documents_causal"), torch.Generator().manual_seed(0)
    doc = torch.randint(3, (168,), generator=random)
    padded = torch.full((6, 152), 9)
    for s, low in enumerate(BOUNDS[:-1]):
        padded[s, : LENGTHS[s]] = doc[low : low + LENGTHS[s]]
    one, other = (attndsl.varlen(p)(*tensors(), BOUNDS, doc=x) for x in (doc, padded))
    assert torch.equal(one, other)
    part = [x[6:156].transpose(0, 1)[None] for x in tensors()]
    torch.testing.assert_close(one[6:156], p(*part, doc=doc[None, 6:156])[0].transpose(0, 1))


def test_a_scale_may_be_trained():
    q, k, v = tensors()
    for shape in ((4,), (168, 4, 1)):
        scale = torch.linspace(0.1, 1, shape[0], dtype=torch.float64).reshape(
            -1, *shape[1:] and (1, 1)
        )
        scale = scale.expand(shape).clone().requires_grad_()
        out = attndsl.varlen("causal")(q, k, v, BOUNDS, scale=scale)
        wide = scale if scale.dim() == 3 else scale[:, None]
        want = attndsl.varlen("causal")(q * wide, k, v, BOUNDS, scale=1.0)
        torch.testing.assert_close(out, want)
        (grad,) = torch.autograd.grad(out.sum(), scale)
        assert grad.abs().sum() > 0


def test_it_compiles_to_one_graph():
    call = attndsl.varlen("causal")

    @torch.compile(fullgraph=True, backend="aot_eager", dynamic=False)
    def compiled(q, k, v, bounds):
        return call(q, k, v, bounds)

    leaves = [x.requires_grad_() for x in tensors()]
    out = compiled(*leaves, torch.tensor(BOUNDS))
    want = call(*leaves, BOUNDS)
    torch.testing.assert_close(out, want)
    ours, theirs = (torch.autograd.grad(x.sin().sum(), leaves) for x in (out, want))
    for mine, right in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, right)


def test_it_is_differentiated_in_every_way():
    call, (q, k, v) = attndsl.varlen("causal"), tensors(tokens=12)
    bounds = [0, 3, 3, 10, 12]

    def loss(q):
        return call(q, k, v, bounds).sin().sum()

    def right(q):
        return alone(CAUSAL, q, k, v, bounds, backend="reference").sin().sum()

    along = torch.randn(q.shape, generator=torch.Generator().manual_seed(1), dtype=q.dtype)
    torch.testing.assert_close(torch.func.grad(loss)(q), torch.func.grad(right)(q))
    ours = torch.func.jvp(loss, (q,), (along,))
    theirs = torch.func.jvp(right, (q,), (along,))
    torch.testing.assert_close(ours, theirs)
    hessian = [torch.func.jvp(torch.func.grad(f), (q,), (along,))[1] for f in (loss, right)]
    torch.testing.assert_close(*hessian)

    def of_values(v):  # rows that fill sequences up have no slopes
        return call(q, k, v, bounds, return_lse=True)[0].sin().sum()

    def right_of_values(v):
        return alone(CAUSAL, q, k, v, bounds, backend="reference").sin().sum()

    ahead = (v,), (torch.ones_like(v),)
    curved = [torch.func.jvp(torch.func.grad(f), *ahead)[1] for f in (of_values, right_of_values)]
    torch.testing.assert_close(*curved)
    many = torch.stack([q, 2 * q])
    mapped = torch.func.vmap(lambda q: call(q, k, v, bounds))(many)
    torch.testing.assert_close(mapped[1], call(2 * q, k, v, bounds))


MISTAKES = {
    "bounds_that_fall": ([0, 5, 3, 12], None),
    "bounds_that_begin_late": ([1, 12], None),
    "bounds_that_end_early": ([0, 5, 11], None),
    "bounds_of_other_sequences": ([0, 5, 12], [0, 12]),
    "bounds_of_a_float": (torch.tensor([0.0, 12.0]), None),
    "bounds_by_batch": (torch.tensor([[0, 12], [0, 12]]), None),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_explained_golden(name, golden):
    with pytest.raises(attndsl.AttnDslError) as caught:
        attndsl.varlen("causal")(*tensors(tokens=12), *MISTAKES[name])
    golden(GOLDEN / f"{name}.err", f"{caught.value}\n")


@pytest.mark.parametrize(("options", "code"), [
    ({"q_start": 3}, "A413"), ({"kv_len": torch.tensor([3])}, "A413"),
])  # fmt: skip
def test_positions_beside_bounds_are_refused(options, code):
    with pytest.raises(attndsl.AttnDslError, match=code):
        attndsl.varlen("causal")(*tensors(tokens=12), [0, 12], **options)


def test_an_input_of_another_size_is_refused():
    p = attndsl.varlen("input w: int[pos]\npattern p = w[k] <= w[q]")
    with pytest.raises(attndsl.AttnDslError, match=r"w: int\[batch, pos\]"):
        p(*tensors(tokens=12), [0, 5, 12], w=torch.zeros(12, dtype=torch.int64))
    p = attndsl.varlen("documents")
    with pytest.raises(attndsl.AttnDslError, match="A501"):
        p(*tensors(tokens=12), [0, 5, 12], doc=torch.zeros(11, dtype=torch.int64))
    with pytest.raises(attndsl.AttnDslError, match="A501"):
        p(*tensors(tokens=12), [0, 5, 12], doc=torch.zeros(2, 6, dtype=torch.int64))
    with pytest.raises(attndsl.AttnDslError, match="A502"):
        p(
            *(x[None] for x in tensors(tokens=12)),
            [0, 5, 12],
            doc=torch.zeros(12, dtype=torch.int64),
        )


# ---------------------------------------------------------------------------- nested tensors


def nested(x, is_transposed):
    made = torch.nested.nested_tensor_from_jagged(x, torch.tensor(BOUNDS))
    return made.transpose(1, 2) if is_transposed else made


@pytest.mark.parametrize("is_transposed", [True, False])
def test_nested_tensors_give_nested_tensors(is_transposed):
    leaves = [x.requires_grad_() for x in tensors()]
    offsets = torch.tensor(BOUNDS)
    q, k, v = (torch.nested.nested_tensor_from_jagged(x, offsets) for x in leaves)
    if is_transposed:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    out, lse = CAUSAL(q, k, v, return_lse=True)
    assert out.is_nested
    assert out.shape[:3] == q.shape[:3]
    assert lse.shape == q.shape[:3]
    plain = (out.transpose(1, 2) if is_transposed else out).values()
    want = alone(CAUSAL, *leaves, backend="reference")
    torch.testing.assert_close(plain, want)
    ours = torch.autograd.grad(plain.sin().sum(), leaves)
    for mine, right in zip(ours, torch.autograd.grad(want.sin().sum(), leaves), strict=True):
        torch.testing.assert_close(mine, right)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_tensors_that_do_not_fit_are_refused():
    q, k, v = (nested(x, True) for x in tensors())
    with pytest.raises(attndsl.AttnDslError, match="all be nested"):
        CAUSAL(q, k, tensors()[2].transpose(0, 1)[None])
    with pytest.raises(attndsl.AttnDslError, match="nested alike"):
        CAUSAL(q, k, v.transpose(1, 2))
    strided = torch.nested.nested_tensor([torch.zeros(4, 3, 8), torch.zeros(4, 2, 8)])
    with pytest.raises(attndsl.AttnDslError, match="jagged"):
        CAUSAL(strided, strided, strided)
