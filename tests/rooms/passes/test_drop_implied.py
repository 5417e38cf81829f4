"""Implied conditions are dropped, others stay, and the relation is the same."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attndsl import ir
from attndsl.passes import PIPELINE, normalise
from attndsl.sources import read_mask
from tests.support import expressions as ex
from tests.support.work import A_SECOND, within

Q, K = ex.Q, ex.K
LENGTHS = [(9, 9), (4, 11), (11, 4), (1, 1)]


def number(value: int) -> ir.Node:
    return ir.Const(value)


def both(make):
    return lambda m: make(Q, number(m)), lambda m: make(K, number(m))


def atoms() -> st.SearchStrategy[ir.Node]:
    """Conditions that often have to do with each other: distances, blocks, residues, ends, heads."""
    size, small = st.sampled_from([1, 2, 3, 4, 6, 8]), st.integers(-5, 9)
    block, residue = both(ir.floordiv), both(ir.mod)
    items = st.one_of(
        st.sampled_from([Q, K, ir.sub(Q, K), ir.sub(K, Q), ir.add(Q, K)]),
        size.map(lambda m: ir.sub(block[0](m), block[1](m))),
        size.map(lambda m: ir.sub(block[1](m), block[0](m))),
        size.map(lambda m: ir.sub(residue[0](m), residue[1](m))),
        size.map(block[1]),
        size.map(residue[0]),
        st.sampled_from([ir.sub(K, ir.Size("k")), ir.sub(ir.add(Q, ir.Size("q")), ir.Size("k"))]),
        st.sampled_from([ir.absolute(ir.sub(Q, K)), ir.minimum(Q, K), ir.maximum(Q, number(3))]),
        st.just(ir.sub(ex.HEAD, ir.Var("heads"))),
        st.just(ir.mul(K, ir.Size("q"))),
        st.just(ir.floordiv(K, ir.Size("q"))),
        st.just(ir.mod(K, ir.Size("q"))),
        st.just(ir.pow2(ir.ilog2(K))),
    )
    return st.builds(
        lambda item, bound, make: make(item, number(bound)),
        items, small, st.sampled_from([ir.le, ir.le, ir.ge, ir.ge, ir.eq, ir.ne]),
    )  # fmt: skip


def relations(depth: int = 3) -> st.SearchStrategy[ir.Node]:
    if depth == 0:
        return atoms()
    inner = st.deferred(lambda: relations(depth - 1))
    several = st.lists(inner, min_size=2, max_size=4)

    def chosen(cond: ir.Node, yes: ir.Node, no: ir.Node, bound: int) -> ir.Node:
        return ir.le(ir.select(cond, yes, no), number(bound))

    terms = st.sampled_from([Q, K, ir.sub(Q, K), ir.mod(K, number(3)), number(-1)])
    return st.one_of(
        several.map(lambda items: ir.conj(*items)),
        several.map(lambda items: ir.disj(*items)),
        st.builds(chosen, inner, terms, terms, st.integers(-3, 8)),
        inner.map(ir.negate),
    )


def drop(root: ir.Node, align: ir.Align = ir.Align.END) -> ir.Node:
    return PIPELINE["drop_implied"](ex.mask(root, align)).root


@settings(max_examples=400)
@given(relations(), st.sampled_from(ir.Align))
@example(ir.conj(ir.le(Q, number(3)), ir.le(K, Q), ir.le(K, number(4))), ir.Align.START)
@example(ir.conj(ir.eq(ir.floordiv(K, number(4)), number(1)), ir.le(K, number(5))), ir.Align.START)
@example(
    ir.conj(ir.eq(Q, K), ir.le(Q, K), ir.le(K, Q)), ir.Align.START
)  # each is implied by the rest
def test_the_relation_is_the_same(root: ir.Node, align: ir.Align):
    before = ex.mask(root, align)
    after = PIPELINE["drop_implied"](before)
    for lengths in LENGTHS:
        expected, found = (ex.dense(mask, *lengths, heads=2) for mask in (before, after))
        assert np.array_equal(found, expected), f"{ir.show(root)}  -->  {ir.show(after.root)}"


@given(relations())
def test_twice_is_once(root: ir.Node):
    once = drop(root)
    assert len(list(ir.postorder(once))) <= len(list(ir.postorder(root)))
    assert len(list(ir.postorder(drop(once)))) <= len(list(ir.postorder(once)))


EQUAL = {
    "a bound of a sum": ("k <= q and q < 9 and k < 12", "k <= q and q < 9"),
    "within an alternative": ("causal and (window(64) or k < 4)", "causal and (q - k <= 64 or k < 4)"),
    "an alternative": ("window(2) or window(4)", "window(4)"),
    "a block and a window": ("q // 8 == k // 8 and window(7)", "q // 8 == k // 8"),
    "blocks within blocks": ("q // 8 == k // 8 and q // 16 == k // 16", "q // 8 == k // 8"),
    "residues": ("q % 12 == k % 12 and q % 4 == k % 4", "q % 12 == k % 12"),
    "blocks of what is earlier": ("causal and k // 8 <= q // 8", "causal"),
    "the diagonal": ("q == k and causal and q % 3 == k % 3 and q // 5 == k // 5", "q == k"),
    "ends": ("k >= 0 and k < len(k) and q < len(k) and causal", "causal"),
    "heads": ("head < heads and head >= 0 and causal", "causal"),
    "nothing": ("k < q and q <= 5 and k > 7", "false"),
    "no residue": ("q % 4 == 1 and q % 8 == 2 and q % 4 == 3", "false"),
    "a failed alternative": ("k < 4 or k >= 4 and causal", "k < 4 or causal"),
    "a choice": ("k < 8 and (if k < 9 then k % 5 else k) < 3", "k < 8 and k % 5 < 3"),
    "the other branch": (
        "(if k < 8 then k % 5 else if k < 8 then 1 else k % 3) < 2",
        "(if k < 8 then k % 5 else k % 3) < 2",
    ),
    "an end of queries": ("q >= 0 and causal", "causal"),
    "a choice in an index": ("k < 8 and k <= q and t[if k < 9 then k else q] == 1", "k < 8 and k <= q and t[k] == 1"),
    "before the first key": ("q >= 0 and window(3)", "window(3)"),  # there are no queries
    "causal twice": ("causal_window(4) and block_causal(4)", "causal_window(4)"),
}  # fmt: skip


def digest(text: str, **options: object) -> str:
    return normalise(read_mask(f"input t: int[n]\npattern p = {text}"), **options).digest


@pytest.mark.parametrize("name", EQUAL)
def test_what_is_said_twice_is_one_relation(name: str):
    long, short = EQUAL[name]
    assert digest(long) == digest(short)
    assert digest(long, without=["drop_implied"]) != digest(short, without=["drop_implied"])


KEPT = {
    "other residues": "q % 12 == k % 12 and q % 8 == k % 8",
    "residues at a distance": "q == k + 3 and q % 4 == k % 4",
    "blocks of what is near": "causal and q - k <= 4 and q // 8 <= k // 8",
    "blocks of what is next": "0 <= k - q <= 4 and k // 8 <= q // 8",
    "other blocks": "q // 8 == k // 8 and q // 12 == k // 12",
    "a window less than a block": "q // 8 == k // 8 and window(6)",
    "what a sum does not give": "k <= q and q < 9 and k < 8",
    "two documents": "t[q] == t[k] and causal",
    "heads apart": "if head < 2 then causal_window(8) else causal_window(4)",
}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_said_once_stays(name: str):
    mask = read_mask(f"input t: int[n]\npattern p = {KEPT[name]}")
    assert normalise(mask).root is normalise(mask, ["drop_implied"]).root


def test_coordinates_need_no_guard_where_they_are_asked_for():
    over = "space s = text(2) ++ image(y, x)\npattern p over s = "
    guarded = read_mask(over + "k in text or q in image and k in image and q.x == k.x")
    shown = ir.show(normalise(guarded).root)
    assert shown == "(k - 2) % len(image.x) == (q - 2) % len(image.x) and q >= 2 or k <= 1"


WIDE = {
    "conjuncts": lambda i: ir.le(ir.scale(Q, i + 1), ir.add(ir.scale(K, i + 2), number(i))),
    "residues": lambda i: ir.eq(ir.mod(Q, number(i + 2)), ir.mod(K, number(i + 2))),
    "tokens": lambda i: ir.ne(K, number(7 * i)),
}


@pytest.mark.parametrize("junction", [ir.conj, ir.disj])
@pytest.mark.parametrize("kind", WIDE)
def test_a_thousand_conditions_take_a_moment(kind: str, junction):
    root = junction(*map(WIDE[kind], range(1_000)))
    within(A_SECOND, lambda: drop(root))


def test_a_deep_choice_takes_a_moment():
    root, item = ir.le(K, Q), ir.sub(Q, K)
    for level in range(200):
        root = ir.conj(ir.disj(root, ir.le(item, number(level))), ir.ne(Q, number(level)))
        item = ir.select(ir.le(K, number(level)), item, ir.add(item, K))
    within(A_SECOND, lambda: drop(ir.conj(root, ir.le(item, number(3)))))
