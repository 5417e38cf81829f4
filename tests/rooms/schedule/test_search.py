"""The search for an order of tokens: what it must find, that it loses no pair, that it never loses."""

import gc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attndsl import frontend
from attndsl import syntax as syn
from attndsl.compiler import Program
from attndsl.passes import normalise
from attndsl.schedule import Call, TileCosts, TiledMask, optimise, plan, reordering, search, tiled
from attndsl.schedule.building import classes_of
from attndsl.schedule.estimates import sample_rows
from attndsl.schedule.relations import TiledRelation, positions_of, tiled_relation
from tests.rooms.schedule.test_layouts import check
from tests.support import expressions as ex

SQUARE = {"y": 128, "x": 128}
VIDEO = {"t": 30, "y": 48, "x": 80}
WINDOW_3D = """\
grid video(t, y, x)
pattern p over video =
    clamped(q.t, k.t, len(t), 18) and clamped(q.y, k.y, len(y), 24) and clamped(q.x, k.x, len(x), 24)
"""


def program(text):
    return Program(frontend.elaborate(syn.parse(text)))


def schedule_in(part, tile):
    """The schedule of a bound mask, tiled already or not, in tiles of that size."""
    bound = part.bound if isinstance(part, TiledMask) else part
    return tiled(bound, tile).schedules[tile]


def searched(text, length, extents=None, split=True, **inputs):
    p = program(text)
    call = p.call(length, length, 1, 1, extents, inputs)
    parts = optimise(p.normal, call, (128, 128), split=split)
    found = [schedule_in(part, (128, 128)).plans[0] for part in parts]
    return plan(p.normal, call, (128, 128)).plans[0], found


@pytest.mark.parametrize(
    ("text", "length", "extents", "before", "after"),
    [
        ("pattern p = dilated(64, 8)", 8192, None, 556, 184),
        ("pattern p = dilated(64, 16)", 8192, None, 1016, 184),
        ("pattern p over image = q.y % 16 == k.y % 16 and q.x % 16 == k.x % 16", 16384, SQUARE, 1024, 128),
        ("pattern p over image = neighborhood2d(13)", 16384, SQUARE, 1664, 1012),
        ("pattern p over image = neighborhood2d(7)", 16384, SQUARE, 896, 896),
        ("pattern p = causal_window(512)", 8192, None, 310, 310),
        (WINDOW_3D, 115200, VIDEO, 251_100, 251_100 / 1.9),
    ],
)  # fmt: skip
def test_orders_that_must_be_found(text, length, extents, before, after):
    natural, (found,) = searched(text, length, extents)
    assert natural.live == before
    assert found.live <= after
    if before == after:
        assert found.q_order is found.k_order is None


@pytest.mark.parametrize(
    "text", ["pattern p = causal and (q - k < 128 or k % 128 == 127)", "pattern p = strided(128)"]
)
def test_a_strided_pattern_is_split(text):
    natural, parts = searched(text, 65_536)
    assert natural.live == 131_328
    assert len(parts) == 2
    assert sum(part.live for part in parts) <= 4000


def test_documents_in_disorder_become_blocks():
    doc = np.random.default_rng(0).integers(0, 64, 8192)
    natural, (found,) = searched("input doc: int[pos]\npattern p = doc[q] == doc[k]", 8192, doc=doc)
    assert natural.live == 4096
    assert found.live <= 3 * 64 + 64


def test_where_keys_are_gathered_few_keys_of_each_tile_stay_where_they_are():
    p = program("pattern p = causal and (q - k < 128 or k % 128 == 127)")
    call = p.call(16_384, 16_384, 1, 1, None, {})
    assert len(optimise(p.normal, call, (64, 64), TileCosts(gathers=True))) == 1
    assert len(optimise(p.normal, call, (64, 64), TileCosts())) == 2


def test_heads_choose_apart():
    p = program("pattern p = strided_by_head(16)")
    call = p.call(2048, 2048, 1, 4, None, {})
    (whole,) = optimise(p.normal, call, (64, 64))
    schedule = schedule_in(whole, (64, 64))
    assert schedule.plan_of.tolist() == [[0, 1, 0, 1]]
    assert schedule.plans[0].q_order is None
    assert schedule.plans[1].live <= 2048 // 64 * 2
    check(schedule, p.dense(call))


# Nothing is too dear to move or to merge: the search changes and splits whatever it can.
GREEDY = TileCosts(partial=1.0, moved=0.0, merged=0.0)
LENGTH = st.integers(1, 90)


def check_parts(parts, dense, tile=(8, 8)):
    parts = [schedule_in(part, tile) for part in parts]
    covers = [
        np.array([[part.cover(b, h) for h in range(dense.shape[1])] for b in range(dense.shape[0])])
        for part in parts
    ]
    assert np.array_equal(sum(cover.astype(int) for cover in covers), dense.astype(int))
    for part, cover in zip(parts, covers, strict=True):
        check(part, cover)


@settings(max_examples=80)
@given(ex.relations(), LENGTH, LENGTH, st.booleans())
def test_random_relations_lose_no_pair(expression, q_len, k_len, split):
    mask = normalise(ex.mask(expression.root))
    call = Call(q_len, k_len, 2, 2, 0, {"q": q_len, "k": k_len}, ex.TABLES)
    parts = optimise(mask, call, (8, 8), GREEDY, split=split)
    assert split or len(parts) == 1
    check_parts(parts, ex.dense(mask, q_len, k_len, 2))


UNIONS = [
    "causal and (q - k < 5 or k % 8 == 7)",
    "strided(8)",
    "window(2) or q % 6 == k % 6 or k % 16 == 3",
    "(q % 5 == k % 5 or q // 5 == k // 5) and q != k",
    "if head == 0 then strided(6) else window(3)",
]


@settings(max_examples=40)
@given(
    st.sampled_from(UNIONS),
    st.integers(1, 300),
    st.sampled_from([GREEDY, TileCosts()]),
    st.sampled_from([(8, 8), (16, 32)]),
)
def test_unions_are_split_into_disjoint_parts(body, length, tile_costs, tile):
    p = program(f"pattern p = {body}")
    call = p.call(length, length, 1, 2, None, {})
    dense = np.broadcast_to(p.dense(call), (1, 2, length, length))
    check_parts(optimise(p.normal, call, (8, 8), tile_costs), dense, tile)


@settings(max_examples=60)
@given(ex.relations(), LENGTH, LENGTH)
def test_the_result_is_never_worse_by_its_own_count(expression, q_len, k_len):
    mask = normalise(ex.mask(expression.root))
    call = Call(q_len, k_len, 2, 1, 0, {"q": q_len, "k": k_len}, ex.TABLES, merge_heads=False)
    tile_costs = TileCosts(moved=0.0, merged=0.0)
    natural = plan(mask, call, (8, 8))
    parts = [schedule_in(part, (8, 8)) for part in optimise(mask, call, (8, 8), tile_costs)]

    def cost(plans):
        return sum(each.full.nnz + tile_costs.partial * each.partial.nnz for each in plans)

    found = cost(each for part in parts for each in part.plans)
    assert found <= cost(natural.plans) + 1e-9


@settings(max_examples=60)
@given(ex.relations(), LENGTH, LENGTH, st.sampled_from([(4, 4), (16, 4)]))
def test_an_estimate_that_looks_at_all_rows_is_the_count(expression, q_len, k_len, tile):
    mask = normalise(ex.mask(expression.root))
    call = Call(q_len, k_len, 2, 1, 0, {"q": q_len, "k": k_len}, ex.TABLES, merge_heads=False)
    classes, _, tables = classes_of(mask, call)
    for (root,), counted in zip(classes, plan(mask, call, tile).plans, strict=True):
        found = sample_rows(
            tiled_relation(root, *positions_of(mask, call), tile, tables), 1 << 40
        ).estimate()
        assert found.exact
        assert (found.full, found.partial) == (counted.full.nnz, counted.partial.nnz)


def test_an_estimate_tells_by_how_much_it_may_err():
    for body, least, most in (("window(9)", 0, 0), ("causal", 0.1, 0.3), ("true", 0, 0)):
        p = program(f"pattern p = {body}")
        call = p.call(4096, 4096, 1, 1, None, {})
        ((root,),), _, tables = classes_of(p.normal, call)
        relation = tiled_relation(root, *positions_of(p.normal, call), (16, 16), tables)
        inner = TiledRelation(root, relation.queries.sampled(np.arange(1, 255)), relation.keys)
        assert least <= sample_rows(inner, 8).estimate().error <= most
        assert sample_rows(relation, 256).estimate().error == 0


class Looks:
    """Records at how many rows the orders are looked at."""

    def __init__(self, monkeypatch):
        self.natural, self.others = [], []
        monkeypatch.setattr(search, "sample_rows", self)

    def __call__(self, relation, rows):
        (self.natural if relation.queries.order is None else self.others).append(rows)
        return sample_rows(relation, rows)


def test_orders_that_chance_alone_may_make_the_best_get_a_first_look_only(monkeypatch):
    looks, draw = Looks(monkeypatch), np.random.default_rng(0)
    p = program("input nbr: list[q, 4]\npattern p = k in nbr[q]")
    near = np.arange(4096)[:, None] // 64 * 64 + draw.integers(0, 64, (4096, 4))
    call = p.call(4096, 4096, 1, 1, None, {"nbr": near})
    (part,) = optimise(p.normal, call, (64, 64), split=False)
    assert part.pieces[0].q_order is None
    assert looks.others == [8] * 4


def test_of_alternatives_that_are_alike_one_is_taken_apart(monkeypatch):
    sketched = []
    rough_cost = search._Search.rough_cost
    monkeypatch.setattr(
        search._Search,
        "rough_cost",
        lambda hunt, *given: sketched.append(given) or rough_cost(hunt, *given),
    )
    p = program("pattern p = random_blocks(32, 3)")
    optimise(p.normal, p.call(8192, 8192, 1, 1, None, {}), (64, 64))
    assert len(sketched) == 2


def test_a_search_leaves_nothing_for_the_garbage_collector():
    p = program("grid image(y, x)\npattern p over image = box2d(9) or q.x == k.x")
    call = p.call(4096, 4096, 1, 1, {"y": 64}, {})
    optimise(p.normal, call, (64, 64))
    gc.collect()
    gc.disable()
    try:
        optimise(p.normal, call, (64, 64))
        assert gc.collect() == 0
    finally:
        gc.enable()


class Searches:
    """Counts the searches that are made."""

    def __init__(self, monkeypatch):
        self.made = 0
        monkeypatch.setattr(reordering, "search", self)

    def __call__(self, *given):
        self.made += 1
        return search.search(*given)


@pytest.mark.parametrize("body", ["causal", "power_of_two", "window(9) or abs(q - k) == 20"])
def test_where_there_is_nothing_to_choose_nothing_is_counted(monkeypatch, body):
    monkeypatch.setattr(search, "sample_rows", None)
    p = program(f"pattern p = {body}")
    for tile_costs in (TileCosts(), TileCosts(gathers=True)):
        (part,) = optimise(p.normal, p.call(256, 256, 1, 1, None, {}), (8, 8), tile_costs)
        assert part.pieces[0].q_order is part.pieces[0].k_order is None


PACKED = "input doc: int[batch, pos]\npattern p = causal and doc[q] == doc[k]"


def packed(text):
    p = program(text)
    return p, lambda ids: p.call(ids.shape[1], ids.shape[1], len(ids), 1, None, {"doc": ids})


def test_other_documents_are_sorted_without_a_search(monkeypatch):
    searches, draw = Searches(monkeypatch), np.random.default_rng(0)
    p, call = packed(PACKED)
    for _ in range(3):
        found = call(draw.integers(0, 9, (2, 500)))
        (part,) = p.tiled(found, "auto", (16, 16))
        check(schedule_in(part, (16, 16)), p.dense(found))
        assert [plan.q_order.name for plan in schedule_in(part, (16, 16)).plans] == [
            "by doc[q]"
        ] * 2
    assert searches.made == 1


@pytest.mark.parametrize(
    ("body", "made"),
    [
        pytest.param("(q // 8 * 7 + k // 8 * (head + 3)) % 13 < 2", 1, id="natural"),
        pytest.param("(q - k) % (head + 6) == 0", 8, id="sorted"),
        pytest.param(  # the first head stays natural, the others waste more
            "(q - k) % (head + 2) == 0 and abs(q - k) <= 8 * (head + 2)", 8, id="one of many"
        ),
    ],
)
def test_heads_that_waste_as_much_as_one_that_stayed_natural_are_not_searched(
    monkeypatch, body, made
):
    searches = Searches(monkeypatch)
    p = program(f"pattern p = {body}")
    call = p.call(640, 640, 1, 8, None, {})
    check_parts(p.tiled(call, "auto", (16, 16)), p.dense(call), (16, 16))
    assert searches.made == made


def test_a_choice_that_has_become_dear_is_made_anew(monkeypatch):
    searches, draw = Searches(monkeypatch), np.random.default_rng(0)
    p, call = packed(PACKED)
    in_order = call(np.sort(draw.integers(0, 32, (1, 500))))
    disorder = call(draw.integers(0, 32, (1, 500)))
    (part,) = p.tiled(in_order, "auto", (16, 16))
    assert schedule_in(part, (16, 16)).plans[0].q_order is None
    (part,) = p.tiled(disorder, "auto", (16, 16))
    assert searches.made == 2
    assert schedule_in(part, (16, 16)).plans[0].q_order.name == "by doc[q]"
    check(schedule_in(part, (16, 16)), p.dense(disorder))


@pytest.mark.parametrize(
    "body", ["abs(q - k) <= 128 and (q - k) % 8 == 0", "strided(32)", "q - k < 40 and k <= q"]
)
def test_of_long_sequences_a_stretch_is_searched(monkeypatch, body):
    monkeypatch.setattr(search, "LONGEST_SEARCHED", 512)
    p = program(f"pattern p = {body}")
    call = p.call(2048, 2048, 1, 1, None, {})
    parts = optimise(p.normal, call, (32, 32))
    check_parts(parts, p.dense(call), (32, 32))
    live = sum(schedule_in(part, (32, 32)).plans[0].live for part in parts)
    natural = plan(p.normal, call, (32, 32)).plans[0].live
    assert live == natural if body.startswith("q") else live < 0.5 * natural


def test_a_split_is_remembered_part_by_part(monkeypatch):
    searches, draw = Searches(monkeypatch), np.random.default_rng(0)
    p, call = packed(
        "input doc: int[batch, pos]\npattern p = causal and (q - k < 16 or doc[q] == doc[k])"
    )
    for batch in (1, 2):
        found = call(draw.integers(0, 40, (batch, 640)))
        parts = p.tiled(found, "auto", (16, 16))
        assert len(parts) == 2
        check_parts(parts, p.dense(found), (16, 16))
    assert searches.made == 1
