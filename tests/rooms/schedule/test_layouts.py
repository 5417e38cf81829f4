"""Layouts: bijections at every length, and schedules that stay exact in every order of tokens."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attndsl import frontend
from attndsl import syntax as syn
from attndsl.compiler import Program
from attndsl.passes import normalise
from attndsl.schedule import (
    NATURAL,
    Call,
    boundary_tiles,
    building,
    pair_truths,
    plan,
    read_layout,
    summaries,
    tile_classes,
)
from attndsl.schedule.layouts import stable_order
from attndsl.source import AttnDslError
from tests.support import expressions as ex

GOLDEN = Path(__file__).parents[2] / "golden" / "errors" / "A4"
FLAT = ["natural", "residues(3)", "residues(16)", "boxes(7)", "residues(1)"]
GRID = ["boxes(y=3, x=4)", "residues(y=2, x=3)", "axes(x, y)", "morton(y, x)", "boxes(image.x=5)"]


def program(text):
    return Program(frontend.elaborate(syn.parse(text)))


def orders(schedule, batch=0, head=0):
    """Rows of queries and keys by storage index."""
    found = schedule.plan(batch, head)
    sides = ((found.q_order, schedule.q_len), (found.k_order, schedule.k_len))
    return [np.arange(n) if order is None else order.rows for order, n in sides]


def check(schedule, dense):
    """Against the dense meaning in storage order: no empty tile, no full tile masked, no pair lost."""
    bq, bk = schedule.tile
    for b, h in np.ndindex(dense.shape[:2]):
        found = schedule.plan(b, h)
        assert np.array_equal(schedule.cover(b, h), dense[b, h])
        stored = dense[b, h][np.ix_(*orders(schedule, b, h))]
        for tiles, is_full in ((found.full, True), (found.partial, False)):
            for row, column in tiles:
                part = stored[row * bq : (row + 1) * bq, column * bk : (column + 1) * bk]
                assert part.any()
                assert part.all() == is_full
        assert found.transpose.q_order is found.k_order
        assert found.transpose.k_order is found.q_order


@pytest.mark.parametrize("name", FLAT)
def test_a_layout_is_a_bijection_at_every_length(name):
    p, layout = program("pattern p = causal"), read_layout(name)
    for length in range(200):
        call = p.call(max(1, length // 2), length, 1, 1, None, {}) if length else None
        if call is not None:
            for rows in orders(plan(p.normal, call, (16, 16), (layout, layout))):
                assert np.array_equal(np.sort(rows), np.arange(len(rows)))


@pytest.mark.parametrize("name", GRID)
def test_a_layout_of_a_grid_is_a_bijection_at_every_extent(name):
    p, layout = program("grid image(y, x)\npattern p over image = q.x <= k.x"), read_layout(name)
    for y in range(1, 10):
        for x in range(1, 10):
            call = p.call(y * x, y * x, 1, 1, {"y": y, "x": x}, {})
            for rows in orders(plan(p.normal, call, (16, 16), (layout, layout))):
                assert np.array_equal(np.sort(rows), np.arange(y * x))


def test_residues_and_boxes_are_laid_out_as_documented():
    p = program("grid image(y, x)\npattern p over image = q.x == k.x")
    call = p.call(12, 12, 1, 1, {"y": 3, "x": 4}, {})
    boxes, columns = read_layout("boxes(y=2, x=2)"), read_layout("axes(x, y)")
    of_queries, of_keys = orders(plan(p.normal, call, (4, 4), (boxes, columns)))
    assert of_queries.tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 10, 11]
    assert of_keys.tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    flat = program("pattern p = causal")
    residues = read_layout("residues(4)")
    call = flat.call(10, 10, 1, 1, None, {})
    found, _ = orders(plan(flat.normal, call, (4, 4), (residues, NATURAL)))
    assert found.tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 3, 7]


def test_a_space_filling_order_goes_through_quarters():
    p = program("grid image(y, x)\npattern p over image = q.x == k.x")
    call = p.call(16, 16, 1, 1, {"y": 4, "x": 4}, {})
    morton = read_layout("morton(y, x)")
    found, _ = orders(plan(p.normal, call, (4, 4), (morton, NATURAL)))
    assert found.tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]


@given(
    st.integers(0, 99),
    st.integers(1, 3),
    st.sampled_from([3, 1 << 15, 1 << 17, 1 << 40, 1 << 62]),
)
@example(0, 1, 50_000)
@example(0, 1, 1 << 58)
def test_sorting_by_large_keys_is_stable_and_the_first_key_comes_first(seed, count, most):
    rng = np.random.default_rng(seed)
    few = rng.integers(-most, most, 20)  # equal values, too
    columns = [rng.choice(few, 200) for _ in range(count)]
    assert np.array_equal(stable_order(columns), np.lexsort(columns[::-1]))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("causal and (q - k < 40 or (q - k) % 5 == 0)", "residues(5)"),
        ("abs(q % 7 - k % 7) <= 1 and q // 7 != k // 7", "residues(7)"),
    ],
)
def test_tiles_in_which_a_class_ends_and_the_next_begins_are_of_few_kinds(monkeypatch, text, name):
    found = []

    def evaluate_tiles(*given):
        made = boundary_tiles.evaluate_tiles(*given)
        found.append(len(made.is_empty))
        return made

    monkeypatch.setattr(building, "evaluate_tiles", evaluate_tiles)
    monkeypatch.setattr(tile_classes, "MANY", 0)
    p, layout = program(f"pattern p = {text}"), read_layout(name)
    for length in (903, 1804):
        call = p.call(length, length, 1, 1, None, {})
        check(plan(p.normal, call, (8, 16), (layout, layout)), p.dense(call))
    assert max(found) < 200
    assert found[1] < 1.2 * found[0], "whatever the length"


LENGTH = st.integers(1, 70)
TILE = st.sampled_from([(4, 4), (8, 16), (16, 8)])


@settings(max_examples=70)
@given(ex.relations(), LENGTH, LENGTH, TILE, st.sampled_from(FLAT), st.sampled_from(FLAT))
def test_random_relations_in_random_layouts(expression, q_len, k_len, tile, of_queries, of_keys):
    mask = ex.mask(expression.root)
    call = Call(q_len, k_len, 2, 2, 0, {"q": q_len, "k": k_len}, ex.TABLES)
    layouts = read_layout(of_queries), read_layout(of_keys)
    check(plan(normalise(mask), call, tile, layouts), ex.dense(mask, q_len, k_len, 2))


@settings(max_examples=70)
@given(ex.relations(), LENGTH, LENGTH, st.sampled_from(FLAT), st.sampled_from(FLAT))
def test_random_relations_told_apart_by_pieces_and_evaluated_a_few_at_a_time(
    expression, q_len, k_len, of_queries, of_keys
):
    mask = ex.mask(expression.root)
    call = Call(q_len, k_len, 2, 2, 0, {"q": q_len, "k": k_len}, ex.TABLES)
    layouts = read_layout(of_queries), read_layout(of_keys)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tile_classes, "MANY", 0)
        patch.setattr(tile_classes, "FEWEST_ALIKE", 0)
        patch.setattr(summaries, "AT_ONCE", 8)
        patch.setattr(boundary_tiles, "PAIRS_AT_ONCE", 256)
        patch.setattr(boundary_tiles, "TILES_AT_ONCE", 2)
        patch.setattr(pair_truths, "NUMBERS_AT_ONCE", 64)
        check(plan(normalise(mask), call, (4, 8), layouts), ex.dense(mask, q_len, k_len, 2))


@settings(max_examples=60)
@given(
    st.sampled_from(
        [
            "abs(q.y - k.y) <= 2 and abs(q.x - k.x) <= 3",
            "q.y % 3 == k.y % 3 and q.x <= k.x",
            "swin(3)",
        ]
    ),
    st.integers(1, 11),
    st.integers(1, 11),
    st.sampled_from(GRID),
    st.sampled_from(GRID),
)
def test_grids_in_random_layouts(body, y, x, of_queries, of_keys):
    p = program(f"grid image(y, x)\npattern p over image = {body}")
    call = p.call(y * x, y * x, 1, 1, {"y": y, "x": x}, {})
    layouts = read_layout(of_queries), read_layout(of_keys)
    check(plan(p.normal, call, (8, 8), layouts), p.dense(call))


@settings(max_examples=30)
@given(st.integers(1, 90), st.integers(0, 99))
def test_run_time_sorts(length, seed):
    text = (
        "input doc: int[batch, pos]\ninput nbr: list[q, 3]\n"
        "pattern p = doc[q] == doc[k] and (k in nbr[q] or q == k)"
    )
    p, random = program(text), np.random.default_rng(seed)
    doc, nbr = random.integers(0, 5, (2, length)), random.integers(-1, length, (length, 3))
    call = p.call(length, length, 2, 1, None, {"doc": doc, "nbr": nbr})
    for layout in (read_layout("sorted(doc)"), read_layout("banded(nbr)")):
        schedule = plan(p.normal, call, (8, 8), (layout, layout))
        check(schedule, p.dense(call))
    schedule = plan(p.normal, call, (8, 8), (read_layout("sorted(doc)"), NATURAL))
    for batch in range(2):
        rows, _ = orders(schedule, batch)
        assert (np.diff(doc[batch][rows]) >= 0).all()


def test_a_band_brings_the_neighbours_of_a_shuffled_ring_together():
    length, random = 512, np.random.default_rng(0)
    names = random.permutation(length)
    nbr = np.empty((length, 3), int)
    for place in range(length):
        nbr[names[place]] = names[[place, (place - 1) % length, (place + 1) % length]]
    p = program("input nbr: list[q, 3]\npattern p = k in nbr[q]")
    call = p.call(length, length, 1, 1, None, {"nbr": nbr})
    banded = read_layout("banded(nbr)")
    before = plan(p.normal, call, (16, 16))
    after = plan(p.normal, call, (16, 16), (banded, banded))
    assert after.plans[0].live <= 4 * 32 < before.plans[0].live / 4


def test_names_are_canonical():
    assert read_layout(" boxes( y=08,x = 16 ) ").name == "boxes(y=8, x=16)"
    assert read_layout("residues(8)") == read_layout("residues( 8)")
    assert read_layout("natural") is NATURAL


def unknown_layout():
    read_layout("residue(8)")


def layout_without_sense():
    read_layout("boxes(y=0)")


def layout_of_another_space():
    p = program("pattern p = causal")
    call = p.call(8, 8, 1, 1, None, {})
    plan(p.normal, call, (4, 4), (read_layout("boxes(y=2, x=2)"), NATURAL))


def layout_of_no_table():
    p = program("pattern p = causal")
    call = p.call(8, 8, 1, 1, None, {})
    plan(p.normal, call, (4, 4), (read_layout("sorted(doc)"), NATURAL))


def graph_too_large():
    p = program("input nbr: list[q, 1]\npattern p = k in nbr[q]")
    call = p.call(70_000, 70_000, 1, 1, None, {"nbr": np.zeros((70_000, 1), int)})
    plan(p.normal, call, (128, 128), (read_layout("banded(nbr)"), NATURAL))


@pytest.mark.parametrize(
    "mistake",
    [
        unknown_layout,
        layout_without_sense,
        layout_of_another_space,
        layout_of_no_table,
        graph_too_large,
    ],
)
def test_mistakes_are_explained(mistake, golden):
    with pytest.raises(AttnDslError) as caught:
        mistake()
    golden(GOLDEN / f"{mistake.__name__}.err", f"{caught.value}\n")
