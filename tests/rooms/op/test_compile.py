"""Sources that ``attndsl.compile`` takes, and their results."""

import gc
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch

import attndsl
import attndsl.testing
from attndsl import k, q
from attndsl.patterns import causal

LISTED = "input near: list[q, 2]\npattern p = k in near[q]"


def seen(pattern: attndsl.Pattern, q_len: int, k_len: int, **inputs: object) -> list[list[int]]:
    """The keys of each query."""
    rows = pattern.mask(q_len, k_len, **inputs)[0, 0]
    return [row.nonzero().flatten().tolist() for row in rows]


@pytest.mark.parametrize(
    "source",
    ["causal", "pattern p = k <= q", "k <= q", causal, causal(), k <= q],
    ids=["name", "program", "text", "function", "opened", "expression"],
)
@pytest.mark.parametrize(("align", "first"), [("start", 0), ("end", 3), (None, 3)])
def test_align_says_where_the_queries_stand(source, align, first):
    p = attndsl.compile(source, align=align)
    for q_len, k_len in ((2, 5), (5, 2)):
        shift = first * (k_len - q_len) // 3
        rows = [[key for key in range(k_len) if key <= i + shift] for i in range(q_len)]
        assert seen(p, q_len, k_len) == rows
    assert f"align    {align or 'end'}: query i is at position i" in p.explain(2, 5)


def test_align_reaches_inputs_over_queries_and_the_library():
    near = torch.tensor([[0, 2], [1, -1]])
    for align in ("start", "end"):
        p = attndsl.compile(LISTED, align=align)
        assert seen(p, 2, 4, near=near) == [[0, 2], [1]], "an entry is that of its query"
    tensors = torch.randn(1, 1, 2, 8), torch.randn(1, 1, 4, 8), torch.randn(1, 1, 4, 8)
    for align in ("start", "end"):
        p = attndsl.library.load("longlora", align=align)
        assert p.ir.align == align
    early = attndsl.compile("causal", align="start")
    dense = torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=True)
    torch.testing.assert_close(early(*tensors), dense)


def test_a_pattern_keeps_the_alignment_that_it_states():
    early = "pattern early align start = k <= q"
    assert attndsl.compile(early, align="start") == attndsl.compile(early)
    used = attndsl.compile(f"{early}\npattern p = early or k < 1", align="start")
    assert used.ir.align == "start"

    @attndsl.pattern(align="start")
    def written():
        return k <= q

    early_mask = attndsl.compile(early).ir
    for source in (
        early,
        written,
        early_mask,
        "grid a(n)\ngrid b(m)\npattern p over a -> b = true",
    ):
        with pytest.raises(attndsl.AttnDslError, match="A212"):
            attndsl.compile(source, align="end")
    with pytest.raises(attndsl.AttnDslError, match='align is "start" or "end", not \'middle\''):
        attndsl.compile("causal", align="middle")


def test_an_expression_is_the_body_of_a_pattern():
    text = "causal and q - k < 4"
    assert attndsl.compile(text) == attndsl.compile(f"pattern p = {text}")
    assert attndsl.compile(f"# all `input` words\n{text}") == attndsl.compile(text)
    assert attndsl.compile("let w = 4: 0 <= q - k < w") == attndsl.compile(text)
    assert attndsl.compile("causal zeros 1") == attndsl.compile("pattern p = causal zeros 1")


def test_a_misspelt_declaration_is_judged_as_one():
    for text in ("patern p = k < q", "patern p(w: int = 3) = q - k < w"):
        with pytest.raises(attndsl.AttnDslError, match="did you mean `pattern`"):
            attndsl.compile(text)


def test_what_means_nothing_to_a_source_is_refused():
    window = attndsl.patterns.window(3)
    for source, options in (
        (window, {"left": 4}),
        (window, {"entry": "p"}),
        (attndsl.compile("causal").ir, {"w": 4}),
        (3, {}),
    ):
        with pytest.raises(attndsl.AttnDslError, match="A211"):
            attndsl.compile(source, **options)


def test_all_that_compile_takes_is_a_pattern_everywhere():
    p = attndsl.compile("causal")
    assert attndsl.compile(p) is p
    with pytest.raises(attndsl.AttnDslError, match="compiled already"):
        attndsl.compile(p, align="start")
    assert attndsl.equivalent(p, "pattern r = k < q").status == "refuted"
    assert attndsl.equivalent(k <= q, p)
    assert attndsl.implies("diagonal", "causal")
    assert attndsl.verify("diagonal", seconds=1e-9).ok
    assert attndsl.nn.PatternAttention("causal").pattern == p
    assert attndsl.nn.PatternSelfAttention("k <= q", 8, 2).attention.pattern == p

    def kernel(*qkv: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(*qkv, is_causal=True)

    attndsl.testing.assert_matches_dense(kernel, "causal", q_len=8)


@pytest.mark.parametrize(
    "number", [10**20_000, -(10**20_000), 1 << 62], ids=["long", "negative", "2**62"]
)
def test_numbers_without_end_are_refused_where_they_stand(number: int):
    for act in (
        lambda: q >= k + number,
        lambda: k * number,
        lambda: k.isin([number]),
        lambda: attndsl.compile("window", left=number),
        lambda: attndsl.patterns.window(number),
        lambda: attndsl.compile("causal", layer=number),
        lambda: attndsl.compile("causal").mask(number),
        lambda: attndsl.compile("causal").mask(4, heads=number),
        lambda: attndsl.compile("swin").mask(4, extents={"y": number}),
    ):
        with pytest.raises(attndsl.AttnDslError, match=r"A305|A211|A40[12]"):
            act()


@pytest.mark.parametrize("make", [list, tuple, np.array, torch.tensor], ids=lambda x: x.__name__)
def test_a_list_parameter_may_be_an_array_or_a_tensor(make):
    p = attndsl.compile("pattern p(at: list) = k in at", at=make([0, 2]))
    assert seen(p, 1, 4) == [[0, 2]]


def test_what_is_no_list_of_ints_is_refused_as_a_list_parameter():
    for given in (np.array([[1]]), torch.tensor([0.5]), np.array([True]), "12", 3):
        with pytest.raises(attndsl.AttnDslError, match="A211"):
            attndsl.compile("pattern p(at: list) = k in at", at=given)


def test_values_are_compared_with_numbers():
    for text, wanted in (("k != 1", [0, 2]), ("k == 1", [1]), ("2 * k + 1 != 5", [0, 1])):
        assert seen(attndsl.compile(text), 1, 3) == [wanted]
    assert seen(attndsl.compile("3 * k == 4 or k in [2, 0]"), 1, 3) == [[0, 2]]


def test_parameters_reach_as_far_as_inputs_do():
    assert seen(attndsl.compile("causal_window", w=1 << 40), 1, 3) == [[0, 1, 2]]
    assert seen(attndsl.compile("pattern p(n: int) = k * n == n", n=1 << 31), 1, 3) == [[1]]


def test_layers_are_counted_from_0():
    for layer in (-1, "1", 1.0, True):
        with pytest.raises(attndsl.AttnDslError, match="layer is an integer from 0"):
            attndsl.compile("causal", layer=layer)


def test_tiles_with_a_side_of_one_are_scheduled():
    p = attndsl.compile("if 0 <= q - k <= 64 then q - k <= 64 else k // 128 <= 5")
    assert p.schedule(32, tile=(32, 1)).cover().all()


def test_a_pattern_that_nobody_holds_is_let_go():
    p, q = attndsl.compile("q - k < 12_345"), torch.randn(1, 1, 8, 4)
    p(q, q, q)
    held = weakref.ref(p._planner), weakref.ref(p._program)
    del p
    gc.collect()
    assert [each() for each in held] == [None, None]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("space s = text(i) ++ image\npattern p over s = q.text < 3", "it is a segment"),
        ("input b: list[q, n]\npattern p = let row = b[q]: k in row", r"write `k in b\[q\]`"),
    ],
)
def test_what_stands_at_a_wrong_place_is_told_where_to_stand(text: str, said: str):
    with pytest.raises(attndsl.AttnDslError, match=said) as caught:
        attndsl.compile(text)
    assert caught.value.diagnostics[0].span is not None


def test_an_attention_that_a_file_imports_may_be_named(tmp_path: Path):
    (tmp_path / "a.attn").write_text(
        "attention twice over causal = score 2.0 * s\n", encoding="utf-8"
    )
    (tmp_path / "b.attn").write_text(
        'import twice from "a.attn"\npattern p = causal\n', encoding="utf-8"
    )
    path = str(tmp_path / "b.attn")
    assert isinstance(attndsl.compile(path), attndsl.Pattern)
    assert isinstance(attndsl.compile(path, entry="twice"), attndsl.Attention)
    assert isinstance(attndsl.compile(f"{path}:twice"), attndsl.Attention)


def test_a_row_of_ints_may_have_a_name():
    p = attndsl.compile("input b: int[q, n]\npattern p = let row = b[q]: k in row")
    assert p.mask(2, 3, b=[[0, 1], [2, -1]])[0, 0].tolist() == [
        [True, True, False],
        [False, False, True],
    ]
