"""Kernels of other libraries are called with arguments that mean the pattern, or refused.

Where a library or a GPU is missing, its function is stood for by dense attention with the meaning that it publishes.
"""

import importlib.util
import math
import sys
import types
import typing

import pytest
import torch

import attndsl
from attndsl.op import foreign

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
DOC = torch.tensor([[0] * 9 + [1] * 30 + [2] + [3] * 30, [0] * 40 + [5] * 30])


def dense(q, k, v, seen, scale):
    """Attention of [heads, queries, dim] within a mask, and its log-sum-exp."""
    scores = (q @ k.transpose(-1, -2) * scale).masked_fill(~seen, -math.inf)
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


def packed_attention(q, k, v, cu_q, cu_k, window, scale):
    """Windows in packed documents whose queries are the last tokens: [tokens, heads, dim], lse [heads, tokens]."""
    outs, lses = [], []
    for n in range(len(cu_q) - 1):
        own_q, own_k = (slice(*x[n : n + 2].tolist()) for x in (cu_q, cu_k))
        mine, keys, values = q[own_q], k[own_k], v[own_k]
        group = mine.shape[1] // keys.shape[1]
        places = torch.arange(len(mine))[:, None] + len(keys) - len(mine)
        apart = torch.arange(len(keys)) - places
        left, right = (10**9 if n < 0 else n for n in window)
        tensors = [mine, keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1)]
        seen = (apart >= -left) & (apart <= right)
        out, lse = dense(*(x.transpose(0, 1) for x in tensors), seen, scale)
        outs.append(out.transpose(0, 1))
        lses.append(lse.detach())
    return torch.cat(outs), torch.cat(lses, 1)


def flash_attn_varlen_func(q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k,
                           dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1),
                           return_attn_probs=False):  # fmt: skip
    assert max_seqlen_q == cu_seqlens_q.diff().max()
    assert max_seqlen_k == cu_seqlens_k.diff().max()
    window = (window_size[0], 0) if causal else window_size
    made = packed_attention(q, k, v, cu_seqlens_q, cu_seqlens_k, window, softmax_scale)
    return (*made, None) if return_attn_probs else made[0]


def varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None,
                window_size=(-1, -1), enable_gqa=False):  # fmt: skip
    assert enable_gqa or query.shape[1] == key.shape[1]
    made = packed_attention(query, key, value, cu_seq_q, cu_seq_k, window_size, scale)
    return made if return_aux.lse else made[0]


def old_varlen_attn(
    query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None
):
    window, scale = (-1, 0) if is_causal else (-1, -1), query.shape[-1] ** -0.5
    return packed_attention(query, key, value, cu_seq_q, cu_seq_k, window, scale)


def neighbourhood(n, size, stride, dilation, causal):
    """Along one axis: the residue class of a query, and a window in it that is moved inwards at its ends."""
    seen = torch.zeros(n, n, dtype=torch.bool)
    for i in range(n):
        own = list(range(i % dilation, n, dilation))
        leader = i // dilation // stride * stride + (stride - 1 if causal else stride // 2)
        leader = min(leader, len(own) - 1)
        first = min(max(leader - size // 2, 0), len(own) - size)
        some = (
            own[max(0, leader - size + 1) : i // dilation + 1]
            if causal
            else own[first : first + size]
        )
        seen[i, some] = True
    return seen


def na(
    query,
    key,
    value,
    kernel_size,
    stride=1,
    dilation=1,
    is_causal=False,
    scale=None,
    return_lse=False,
):
    shape = query.shape[1:-2]
    seen = torch.ones(1, 1, dtype=torch.bool)
    for numbers in zip(shape, kernel_size, stride, dilation, is_causal, strict=True):
        seen = torch.kron(seen, neighbourhood(*numbers))
    q, k, v = (x.flatten(1, len(shape)).transpose(1, 2) for x in (query, key, value))
    group = q.shape[1] // k.shape[1]
    out, lse = dense(q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1), seen, scale)
    out, lse = (x.transpose(1, 2).unflatten(1, shape) for x in (out, lse.detach()))
    return (out, lse) if return_lse else out


class AuxRequest(typing.NamedTuple):
    lse: bool = False


@pytest.fixture
def installed(monkeypatch):
    modules = {"flash_attn": {"flash_attn_varlen_func": flash_attn_varlen_func},
               "natten": {"na1d": na, "na2d": na, "na3d": na}}  # fmt: skip
    for name, functions in modules.items():
        module = types.ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)
    if importlib.util.find_spec("torch.nn.attention.varlen") is None:  # torch before 2.10
        module = types.ModuleType("torch.nn.attention.varlen")
        module.AuxRequest, module.varlen_attn = AuxRequest, None
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(torch.nn.attention, "varlen", module, raising=False)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    monkeypatch.setattr(foreign, "why_not", lambda *_: None)


def tensors(q_len, k_len=None, batch=2, widths=(12, 20)):
    k_len = q_len if k_len is None else k_len
    make = torch.Generator().manual_seed(0)
    shapes = (4, q_len, widths[0]), (2, k_len, widths[0]), (2, k_len, widths[1])
    return [
        torch.randn(batch, *s, generator=make, dtype=torch.float64).requires_grad_() for s in shapes
    ]


def check(p, qkv, backend, **given):
    found = p(*qkv, backend=backend, return_lse=True, scale=0.3, **given)
    wanted = p(*qkv, backend="reference", return_lse=True, scale=0.3, **given)
    torch.testing.assert_close(found, wanted)
    weight = torch.linspace(0, 1, found[0].numel(), dtype=torch.float64).view_as(found[0])
    mine, theirs = (torch.autograd.grad((made[0] * weight).sum(), qkv) for made in (found, wanted))
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("backend", ["varlen", "flash_attn"])
@pytest.mark.parametrize(("text", "lengths"), [
    ("causal", (70,)), ("k == k", (70, 30)), ("documents_causal", (70,)), ("window(5, 0)", (70,)),
    ("input doc: int[batch, pos]\npattern p = doc[q] == doc[k]", (70,)), ("window(3, 8)", (20, 70)),
    ("input doc: int[batch, pos]\npattern p = doc[q] == doc[k] and 0 <= k - q < 5", (70,)),
    ("documents_causal and q - k < 6", (70,)), ("causal", (20, 70)), ("causal", (1, 70)),
])  # fmt: skip
def test_windows_in_documents_are_those_of_the_oracle(installed, backend, text, lengths):
    p = attndsl.compile(text)
    check(p, tensors(*lengths), backend, **({"doc": DOC} if "doc" in text else {}))


def test_a_torch_that_knows_neither_scale_nor_window_is_called_as_it_is(installed, monkeypatch):
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", old_varlen_attn)
    check(attndsl.compile("documents_causal"), tensors(70), "varlen", doc=DOC)
    with pytest.raises(attndsl.AttnDslError, match="takes no windows"):
        attndsl.compile("window(5, 0)")(*tensors(70), backend="varlen")


@pytest.mark.parametrize(("text", "extents"), [
    ("neighborhood1d(6, 3, 2)", None), ("window(4, 0)", None), ("neighborhood1d(5, stride=3, past=true)", None),
    ("pattern p over image = neighborhood2d(3, 4, dx=2, ty=2)", {"y": 5, "x": 14}),
    ("pattern p over volume = neighborhood3d(2, 3, 3, px=true)", {"t": 2, "y": 5, "x": 7}),
])  # fmt: skip
def test_neighbourhoods_are_those_of_the_oracle(installed, text, extents):
    check(attndsl.compile(text), tensors(70), "natten", extents=extents)


@pytest.mark.parametrize("text", ["causal", "k == k"])
def test_a_square_goes_to_the_kernels_of_torch(text):
    check(attndsl.compile(text), tensors(70, widths=(16, 16)), "sdpa")


def test_all_pairs_of_any_lengths_go_to_the_kernels_of_torch():
    check(attndsl.compile("k == k"), tensors(9, 40), "sdpa")
    check(attndsl.compile("causal"), tensors(1, 40), "sdpa")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("causal", [True, False])
def test_the_kernels_of_gpus_are_given_their_arguments(causal, dtype):
    """Argument by argument as torch declares them; the numbers are those of dense attention."""
    told = {}

    def efficient(
        query,
        key,
        value,
        attn_bias,
        compute_log_sumexp,
        dropout_p=0.0,
        is_causal=False,
        *,
        scale=None,
    ):
        told.update(
            name="efficient", is_plain=attn_bias is None and compute_log_sumexp and not dropout_p
        )
        return answer(query, key, value, is_causal, scale)

    def flash(
        query, key, value, dropout_p=0.0, is_causal=False, return_debug_mask=False, *, scale=None
    ):
        told.update(name="flash", is_plain=not dropout_p and not return_debug_mask)
        return answer(query, key, value, is_causal, scale)

    def answer(q, k, v, is_causal, scale):
        assert q.shape[1] == k.shape[1]
        assert q.shape[3] == v.shape[3]
        assert q.shape[3] % 8 == 0
        seen = torch.ones(q.shape[2], k.shape[2]).tril() > 0 if is_causal else torch.ones(1, 1) > 0
        out, lse = dense(q, k, v, seen, scale)
        return out, torch.nn.functional.pad(lse, (0, 3)), None, None

    kernels = types.SimpleNamespace(
        _scaled_dot_product_efficient_attention=efficient, _scaled_dot_product_flash_attention=flash
    )
    given = [x.detach().to(dtype) for x in tensors(70)]
    out, lse = foreign._in_a_square(causal, kernels, given, 0.3)
    p = attndsl.compile("causal" if causal else "k == k")
    wanted = p(*(x.double() for x in given), backend="reference", return_lse=True, scale=0.3)
    assert told == {"name": "flash" if dtype == torch.float16 else "efficient", "is_plain": True}
    rough = {"rtol": 2e-2, "atol": 2e-2} if dtype == torch.float16 else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(out.double(), wanted[0], **rough)
    torch.testing.assert_close(lse.double(), wanted[1], **rough)


@pytest.mark.parametrize(("backend", "text", "said"), [
    ("sdpa", "window(5, 0)", "neither all pairs nor"), ("varlen", "(q - k) % 3 == 0", "not neighbours"),
    ("flash_attn", "neighborhood1d(7)", "nor a window"), ("natten", "window(4, 9)", "along axis 0"),
    ("varlen", "if head < 1 then causal else k == k", "heads differ"),
    ("varlen", "k < q", "query 0 does not see itself"),
    ("natten", "pattern p = causal zeros 1", "zero keys"),
])  # fmt: skip
def test_pairs_of_no_such_family_are_refused_with_the_reason(installed, backend, text, said):
    with pytest.raises(attndsl.AttnDslError, match=said) as caught:
        attndsl.compile(text)(*tensors(70), backend=backend)
    assert caught.value.code == "A520"


def test_few_queries_at_the_end_are_no_square():
    with pytest.raises(attndsl.AttnDslError, match="neither all pairs nor"):
        attndsl.compile("causal")(*tensors(9, 40), backend="sdpa")


@pytest.mark.parametrize("backend", ["sdpa", "flex"])
def test_positions_and_bounds_of_sequences_are_refused(backend):
    p, q = attndsl.compile("causal"), torch.randn(1, 2, 12, 8)
    with pytest.raises(attndsl.AttnDslError, match="positions of tokens"):
        p(q, q, q, q_start=3, backend=backend)
    bounds = torch.tensor([0, 5, 12])
    with pytest.raises(attndsl.AttnDslError, match="bounds of packed sequences"):
        attndsl.varlen(p)(
            q[0].transpose(0, 1), *[q[0].transpose(0, 1)] * 2, bounds, bounds, backend=backend
        )


def test_a_gradient_through_the_level_of_a_kernel_that_has_none_is_refused(installed):
    qkv = tensors(70)
    out, lse = attndsl.compile("causal")(*qkv, backend="varlen", return_lse=True)
    out.sum().backward()
    out, lse = attndsl.compile("causal")(*qkv, backend="varlen", return_lse=True)
    with pytest.raises(attndsl.AttnDslError, match="has no gradient"):
        (out.sum() + lse.sum()).backward()


def test_inputs_that_change_are_looked_at_again(installed):
    p, qkv, doc = attndsl.compile("documents_causal"), tensors(70), DOC.clone()
    check(p, qkv, "varlen", doc=doc)
    doc[:, 5:] += 7
    check(p, qkv, "varlen", doc=doc)
    with pytest.raises(attndsl.AttnDslError, match="not neighbours"):
        p(*qkv, backend="varlen", doc=torch.arange(70)[None] % 2)


@pytest.mark.parametrize("backend", ["sdpa", "flex"])
def test_an_order_of_tokens_that_a_kernel_would_ignore_is_refused(backend: str):
    causal, x = attndsl.compile("causal"), torch.randn(1, 1, 8, 4)
    assert causal(x, x, x, backend=backend, layout="natural").shape == x.shape
    with pytest.raises(attndsl.AttnDslError, match=r"A520(?s:.*)orders tokens for tiles of ours"):
        causal(x, x, x, backend=backend, layout="residues(2)")


@pytest.mark.parametrize("source", ["causal", "attention a over causal = score s"])
def test_a_layout_that_there_is_not_is_refused_by_the_oracle_too(source: str):
    x = torch.randn(1, 1, 8, 4)
    with pytest.raises(attndsl.AttnDslError, match="A410"):
        attndsl.compile(source)(x, x, x, backend="reference", layout="nonsense")


@pytest.mark.parametrize(("backend", "said"), [
    ("varlen", "run on GPUs, and these tensors are on cpu"), ("flash_attn", "run on GPUs"), ("natten", "run on GPUs"),
])  # fmt: skip
def test_without_a_gpu_the_sentence_says_so(backend, said):
    with pytest.raises(attndsl.AttnDslError, match=said):
        attndsl.compile("causal")(*tensors(9), backend=backend)


def test_what_is_missing_on_a_gpu_is_said():
    assert (
        foreign.why_not("flash_attn", "cuda", torch.float16, 64)
        == "it is not installed (flash_attn)"
    )
    assert "do not take float64" in foreign.why_not("varlen", "cuda", torch.float64, 64)
    assert "up to 256 channels" in foreign.why_not("varlen", "cuda", torch.float16, 320)


def test_verify_covers_the_kernels_of_others():
    report = attndsl.verify("causal", backends=["sdpa", "flex"], seconds=0.5)
    assert report
    assert report.checked["backend sdpa on cpu"] > 0


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["sdpa", "varlen"])
def test_on_a_gpu_they_are_the_oracle(backend):
    qkv = [
        x.detach().to("cuda", torch.bfloat16).requires_grad_()
        for x in tensors(300, widths=(64, 64))
    ]
    p = attndsl.compile("causal")
    found, wanted = (p(*qkv, backend=name) for name in (backend, "reference"))
    torch.testing.assert_close(found, wanted, rtol=2e-2, atol=2e-2)
    mine, theirs = (torch.autograd.grad(x.square().sum(), qkv) for x in (found, wanted))
    torch.testing.assert_close(mine, theirs, rtol=5e-2, atol=5e-2)
