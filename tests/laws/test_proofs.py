"""Facts proved of random programs hold in every dense mask at small lengths, pair by pair."""

from collections import Counter
from dataclasses import replace
from itertools import islice
from unittest import mock

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import attndsl
from attndsl import claims, ir
from attndsl.analysis import Fact, Reach
from attndsl.claims import judging
from attndsl.source import AttnDslError
from attndsl.testing import programs
from attndsl.verification import JUDGES, fact_fault, frame_fault, frames

CALLS = 30  # of one program: all lengths up to some, in order
SPACES = {
    "flat": "",
    "grid": "grid g(y, x)\n",
    "joint": "grid g(y, x)\nspace s = text(2) ++ g(y, x)\n",
}
OVER = {"flat": "", "grid": " over g", "joint": " over s"}
PARTS = {  # what analyses look for: bounds, blocks, classes, global tokens
    "flat": (),
    "grid": ("abs(q.y - k.y) <= 1", "0 <= q.x - k.x < 2", "q.y == k.y", "q.x // 2 == k.x // 2",
        "q.y < k.y and k.y < q.y"),
    "joint": ("k in text", "q in g and k in g and abs(q.x - k.x) <= 1", "(q in text) == (k in text)", "q.y == k.y"),
}  # fmt: skip
COMMON = (
    "k <= q", "k < q", "0 <= q - k < 3", "abs(q - k) <= 2", "q // 2 == k // 2",
    "q % 3 == k % 3", "k < 1", "q == k",
    "(q - k) % 2 == 0", "q + k < 5", "doc[q] == doc[k]",
    "if head == 0 then k <= q else q - k < 2", "q * k < 6", "q < 1",
    "doc[q] < doc[k]", "abs(q - k) != 1", "any j in 0..3: q - k == pow2(j)",
    "false",
)  # fmt: skip
CLAIMS = (
    "causal", "symmetric", "every query sees itself", "every query sees at least 1 key", "keys per query > 0",
    "keys per query <= 3", "keys per query < 4", "queries per key <= 4", "queries per key >= 1", "covers",
    "disjoint(q == k, k < q)", "disjoint(q == k, k <= q)", "covers(abs(q - k) <= 2, causal)", "covers(q == k)",
    "abs(q - k) <= 3", "reaches everything within 1 layer", "reaches everything within 2 layers",
    "keys per query == 3 where q >= 2", "causal where head == 0", "main == causal", "main == symmetric_of_it",
)  # fmt: skip


@st.composite
def bodies(draw, where):
    """A pattern of a few parts."""
    part = st.sampled_from((*COMMON, *PARTS[where]))
    text = draw(part)
    for _ in range(draw(st.integers(0, 2))):
        sign = draw(st.sampled_from([" and ", " or ", " and not ", " or not "]))
        text = f"({text}){sign}({draw(part)})"
    return text


@st.composite
def structured(draw):
    """A program with claims, some of them true."""
    where = draw(st.sampled_from(list(SPACES)))
    body = draw(bodies(where))
    other = draw(st.sampled_from([body, f"not not ({body})", f"({body}) and q >= 0", *COMMON]))
    text = f"{SPACES[where]}input doc: int[batch, pos]\npattern other{OVER[where]} = {other}\n"
    text += f"pattern main{OVER[where]} = {body}\n"
    for claim in draw(st.lists(st.sampled_from(CLAIMS), min_size=1, max_size=4, unique=True)):
        text += f"    assert {claim.replace('symmetric_of_it', 'other')}\n"
    return text


def small_calls(mask, layer):
    ranges = claims.Ranges.of(mask, (mask.root,), layer)
    fewer = not mask.is_rectangular and (mask.align is ir.Align.END or not mask.queries.segments)
    ranges = replace(ranges, fewer_queries=fewer, heads=ranges.heads[-2:])
    return islice(claims.calls(mask, ranges, 1, 9), CALLS)


def check_facts(p: attndsl.Pattern, seen: Counter) -> None:
    facts = p.facts()
    around = frames(p, facts)
    proved = {name for name, fact in facts.items() if fact is Fact.PROVED}
    seen.update(proved | set(around) | {type(fact).__name__ for fact in facts.values()})
    for call in small_calls(p.ir, p.layer):
        given = call.sizes, call.tables, call.batch, call.heads, call.layer
        dense = ir.meaning(p.ir, call.q_len, call.k_len, *given)
        masks = {
            said: np.broadcast_to(ir.meaning(frame.ir, call.q_len, call.k_len, *given), dense.shape)
            for said, frame in around.items()
        }
        fault = fact_fault(facts, dense, p.ir.shift(call.q_len, call.k_len))
        fault = fault or frame_fault(masks, dense)
        assert fault is None, f"{ir.show(p.ir.root)}\n{call}\n{fault}"


QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def test_facts_and_claims_that_are_proved_are_true_of_every_small_call():
    seen: Counter[str] = Counter()

    @settings(max_examples=80, suppress_health_check=QUIET)
    @given(structured())
    def check(text):
        p = attndsl.compile(text)
        check_facts(p, seen)
        for judgement in p.claims():
            if judgement.fact is Fact.PROVED:
                seen[judgement.claim.text] += 1
                full = replace(p.ir, tables=judgement.claim.tables)
                again = judging._tried(full, judgement.claim, None)
                assert again.fact is not Fact.REFUTED, f"{text}\n{again}"

    with (
        mock.patch.object(judging, "MOST_PAIRS", 1 << 14),
        mock.patch.object(judging, "MOST_CALLS", CALLS),
    ):
        check()
    # Nothing of this is vacuous: all kinds of facts, and many claims, were proved of some program.
    assert {*JUDGES, "block_diagonal", Reach.__name__} <= set(seen)
    assert sum(name.startswith("reach: ") for name in seen) >= 3
    assert sum(name in seen for name in CLAIMS) >= 10


@settings(max_examples=40, suppress_health_check=QUIET)
@given(programs(depth=3))
def test_facts_of_programs_of_the_whole_language_are_true_of_every_small_call(program):
    try:
        p = attndsl.compile(program.text, layer=program.layer)
    except AttnDslError:
        return
    check_facts(p, Counter())


@settings(max_examples=40, suppress_health_check=QUIET)
@given(
    st.sampled_from(list(SPACES)).flatmap(
        lambda where: st.tuples(st.just(where), bodies(where), bodies(where))
    )
)
def test_patterns_that_are_proved_equal_or_implied_are_so_at_every_small_call(drawn):
    where, one, two = drawn
    head = f"{SPACES[where]}input doc: int[batch, pos]\npattern main{OVER[where]} = "
    weaker = attndsl.compile(f"{head}({one}) or ({two})")
    first = attndsl.compile(head + one)
    second = attndsl.compile(f"{head}({one}) and (({one}) or ({two}))")
    for a, b, judge in ((first, weaker, attndsl.implies), (first, second, attndsl.equivalent)):
        verdict = judge(a, b, seconds=0.2)
        assert verdict.status != "refuted", str(verdict)
    verdict = attndsl.implies(weaker, first, seconds=0.2)
    if verdict.status != "proved":
        return
    both = replace(
        weaker.ir, tables=tuple({t.name: t for t in (*weaker.ir.tables, *first.ir.tables)}.values())
    )
    for call in small_calls(both, 0):
        given = call.sizes, call.tables, call.batch, call.heads, call.layer
        wide, narrow = (ir.meaning(p.ir, call.q_len, call.k_len, *given) for p in (weaker, first))
        assert not (wide & ~narrow).any(), f"{one}\n{two}\n{verdict}\n{call}"
