"""Attentions over disjoint keys merge into the attention over all of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attndsl

LENGTH = 11
BODIES = {  # one has queries without keys, one heads that differ
    "causal": "k <= q",
    "strict": "q % 3 != 1 and k < q",
    "heads": "window(head + 1) and k != 4",
}
PARTS = {
    name: [
        attndsl.compile(f"input part: int[k]\npattern p = ({body}) and part[k] == {i}")
        for i in range(4)
    ]
    for name, body in BODIES.items()
}
WHOLE = {name: attndsl.compile(f"pattern p = {body}") for name, body in BODIES.items()}


def tensors(seed: int) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    shapes = (2, 2, LENGTH, 4), (2, 1, LENGTH, 4), (2, 1, LENGTH, 3)
    return [torch.randn(s, generator=rng, dtype=torch.float64).requires_grad_() for s in shapes]


def gradients(out, lse, of):
    loss = (out * out.cos()).sum() + torch.where(lse.isfinite(), lse, 0).sin().sum()
    return torch.autograd.grad(loss, of)


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(sorted(BODIES)),
    st.lists(st.integers(0, 3), min_size=LENGTH, max_size=LENGTH),
    st.permutations(range(4)),
)
def test_calls_over_a_partition_of_the_keys_merge_into_the_whole(name, part, order):
    qkv = tensors(len(set(part)))
    calls = [PARTS[name][i](*qkv, part=torch.tensor(part), return_lse=True) for i in order]
    merged = attndsl.merge(*zip(*calls, strict=True))
    whole = WHOLE[name](*qkv, return_lse=True)
    for mine, right in zip(merged, whole, strict=True):
        torch.testing.assert_close(mine, right)
    for mine, right in zip(gradients(*merged, qkv), gradients(*whole, qkv), strict=True):
        torch.testing.assert_close(mine, right)


def parts(*levels):
    """Outputs and log-sum-exps of parts, for queries that see these log-sum-exps in each."""
    lses = torch.tensor(levels, dtype=torch.float64)
    rng = torch.Generator().manual_seed(0)
    outs = torch.randn(*lses.shape, 3, generator=rng, dtype=torch.float64)
    return outs.requires_grad_(), lses.requires_grad_()


NOTHING = -torch.inf


def test_parts_that_see_nothing_add_nothing():
    outs, lses = parts([0.5, NOTHING, NOTHING], [0.0, 2.0, NOTHING], [NOTHING, NOTHING, NOTHING])
    with torch.no_grad():
        outs[lses == NOTHING] = torch.nan
    out, lse = attndsl.merge(outs.unbind(), lses.unbind())
    share = torch.tensor([0.5, 0.0], dtype=torch.float64).softmax(0)
    torch.testing.assert_close(out[0], share[0] * outs[0, 0] + share[1] * outs[1, 0])
    assert torch.equal(out[1], outs[1, 1])
    assert torch.equal(out[2], torch.zeros(3))
    torch.testing.assert_close(lse[0], torch.tensor([0.5, 0.0], dtype=torch.float64).logsumexp(0))
    assert lse[1:].tolist() == [2.0, NOTHING]
    first = torch.autograd.grad(
        (out.square().sum(-1) * torch.where(lse.isfinite(), lse, 1.0)).sum(),
        (outs, lses),
        create_graph=True,
    )
    seen = lses != NOTHING
    assert all(g.isfinite().all() and not g[~seen].any() and g[seen].any() for g in first)
    second = torch.autograd.grad(sum(g.square().sum() for g in first), (outs, lses))
    assert all(g.isfinite().all() and not g[~seen].any() for g in second)


def merged(outs, lses):
    return attndsl.merge(outs.unbind(), lses.unbind())


def test_its_derivatives_are_those_of_its_numbers():
    given = parts([0.5, 3.0], [0.0, -2.0], [1.0, -300.0])
    assert torch.autograd.gradcheck(merged, given, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(merged, given)


@pytest.mark.parametrize("top", [1000.0, -1000.0])
def test_large_scores_neither_overflow_nor_vanish(top):
    outs, lses = (x.detach().float() for x in parts([top], [top - 1.0]))
    out, lse = merged(outs, lses)
    share = torch.tensor([0.0, -1.0]).softmax(0)
    torch.testing.assert_close(out, (share[:, None, None] * outs).sum(0))
    torch.testing.assert_close(lse, torch.tensor([top + 0.31326]))


def test_it_passes_under_transforms_and_the_compiler():
    outs, lses = (x.detach() for x in parts([0.5, NOTHING], [0.0, NOTHING]))
    batch = outs.expand(3, -1, -1, -1) * torch.arange(1, 4)[:, None, None, None], lses
    mapped = torch.func.vmap(merged, (0, None))(*batch)
    compiled = torch.compile(merged, fullgraph=True, backend="aot_eager")
    for i in range(3):
        want = merged(batch[0][i], lses)
        for mine, again, right in zip(mapped, compiled(batch[0][i], lses), want, strict=True):
            torch.testing.assert_close(mine[i], right)
            torch.testing.assert_close(again, right)


def test_the_output_has_the_dtype_of_the_outputs_and_the_level_that_of_a_call():
    out = torch.ones(2, 3, dtype=torch.bfloat16)
    made, lse = attndsl.merge([out, out], [torch.zeros(2)] * 2)
    assert made.dtype == torch.bfloat16
    assert torch.equal(made, out)
    assert lse.dtype == torch.float32


@pytest.mark.parametrize(
    ("outs", "lses", "said"),
    [
        ([], [], "a log-sum-exp for each output, not 0 for 0"),
        ([torch.ones(2, 3)], [], "not 0 for 1"),
        ([torch.ones(2, 3), torch.ones(2, 4)], [torch.ones(2)] * 2, r"outs\[1\]: float32\[2, 4\]"),
        ([torch.ones(2, 3)], [torch.ones(1)], r"lses\[0\]: float32\[1\]"),
        ([torch.ones(())], [torch.ones(())], "A502"),
        ([torch.ones(2, 3), torch.ones(2, 3).double()], [torch.ones(2)] * 2, "one dtype"),
        ([torch.ones(2, 3).int()], [torch.ones(2)], "floating-point"),
        ([torch.ones(2, 3)], [torch.ones(2, device="meta")], "one device"),
        ([3.0], [torch.ones(2)], "takes tensors"),
    ],
)
def test_parts_that_do_not_fit_are_refused(outs, lses, said):
    with pytest.raises(attndsl.AttnDslError, match=said):
        attndsl.merge(outs, lses)
