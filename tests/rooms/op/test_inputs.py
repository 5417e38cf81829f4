"""Run-time inputs by name: which names, which shapes and types, and words of other libraries."""

import inspect
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import attndsl
from attndsl import arguments, inputs, nn, positions

GOLDEN = Path(__file__).parents[2] / "golden" / "errors" / "A5"
BATCH, HEADS, LENGTH = 2, 3, 6
IDS = torch.tensor([[0, 0, 1, 1, 1, 2], [0, 1, 1, 2, 2, 2]])
DENSE = IDS[:, None, :, None] == IDS[:, None, None, :]  # [batch, 1, q, k]
LENGTHS = [*("mask", "zero_keys", "schedule", "parts", "predict", "running", "draw", "picture", "facts", "claims"),
           *("explain", "explanation")]  # fmt: skip


def documents(name: str) -> attndsl.Pattern:
    text = f"input {name}: int[batch, pos]\npattern p = {name}[q] == {name}[k]"
    return attndsl.compile(text)


def attended(allowed: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.scaled_dot_product_attention(q, q, q, attn_mask=allowed)


# ---------------------------------------------------------------------------- names


def test_the_names_that_methods_take_for_themselves_are_all_known():
    asked = [
        getattr(attndsl.Pattern, name) for name in (*LENGTHS, "__call__", "tune", "receptive_field")
    ]
    asked += [nn.PatternAttention.forward, nn.PatternSelfAttention.forward, arguments.read_call]
    own = {
        each.name
        for function in asked
        for each in inspect.signature(function).parameters.values()
        if each.kind is not each.VAR_KEYWORD
    }
    assert (
        own - {"program"} | {*positions.NAMES, arguments.QUERIES_USED, positions.BLOCK_TABLE}
        == inputs.ARGUMENTS
    )


@pytest.mark.parametrize(
    "name", ["scale", "inputs", "element", "q_len", "tile", "x", "self", "v", "start"]
)
def test_an_input_of_any_name_is_given_in_inputs(name: str):
    p, given = documents(name), {"inputs": {name: IDS}}
    q = torch.randn(BATCH, HEADS, LENGTH, 4)
    assert torch.equal(p.mask(LENGTH, **given), DENSE)
    torch.testing.assert_close(p(q, q, q, **given), attended(DENSE, q))
    for method in LENGTHS:
        getattr(p, method)(LENGTH, **given)
    p.receptive_field(LENGTH, 0, **given)
    module = nn.PatternSelfAttention(p, 8, 2)
    assert module(torch.randn(BATCH, LENGTH, 8), **given).shape == (BATCH, LENGTH, 8)
    with pytest.raises(attndsl.AttnDslError, match=f"needs the input '{name}'") as caught:
        p(q, q, q)
    assert (f"inputs={{'{name}': ...}}" in str(caught.value)) == (name in inputs.ARGUMENTS)


def test_an_input_is_given_once():
    p = documents("doc")
    with pytest.raises(attndsl.AttnDslError, match="'doc' is given twice"):
        p.mask(LENGTH, inputs={"doc": IDS}, doc=IDS)
    with pytest.raises(
        attndsl.AttnDslError, match="inputs are given by their names, not as a Tensor"
    ):
        p.mask(LENGTH, inputs=IDS)


@pytest.mark.parametrize("name", ["source", "entry", "without", "values", "name", "self"])
def test_a_parameter_of_any_name_is_given_in_values(name: str):
    text = f"pattern p({name}: int = 1) = 0 <= q - k < {name}"
    assert attndsl.compile(text, values={name: 3}) == attndsl.compile("causal_window", w=3)
    with pytest.raises(attndsl.AttnDslError, match="given twice"):
        attndsl.compile("causal_window", values={"w": 3}, w=3)
    if name in ("without", "entry"):
        with pytest.raises(attndsl.AttnDslError, match=rf'values=\{{"{name}": '):
            attndsl.compile(text, **{name: 3})
    elif name != "values":
        assert attndsl.compile(text, **{name: 3}) == attndsl.compile(text, values={name: 3})


def test_what_is_true_of_all_lengths_takes_no_inputs():
    for method in (documents("doc").facts, documents("doc").claims):
        with pytest.raises(attndsl.AttnDslError, match="say which, by q_len"):
            method(doc=IDS)


# ---------------------------------------------------------------------------- counts and shapes


def test_batch_and_heads_are_those_of_the_inputs():
    reach = torch.tensor([[0, 1, 2], [3, 4, 5]])
    p = attndsl.compile("input reach: int[batch, head]\npattern p = 0 <= q - k <= reach")
    back = torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)
    want = (back >= 0) & (back <= reach[..., None, None])
    assert torch.equal(p.mask(LENGTH, reach=reach), want)
    assert torch.equal(p.mask(LENGTH, heads=3, batch=2, reach=reach), want)
    assert p.schedule(LENGTH, reach=reach, tile=(1, 1)).density == want.float().mean()
    with pytest.raises(attndsl.AttnDslError, match="3 entries along head, expected 2"):
        p.mask(LENGTH, heads=2, reach=reach)
    text = "input one: int[batch, head]\ninput reach: int[batch, head]\npattern p = one <= q - k <= reach"
    assert torch.equal(attndsl.compile(text).mask(LENGTH, one=[[0]], reach=reach), want)


def test_entries_for_all_rows_are_not_those_for_all_columns():
    p, keep = attndsl.compile("input keep: bool[q, k]\npattern p = keep[q, k]"), [[1, 0, 1, 1]]
    by_key, by_query = (np.array(keep, dtype=bool), np.array(keep, dtype=bool).T)
    for given in (by_key, by_query):
        seen = p.schedule(4, tile=(2, 2), keep=given).cover()
        assert np.array_equal(seen, np.broadcast_to(given, (4, 4)))


@pytest.mark.parametrize(
    "shape",
    [
        (BATCH, 1, LENGTH, LENGTH),
        (1, 1, LENGTH, LENGTH),
        (BATCH, 1, 1, LENGTH),
        (1, HEADS, LENGTH, 1),
    ],
)
def test_a_dim_of_one_entry_serves_all(shape: tuple[int, ...]):
    p = attndsl.compile("input keep: bool[batch, head, q, k]\npattern p = keep[q, k] or q == k")
    keep = torch.rand(shape, generator=torch.manual_seed(0)) > 0.5
    want = keep.expand(BATCH, HEADS, LENGTH, LENGTH) | torch.eye(LENGTH, dtype=torch.bool)
    q = torch.randn(BATCH, HEADS, LENGTH, 4)
    for given in (keep, keep.long(), keep.numpy(), keep.int().tolist()):
        assert torch.equal(p.mask(LENGTH, heads=HEADS, batch=BATCH, keep=given), want)
        torch.testing.assert_close(p(q, q, q, keep=given), attended(want, q))


def test_positions_are_never_spread():
    with pytest.raises(attndsl.AttnDslError, match="1 entries along 'pos', expected 6"):
        documents("doc").mask(LENGTH, doc=IDS[:, :1])


def test_a_mask_is_bool_or_0_and_1():
    p = attndsl.compile("input keep: bool[batch, k]\npattern p = keep[k]")
    with pytest.raises(
        attndsl.AttnDslError, match=r"bool, or 0 and 1(.|\n)*`keep=x != 0`"
    ) as caught:
        p.mask(3, keep=[[1, 1, 2]])
    assert "A501" in str(caught.value)
    with pytest.raises(attndsl.AttnDslError, match="`keep=x == 0`"):
        p.mask(3, keep=torch.tensor([[0.0, 0.0, -torch.inf]]))


def test_an_input_that_is_not_read_may_be_given(tmp_path):
    text = (
        "input doc: int[batch, pos]\n"
        "pattern p(packed: bool) = causal and (if packed then doc[q] == doc[k] else true)"
    )
    packed, plain = (attndsl.compile(text, packed=packed) for packed in (True, False))
    q = torch.randn(BATCH, 1, LENGTH, 4)
    causal = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()
    plain.save(tmp_path / "p.json")
    for p, want in ((packed, DENSE & causal), (plain, causal)):
        torch.testing.assert_close(p(q, q, q, doc=IDS), attended(want, q))
        assert torch.equal(p.mask(LENGTH, doc=IDS, batch=2)[:, 0], want.expand(2, 1, -1, -1)[:, 0])
    assert attndsl.Pattern.load(tmp_path / "p.json")(q, q, q, doc=IDS).shape == q.shape
    with pytest.raises(attndsl.AttnDslError, match="has no input 'doc'"):
        attndsl.compile("causal")(q, q, q, doc=IDS)
    made = attndsl.where(attndsl.table("doc", "int", "pos")[attndsl.q] < 0, False, False)
    assert not attndsl.compile(made | (attndsl.k < 0)).mask(2, doc=[0, 0]).any()


def test_lists_are_arrays_too_and_numbers_may_be_large():
    p = attndsl.compile(
        "pattern p(ends: list, w: int) = segments(ends) and q - k < w", ends=[2, 6], w=3
    )
    for ends in (np.array([2, 6]), torch.tensor([2, 6]), (2, 6)):
        for w in (3, np.int64(3), torch.tensor(3)):
            assert attndsl.compile(p.name and "pattern p(ends: list, w: int) = segments(ends) and q - k < w",
                                   ends=ends, w=w) == p  # fmt: skip
    wide = attndsl.compile("causal_window", w=1 << 40)
    assert torch.equal(wide.mask(5), attndsl.compile("causal").mask(5))
    assert wide.schedule(5).density == attndsl.compile("causal").schedule(5).density
    for bad in (np.array([[2, 6]]), np.array([2.5]), torch.zeros(5000, dtype=torch.long)):
        with pytest.raises(attndsl.AttnDslError, match="A211"):
            attndsl.compile("segments", ends=bad)


# ---------------------------------------------------------------------------- extents


@pytest.mark.parametrize(
    "extents",
    [{"y": "2"}, {"y=1,x": 2}, {"y": True}, {3: 2}, {"y": 2.0}, (2, 3), [("y", 2)], "y=2"],
)
def test_extents_are_read_in_one_way(extents: object):
    p = attndsl.compile("grid image(y, x)\npattern p over image = q.y == k.y")
    q = torch.randn(1, 1, 6, 4)
    said = set()
    for act in (
        lambda: p.mask(6, extents=extents),
        lambda: p.schedule(6, extents=extents),
        lambda: p(q, q, q, extents=extents),
        lambda: p(q, q, q, extents=extents, backend="reference"),
        lambda: nn.PatternAttention(p, extents=extents)(q, q, q),
        lambda: nn.PatternAttention(p)(q, q, q, extents=extents),
        lambda: p.explain(6, extents=extents),
    ):
        with pytest.raises(attndsl.AttnDslError, match="A401") as caught:
            act()
        said.add(str(caught.value))
    assert len(said) == 1
    assert (
        p.mask(6, extents={"y": np.int64(2)}).sum()
        == p(q, q, torch.eye(6)[None, None], extents={"y": np.int32(2)}).count_nonzero()
    )


# ---------------------------------------------------------------------------- words of other libraries


@pytest.mark.parametrize(
    "given",
    [{"attn_mask": None, "dropout_p": 0.0, "is_causal": False, "enable_gqa": True},
     {"causal": False, "softcap": 0.0, "window_size": (-1, -1), "deterministic": True},
     {"score_mod": None, "block_mask": None, "return_weights": False, "dropout_p": 0}],
)  # fmt: skip
def test_arguments_of_others_that_ask_for_nothing_change_nothing(given: dict[str, object]):
    p, q = attndsl.compile("causal"), torch.randn(1, 2, LENGTH, 4)
    assert torch.equal(p(q, q, q, **given), p(q, q, q))


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [("attn_mask", torch.ones(6, 6), "input keep: bool"), ("is_causal", True, "compile `causal"),
     ("dropout_p", 0.1, "factor keep"), ("softcap", 50.0, "docs/scores.md"), ("bias", torch.ones(6), "docs/scores.md"),
     ("block_mask", object(), "which pairs are seen"), ("score_mod", abs, "docs/scores.md"),
     ("window_size", (4, 0), "left="), ("softmax_scale", 0.5, "called `scale`"), ("causal", 1, "compile `causal"),
     ("return_weights", True, "unit vectors"), ("return_max", True, "return_lse=True"),
     ("cu_seqlens_q", torch.ones(2), "documents_causal")],
)  # fmt: skip
def test_what_others_do_and_this_does_not_is_answered(name: str, value: object, instead: str):
    p, q = attndsl.compile("causal"), torch.randn(1, 2, LENGTH, 4)
    with pytest.raises(attndsl.AttnDslError, match=instead) as caught:
        p(q, q, q, **{name: value})
    assert "A506" in str(caught.value)


def test_golden_answer_to_an_argument_of_others(golden):
    q = torch.ones(1, 1, 4, 8)
    with pytest.raises(attndsl.AttnDslError) as caught:
        attndsl.compile("causal")(q, q, q, is_causal=True)
    golden(GOLDEN / "argument_of_others.err", str(caught.value) + "\n")


def test_an_input_may_be_called_what_others_call_an_argument():
    p = attndsl.compile("input attn_mask: bool[q, k]\npattern p = attn_mask[q, k]")
    assert p.mask(2, attn_mask=[[1, 0], [1, 1]])[0, 0].tolist() == [[True, False], [True, True]]


# ---------------------------------------------------------------------------- pictures and explanations


def test_every_batch_element_can_be_looked_at():
    p = attndsl.compile("input n: int[batch]\npattern p = k < n")
    pictures = [p.draw(4, batch=2, element=element, n=[1, 3]) for element in range(2)]
    assert [picture.splitlines()[-2] for picture in pictures] == [
        "4 queries × 4 keys, 25.0% allowed", "4 queries × 4 keys, 75.0% allowed",
    ]  # fmt: skip
    assert p.picture(4, element=1, n=[1, 3]).text() != p.picture(4, n=[1, 3]).text()
    assert p.picture(4, element=1, tile=1, n=[1, 3]).text() != p.picture(4, tile=1, n=[1, 3]).text()
    found = p.explanation(64, batch=2, n=[16, 48])
    assert (found.batch, found.natural.cost.pairs) == (2, 64 * (16 + 48))
    assert "64 queries x 64 keys, batch of 2" in str(found)
    for wrong in ({"element": 2}, {"head": 1}, {"query": 4}, {"element": -1}):
        for look in (p.draw, p.picture):
            with pytest.raises(attndsl.AttnDslError, match="A402"):
                look(4, n=[1, 3], **wrong)


@pytest.mark.parametrize(
    "text",
    [
        "input b: real[k] attention a over causal = score s + 0.0 * b[k]",
        "input b: real[k] attention a over causal = score s",
        "input b: int[k] pattern a = causal",
    ],
)
def test_an_input_that_is_declared_but_not_read_may_be_given(text):
    a, x, b = attndsl.compile(text), torch.randn(1, 2, 5, 4), torch.ones(5)
    for each in (a, pickle.loads(pickle.dumps(a))):
        assert torch.equal(each(x, x, x, b=b), each(x, x, x))
    with pytest.raises(attndsl.AttnDslError, match="has no input 'c'"):
        a(x, x, x, c=b)


def test_an_input_that_another_pattern_of_the_file_reads_is_refused():
    a, x = (
        attndsl.compile("input b: int[k] pattern o = b[k] > 0 pattern a = causal"),
        torch.ones(1, 1, 5, 4),
    )
    with pytest.raises(attndsl.AttnDslError, match="has no input 'b'"):
        a(x, x, x, b=torch.ones(5))


def test_a_module_may_own_an_input_that_its_attention_dropped():
    owned = {"b": torch.ones(5)}
    text = "input b: real[k] attention a over causal = score s + 0.0 * b[k]"
    x = torch.randn(1, 2, 5, 4)
    assert attndsl.nn.Attention(text, parameters=owned)(x, x, x).shape == x.shape
