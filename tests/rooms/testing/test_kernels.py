"""``assert_matches_dense`` accepts right kernels of others, and says what is wrong with wrong ones."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from torch.nn import functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import attndsl
from attndsl.testing import Case, assert_matches_dense, cases, inputs, sweep, tensors

WINDOW = attndsl.compile("pattern window_of_20 = 0 <= q - k < 20")


def attend(q, k, v, mask, scale=None):
    """Plain masked attention by softmax, without care for rows that see nothing."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
    scores = scores.masked_fill(~mask, -math.inf)
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


def window(q, k, w=20):
    i, j = torch.arange(q.shape[2])[:, None], torch.arange(k.shape[2])
    return (i - j >= 0) & (i - j < w)


def right(q, k, v):
    return attend(q, k, v, window(q, k))


def off_by_one(q, k, v):
    return attend(q, k, v, window(q, k, 21))


def dropped_tile(q, k, v):
    mask = window(q, k)
    mask[64:96, 64:96] = False
    return attend(q, k, v, mask)


def unmasked_tile(q, k, v):
    mask = window(q, k)
    mask[64:96, 64:96] = True
    return attend(q, k, v, mask)


class ScaledTwice(torch.autograd.Function):
    """Nothing forward; a factor too much backward."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.factor, None


def scale_in_dk(q, k, v):
    return right(q, ScaledTwice.apply(k, q.shape[-1] ** -0.5), v)


def no_lse_gradient(q, k, v):
    out, lse = right(q, k, v)
    return out, lse.detach()


def base_two(q, k, v):
    out, lse = right(q, k, v)
    return out, lse / math.log(2)


def unscaled(q, k, v):
    return attend(q, k, v, window(q, k), scale=1.0)[0]


def heads_in_turn(q, k, v):
    turns = q.shape[1] // k.shape[1]
    return attend(q, k.repeat(1, turns, 1, 1), v.repeat(1, turns, 1, 1), window(q, k))[0]


def swapped(q, k, v):
    return attend(q, k, v, window(q, k).mT)[0]


def half_dv(q, k, v):
    return right(q, k, ScaledTwice.apply(v, 0.5))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_right_kernels_pass(dtype: torch.dtype):
    assert_matches_dense(right, WINDOW, dtype=dtype, kv_heads=1, value_dim=24)
    assert_matches_dense(lambda q, k, v: right(q, k, v)[0], WINDOW, dtype=dtype)
    assert_matches_dense(no_lse_gradient, WINDOW, dtype=dtype, through_lse=False)
    with torch.no_grad():
        assert_matches_dense(right, WINDOW, dtype=dtype, backward=False)


@pytest.mark.parametrize(
    ("kernel", "what", "said"),
    [
        (
            off_by_one,
            "out",
            "all of them at key - query = -20: an edge that is off by one",
        ),
        (dropped_tile, "out", "queries 64..95, keys 64..95: a tile that was left out"),
        (unmasked_tile, "out", "queries 64..95, keys 64..95 are computed without a mask"),
        (scale_in_dk, "dk", "the scale is applied twice"),
        (no_lse_gradient, "dq", "as if none arrived through the log-sum-exp"),
        (base_two, "lse", "the logarithm has base 2"),
        (unscaled, "out", "this is attention without a scale"),
        (heads_in_turn, "out", "query head h reads key head h % 2, not h // 2"),
        (swapped, "out", "queries and keys are swapped"),
        (half_dv, "dv", "all of it is 0.5 times what it should be"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_wrong_kernel_is_told_what_it_does(kernel, what, said, dtype):
    with pytest.raises(AssertionError) as caught:
        assert_matches_dense(kernel, WINDOW, heads=4, kv_heads=2, dtype=dtype, head_dim=16)
    text = str(caught.value)
    assert text.startswith(f"window_of_20: wrong, the kernel on cpu, {what}\n")
    assert said in text
    assert "\n  got " in text
    assert "\n  want " in text


def test_rows_without_keys_are_not_a_number_in_plain_softmax():
    p = attndsl.compile("pattern strict = k < q")

    def kernel(q, k, v):
        i, j = torch.arange(q.shape[2])[:, None], torch.arange(k.shape[2])
        return attend(q, k, v, j < i)[0]

    with pytest.raises(AssertionError, match="only queries without a key are wrong") as caught:
        assert_matches_dense(kernel, p, backward=False)
    assert "got     nan" in str(caught.value)


def test_a_result_of_another_shape_is_shown():
    with pytest.raises(AssertionError, match=r"got     shape \[2, 2, 200, 31\]"):
        assert_matches_dense(lambda q, k, v: right(q, k, v)[0][..., :31], WINDOW, backward=False)


def test_sdpa_is_right_and_its_alignment_is_that_of_the_start():
    causal = partial(F.scaled_dot_product_attention, is_causal=True)
    assert_matches_dense(causal, attndsl.compile("causal"))
    assert_matches_dense(
        causal, attndsl.compile("pattern p align start = k <= q"), q_len=40, k_len=70
    )
    with pytest.raises(AssertionError, match="query 0, key 1: the kernel does not see this pair"):
        assert_matches_dense(causal, attndsl.compile("causal"), q_len=40, k_len=70)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_is_right_and_a_wrong_mask_of_it_is_found():
    document = torch.tensor([0] * 70 + [1] * 58)
    p = attndsl.compile("documents_causal")

    def flex(q, k, v, mask):
        blocks = create_block_mask(mask, None, None, q.shape[2], k.shape[2], device="cpu")
        return flex_attention(q, k, v, block_mask=blocks)

    def same(b, h, i, j):
        return (document[i] == document[j]) & (j <= i)

    def late(b, h, i, j):
        return (document[i] == document[j]) & (j < i + 2)

    call = {"inputs": {"doc": document[None]}, "q_len": 128, "batch": 1, "head_dim": 16}
    call["backward"] = False  # flex_attention has no backward on CPUs
    assert_matches_dense(partial(flex, mask=same), p, **call)
    with pytest.raises(AssertionError, match="all of them at key - query = 1"):
        assert_matches_dense(partial(flex, mask=late), p, **call)


# ---------------------------------------------------------------------------- strategies

READ = attndsl.compile(
    "input doc: int[batch, pos]\ninput near: list[head, q, slots]\ngrid g(y, x)\n"
    "pattern p over g = doc[q] == doc[k] and q.y == k.y or k in near[q]"
)


@given(cases(READ))
def test_cases_are_calls_that_the_pattern_allows(case: Case):
    from attndsl.verification import dense

    assert dense(READ, case).shape == (case.batch, case.heads, case.q_len, case.k_len)
    x = case.tensors()
    assert x.q.shape == (case.batch, case.heads, case.q_len, case.head_dim)
    assert x.v.shape == (case.batch, case.kv_heads, case.k_len, case.value_dim)
    assert case.inputs["near"].shape[:2] == (case.heads, case.q_len)
    assert case.inputs["near"].min(initial=0) >= -1


@given(cases(WINDOW, 60, heads=4, kv_heads=2, dtype=torch.float64, scale=0.1))
@settings(max_examples=10)
def test_fields_of_a_case_can_be_fixed(case: Case):
    assert (case.heads, case.kv_heads, case.dtype) == (4, 2, torch.float64)
    assert max(case.q_len, case.k_len) <= 60

    def kernel(q, k, v):
        mask = WINDOW.mask(q.shape[2], k.shape[2])[0, 0]
        out, lse = attend(q, k, v, mask, scale=0.1)
        empty = ~mask.any(-1)
        return out.masked_fill(empty[:, None], 0.0), lse

    assert_matches_dense(kernel, WINDOW, case, backward=False)


@given(inputs(READ, 12, batch=2, heads=3, extents={"y": 3}))
def test_inputs_have_the_shapes_that_are_declared(given):
    assert given["doc"].shape == (2, 12)
    assert given["near"].shape[:2] == (3, 12)


@given(tensors(WINDOW, largest=20))
def test_tensors_come_with_their_call(drawn):
    case, x = drawn
    again = case.tensors()
    assert torch.equal(x.q, again.q)
    assert torch.equal(x.dlse, again.dlse)
    assert x.q.is_contiguous() == case.is_contiguous or 1 in x.q.shape


def test_a_kernel_without_the_zero_keys_of_the_pattern_is_named():
    p = attndsl.compile("pattern quiet = causal zeros 1")

    def quiet(q, k, v):
        zeros = (torch.zeros_like(x[:, :, :1]) for x in (k, v))
        k, v = (torch.cat(pair, 2) for pair in zip(zeros, (k, v), strict=True))
        length = q.shape[2]
        return attend(q, k, v, torch.ones(length, length + 1, dtype=torch.bool).tril(1))

    assert_matches_dense(quiet, p, q_len=40)
    with pytest.raises(AssertionError, match="without the zero keys"):
        assert_matches_dense(lambda q, k, v: attend(q, k, v, window(q, k, 40)), p, q_len=40)


def alibi_by_hand(wrong, q, k, v, call):
    """ALiBi by softmax; the slopes are read from the call, and their gradient is judged."""
    slope = wrong(call.inputs["slope"])
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    back = (torch.arange(q.shape[2]) + k.shape[2] - q.shape[2])[:, None] - torch.arange(k.shape[2])
    dead, empty = back < 0, (back < 0).all(-1)[:, None]
    scores = q @ k.mT * call.factor - slope.view(-1, 1, 1) * back
    scores = scores.masked_fill(dead, -math.inf).masked_fill(empty, 0.0)
    return scores.softmax(-1).masked_fill(empty, 0.0) @ v


def test_a_kernel_is_judged_by_an_attention_and_the_gradient_of_its_real_inputs():
    judged = {"calls": 6, "largest": 40, "dtype": [torch.float32, torch.float64]}
    sweep(partial(alibi_by_hand, lambda slope: slope), "alibi", **judged)
    with pytest.raises(AssertionError, match="alibi: wrong, the kernel on cpu, dslope"):
        sweep(partial(alibi_by_hand, torch.Tensor.detach), "alibi", **judged)
    with pytest.raises(AssertionError, match="alibi: wrong, the kernel on cpu, out"):
        sweep(partial(alibi_by_hand, torch.neg), "alibi", **judged)
    case = Case(3, 3, heads=2, kv_heads=2, dtype=torch.float64, inputs={"slope": [0.5, 0.25]})
    alibi = attndsl.compile("alibi")
    assert_matches_dense(partial(alibi, slope=torch.tensor([0.5, 0.25])), alibi, case)
