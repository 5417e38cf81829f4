"""Selections in Python: the same as those of the text, and what is refused."""

import pytest
import torch

import attndsl
from attndsl import k, q, table
from attndsl import selections as s
from attndsl.reals import dot
from attndsl.source import AttnDslError

MOBA = """
select past over blocks(8) = dot(q, mean(k)) where block < q // 8 take top 2
pattern p = k <= q and (k // 8 == q // 8 or k in past[q])
"""
NSA = """
units fine = blocks(8, every 4) whole
select best over blocks(16) per group =
    sum over group:
        sum over fine: share * (softmax over fine where fine.end <= q + 1: scale * dot(q, mean(k)))
    where block.start <= q
    keeping block < 1 or q // 16 - block < 2
    take top 4
pattern p = k <= q and k in best[q]
"""
LINES = """
select lines for all = sum over diagonals where len(k) - q <= 9: softmax over keys where k <= q: scale * dot(q, k)
    keeping k < 2 take reaching 0.7
select far = dot(q, k) where k <= q and dot(unit(q), unit(k)) > 0.25
    take above (max over all keys where k <= q: dot(q, k)) - 2.0
pattern p = k <= q and (q - k in lines[q] or k in far[q])
"""
CROSSED = """
units strip = blocks(4)
select near over blocks(8) for blocks(8) =
    sum over queries in strip: sum over strip: softmax over strip where strip <= q.index: scale * antidiagonal(q, k)
    where block <= q.index take top 2
pattern p = k in near[q]
"""
CLUSTERS = """
input mu: real[head, c, d]
label own = argmax c in 0..4: dot(k, mu[c])
rank place = by own[k], k % 3
select member for c in 0..4 = dot(unit(k), mu[c]) take top 5
select heard over blocks(8) = bound(q, k) where block.end <= q + 1 take top 3 by column
pattern p = place[q] // 8 == place[k] // 8 or k in heard[q] or (any c in 0..4: k in member[c] and q in member[c])
"""


def moba():
    block = s.blocks(8)
    past = s.select("past", dot(q, block.mean()), s.top(2), over=block, where=block.number < q // 8)
    return (k <= q) & ((k // 8 == q // 8) | k.isin(past[q]))


def nsa():
    fine, block = s.blocks(8, 4, whole=True), s.blocks(16)
    pooled = s.fold("softmax", s.scale * dot(q, fine.mean()), fine, where=fine.end <= q + 1)
    score = s.fold("sum", s.fold("sum", pooled, fine, share=True), "group")
    kept = (block.number < 1) | (q // 16 - block.number < 2)
    best = s.select(
        "best", score, s.top(4), over=block, per="group", where=block.start <= q, keeping=kept
    )
    return (k <= q) & k.isin(best[q])


def lines():
    shares = s.fold("softmax", s.scale * dot(q, k), "keys", where=k <= q)
    late = attndsl.length("k") - q <= 9
    line = s.select(
        "lines", s.fold("sum", shares, "diagonals", where=late), s.reaching(0.7), rows="all", keeping=k < 2
    )  # fmt: skip
    most = s.fold("max", dot(q, k), "keys", where=k <= q, every=True)
    alike = s.exceeds(dot(s.unit(q), s.unit(k)), 0.25)
    far = s.select("far", dot(q, k), s.above(most - 2.0), where=(k <= q) & alike)
    return (k <= q) & ((q - k).isin(line[q]) | k.isin(far[q]))


def crossed():
    strip, block = s.blocks(4), s.blocks(8)
    share = s.fold(
        "softmax", s.scale * strip.antidiagonal(), strip, where=strip.number <= strip.queries.number
    )
    score = s.fold("sum", s.fold("sum", share, strip), "queries", rows=strip)
    where = block.number <= block.queries.number
    near = s.select("near", score, s.top(2), over=block, rows=block, where=where)
    return k.isin(near[q])


def clusters():
    mu, block = table("mu", "real", "head", "c", "d"), s.blocks(8)
    own = s.label("own", 4, lambda c: dot(k, mu[c]))
    place = s.rank("place", own[k], k % 3)
    member = s.select("member", lambda c: dot(s.unit(k), mu[c]), s.top(5), rows=4)
    heard = s.select(
        "heard", block.bound(), s.top(3), over=block, where=block.end <= q + 1, by_column=True
    )
    shared = attndsl.any_(0, 4, lambda c: k.isin(member[c]) & q.isin(member[c]))
    return (place[q] // 8 == place[k] // 8) | k.isin(heard[q]) | shared


@pytest.mark.parametrize(
    ("text", "built"), [(MOBA, moba), (NSA, nsa), (LINES, lines), (CROSSED, crossed), (CLUSTERS, clusters)]
)  # fmt: skip
def test_what_python_builds_is_what_the_text_says(text, built):
    one, other = attndsl.compile(text), attndsl.compile(built())
    assert sorted(other.ir.selections, key=lambda x: x.name) == sorted(
        one.ir.selections, key=lambda x: x.name
    )
    assert one.ir.root is other.ir.root
    assert one.ir.tables == other.ir.tables


def test_a_pattern_of_python_attends_to_what_it_chose():
    one, other = attndsl.compile(MOBA), attndsl.compile(moba())
    x, y = torch.randn(1, 4, 40, 6), torch.randn(1, 2, 40, 6)
    assert torch.equal(one(x, y, y), other(x, y, y))


def of_block():
    return s.blocks(8)


REFUSED = [
        (lambda b: s.select("x", dot(q, k), s.top(2), over=b), "speaks of others"),
        (lambda b: s.select("x", dot(q, b.mean()), s.top(2)), "speaks of others"),
        (lambda b: s.select("x", dot(q, b.mean()), s.top(2), over=b, where=k <= q), "of others"),
        (lambda b: s.select("x", dot(q, b.mean()), s.top(2), over=b, rows=b), "speaks of others"),
        (lambda b: s.select("x", dot(q, k), s.top(2), where=b.end <= q), "speaks of others"),
        (lambda b: s.select("x", b.bound(), s.top(2), over=s.blocks(16)), "speaks of others"),
        (lambda b: s.fold("sum", b.bound(), s.blocks(4)), "speaks of others"),
        (lambda b: s.select("x", dot(q, k), s.top(-1)), "a known int"),
        (lambda b: s.select("x", dot(q, k), s.top(2), per="batch"), "per 'batch'"),
        (lambda b: s.select("x", dot(q, k), s.within(0.5)), "may be negative"),
        (lambda b: s.select("x", dot(q, k), s.above(dot(q, k))), "the same for all units"),
        (lambda b: s.select("x", lambda c: dot(q, k), s.top(2), rows=3), "no `q`"),
        (lambda b: s.select("x", dot(q, k), s.top(2))[k], "for the query alone"),
        (lambda b: s.label("x", 4, lambda c: dot(q, k)), "one of queries, or one of keys"),
        (lambda b: s.rank("x", q)[k], "numbers queries"),
        (lambda b: s.fold("mean", dot(q, k), "keys"), "no fold"),
        (lambda b: s.blocks(4, 8), "tokens"),
        (lambda b: attndsl.compile(s.exceeds(dot(q, k), 1.0)), "A216"),
        (lambda b: attndsl.compile(moba() & k.isin(s.select("past", dot(q, k), s.top(1))[q])), "past"),
        (lambda b: attndsl.compile(moba(), align="start"), "A212"),
    ]  # fmt: skip


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_what_speaks_of_other_units_is_refused(case):
    build, message = REFUSED[case]
    with pytest.raises(AttnDslError, match=message):
        build(of_block())
