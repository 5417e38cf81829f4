"""A schedule computes exactly the pattern: no empty tile visited, no full tile masked, no pair lost."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from attndsl import frontend, ir
from attndsl import syntax as syn
from attndsl.compiler import Program
from attndsl.schedule import Schedule, Tiles, boundary_tiles, equi_joins
from attndsl.schedule.model import Runs, TokenOrder
from attndsl.schedule.summaries import TileAxis
from attndsl.source import AttnDslError
from attndsl.testing import Program as Random
from attndsl.testing import programs
from tests.fuzz.checking import REFUSED
from tests.support.work import within

# Knowledge on a tile can leave a constant, though the choice is undecided.
CHOICE = "pattern p = if 0 <= q - k <= 64 then q - k <= 64 else k // 128 <= 5"
TILES = [(4, 4), (8, 16), (16, 8), (32, 32), (32, 1), (1, 32), (1, 1), (7, 3), (2, 5)]

PROGRAMS = [
    "pattern p = causal",
    "pattern p = window(9, 3)",
    "pattern p = causal and (q - k < 50 or k < 4)",
    "pattern p = window(12) or q < 3 or k < 3",
    "pattern p = abs(q - k) <= 40 and (q - k) % 8 == 0",
    "pattern p = (q - k) % 7 <= 2",
    "pattern p = causal and (q - k < 16 or k % 16 == 15)",
    "pattern p = q // 24 == k // 24",
    "pattern p = (q + 5) // 12 == (k + 5) // 12 and causal",
    "pattern p = any j in 0..9: q - k == pow2(j)",
    "pattern p = ilog2(abs(q - k)) % 2 == 0",
    "pattern p = min(q, 40) >= max(k, 7) - 5",
    "pattern p = if head < heads // 2 then window(4) else (q + head) % 5 == k % 5",
    "pattern p = if q < 20 then k < 9 else abs(q - k) < (q // 16) * 3",
    "pattern p = (q * 75 + 74) % 61 == (k * 75 + head) % 61",
    "pattern p = q * k % 11 == 3",
    "pattern p = abs(q // 8 - k // 8) <= 1 and not (q == k)",
    "pattern p = all j in 0..4: (q - k) % (j + 2) != 1",
    "pattern p align start = k <= q",
    "pattern p = k % 3 == 0",  # alike in all rows of tiles, but that the last one is shorter
    "pattern p = q % 3 == 0",
    "pattern p = false",
    "pattern p = true",
    CHOICE,
]


def check(schedule: Schedule, dense: np.ndarray) -> None:
    """Against the dense meaning, bool [batch, heads, q_len, k_len]."""
    bq, bk = schedule.tile
    for b, h in np.ndindex(dense.shape[:2]):
        truth, plan = dense[b, h], schedule.plan(b, h)
        assert np.array_equal(schedule.cover(b, h), truth)
        for row, column in plan.full:
            assert truth[row * bq : (row + 1) * bq, column * bk : (column + 1) * bk].all()
        for row, column in plan.partial:
            tile = truth[row * bq : (row + 1) * bq, column * bk : (column + 1) * bk]
            assert tile.any()
            assert not tile.all()
        there = {(c, r, i) for (r, c), i in zip(plan.partial, plan.mask_ids, strict=True)}
        back = plan.transpose
        assert there == {(r, c, i) for (r, c), i in zip(back.partial, back.mask_ids, strict=True)}
        assert {(c, r) for r, c in plan.full} == set(back.full)
        for tiles in (plan.full, plan.partial, back.full, back.partial):
            assert list(tiles) == sorted(set(tiles)), "row by row, columns in order, each once"
        masks = schedule.masks.unpack(plan.mask_ids)
        inside = np.zeros(np.multiply(schedule.grid, schedule.tile), dtype=bool)
        inside[: schedule.q_len, : schedule.k_len] = True
        for (row, column), mask in zip(plan.partial, masks, strict=True):
            box = inside[row * bq : (row + 1) * bq, column * bk : (column + 1) * bk]
            assert not (mask & ~box).any(), "bits outside the lengths are 0"


@settings(max_examples=70, deadline=None)
@given(
    st.sampled_from(PROGRAMS),
    st.integers(0, 130),
    st.integers(0, 130),
    st.sampled_from(TILES),
    st.integers(1, 4),
)
def test_every_pair_and_no_other(text, q_len, k_len, tile, heads):
    program = Program(frontend.elaborate(syn.parse(text)))
    call = program.call(q_len, k_len, 1, heads, None, {})
    check(program.schedule(call, tile), program.dense(call))


@pytest.mark.parametrize("tile", TILES)
def test_tiles_of_any_shape(tile):
    program = Program(frontend.elaborate(syn.parse(CHOICE)))
    call = program.call(32, 32, 1, 1, None, {})
    check(program.schedule(call, tile), program.dense(call))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs(depth=2), st.sampled_from(TILES), st.sampled_from(["natural", "auto"]))
def test_random_programs_in_tiles_of_any_shape(program: Random, tile, layout):
    try:
        made = Program(frontend.elaborate(syn.parse(program.text)), program.layer)
        tables = {table.name: program.tables[table.name] for table in made.mask.tables}
        axes = {name: n for name, n in program.sizes.items() if ir.axes_named(made.mask, name)}
        lengths = program.q_len, program.k_len, program.batch, program.heads
        call = made.call(*lengths, axes, tables)
        schedule, dense = made.schedule(call, tile, layout), made.dense(call)
    except AttnDslError as error:
        if error.code not in (*REFUSED, "A403", "A404"):
            raise
        reject()
    for b, h in np.ndindex(dense.shape[:2]):
        assert np.array_equal(schedule.cover(b, h), dense[b, h])


GRIDS = [
    ("grid g(y, x)\npattern p over g = abs(q.y - k.y) <= 2 and abs(q.x - k.x) <= 3", "yx"),
    ("grid g(y, x)\npattern p over g = q.y // 3 == k.y // 3 and q.x // 4 == k.x // 4", "yx"),
    ("grid g(y, x)\npattern p over g = q.y % 3 == k.y % 3 and q.x % 2 == k.x % 2", "yx"),
    ("grid g(t, y, x)\npattern p over g = q.t >= k.t and q.y == k.y or q.x == k.x", "tyx"),
    ("space s = text(7) ++ g(y, x)\npattern p over s = k in text or q.y == k.y", "yx"),
]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(GRIDS),
    st.lists(st.integers(1, 9), min_size=3, max_size=3),
    st.sampled_from([(4, 4), (8, 16), (16, 16)]),
)
def test_on_grids(grid, sizes, tile):
    text, axes = grid
    extents = dict(zip(axes, sizes, strict=False))
    length = int(np.prod(list(extents.values()))) + (7 if "text" in text else 0)
    program = Program(frontend.elaborate(syn.parse(text)))
    call = program.call(length, length, 1, 1, extents, {})
    check(program.schedule(call, tile), program.dense(call))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 100), st.integers(1, 3), st.integers(0, 99), st.sampled_from([(8, 8), (16, 4)])
)
def test_run_time_tables_per_batch_element_and_head(length, batch, seed, tile):
    random = np.random.default_rng(seed)
    text = (
        "input doc: int[batch, pos]\ninput keep: bool[pos]\ninput nbr: list[q, 3]\n"
        "pattern p = doc[q] == doc[k] and keep[k] or k in nbr[q]"
    )
    program = Program(frontend.elaborate(syn.parse(text)))
    inputs = {
        "doc": np.sort(random.integers(0, 4, (batch, length))),
        "keep": random.random(length) < 0.7,
        "nbr": random.integers(-1, length, (length, 3)),
    }
    call = program.call(length, length, batch, 2, None, inputs)
    check(program.schedule(call, tile), program.dense(call))


@pytest.mark.parametrize("length", [8192, 1 << 20])
def test_a_million_tokens_cost_what_is_live(length):
    program = Program(
        frontend.elaborate(syn.parse("pattern p = causal and (q - k < 512 or k < 4)"))
    )
    schedule = program.schedule(program.call(length, length, 1, 1, None, {}), (128, 128))
    rows = length // 128
    assert schedule.plans[0].live == 5 * rows - 10 + (rows - 5)
    assert len(schedule.masks) == 4
    assert schedule.nbytes < 4e6


@pytest.mark.parametrize("text", ["true", "causal", "k < 1000 or q >= 1000000"])
def test_dense_rows_are_held_as_runs_in_both_directions(text):
    program = Program(frontend.elaborate(syn.parse(f"pattern p = {text}")))
    schedule = program.schedule(program.call(1 << 20, 1 << 20, 1, 1, None, {}), (128, 128))
    (found,) = schedule.plans
    assert schedule.nbytes + found.transpose.nbytes < 1e6
    assert found.full.nnz == found.transpose.full.nnz


@settings(max_examples=100)
@given(st.integers(1, 9), st.integers(1, 9), st.randoms(use_true_random=False))
def test_runs_are_the_cells_they_came_from(n_rows, n_columns, random):
    """In any order, of any lengths, as long as they are apart."""
    cells = [cell for cell in np.ndindex(n_rows, n_columns) if random.random() < 0.6]
    some = sorted(random.sample(cells, len(cells)), key=lambda _: random.random())
    rows, columns = np.array(some, dtype=np.int64).reshape(-1, 2).T
    runs = Runs.joined(rows, columns, columns + 1)
    assert list(Tiles.of(runs, n_rows)) == cells
    assert runs.count == len(cells)
    turned = Tiles.of(runs.transposed(), n_columns)
    assert list(turned) == sorted((column, row) for row, column in cells)
    back = turned.held.transposed()
    assert all(map(np.array_equal, back.arrays, runs.arrays))


@pytest.mark.parametrize("body", ["bigbird(8, 1, 3)", "random_blocks(4, 3) or q - k == pow2(6)"])
def test_what_is_known_on_many_leaves_is_left_out_of_their_evaluation(body):
    program = Program(frontend.elaborate(syn.parse(f"pattern p = {body}")))
    call = program.call(1003, 1003, 1, 1, None, {})
    check(program.schedule(call, (8, 8)), program.dense(call))


def test_masks_that_differ_in_highest_bits_are_told_apart_by_their_hash(monkeypatch):
    """A product of 64 bits forgets which word it was whose highest bit was set."""
    text = "input flag: bool[pos]\npattern p = flag[q] and k == 56 or q - k > 1000"
    program = Program(frontend.elaborate(syn.parse(text)))
    flag = np.isin(np.arange(64), (0, 1, 6, 7))
    call = program.call(64, 64, 1, 1, None, {"flag": flag})
    made = []

    class Noted(boundary_tiles.Distinct):
        def __init__(self, *given):
            super().__init__(*given)
            made.append(self)

    monkeypatch.setattr(boundary_tiles, "Distinct", Noted)
    schedule = program.schedule(call, (4, 64))
    assert made
    assert all(each.is_hashed for each in made)
    assert len(schedule.masks) == 2
    check(schedule, program.dense(call))


JOINED = (
    "cluster[q] == cluster[k]",
    "cluster[q] == cluster[k] + 2",
    "k // 8 == (q // 8 * 37 + 11) % 23",
    "k // 8 + 3 == (q // 8 * 37) % 23",
)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 400),
    st.integers(1, 12),
    st.integers(0, 9),
    st.sampled_from(JOINED),
    st.sampled_from([1, -(1 << 52)]),
)
def test_equal_values_in_disorder(length, kinds, seed, text, apart):
    """Joined by value, not by range: clusters, hashed blocks; also where a value fills a number of 64 bits."""
    cluster = np.random.default_rng(seed).integers(0, length // kinds + 1, length) * apart
    program = Program(
        frontend.elaborate(syn.parse(f"input cluster: int[pos]\npattern p = {text} or q == k"))
    )
    inputs = {"cluster": cluster} if "cluster" in text else {}
    call = program.call(length, length, 1, 1, None, inputs)
    for tile in ((4, 8), (16, 16)):
        check(program.schedule(call, tile), program.dense(call))


@pytest.mark.parametrize("text", JOINED)
def test_where_a_table_of_all_boxes_were_too_large_they_are_looked_up_by_search(monkeypatch, text):
    monkeypatch.setattr(equi_joins, "LARGEST_TABLE", 0)
    test_equal_values_in_disorder.hypothesis.inner_test(300, 3, 0, text, 1)


def test_random_blocks_cost_what_is_live():
    program = Program(frontend.elaborate(syn.parse("pattern p = random_blocks(64, 3)")))
    call = program.call(1 << 15, 1 << 15, 1, 1, None, {})
    schedule = within(200_000, lambda: program.schedule(call, (128, 128)))
    assert schedule.plans[0].live <= 256 * 2 * 3


@pytest.mark.parametrize("order", [None, TokenOrder(np.random.default_rng(0).permutation(37))])
@pytest.mark.parametrize(("factor", "constant"), [(1, 4), (-1, 0), (-3, 2), (5, -1)])
def test_multiples_of_a_term_are_summarised_by_the_term(order, factor, constant):
    axis = TileAxis(ir.Side.QUERY, 37, 3, 8, {}, order)
    term = ir.mod(ir.Pos(ir.Side.QUERY), ir.Const(7))
    node = ir.add(ir.scale(term, factor), ir.Const(constant))
    positions = axis.positions(np.arange(37))
    values = factor * (positions % 7) + constant
    assert np.array_equal(axis.values(node), values)
    for level in (0, 1):
        found, boxes = axis.summary(node, level), np.arange(0, 37, 8 << level)
        assert np.array_equal(found.low, np.minimum.reduceat(values, boxes))
        assert np.array_equal(found.high, np.maximum.reduceat(values, boxes))
    (classes, offsets), (alike, _) = axis.shapes(node), axis.shapes(term)
    assert classes is alike
    assert np.array_equal(offsets, values[::8])


def test_a_sample_has_the_values_of_its_places():
    natural = TileAxis(ir.Side.QUERY, 37, 3, 8, {})
    order = TokenOrder(np.random.default_rng(0).permutation(37))
    node = ir.mod(ir.Pos(ir.Side.QUERY), ir.Const(7))
    for _ in ("not known yet", "known"):
        for axis in (natural, natural.reordered(order)):
            sample = axis.sampled(np.array([1, 4]))
            rows = np.r_[8:16, 32:37]
            rows = rows if axis.order is None else axis.order.rows[rows]
            assert np.array_equal(sample.values(node), (rows + 3) % 7)
        natural.values(node)


def test_a_batch_of_another_size_has_its_own_schedule():
    program = Program(frontend.elaborate(syn.parse("pattern p = k <= q - 5 * batch")))
    for batch in (1, 3, 2):
        call = program.call(40, 40, batch, 1, None, {})
        made = program.schedule(call, (16, 16))
        assert made.plan_of.shape[0] == batch
        check(made, program.dense(call))
