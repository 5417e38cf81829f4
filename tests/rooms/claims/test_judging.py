"""Claims beside a pattern: what is true is never refuted, what is false is, and the example fails."""

import numpy as np
import pytest

from attndsl import claims, frontend, ir
from attndsl import syntax as syn
from attndsl.analysis import Fact
from attndsl.claims import judging
from attndsl.claims.judging import _tried
from attndsl.sources import read_mask

# Values for definitions of the prelude that have no defaults.
VALUES = {
    "n": 3, "left": 2, "right": 3, "w": 4, "d": 2, "b": 5, "h": 2, "s": 4, "c": 2, "count": 2,
    "size": 5, "sy": 3, "sx": 4, "st": 2, "axis": 1, "m": 3, "mt": 2, "my": 2, "mx": 3, "t": 2,
    "my2": 2, "tokens": [1, 4], "ends": [4, 9],
}  # fmt: skip


def judged(text: str, **values: object) -> dict[str, claims.Judgement]:
    mask = read_mask(text, None, values)
    return {judgement.claim.text: judgement for judgement in claims.judge(mask)}


def one(body: str, claim: str) -> claims.Judgement:
    (judgement,) = judged(f"pattern p = {body}\n    assert {claim}\n").values()
    return judgement


PROVED = [
    ("k <= q", "causal"),
    ("window(3)", "symmetric"),
    ("q * k < 90", "symmetric"),
    ("window(3)", "every query sees itself"),
    ("window(3)", "every query sees at least 1 key"),
    ("window(3)", "every query sees at most 7 keys"),
    ("window(3)", "keys per query <= 7"),
    ("window(3)", "keys per query < 8"),
    ("window(3)", "covers"),
    ("window(3)", "queries per key <= 7"),
    ("if head % 2 == 0 then causal else window(1)", "causal where head == 0"),
    ("window(3)", "covers(window(2), diagonal)"),
    ("window(3) or k < 2", "longformer(3, 0) == window(3)"),
    ("k <= q", "disjoint(k < q, q < k, q == k)"),
    ("k <= q", "reaches everything within 1 layer"),
    ("window(1) or q < 1 or k < 1", "reaches everything within 2 layers"),
    ("window(3)", "density(1000) < 0.007"),
    ("window(3)", "density(1000) >= 0.006988"),
    ("head < 2 and window(3)", "density(1000, heads=4) < 0.0035"),
    ("k <= q", "k - q <= 0 where causal"),
]
TRUE = [
    ("k <= q", "keys per query == q + 1"),
    ("window(3)", "keys per query == 7 where 3 <= q < len(k) - 3"),
    ("k <= q and q - k < 5", "reaches everything within 3 layers where len(k) <= 13"),
    ("wrapped_window(3)", "keys per query == min(7, len(k))"),
    ("random_blocks(4, 2)", "keys per query <= 8"),
    ("q % heads <= k", "covers(q <= k)"),
    ("layer * k <= q", "causal where layer >= 1"),
]
FALSE = [
    ("k <= q + 1", "causal", "len(q) = len(k) = 2, query 0, key 1"),
    ("k <= q", "symmetric", "len(q) = len(k) = 2, query 1, key 0"),
    ("k < q", "every query sees itself", "len(q) = len(k) = 1, query 0, key 0"),
    ("k < q", "keys per query > 0", "len(q) = len(k) = 1, query 0; 0 keys, which is not > 0"),
    (
        "k < q",
        "every query sees at least 1 key",
        "len(q) = len(k) = 1, query 0; 0 keys, which is not >= 1",
    ),
    (
        "window(3)",
        "every query sees at most 6 keys",
        "len(q) = len(k) = 7, query 3; 7 keys, which is not <= 6",
    ),
    (
        "window(3)",
        "keys per query == 7 where q >= 3",
        "len(q) = len(k) = 4, query 3; 4 keys, which is not == 7",
    ),
    ("k < 1", "queries per key <= 8", "len(q) = len(k) = 9, key 0; 9 queries, which is not <= 8"),
    ("q == 0", "covers(diagonal)", "len(q) = len(k) = 2, query 1, key 1"),
    ("q < 0", "covers", "len(q) = len(k) = 1, key 0; 0 queries, which is not >= 1"),
    ("q == k", "disjoint(k <= q, q <= k)", "len(q) = len(k) = 1, query 0, key 0"),
    ("q == k", "window(2) == window(3)", "len(q) = len(k) = 4, query 0, key 3"),
    (
        "0 <= q - k < 5",
        "reaches everything within 3 layers",
        "len(q) = len(k) = 14, query 13, key 0; not within 3 layers",
    ),
    ("window(3)", "density(1000) < 0.006988", "len(q) = len(k) = 1000; the density is 0.006988"),
    (
        "if head == 2 then q < 0 else true",
        "covers",
        "len(q) = len(k) = 1, heads = 4, head 2, key 0; 0 queries, which is not >= 1",
    ),
    ("k <= q * layer", "covers(diagonal)", "len(q) = len(k) = 2, query 1, key 1"),
]


@pytest.mark.parametrize(("body", "claim"), PROVED)
def test_what_should_be_proved_is(body, claim):
    judgement = one(body, claim)
    assert judgement.fact is Fact.PROVED
    assert str(judgement) == f"proved: {judgement.claim.text}"


@pytest.mark.parametrize(("body", "claim"), PROVED)
def test_what_is_proved_survives_trial(body, claim):
    mask = read_mask(f"pattern p = {body}\n    assert {claim}\n")
    if not isinstance(mask.claims[0].what, ir.Density):
        assert _tried(mask, mask.claims[0], None).ok


@pytest.mark.parametrize(("body", "claim"), TRUE)
def test_what_cannot_be_proved_is_checked(body, claim):
    judgement = one(body, claim)
    assert judgement.fact is Fact.UNDECIDED
    assert judgement.ok
    assert judgement.longest >= 16
    tried = f"(true of all {judgement.calls} calls of up to {judgement.longest} tokens)"
    assert str(judgement) == f"checked: {judgement.claim.text} {tried}"


@pytest.mark.parametrize(("body", "claim", "example"), FALSE)
def test_what_is_false_gets_an_example(body, claim, example):
    judgement = one(body, claim)
    assert judgement.fact is Fact.REFUTED
    assert not judgement.ok
    assert str(judgement.example) == example


@pytest.mark.parametrize(
    ("body", "claim", "why"),
    [
        ("k <= q", "symmetric where len(k) > 1000", "it speaks of no call of up to 64 tokens"),
        ("head == 0", "density(9) < 0.5", "say how many heads there are: density(4096, heads=8)"),
        ("k <= q", "density(9) < 0.5 where len(k) > 3", "a density is claimed at one length, and takes no condition"),
        ("k <= q", "density(y=3) < 0.5", "no axis named 'y'"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_no_success(body, claim, why):
    judgement = one(body, claim)
    assert judgement.fact is Fact.UNDECIDED
    assert not judgement.ok
    assert judgement.note == why


def test_inputs_are_drawn_and_shown():
    found = judged(
        "input doc: int[batch, pos]\n"
        "pattern p = causal and doc[q] == doc[k]\n"
        "    assert covers(diagonal)\n"
        "    assert disjoint(p, doc[q] != doc[k])\n"
        "    assert causal == p\n"
        "    assert density(64) < 0.5\n"
        "    assert keys per query <= len(k)\n"
    )
    verdicts = [judgement.fact for judgement in found.values()]
    assert verdicts == [Fact.PROVED, Fact.PROVED, Fact.REFUTED, *[Fact.UNDECIDED] * 2]
    assert str(found["keys per query <= len(k)"]).endswith("tokens, random inputs)")
    assert "doc = [[" in str(found["causal == p"])
    assert found["density(64) < 0.5"].note == "it depends on the input doc"


def test_an_input_of_many_dims_is_not_drawn():
    names = [f"d{i}" for i in range(40)]
    text = f"input t: int[{', '.join(names)}]\npattern p = t[{', '.join('q' for _ in names)}] <= k"
    mask = read_mask(f"{text}\n    assert causal")
    (judged,) = claims.judge(mask)
    assert "not decided" in str(judged)


def test_an_example_on_a_grid_is_one():
    text = (
        "grid image(y, x)\n"
        "pattern p over image = q.y == k.y\n    assert keys per query == len(x)\n"
        "    assert keys per query == len(y)\n    assert density(y=8, x=32) == 0.125\n"
    )
    found = judged(text)
    assert [j.fact for j in found.values()] == [Fact.UNDECIDED, Fact.REFUTED, Fact.PROVED]
    example = found["keys per query == len(y)"].example
    assert example is not None
    pairs = ir.meaning(read_mask(text), example.call.q_len, example.call.k_len, example.call.sizes)
    assert pairs[0, 0, example.query].sum() != example.call.sizes["image.y"]


def test_grids_of_one_axis_are_tried_up_to_the_longest():
    most = judging.LONGEST
    text = f"grid g(n)\npattern p over g = k <= q\n    assert keys per query <= {most - 1}"
    (judged,) = claims.judge(read_mask(text))
    assert judged.fact is Fact.REFUTED


def test_claims_of_a_rectangle():
    text = (
        "grid a(g, m)\ngrid b(g, n)\n"
        "pattern p over a -> b = q.g == k.g\n    assert keys per query == len(n)\n"
        "    assert keys per query == len(m)\n"
    )
    assert [j.fact for j in judged(text).values()] == [Fact.UNDECIDED, Fact.REFUTED]


def test_claims_use_the_values_of_the_call():
    text = "pattern p(w: int = 4) = 0 <= q - k < w\n    assert keys per query <= 4\n"
    assert judged(text)["keys per query <= 4"].fact is Fact.PROVED
    assert judged(text, w=5)["keys per query <= 4"].fact is Fact.REFUTED


def test_claims_are_no_part_of_the_meaning():
    bare, claimed = read_mask("pattern p = k <= q"), read_mask("pattern p = k <= q assert causal")
    assert bare == claimed
    assert bare.digest == claimed.digest
    assert ir.load(ir.dump(claimed)).claims == ()
    assert len(claimed.claims) == 1


def test_claims_of_the_prelude_are_true():
    unit = frontend.prelude()
    judged_claims = 0
    for definition in unit.definitions():
        if not definition.is_pattern or not definition.declaration.assertions:
            continue
        values = {p.name: VALUES[p.name] for p in definition.parameters if p.default is None}
        for judgement in claims.judge(read_mask(definition.name, None, values)):
            assert judgement.ok, f"{definition.name}: {judgement}"
            judged_claims += 1
    assert judged_claims > 40


def test_a_claim_knows_its_place():
    mask = frontend.elaborate(syn.parse("pattern p = k <= q\n    assert causal\n", "p.attn"))
    assert mask.claims[0].span.text == "assert causal"


def test_judging_is_repeatable():
    text = "input d: int[pos]\npattern p = d[q] <= d[k]\n    assert p == (d[q] < d[k])\n"
    first, second = judged(text), judged(text)
    assert str(*first.values()) == str(*second.values())
    example = next(iter(first.values())).example
    assert example is not None
    assert np.asarray(example.call.tables["d"]).shape == (example.call.k_len,)
