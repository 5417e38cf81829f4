"""The operator: PyTorch's own checks, and agreement with the oracle, forward, backward and through LSE."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import attndsl
from attndsl.op import operators

GOLDEN = Path(__file__).parents[2] / "golden" / "errors" / "A5"

PROGRAMS = [
    "pattern p = k <= q",
    "pattern p = window(9, 0) or q < 2 or k < 3",
    "pattern p = q % 3 == k % 3 and abs(q - k) <= 12",
    "pattern p = if head < heads // 2 then window(3) else k < q",  # row 0 of half the heads is empty
    "pattern p align start = k <= q",
    "pattern p = false",
    "pattern p = window(3) zeros max(0, 3 - q) + head",
    "pattern p = k < q - 1 zeros q % 3",  # rows of keys, of zero keys, of both, of neither
]


def tensors(batch, heads, kv_heads, q_len, k_len, dim, value_dim, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = [(heads, q_len, dim), (kv_heads, k_len, dim), (kv_heads, k_len, value_dim)]
    return [
        torch.randn(batch, *shape, generator=generator, dtype=dtype).requires_grad_()
        for shape in shapes
    ]


def test_the_log_sum_exp_alone_has_its_own_gradients():
    q, k, v = tensors(1, 2, 1, 9, 9, 8, 4)
    gradients = {}
    for backend in ("auto", "reference"):
        _, lse = attndsl.compile("causal")(q, k, v, return_lse=True, backend=backend)
        weight = torch.arange(lse.numel()).reshape(lse.shape)
        gradients[backend] = torch.autograd.grad((lse * weight).sum(), (q, k, v), allow_unused=True)
    assert not gradients["auto"][2].any()  # no output was asked for: v has no part in it
    for ours, theirs in zip(gradients["auto"][:2], gradients["reference"][:2], strict=True):
        torch.testing.assert_close(ours, theirs)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(PROGRAMS),
    st.integers(1, 2),
    st.sampled_from([(1, 1), (2, 1), (4, 2), (2, 2)]),
    st.integers(1, 150),
    st.integers(1, 150),
    st.sampled_from([(8, 8), (5, 11), (16, 3)]),
    st.booleans(),
)
def test_agrees_with_the_reference(program, batch, heads, q_len, k_len, dims, through_lse):
    p = attndsl.compile(program)
    args = tensors(batch, *heads, q_len, k_len, *dims)
    results = {}
    for backend in ("auto", "reference"):
        out, lse = p(*args, return_lse=True, backend=backend, scale=0.3)
        alive = torch.isfinite(lse)
        loss = (out * out.detach().cos()).sum()
        if through_lse:
            loss = loss + lse[alive].sin().sum()
        grads = torch.autograd.grad(loss, args, allow_unused=True)
        filled = [torch.zeros_like(x) if g is None else g for g, x in zip(grads, args, strict=True)]
        results[backend] = [out, lse, *filled]
    for mine, truth in zip(results["auto"], results["reference"], strict=True):
        torch.testing.assert_close(mine, truth, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backend", ["blocked", "reference", "triton"])
def test_zero_keys_are_keys_and_values_of_zeros(backend):
    """The same pattern with the zeros as tokens, in front of the others."""
    most = 4
    counted = attndsl.compile(
        "input n: int[batch, q]\npattern p = window(2) and q != 5 zeros if head == 0 then n[q] else 2"
    )
    written = attndsl.compile(
        f"""
        input n: int[batch, q]
        pattern p = if k < {most} then k < (if head == 0 then n[q] else 2)
                    else abs(q - k) <= 2 and q != 5 + {most}
        """
    )
    dtype = torch.float32 if backend == "triton" else torch.float64
    q, k, v = tensors(2, 2, 1, 11, 11, 8, 4, dtype)
    n = torch.randint(0, most + 1, (2, 11), generator=torch.Generator().manual_seed(1))
    padding = [torch.zeros(2, 1, most, x.shape[3], dtype=dtype) for x in (k, v)]

    def results(p, k, v, backend):
        out, lse = p(q, k, v, return_lse=True, backend=backend, n=n)
        loss = (out * out.detach().cos()).sum() + lse.masked_fill(lse == -torch.inf, 0).sin().sum()
        return out, lse, *torch.autograd.grad(loss, leaves)

    leaves = (q, k, v)
    mine = results(counted, k, v, backend)
    padded = (torch.cat(pair, dim=2) for pair in zip(padding, (k, v), strict=True))
    truth = results(written, *padded, "reference")
    assert (mine[1][:, 0, 5] == n[:, 5].to(dtype).log()).all()
    for found, expected in zip(mine, truth, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("program", PROGRAMS)
def test_gradcheck_in_double_precision(program):
    p = attndsl.compile(program)
    args = tensors(1, 2, 1, 7, 9, 3, 2)
    assert torch.autograd.gradcheck(p, args)


@pytest.mark.parametrize("rule", [[], ["11"], ["jvp"], ["10", "111"]], ids=str)
def test_opcheck(rule):
    """The operator, its derivatives in both modes, and a second one: each with an input and zero keys."""
    p = attndsl.compile(
        "input w: int[batch, q]\npattern p = causal and q - k < w[q] zeros max(0, 4 - q)"
    )
    xs, tables = tensors(1, 2, 1, 12, 12, 4, 4, torch.float32), [torch.arange(12)[None] % 5]
    call = p._planner.text, 0, "w", "", [], "natural", "auto", 0.5
    attention, derivative = operators()
    if not rule:
        torch.library.opcheck(attention, (*xs, tables, *call))
        return
    with torch.no_grad():
        out, lse, stamp = attention(*xs, tables, *call)
    more = {"11": [out, lse], "jvp": xs, "111": [out, *xs]}[rule[-1]]
    more = [x.detach().cos().requires_grad_() for x in more]
    given = [*xs, *more], out, lse, stamp, tables, ",".join(rule), *call
    torch.library.opcheck(derivative, given)


@pytest.mark.parametrize("zeros", ["", " zeros max(0, 4 - q)"])
def test_compiles_without_graph_breaks_and_with_gradients(zeros):
    torch._dynamo.reset()
    p = attndsl.compile("pattern p = causal_window(20)" + zeros)
    args = tensors(2, 4, 2, 70, 70, 8, 8, torch.float32)
    whole = torch.compile(lambda *x: p(*x).square().sum(), fullgraph=True, backend="aot_eager")
    mine = torch.autograd.grad(whole(*args), args)
    truth = torch.autograd.grad(p(*args, backend="reference").square().sum(), args)
    for a, b in zip(mine, truth, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_autocast_runs_in_low_precision_and_returns_gradients_in_full():
    p = attndsl.compile("causal")
    args = tensors(1, 2, 2, 33, 33, 8, 8, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = p(*args)
    assert out.dtype == torch.bfloat16
    grads = torch.autograd.grad(out.float().sum(), args)
    assert all(g.dtype == torch.float32 for g in grads)
    torch.testing.assert_close(out.float(), p(*args), rtol=5e-2, atol=5e-2)


def test_run_time_inputs_differ_per_batch_element_and_per_call():
    p = attndsl.compile("input doc: int[batch, pos]\npattern p = doc[q] == doc[k] and causal")
    args = tensors(2, 2, 2, 90, 90, 8, 8)
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        doc = torch.randint(0, 4, (2, 90), generator=generator).sort(-1).values
        mine, truth = (p(*args, doc=doc, backend=name) for name in ("auto", "reference"))
        torch.testing.assert_close(mine, truth, rtol=1e-9, atol=1e-9)


def test_an_input_may_have_one_entry_a_head_or_a_batch_element():
    p = attndsl.compile(
        "input reach: int[head]\ninput wide: bool[batch]\n"
        "pattern p = causal and (wide or q - k < reach)"
    )
    args = tensors(2, 3, 3, 70, 70, 8, 8)
    given = {"reach": torch.tensor([1, 9, 40]), "wide": torch.tensor([False, True])}
    mine, truth = (p(*args, **given, backend=name) for name in ("auto", "reference"))
    torch.testing.assert_close(mine, truth, rtol=1e-9, atol=1e-9)


def test_a_module_takes_extents_once_or_with_each_call():
    p = attndsl.compile("swin", m=2)
    args = tensors(1, 1, 1, 24, 24, 8, 8)
    truth = p(*args, extents={"y": 4}, backend="reference")
    for fixed, passed in (({"y": 4}, None), (None, {"y": 4}), ({"y": 6}, {"y": 4})):
        out = attndsl.nn.PatternAttention(p, extents=fixed)(*args, extents=passed)
        torch.testing.assert_close(out, truth, rtol=1e-9, atol=1e-9)


LAYOUTS = ["auto", "residues(7)", "boxes(5)", "residues(7) / natural", ("natural", "residues(3)")]


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(PROGRAMS),
    st.sampled_from([(1, 1), (4, 2)]),
    st.integers(1, 150),
    st.integers(1, 150),
    st.sampled_from(LAYOUTS),
)
def test_layouts_change_no_result(program, heads, q_len, k_len, layout):
    p = attndsl.compile(program)
    args = tensors(2, *heads, q_len, k_len, 8, 5)
    results = []
    for options in ({"layout": layout}, {"backend": "reference"}):
        out, lse = p(*args, return_lse=True, **options)
        loss = (out * out.detach().cos()).sum() + lse[torch.isfinite(lse)].sin().sum()
        grads = torch.autograd.grad(loss, args, allow_unused=True)
        filled = [torch.zeros_like(x) if g is None else g for g, x in zip(grads, args, strict=True)]
        results.append([out, lse, *filled])
    for mine, truth in zip(*results, strict=True):
        torch.testing.assert_close(mine, truth, rtol=1e-9, atol=1e-9)


def test_a_layout_by_a_table_of_each_batch_element():
    p = attndsl.compile("input doc: int[batch, pos]\npattern p = causal and doc[q] == doc[k]")
    args = tensors(2, 2, 2, 90, 90, 8, 8)
    doc = torch.randint(0, 4, (2, 90), generator=torch.Generator().manual_seed(0))
    mine = p(*args, doc=doc, layout="sorted(doc)")
    torch.testing.assert_close(mine, p(*args, doc=doc, backend="reference"), rtol=1e-9, atol=1e-9)


def test_module_matches_the_pattern_and_trains():
    torch.manual_seed(0)
    p = attndsl.compile("causal_window", w=8)
    module = attndsl.nn.PatternSelfAttention(p, 32, 4, kv_heads=2)
    x = torch.randn(2, 50, 32)
    before = module(x).square().mean()
    before.backward()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter -= 0.5 * parameter.grad
    assert module(x).square().mean() < before


def test_patterns_survive_pickling_and_saving(tmp_path):
    import pickle

    p = attndsl.compile("pattern p(w: int = 4) over image = q.y == k.y\ngrid image(y, x)\n")
    assert pickle.loads(pickle.dumps(p)) == p
    p.save(tmp_path / "p.json")
    assert attndsl.Pattern.load(tmp_path / "p.json").digest == p.digest
    layered = attndsl.compile(
        "pattern p = if layer == 0 then causal else window(2) zeros layer", layer=1
    )
    layered.save(tmp_path / "p.json")
    assert attndsl.Pattern.load(tmp_path / "p.json") == layered
    apart = attndsl.compile("causal", without=["drop_implied"])
    apart.save(tmp_path / "apart.json")
    assert attndsl.Pattern.load(tmp_path / "apart.json") == apart
    text = (tmp_path / "p.json").read_text()
    for old, new in (('"layer": 1', '"layer": "1"'), ('"without": []', '"without": ["lower"]')):
        (tmp_path / "p.json").write_text(text.replace(old, new))
        with pytest.raises(attndsl.AttnDslError, match="A405"):
            attndsl.Pattern.load(tmp_path / "p.json")


def test_nothing_leaks_from_keys_that_are_not_seen():
    p = attndsl.compile("causal")
    q, k, v = (x.detach() for x in tensors(1, 1, 1, 40, 40, 8, 8, torch.float32))
    k[0, 0, 30], v[0, 0, 30] = float("nan"), float("inf")
    out = p(q, k, v)
    assert torch.isfinite(out[0, 0, :30]).all()
    assert not torch.isfinite(out[0, 0, 30:]).any()


def wrong_shapes():
    attndsl.compile("causal")(
        torch.ones(1, 3, 4, 8), torch.ones(1, 2, 4, 8), torch.ones(1, 2, 4, 8)
    )


def wrong_dtypes():
    ones = torch.ones(1, 1, 4, 8)
    attndsl.compile("causal")(ones, ones.double(), ones)


def missing_input():
    ones = torch.ones(1, 1, 4, 8)
    attndsl.compile("input doc: int[pos]\npattern p = doc[q] == doc[k]")(ones, ones, ones)


def no_backend():
    ones = torch.ones(1, 1, 4, 8, dtype=torch.float8_e4m3fnuz)
    attndsl.compile("causal")(ones, ones, ones, backend="blocked")


def unknown_backend():
    ones = torch.ones(1, 1, 4, 8)
    attndsl.compile("causal")(ones, ones, ones, backend="blockd")


def parameter_at_the_call():
    ones = torch.ones(1, 1, 4, 8)
    attndsl.compile("causal_window", w=3)(ones, ones, ones, w=3)


@pytest.mark.parametrize("backend", ["blocked", "reference"])
def test_eight_bits_are_widened_and_have_no_gradient(backend: str):
    p = attndsl.compile("causal")
    q, k, v = (x.detach().to(torch.float8_e5m2) for x in tensors(1, 2, 2, 9, 9, 8, 8))
    out, lse = p(q, k, v, backend=backend, return_lse=True)
    exact, exact_lse = p(q.double(), k.double(), v.double(), backend="reference", return_lse=True)
    assert (out.dtype, lse.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(out.double(), exact, rtol=2**-8, atol=1e-6)
    torch.testing.assert_close(lse.double(), exact_lse, rtol=1e-6, atol=1e-6)
    with pytest.raises(attndsl.AttnDslError, match=r"A503.*no gradient"):
        p(q, k.requires_grad_(), v, backend=backend)
    with torch.no_grad():
        assert torch.equal(p(q, k, v, backend=backend), out)


def input_written_to():
    p, q = attndsl.compile("documents"), torch.ones(1, 1, 40, 8)
    doc = torch.zeros(1, 40, dtype=torch.int64)
    out, pull = torch.func.vjp(lambda q: p(q, q, q, doc=doc), q)
    for other in range(1, 65):
        p(q, q, q, doc=doc + other)
    doc[:, 20:] = 1
    pull(out)


def state_of_another_pattern():
    net = attndsl.nn.PatternAttention("causal")
    net.load_state_dict(attndsl.nn.PatternAttention("window(8)").state_dict())


def test_an_extent_of_a_call_is_an_integer():
    ones = torch.ones(1, 1, 4, 8)
    for size in (2.0, 0, -2, "2x", None):
        with pytest.raises(attndsl.AttnDslError) as caught:
            attndsl.compile("swin")(ones, ones, ones, extents={"y": size})
        assert caught.value.code == "A401"


def test_extents_have_names():
    ones, swin = torch.ones(1, 1, 4, 8), attndsl.compile("swin")
    for extents in ((2, 2), [], "y=2", 4):
        for call in (
            lambda given: swin(ones, ones, ones, extents=given),
            lambda given: swin(ones, ones, ones, extents=given, backend="reference"),
            lambda given: swin.mask(4, extents=given),
        ):
            with pytest.raises(attndsl.AttnDslError, match="by the names of axes") as caught:
                call(extents)
            assert caught.value.code == "A401"


@pytest.mark.parametrize(
    "mistake",
    [
        wrong_shapes,
        wrong_dtypes,
        missing_input,
        parameter_at_the_call,
        input_written_to,
        no_backend,
        state_of_another_pattern,
        unknown_backend,
    ],
)
def test_mistakes_are_explained(mistake, golden):
    with pytest.raises(attndsl.AttnDslError) as caught:
        mistake()
    golden(GOLDEN / f"{mistake.__name__}.err", str(caught.value) + "\n")


FIRST_CALL = """
import sys, torch, attndsl
q = torch.ones(1, 1, 4, 8, requires_grad=True)
attndsl.compile("causal")(q, q, q).sum().backward()
print("torch._dynamo" in sys.modules)
"""


def test_a_call_does_not_load_the_compiler_of_torch():
    """It takes two seconds to import, which a first call in eager mode should not pay."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_CALL], check=False, capture_output=True, text=True
    )
    assert done.stdout == "False\n", done.stderr


@pytest.mark.parametrize("name", ["first", "second"])
def test_an_error_names_the_pattern_that_was_called_not_its_equal(name):
    ones = torch.ones(1, 1, 4, 8)
    equals = {each: attndsl.compile(f"pattern {each} = k <= q") for each in ("first", "second")}
    with pytest.raises(attndsl.AttnDslError, match=f"pattern '{name}' has no input 'w'"):
        equals[name](ones, ones, ones, w=3)


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # in Triton's interpreter
@pytest.mark.parametrize("layout", ["natural", "residues(2)"])
@pytest.mark.parametrize("zeros", ["", " zeros 1"])
@pytest.mark.parametrize("backend", ["blocked", "reference", "triton"])
def test_what_a_query_without_keys_holds_reaches_nothing(backend, zeros, layout):
    """Nor does a gradient that is not finite there, on any back end, in any order of tokens."""
    p = attndsl.compile("pattern p = k < q and q != 9" + zeros)
    dtype = torch.float32 if backend == "triton" else torch.float64
    clean = [x.detach() for x in tensors(1, 2, 1, 20, 20, 8, 4, dtype)]
    weight, level = (torch.linspace(-1, 1, 2 * 20 * n, dtype=dtype) for n in (4, 1))
    weight, level = weight.reshape(1, 2, 20, 4).clone(), level.reshape(1, 2, 20).clone()
    results = []
    for held in (0.0, torch.nan, torch.inf):
        q, k, v = (x.clone() for x in clean)
        for at in (0, 9):
            q[:, :, at], weight[:, :, at], level[:, :, at] = held, held, held
        leaves = [x.requires_grad_() for x in (q, k, v)]
        out, lse = p(*leaves, backend=backend, layout=layout, return_lse=True)
        grads = torch.autograd.grad((out, lse), leaves, (weight, level))
        assert not out[:, :, [0, 9]].any()
        assert (lse[:, :, [0, 9]] == (0.0 if zeros else -torch.inf)).all()
        assert not grads[0][:, :, [0, 9]].any()
        results.append((out, lse, *grads))
    for other in results[1:]:
        for found, expected in zip(other, results[0], strict=True):
            assert torch.equal(found, expected)
