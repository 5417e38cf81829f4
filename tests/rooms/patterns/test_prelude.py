"""Every pattern of the prelude against loops in plain Python, pair by pair."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from attndsl import frontend, ir, patterns
from attndsl import syntax as syn
from attndsl.source import AttnDslError

from .oracles import FLAT, GRIDS, Flat, OnGrid

NONE = syn.parse("", "empty.attn")
LENGTHS = [(1, 1), (7, 7), (12, 12), (13, 13), (3, 10), (1, 9)]
BY_TABLE = {
    "documents", "documents_causal", "padding", "padding_pairs", "same_cluster", "listed",
    "chosen_blocks", "varlen", "varlen_causal", "used", "used_pairs", "flashmask", "slices", "block_lists",
    "block_bitmap", "block_rows", "tree", "flash_window",
}  # fmt: skip
RECTANGULAR = {"latent_read", "latent_write", "captioned_box"}


def mask_of(name: str, **values: object) -> ir.Mask:
    return frontend.elaborate(NONE, name, values)


def case_id(case: Flat | OnGrid) -> str:
    return f"{case.name}({', '.join(f'{k}={v}' for k, v in case.values.items())})"


@pytest.mark.parametrize("case", FLAT, ids=case_id)
def test_a_flat_pattern_is_what_it_says(case: Flat):
    mask = mask_of(case.name, **case.values)
    for q_len, k_len in LENGTHS:
        sizes = {"q": q_len, "k": k_len}
        found = ir.meaning(mask, q_len, k_len, sizes, heads=case.heads)[0]
        for h, i, j in np.ndindex(found.shape):
            position = i + k_len - q_len
            expected = case.rule(position, j, k_len, h)
            assert found[h, i, j] == expected, (q_len, k_len, h, position, j)


@pytest.mark.parametrize("case", GRIDS, ids=case_id)
def test_a_pattern_over_a_grid_is_what_it_says(case: OnGrid):
    mask = mask_of(case.name, **case.values)
    (segment,) = mask.keys.segments
    for extents in case.extents:
        n = math.prod(extents)
        axes = [f"{segment.name}.{axis.name}" for axis in segment.axes]
        sizes = {"q": n, "k": n, **dict(zip(axes, extents, strict=True))}
        found = ir.meaning(mask, n, n, sizes)[0, 0]
        tokens = list(itertools.product(*map(range, extents)))
        for i, j in np.ndindex(found.shape):
            expected = case.rule(tokens[i], tokens[j], extents)
            assert found[i, j] == expected, (extents, tokens[i], tokens[j])


def test_no_pattern_goes_unjudged():
    judged = {case.name for case in (*FLAT, *GRIDS)} | BY_TABLE | RECTANGULAR
    assert set(patterns.names()) == judged


def test_clamped_neighbourhoods_have_the_same_number_of_keys_for_every_query():
    for n, size, d in [(16, 5, 1), (16, 4, 1), (17, 3, 5), (24, 4, 6)]:
        mask = mask_of("neighborhood1d", size=size, d=d)
        rows = ir.meaning(mask, n, n, {"q": n, "k": n})[0, 0].sum(axis=1)
        assert set(rows) == {size}
    mask = mask_of("neighborhood1d", size=9, d=4)  # classes of 4 and 5 positions: all of each
    assert set(ir.meaning(mask, 18, 18, {"q": 18, "k": 18})[0, 0].sum(axis=1)) == {4, 5}


@pytest.mark.parametrize(
    ("text", "slots"),
    [
        ("padded_window(3, 2)", 6),
        ("padded_window(0, 9)", 10),
        ("padded_box2d(4, 3, dx=2)", 12),
        ("padded_box2d(1, 7, dy=5)", 7),
        ("padded_halo2d(3, 2)", 49),
    ],
)
def test_padded_patterns_have_as_many_slots_everywhere(text: str, slots: int):
    over = "" if "window" in text else " over image"
    mask = frontend.elaborate(syn.parse(f"pattern p{over} = {text}"))
    for y, x in [(1, 1), (5, 7), (8, 3), (1, 12)]:
        n = y * x
        sizes = {"q": n, "k": n, "image.y": y, "image.x": x}
        keys = ir.meaning(mask, n, n, sizes).sum(axis=3)
        assert (keys + ir.zero_keys(mask, n, n, sizes) == slots).all()


def test_a_caption_beside_a_padded_image_sees_no_zeros():
    text = "space captioned = caption(n) ++ image\npattern p over captioned = padded_box2d(3)"
    mask = frontend.elaborate(syn.parse(text))
    sizes = {"q": 8, "k": 8, "caption.n": 2, "image.y": 2, "image.x": 3}
    assert ir.zero_keys(mask, 8, 8, sizes)[0, 0].tolist() == [0, 0, 5, 3, 5, 5, 3, 5]


def test_places_on_an_axis_are_counted_as_a_loop_counts_them():
    for first, count, length, step in itertools.product(
        range(-7, 8), range(5), range(5), range(1, 4)
    ):
        text = f"pattern p = causal zeros inside({first}, {count}, {length}, {step})"
        places = [first + step * place for place in range(count)]
        expected = sum(0 <= place < length for place in places)
        assert frontend.elaborate(syn.parse(text)).zeros is ir.Const(expected), text


@pytest.mark.parametrize(
    "text", ["wrapped_window(3)", "wrapped_block(5, 2)", "wrapped_window(0, 4)"]
)
def test_what_wraps_never_leaks_the_future_under_causal(text: str):
    mask = frontend.elaborate(syn.parse(f"pattern p = causal and {text}"))
    for n, k_len in [(12, 12), (13, 13), (4, 11)]:
        found = ir.meaning(mask, n, k_len, {"q": n, "k": k_len})[0, 0]
        assert not np.triu(found, 1 + k_len - n).any()
        assert found.any()


def test_random_blocks_stay_small_and_differ_by_head_and_seed():
    mask = mask_of("random_blocks", b=64, count=3, seed=2**31 - 1)
    size = 1 << 28
    env = ir.Env(
        q=np.array([size - 1, 12345, 0])[:, None], k=np.arange(0, size, size // 64)[None, :],
        sizes={"q": size, "k": size}, head=np.array([0, 127])[:, None, None], indices={0: 2},
    )  # fmt: skip
    for node in ir.postorder(mask.root):
        if node.sort is ir.Sort.INT:
            assert np.abs(ir.evaluate(node, env)).max() < 2**31
    sizes = {"q": 256, "k": 256}
    one = ir.meaning(mask_of("random_blocks", b=8, count=2, seed=1), 256, 256, sizes, heads=2)[0]
    two = ir.meaning(mask_of("random_blocks", b=8, count=2, seed=2), 256, 256, sizes)[0]
    assert (one[0] != one[1]).any()
    assert (one[0] != two[0]).any()


def test_random_blocks_are_drawn_evenly():
    mask = replace(mask_of("random_blocks", b=1, count=1), align=ir.Align.START)
    found = ir.meaning(mask, 2000, 8, {"q": 2000, "k": 8}).reshape(2000, 8)
    share = found.mean(axis=0)
    assert (np.abs(share - 1 / 8) < 0.04).all()  # five standard deviations


def test_tables_of_documents_padding_and_clusters():
    random = np.random.default_rng(0)
    batch, heads, q_len, k_len = 2, 3, 5, 8
    doc, keep = random.integers(0, 3, (batch, k_len)), random.random((batch, k_len)) < 0.6
    q_cluster = random.integers(0, 3, (batch, heads, q_len))
    k_cluster = random.integers(0, 3, (batch, heads, k_len))
    tables = {"doc": doc, "keep": keep, "q_cluster": q_cluster, "k_cluster": k_cluster}
    rules = {
        "documents": lambda b, h, i, j: doc[b, i + 3] == doc[b, j],
        "documents_causal": lambda b, h, i, j: doc[b, i + 3] == doc[b, j] and j <= i + 3,
        "padding": lambda b, h, i, j: keep[b, j],
        "padding_pairs": lambda b, h, i, j: keep[b, i + 3] and keep[b, j],
        "same_cluster": lambda b, h, i, j: q_cluster[b, h, i] == k_cluster[b, h, j],
    }
    for name, rule in rules.items():
        sizes = {"q": q_len, "k": k_len}
        found = ir.meaning(mask_of(name), q_len, k_len, sizes, tables, batch, heads)
        for place in np.ndindex(found.shape):
            assert found[place] == rule(*place), (name, place)


def test_tables_of_listed_keys_and_blocks():
    random = np.random.default_rng(1)
    batch, heads, q_len, k_len, slots = 2, 2, 6, 9, 3
    neighbors = random.integers(-2, k_len, (batch, q_len, slots))
    chosen = random.integers(-2, 3, (batch, heads, 3, slots))
    sizes = {"q": q_len, "k": k_len, "neighbors:slots": slots}
    sizes |= {"chosen:slots": slots, "chosen:blocks": 3}
    tables = {"neighbors": neighbors, "chosen": chosen}
    found = ir.meaning(mask_of("listed"), q_len, k_len, sizes, tables, batch, heads)
    for b, h, i, j in np.ndindex(found.shape):
        assert found[b, h, i, j] == (j in neighbors[b, i].tolist())
    found = ir.meaning(mask_of("chosen_blocks", b=4), q_len, k_len, sizes, tables, batch, heads)
    for b, h, i, j in np.ndindex(found.shape):
        assert found[b, h, i, j] == (j // 4 in chosen[b, h, (i + 3) // 4].tolist())


def test_a_row_outside_its_table_is_empty():
    mask = frontend.elaborate(
        syn.parse("pattern p = k in neighbors[q - 1] or k + 1 in neighbors[q]")
    )
    neighbors = np.array([[[0], [2], [-1]]])
    sizes = {"q": 3, "k": 3, "neighbors:slots": 1}
    found = ir.meaning(mask, 3, 3, sizes, {"neighbors": neighbors})[0, 0]
    # query 0 has no row before it; query 1 lists key 0 of row 0, and 2 = k + 1; query 2 row 1
    assert found.tolist() == [[False] * 3, [True, True, False], [False, False, True]]


@pytest.mark.parametrize(("name", "group"), [("latent_read", (3, 2)), ("latent_write", (2, 3))])
def test_latents_and_data_of_one_group_see_each_other(name: str, group: tuple[int, int]):
    sizes = {"latent.g": 4, "latent.m": 3, "data.g": 4, "data.n": 2}
    q_len, k_len = 4 * group[0], 4 * group[1]
    mask = mask_of(name)
    assert mask.align is ir.Align.START
    found = ir.meaning(mask, q_len, k_len, sizes | {"q": q_len, "k": k_len})[0, 0]
    for i, j in np.ndindex(found.shape):
        assert found[i, j] == (i // group[0] == j // group[1])


def test_a_caption_is_seen_by_all_and_boxes_stay_in_the_image():
    caption, height, width = 4, 3, 5
    n = caption + height * width
    sizes = {"q": n, "k": n, "caption.n": caption, "image.y": height, "image.x": width}
    found = ir.meaning(mask_of("captioned_box", s=3), n, n, sizes)[0, 0]
    for i, j in np.ndindex(found.shape):
        rows, columns = zip(*(divmod(p - caption, width) for p in (i, j)), strict=True)
        near = abs(rows[0] - rows[1]) <= 1 and abs(columns[0] - columns[1]) <= 1
        assert found[i, j] == (j < caption or (i >= caption and near))


def test_the_text_is_in_the_canonical_layout_and_all_of_it_is_documented():
    text = patterns.source()
    assert syn.format(syn.parse(text, "prelude.attn")) == text
    assert [each.name for each in patterns.catalogue() if not each.doc] == []


def test_constraints_guard_every_size():
    for each in patterns.catalogue():
        for parameter in each.parameters:
            free = ("tokens", "ends", "seed", "past", "py", "px", "pt", "causal")
            constrained = any(parameter.name in text.split() for text in each.constraints)
            assert constrained or parameter.name in free, (each.name, parameter.name)


def test_names_documentation_and_python_functions_agree():
    assert patterns.names()[:4] == ("full", "nothing", "diagonal", "causal")
    for shown in patterns.catalogue():
        function = getattr(patterns, shown.name)
        assert list(function.__signature__.parameters) == [p.name for p in shown.parameters]
        assert function.__doc__ == shown.doc
        assert shown.name in dir(patterns)
    with pytest.raises(AttnDslError, match="did you mean `window`"):
        patterns.describe("widow")
    with pytest.raises(AttributeError, match="widow"):
        _ = patterns.widow


@pytest.mark.parametrize("case", [*FLAT, *GRIDS], ids=case_id)
def test_the_python_function_gives_the_same_mask(case: Flat | OnGrid):
    written = mask_of(case.name, **case.values)
    built = frontend.to_mask(getattr(patterns, case.name)(**case.values))
    assert built == written
    assert (built.name, built.doc) == (written.name, written.doc)
