"""Whether a choice knows the future: proved, or named; and tried on sequences that go on otherwise."""

import pytest
import torch

import attndsl
from attndsl import claims, library

CAUSAL = {
    "past": "over blocks(8) = dot(q, mean(k)) where block < q // 8 take top 2",
    "ended": "over blocks(8) = dot(q, max(k)) where block.end <= q + 1 take top 2",
    "tokens": "= exp(dot(q, k)) where k <= q take reaching 0.5",
    "bounded": "= dot(q, k) where k <= q take above (max over all keys where k <= q: dot(q, k)) - 1.0",
    "shares": "over blocks(16) = sum over fine: softmax over fine where fine.end <= q + 1: dot(q, mean(k)) "
    "where block.start <= q take top 1",
    "drawn": "= 1.0 where k < q take sample 3 seed 0",
}
LEAKING = {
    "own": ("over blocks(8) = dot(q, mean(k)) where block.start <= q take top 1", "ends behind the query"),
    "own_bound": ("over blocks(8) = bound(q, k) where block <= q // 8 take top 1", "ends behind the query"),
    "any_key": ("= dot(q, k) take top 3", "keys behind the query are scored"),
    "whole_shares": (
        "over fine = softmax over fine: dot(q, mean(k)) where fine.end <= q + 1 take above 0.2",
        "shares are those",
    ),
    "most": ("= dot(q, k) where k <= q take above (max over all keys: dot(q, k)) - 1.0", "keys behind"),
    "together": ("for blocks(8) = dot(mean(q), k) where k <= q.start take top 2", "choose together"),
    "columns": ("= dot(q, k) where k <= q take top 2 by column", "later ones compete"),
    "drawn": ("= 1.0 take sample 9 seed 0", "drawn from"),
}  # fmt: skip


def made(clauses):
    return attndsl.compile(
        f"units fine = blocks(4) select s {clauses} pattern p = k <= q and k in s[q]"
    )


def is_moved(p):
    """Whether what the first 14 queries see changes with the keys behind them."""
    q, k = torch.randn(2, 1, 2, 40, 4, generator=torch.Generator().manual_seed(0))
    other = k.clone()
    other[:, :, 14:] = 3 * torch.randn(1, 2, 26, 4, generator=torch.Generator().manual_seed(1))
    later = q.clone()
    later[:, :, 14:] = other[:, :, 14:]
    seen = [p.mask(40, heads=2, s=p.select(*given)["s"]) for given in ((q, k), (later, other))]
    return not torch.equal(seen[0][:, :, :14], seen[1][:, :, :14])


@pytest.mark.parametrize("clauses", CAUSAL.values(), ids=CAUSAL)
def test_a_choice_among_what_has_ended_is_proved_causal(clauses):
    p = made(clauses)
    assert [claims.leaks(each) for each in p.ir.selections] == [()]
    assert not is_moved(p)


@pytest.mark.parametrize(("clauses", "why"), LEAKING.values(), ids=LEAKING)
def test_a_choice_that_knows_the_future_is_told_why(clauses, why):
    p = made(clauses)
    (selection,) = p.ir.selections
    assert why in "; ".join(claims.leaks(selection))
    assert is_moved(p) or "sample" in clauses  # a sample asks how many keys there are


def test_ranks_and_numbers_know_the_future_and_labels_do_not():
    p = attndsl.compile("""
        input mu: real[c, d]
        label own = argmax c in 0..3: dot(k, mu[c])
        rank place = by own[k]
        select near = dot(q, k) where k <= q and place[k] // 8 == place[q] // 8 take top 2
        pattern p = k <= q and own[k] == own[q] and k in near[q]
    """)
    found = {each.name: claims.leaks(each) for each in p.ir.selections}
    assert found["own"] == ()
    assert found["near"] == ("`place`: where a token stands depends on tokens behind it",)
    text = str(
        p.explain(64, own=torch.zeros(1, 1, 64, 1).long(), near=torch.zeros(1, 1, 64, 2).long())
    )
    assert "chooses" in text
    assert "at most 2 of 64 units" in text


def test_the_work_of_scores_is_that_of_the_units_and_queries_they_are_of():
    p = made(
        "over blocks(16) = dot(mean(q), mean(k)) "
        "+ (sum over queries in fine: sum over fine: dot(mean(q), mean(k))) "
        "+ (max over all keys: dot(mean(q), k)) take top 2".replace(
            "= dot", "for blocks(8) = dot", 1
        )
    )
    (selection,) = p.ir.selections
    products = 5 * 3 + 10 * 10 + 5 * 40  # blocks, blocks of 4 tokens, single keys
    found = claims.scoring_work(selection, {"q": 40, "k": 40}, heads=3, head_dim=8)
    assert found == 2 * 3 * 8 * products


def test_choosing_is_told_beside_attending():
    p, q = (
        made("over blocks(8) = dot(q, mean(k)) where block < q // 8 take top 1"),
        torch.ones(1, 2, 32, 4),
    )
    told = p.explanation(32, heads=2, head_dim=4, **p.select(q, q)).choices["attending"]
    # all but the first 8 queries see one of the blocks, in the first stretch of 64 keys
    attending, choosing = 4 * 4 * 64 * 24 * 2, 2 * 4 * 4 * 32 * 2
    assert told.startswith("48 times a query and a block of 64 keys, 0.0492 MFLOP; ")
    assert told.endswith(f"choosing is {choosing / (attending + choosing):.0%} of both")


def test_systems_say_in_their_entry_that_they_know_the_future():
    known = {}
    for name in library.selections():
        p = attndsl.compile(name)
        masks = [p.ir] if isinstance(p, attndsl.Pattern) else p.ir.masks
        known[name] = [
            leak for mask in masks for each in mask.selections for leak in claims.leaks(each)
        ]
    causal = {name for name, leaks in known.items() if not leaks}
    assert causal >= {"select_moba", "select_nsa", "select_infllm2", "select_dsa", "select_dma"}
    assert not causal & {"select_routing", "select_reformer", "select_hyper", "select_quest"}
    assert known["select_routing"] == [
        "numbers take tokens of the whole sequence: later ones compete"
    ]
