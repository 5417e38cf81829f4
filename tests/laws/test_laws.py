"""Laws that attention over patterns obeys, whatever computes it: nothing here knows the right numbers.

Each test computes one thing in two ways that must agree. All in float64, so that disagreement beyond
rounding is a fault.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attndsl
from attndsl import ir
from tests.support import expressions as ex

PATTERNS = [
    "causal", "window(9, 3)", "causal and (q - k < 20 or k < 4)", "window(6) or q < 3 or k < 3",
    "q % 5 == k % 5 and abs(q - k) <= 30", "causal and (q - k < 16 or k % 16 == 15)",
    "q // 12 == k // 12", "abs(q // 8 - k // 8) <= 1 and q != k", "k < q",
    "any j in 0..7: q - k == pow2(j)", "(q * 7 + k * 3) % 11 < 4",
]  # fmt: skip
LENGTHS = st.tuples(st.integers(1, 90), st.integers(1, 90))
TILES = st.sampled_from([(8, 8), (16, 32), (64, 64)])


def compiled(text: str) -> attndsl.Pattern:
    return attndsl.compile(f"pattern p = {text}")


def tensors(
    seed: int, batch: int, heads: int, kv_heads: int, q_len: int, k_len: int, width: int = 8
):
    make = torch.Generator().manual_seed(seed)
    shapes = [(heads, q_len), (kv_heads, k_len), (kv_heads, k_len), (heads, q_len)]
    return [
        torch.randn(batch, *shape, width, generator=make, dtype=torch.float64) for shape in shapes
    ]


def results(p: attndsl.Pattern, q, k, v, dout, **options) -> list[torch.Tensor]:
    """out, lse, dq, dk, dv; the log-sum-exp of rows without keys has no gradient."""
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    out, lse = p(*leaves, return_lse=True, backend="blocked", **options)
    dlse = torch.where(lse.isinf(), 0.0, lse.detach().sin())
    return [out.detach(), lse.detach(), *torch.autograd.grad((out, lse), leaves, (dout, dlse))]


def assert_same(ours, theirs, what: str = "") -> None:
    for name, one, other in zip(("out", "lse", "dq", "dk", "dv"), ours, theirs, strict=True):
        torch.testing.assert_close(
            one, other, rtol=1e-9, atol=1e-10, msg=lambda m, n=name: f"{n} {what}: {m}"
        )


def cover(
    root: ir.Node, q_len: int, k_len: int, tile: tuple[int, int], layout: str = "natural"
) -> np.ndarray:
    p = attndsl.compile(ir.Mask(root))
    return p.schedule(q_len, k_len, tile=tile, layout=layout).cover()


# ---------------------------------------------------------------------------- sets


def plain(expression: ex.Expression) -> ir.Node:
    """Without tables and batch, so that one plan is all there is."""

    def rule(node: ir.Node) -> ir.Node:
        match node:
            case ir.Load(index=(index,)):
                return ir.mod(index, ir.Const(5))
            case ir.Var():
                return ir.Const(1)
            case _:
                return node

    return ir.transform(expression.root, rule)


@settings(max_examples=60)
@given(ex.bools(4).map(plain), ex.bools(3).map(plain), LENGTHS, TILES)
def test_schedules_are_a_boolean_algebra(a, b, lengths, tile):
    first = max(0, lengths[0] - lengths[1])  # queries before it are no tokens and see nothing

    def pairs(root: ir.Node) -> np.ndarray:
        return cover(root, *lengths, tile)[first:]

    one, other = pairs(a), pairs(b)
    assert np.array_equal(pairs(ir.negate(a)), ~one)
    assert np.array_equal(pairs(ir.conj(a, b)), one & other)
    assert np.array_equal(pairs(ir.disj(a, b)), one | other)
    de_morgan = ir.negate(ir.conj(ir.negate(a), ir.negate(b)))
    assert np.array_equal(pairs(de_morgan), one | other)


@settings(max_examples=40)
@given(
    ex.bools(4).map(plain), LENGTHS,
    st.sampled_from(["residues(3)", "residues(8)", "residues(5) / natural", "natural / residues(2)", "auto"]),
)  # fmt: skip
def test_the_order_of_tokens_changes_no_pair(a, lengths, layout):
    natural = cover(a, *lengths, (16, 16))
    assert np.array_equal(cover(a, *lengths, (16, 16), layout), natural)
    assert np.array_equal(cover(a, *lengths, (8, 64), layout), natural)


@settings(max_examples=40)
@given(ex.bools(4).map(plain), st.integers(1, 60), st.integers(0, 40))
def test_a_prefix_sees_what_it_saw_before_more_tokens_came(a, length, more):
    short = cover(a, length, length, (16, 16))
    long = cover(a, length + more, length + more, (16, 16))
    assert np.array_equal(long[:length, :length], short)


@settings(max_examples=30)
@given(ex.bools(4).map(plain), st.integers(1, 60), st.integers(1, 60))
def test_decoding_sees_the_last_rows_of_the_square(a, q_len, k_len):
    q_len, k_len = sorted((q_len, k_len))
    square = cover(a, k_len, k_len, (16, 16))
    assert np.array_equal(cover(a, q_len, k_len, (16, 16)), square[k_len - q_len :])


@settings(max_examples=20)
@given(st.sampled_from(PATTERNS), st.integers(1, 60), st.integers(1, 20))
def test_what_is_called_translation_invariant_is_so_in_its_schedules(text, length, by):
    p = compiled(text)
    if p.facts()["translation_invariant"] == "proved":
        long = p.schedule(length + by).cover()
        assert np.array_equal(long[by:, by:], p.schedule(length).cover())


# ---------------------------------------------------------------------------- softmax


@settings(max_examples=25)
@given(st.sampled_from(PATTERNS), st.sampled_from(PATTERNS), LENGTHS, st.integers(0, 99))
def test_a_union_is_merged_by_log_sum_exp(one, other, lengths, seed):
    q, k, v, _ = tensors(seed, 1, 2, 2, *lengths)
    first = compiled(one)(q, k, v, return_lse=True)
    rest = compiled(f"({other}) and not ({one})")(q, k, v, return_lse=True)
    out, lse = compiled(f"({one}) or ({other})")(q, k, v, return_lse=True)
    torch.testing.assert_close(lse, torch.logaddexp(first[1], rest[1]))
    assert (lse >= first[1] - 1e-12).all(), "more keys, a greater log-sum-exp"
    level = lse.masked_fill(lse.isinf(), 0.0)[..., None]
    merged = (
        first[0] * (first[1][..., None] - level).exp()
        + rest[0] * (rest[1][..., None] - level).exp()
    )
    torch.testing.assert_close(out, merged)


@settings(max_examples=20)
@given(st.sampled_from(PATTERNS), LENGTHS, st.integers(0, 99))
def test_outputs_are_means_of_values(text, lengths, seed):
    q, k, v, _ = tensors(seed, 1, 1, 1, *lengths)
    p = compiled(text)
    alive = p.mask(*lengths)[0, 0].any(-1)
    out = p(q, k, torch.ones_like(v))[0, 0]
    torch.testing.assert_close(out, alive[:, None].double().expand_as(out))
    double = p(q, k, 2 * v + 1)
    torch.testing.assert_close(double, 2 * p(q, k, v) + alive[:, None])


@settings(max_examples=20)
@given(st.sampled_from(PATTERNS), LENGTHS, st.floats(0.1, 4.0), st.integers(0, 99))
def test_a_scale_is_a_factor_on_queries(text, lengths, scale, seed):
    q, k, v, dout = tensors(seed, 1, 2, 1, *lengths)
    ours = results(compiled(text), q, k, v, dout, scale=scale)
    theirs = results(compiled(text), q * scale, k, v, dout, scale=1.0)
    theirs[2] = theirs[2] * scale
    assert_same(ours, theirs)


@settings(max_examples=20)
@given(st.sampled_from(PATTERNS), LENGTHS, st.integers(0, 99))
def test_one_number_added_to_a_key_s_direction_moves_every_logit_alike(text, lengths, seed):
    q, k, v, _ = tensors(seed, 1, 1, 1, *lengths)
    p = compiled(text)
    out, lse = p(q, k, v, return_lse=True, scale=0.5)
    direction = torch.randn(8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    moved, shifted = p(q, k + direction, v, return_lse=True, scale=0.5)
    torch.testing.assert_close(moved, out)
    torch.testing.assert_close(shifted, lse + 0.5 * (q @ direction))


# ---------------------------------------------------------------------------- heads and batches


@settings(max_examples=15)
@given(st.sampled_from(PATTERNS), LENGTHS, st.permutations(range(4)), st.integers(0, 99))
def test_heads_that_are_alike_may_change_places(text, lengths, order, seed):
    given_tensors = tensors(seed, 2, 4, 4, *lengths)
    ours = results(compiled(text), *given_tensors)
    moved = results(compiled(text), *(x[:, order] for x in given_tensors))
    assert_same([x[:, order] for x in ours], moved)


@settings(max_examples=15)
@given(
    st.sampled_from([*PATTERNS, "if head % 2 == 0 then causal else window(5)"]), LENGTHS,
    st.sampled_from([(2, 1), (4, 2), (6, 2), (3, 3)]), st.integers(0, 99),
)  # fmt: skip
def test_shared_keys_are_repeated_keys(text, lengths, heads, seed):
    q, k, v, dout = tensors(seed, 2, *heads, *lengths)
    group = heads[0] // heads[1]
    ours = results(compiled(text), q, k, v, dout)
    repeated = [x.repeat_interleave(group, 1) for x in (k, v)]
    theirs = results(compiled(text), q, *repeated, dout)
    theirs[3:] = [x.unflatten(1, (heads[1], group)).sum(2) for x in theirs[3:]]
    assert_same(ours, theirs)


@settings(max_examples=15)
@given(st.integers(1, 60), st.integers(0, 99))
def test_batch_elements_are_calls_of_their_own(length, seed):
    p = attndsl.compile("documents_causal")
    doc = np.random.default_rng(seed).integers(0, 4, (3, length))
    given_tensors = tensors(seed, 3, 2, 1, length, length)
    together = results(p, *given_tensors, doc=torch.from_numpy(doc))
    alone = [
        results(p, *(x[b : b + 1] for x in given_tensors), doc=torch.from_numpy(doc[b : b + 1]))
        for b in range(3)
    ]
    assert_same(together, [torch.cat(parts) for parts in zip(*alone, strict=True)])


# ---------------------------------------------------------------------------- tokens


@settings(max_examples=15)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(0, 99))
def test_packed_documents_are_calls_of_their_own(sizes, seed):
    total = sum(sizes)
    doc = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))[None]
    given_tensors = tensors(seed, 1, 2, 2, total, total)
    packed = results(attndsl.compile("documents_causal"), *given_tensors, doc=doc)
    pieces = zip(*(x.split(sizes, dim=2) for x in given_tensors), strict=True)
    alone = [results(attndsl.compile("causal"), *piece) for piece in pieces]
    assert_same(packed, [torch.cat(parts, dim=2) for parts in zip(*alone, strict=True)])


@settings(max_examples=15)
@given(st.integers(1, 70), st.integers(0, 40), st.integers(0, 99))
def test_causal_outputs_do_not_know_what_comes_later(length, more, seed):
    total = length + more
    q, k, v, _ = tensors(seed, 1, 2, 2, total, total)
    for text in ("causal", "causal and (q - k < 20 or k < 4)", "causal_window(7)"):
        p = compiled(text)
        early = p(q[:, :, :length], k[:, :, :length], v[:, :, :length])
        torch.testing.assert_close(p(q, k, v)[:, :, :length], early)


@settings(max_examples=15)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 99))
def test_keys_are_a_set(q_len, k_len, seed):
    """Keys that change places together with what is said of them change nothing but their gradients' places."""
    random = np.random.default_rng(seed)
    p = attndsl.compile("input keep: bool[k]\npattern p = keep[k]")
    keep, order = torch.from_numpy(random.random(k_len) < 0.6), random.permutation(k_len)
    q, k, v, dout = tensors(seed, 1, 2, 1, q_len, k_len)
    ours = results(p, q, k, v, dout, keep=keep)
    moved = results(p, q, k[:, :, order], v[:, :, order], dout, keep=keep[order])
    ours[3:] = [x[:, :, order] for x in ours[3:]]
    assert_same(ours, moved)


@pytest.mark.parametrize(
    "layout", ["residues(4)", "boxes(y=2, x=3)", "axes(x, y)", "morton(y, x)", "auto"]
)
def test_layouts_change_no_result(layout):
    p = attndsl.compile("neighborhood2d", sy=5, sx=3)
    given_tensors = tensors(3, 2, 4, 2, 13 * 9, 13 * 9)
    options = {"extents": {"y": 13, "x": 9}}
    natural = results(p, *given_tensors, **options)
    assert_same(results(p, *given_tensors, layout=layout, **options), natural, layout)
    assert math.isfinite(natural[1].sum())
