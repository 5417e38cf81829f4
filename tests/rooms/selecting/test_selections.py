"""Selections against loops, bit for bit: choices, ties, shapes, decoding, and what is refused."""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import attndsl
from attndsl import ir, selecting
from attndsl.source import AttnDslError
from tests.support.selection_loops import blocks, dot, listed, mean, softmax, top

GOLDEN = Path(__file__).parents[2] / "golden" / "errors" / "A5"
MOBA = """
select past(b: int, n: int) over blocks(b) = dot(q, mean(k)) where block < q // b take top n - 1
pattern moba(b: int = 8, n: int = 3) = k <= q and (k // b == q // b or k in past(b, n)[q])
"""
NSA = """
units fine = blocks(8, every 4) whole
units coarse = blocks(16)
select best(n: int = 4, first: int = 1, local: int = 2) over coarse per group =
    sum over group:
        sum over fine: share * (softmax over fine where fine.end <= q + 1: scale * dot(q, mean(k)))
    where coarse.start <= q
    keeping coarse < first or q // 16 - coarse < local
    take top n
pattern nsa = k <= q and k in best[q]
"""


def drawn(seed, *shape, integers=False):
    """Tensors of numbers, of small integers where ties are wanted."""
    random = torch.Generator().manual_seed(seed)
    if integers:
        return torch.randint(-2, 3, shape, generator=random).float()
    return torch.randn(shape, generator=random)


def of_rows(p, q, k, **inputs):
    """The units that each row chose, {(batch, head, row): units}."""
    (table,) = p.select(q, k, **inputs).values()
    return {at: listed(table[at].numpy()) for at in np.ndindex(*table.shape[:-1])}


@pytest.mark.parametrize("integers", [False, True], ids=["random", "ties"])
@pytest.mark.parametrize(("heads", "length"), [((4, 2), 53), ((3, 3), 16), ((2, 1), 1)])
def test_blocks_before_the_own_one_are_taken_by_their_means(heads, length, integers):
    q, k = (
        drawn(0, 2, heads[0], length, 6, integers=integers),
        drawn(1, 2, heads[1], length, 6, integers=integers),
    )
    k[:, :, length // 3] = k[:, :, 0]
    k[0, 0, length // 2, 0] = -math.inf
    k[1, -1, length // 2, 0] = math.nan
    units = blocks(8, 8, length)
    expected = {}
    for b, h, i in np.ndindex(2, heads[0], length):
        keys = k[b, h // (heads[0] // heads[1])].numpy()
        scores = {u: dot(q[b, h, i].numpy(), mean(keys, *units[u])) for u in range(i // 8)}
        expected[b, h, i] = top(scores, 2)
    assert of_rows(attndsl.compile(MOBA), q, k) == expected


@pytest.mark.parametrize("integers", [False, True], ids=["random", "ties"])
@pytest.mark.parametrize("length", [70, 5])
def test_shares_of_overlapping_units_are_summed_over_the_group(length, integers):
    q, k = (
        drawn(2, 1, 4, length, 6, integers=integers),
        drawn(3, 1, 2, length, 6, integers=integers),
    )
    fine, coarse = blocks(8, 4, length, whole=True), blocks(16, 16, length)
    expected = {}
    for g, i in np.ndindex(2, length):
        total = dict.fromkeys((u for u, (start, _) in enumerate(coarse) if start <= i), 0.0)
        for h in (2 * g, 2 * g + 1):
            row, keys = q[0, h, i].numpy(), k[0, g].numpy()
            past = {
                f: 6**-0.5 * dot(row, mean(keys, a, b))
                for f, (a, b) in enumerate(fine)
                if b <= i + 1
            }
            shares = softmax(past)
            for u in total:
                start, stop = coarse[u]
                for f, share in shares.items():
                    common = min(fine[f][1], stop) - max(fine[f][0], start)
                    total[u] += share * max(0, common) / 8
        forced = [u for u in total if u < 1 or i // 16 - u < 2]
        expected[0, g, i] = top(total, 4, forced)
    assert of_rows(attndsl.compile(NSA), q, k) == expected


@pytest.mark.parametrize(
    "take", ["top 3", "above 0.5", "reaching 0.6", "within 0.6", "top 50", "top 0"]
)
def test_choices_take_what_they_say(take):
    adds_up = take.startswith(("reaching", "within"))
    score = "exp(dot(q, k))" if adds_up else "dot(q, k)"
    p = attndsl.compile(f"""
        select near = {score} where k <= q keeping k == q - 1 take {take}
        pattern p = k in near[q]
    """)
    q, k = (drawn(seed, 1, 2, 12, 4, integers=True) / 2 for seed in (4, 5))
    expected = {}
    for h, i in np.ndindex(2, 12):
        scores = {j: dot(q[0, h, i].numpy(), k[0, h, j].numpy()) for j in range(i + 1)}
        if adds_up:
            scores = {j: float(np.float32(math.exp(x))) for j, x in scores.items()}
        forced = [j for j in scores if j == i - 1]
        order = sorted(scores, key=lambda j: (j not in forced, -scores[j], j))
        how, amount = take.split()
        kept, so_far, total = [], 0.0, sum(scores[j] for j in order)
        for place, j in enumerate(order):
            before, so_far = so_far, so_far + scores[j]
            fits = {
                "top": place < float(amount),
                "above": scores[j] > float(amount),
                "reaching": before < float(amount) * total,
                "within": so_far <= float(amount) * total,
            }[how]
            kept += [j] if fits or (j in forced and how != "top") else []
        expected[0, h, i] = sorted(kept)
    if take == "top 0":
        with pytest.raises(AttnDslError, match="takes 0 units, and is to keep 1"):
            p.select(q, k)
        return
    assert of_rows(p, q, k) == expected


def test_a_sample_follows_from_its_seed_and_place_and_is_fair():
    text = "select few = 1.0 where k < q take sample 4 seed {}\npattern p = k in few[q]"
    one, other = attndsl.compile(text.format(1)), attndsl.compile(text.format(2))
    q = drawn(6, 2, 3, 40, 2)
    rows = of_rows(one, q, q)
    assert rows == of_rows(one, q * 2, q) != of_rows(other, q, q)
    for (_, _, i), units in rows.items():
        assert len(set(units)) == len(units) == min(4, i)
        assert all(unit < i for unit in units)
    step = one.select(q[:, :, -1:], q)["few"]
    assert torch.equal(step, one.select(q, q)["few"][:, :, -1:])
    counts = np.bincount(
        [u for (_, _, i), units in rows.items() if i == 39 for u in units], minlength=39
    )
    assert counts.sum() == 24
    assert counts.max() <= 4


def test_strips_and_steps_of_decoding_choose_what_one_pass_does():
    for text in (MOBA, NSA):
        p = attndsl.compile(text)
        (selection,) = p.ir.selections
        q, k = drawn(7, 1, 4, 61, 6), drawn(8, 1, 2, 61, 6)
        whole = selecting.produce(selection, selecting.Activations(q, k, 0.4))
        for strip in (1, 200):
            assert torch.equal(
                whole, selecting.produce(selection, selecting.Activations(q, k, 0.4), strip)
            )
        for last in (1, 30):
            part = selecting.Activations(q[:, :, -last:], k, 0.4)
            assert torch.equal(whole[:, :, -last:], selecting.produce(selection, part))


def test_a_call_attends_to_what_was_chosen_with_gradients():
    p = attndsl.compile(MOBA)
    q, k, v = (drawn(9 + i, 1, heads, 30, 6).requires_grad_() for i, heads in enumerate((4, 2, 2)))
    selection = p.select(q, k)
    out = p(q, k, v)
    assert torch.equal(out, p(q, k, v, selection=selection))
    mask = torch.zeros(1, 4, 30, 30, dtype=torch.bool)
    for (b, h, i), units in of_rows(p, q, k).items():
        for j in range(i + 1):
            mask[b, h, i, j] = j // 8 in (*units, i // 8)
    assert torch.equal(mask, p.mask(30, heads=4, past=selection["past"]))
    wide = [x.repeat_interleave(2, 1) for x in (k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(q, *wide, attn_mask=mask)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    seed = drawn(12, *out.shape)
    for one, other in zip(
        torch.autograd.grad(out, (q, k, v), seed),
        torch.autograd.grad(expected, (q, k, v), seed),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_an_attention_over_chosen_pairs_selects_too():
    text = MOBA + "attention twice over moba = score 2.0 * s"
    a, p = attndsl.compile(text), attndsl.compile(text, entry="moba")
    q, k = drawn(13, 1, 2, 30, 6), drawn(14, 1, 2, 30, 6)
    torch.testing.assert_close(a(q, k, k), p(q, k, k, scale=2 * 6**-0.5), rtol=1e-4, atol=1e-5)
    assert torch.equal(a.select(q, k)["past"], p.select(q, k)["past"])


@pytest.mark.parametrize("by", ["memory", "pair 0"])
def test_keys_and_heads_that_are_not_those_of_the_call_are_not_chosen_from(by):
    with pytest.raises(AttnDslError, match=r"A219.*'past' is made from q and k"):
        attndsl.compile(f"{MOBA}attention a over moba = score s by {by}")


def test_a_selection_within_another_narrows_it():
    p = attndsl.compile("""
        select wide over blocks(8) = dot(q, mean(k)) where block.end <= q + 1 take top 2
        select fine = dot(q, k) where k in wide[q] take top 3
        pattern p = k in fine[q]
    """)
    q, k = drawn(15, 1, 2, 40, 6), drawn(16, 1, 1, 40, 6)
    expected = {}
    for h, i in np.ndindex(2, 40):
        row, keys = q[0, h, i].numpy(), k[0, 0].numpy()
        coarse = top({u: dot(row, mean(keys, 8 * u, 8 * u + 8)) for u in range((i + 1) // 8)}, 2)
        expected[0, h, i] = top({j: dot(row, keys[j]) for j in range(40) if j // 8 in coarse}, 3)
    assert of_rows(p, q, k) == expected
    assert list(p.select(q, k)) == ["fine"]


def test_selections_are_saved_and_pickled_with_their_pattern(tmp_path):
    for text in (MOBA, NSA, NSA + "attention a over nsa = score s"):
        p = attndsl.compile(text)
        p.save(tmp_path / "p.json")
        for again in (type(p).load(tmp_path / "p.json"), pickle.loads(pickle.dumps(p))):
            masks = [again.ir] if isinstance(again, attndsl.Pattern) else again.ir.masks
            own = [p.ir] if isinstance(p, attndsl.Pattern) else p.ir.masks
            assert [each.selections for each in masks] == [each.selections for each in own] != [()]
    text = (tmp_path / "p.json").read_text().replace('"take": ["top"', '"take": ["most"')
    (tmp_path / "q.json").write_text(text)
    with pytest.raises(AttnDslError, match="not a saved pattern"):
        attndsl.Attention.load(tmp_path / "q.json")


def test_what_does_not_fit_a_call_is_refused():
    p, q = attndsl.compile(MOBA), drawn(17, 1, 2, 24, 6)
    selection = p.select(q, q)
    other = attndsl.compile(MOBA, n=4)
    for call in (
        lambda: p(q[:, :, :8], q[:, :, :8], q[:, :, :8], selection=selection),
        lambda: p(q[:, :1], q[:, :1], q[:, :1], selection=selection),
        lambda: other(q, q, q, selection=selection),
        lambda: p(q, q, q, selection=selection["past"]),
        lambda: p(q, q, q, heads=4, head_start=2),
        lambda: attndsl.compile("causal").select(q, q),
    ):
        with pytest.raises(AttnDslError, match="A509"):
            call()
    units = attndsl.compile("""
        select near over blocks(8) for blocks(8) = dot(mean(q), mean(k)) where block <= q.index take top 2
        pattern p = k <= q and k in near[q]
    """)
    with pytest.raises(AttnDslError, match="begins with the first query of one"):
        units(q[:, :, 3:], q, q)
    assert units(q[:, :, 8:], q, q).shape == (1, 2, 16, 6)
    with pytest.raises(AttnDslError, match="A501"):
        p.select(q, q, w=q)


def selection_of_another_call():
    p, q = attndsl.compile(MOBA), drawn(17, 1, 2, 24, 6)
    p(q[:, :, :8], q[:, :, :8], q[:, :, :8], selection=p.select(q, q))


def test_a_selection_of_another_call_is_explained(golden):
    with pytest.raises(AttnDslError) as caught:
        selection_of_another_call()
    golden(GOLDEN / "selection_of_another_call.err", f"{caught.value}\n")


def test_what_a_call_cannot_choose_is_shown_where_it_was_written():
    q = drawn(0, 1, 1, 24, 4)
    head = "select s over blocks(8) = dot(q, mean(k)) where block.start <= q"
    p = attndsl.compile(f"{head} keeping block < 3 take top 2\npattern p = k in s[q]")
    with pytest.raises(AttnDslError, match="is to keep 3") as kept:
        p.select(q, q)
    assert "take top 2\n" in str(kept.value)
    assert "^^^^^^^^^^" in str(kept.value)
    text = "input g: real[head]\nselect s = exp(dot(q, k)) take reaching g\npattern p = k in s[q]"
    with pytest.raises(AttnDslError, match="--> <text>:2:27"):
        attndsl.compile(text).select(q, q, g=torch.tensor([1.5]))


def test_tables_beside_a_selection_or_without_others_are_refused():
    q = drawn(0, 1, 1, 24, 4)
    p = attndsl.compile("""
        select one over blocks(8) = dot(q, mean(k)) take top 1
        select two over blocks(4) = dot(q, max(k)) take top 1
        pattern p = k in one[q] or k in two[q]
    """)
    made = p.select(q, q)
    with pytest.raises(AttnDslError, match="'one' is given beside `selection=`"):
        p(q, q, q, selection=made, one=made["two"])
    with pytest.raises(AttnDslError, match="'one' is given, and two is not"):
        p(q, q, q, one=made["one"])
    assert torch.equal(p(q, q, q, **made), p(q, q, q, selection=made))


def test_units_of_queries_choose_by_their_means():
    p = attndsl.compile("""
        select near over blocks(8) for blocks(4) = dot(mean(q), mean(k)) where block.start <= q.start take top 2
        pattern p = k <= q and k in near[q]
    """)
    q, k = drawn(18, 1, 2, 27, 6), drawn(19, 1, 2, 27, 6)
    expected = {}
    for h, r in np.ndindex(2, 7):
        row = mean(q[0, h].numpy(), 4 * r, min(4 * r + 4, 27))
        units = blocks(8, 8, 27)
        scores = {u: dot(row, mean(k[0, h].numpy(), *units[u])) for u in range(4) if 8 * u <= 4 * r}
        expected[0, h, r] = top(scores, 2)
    assert of_rows(p, q, k) == expected
    mask = p.mask(27, heads=2, near=p.select(q, k)["near"])
    for (_, h, r), units in expected.items():
        for i in range(4 * r, min(4 * r + 4, 27)):
            assert mask[0, h, i].nonzero().flatten().tolist() == [
                j for j in range(i + 1) if j // 8 in units
            ]


def test_queries_before_the_first_token_choose_nothing():
    p = attndsl.compile("select near = dot(q, k) take top 2\npattern p = k in near[q]")
    q, k = drawn(20, 1, 1, 9, 4), drawn(21, 1, 1, 5, 4)
    table = p.select(q, k)["near"][0, 0]
    assert (table[:4] == -1).all()
    assert (table[4:] >= 0).all()


def test_the_table_of_a_selection_is_declared_by_it():
    (selection,) = attndsl.compile(NSA).ir.selections
    assert selection.table == ir.Table("best", ir.Sort.INT, ("batch", "head", "q", 4), is_list=True)


CHOSEN = """
select past(b: int, n: int) over blocks(b) = dot(q, mean(k)) where block < q // b take top n
pattern moba = k <= q and (k // 8 == q // 8 or k in past(8, 2)[q])
attention scored over moba = score s
"""


@pytest.mark.parametrize("entry", ["moba", "scored"])
def test_patterns_and_attentions_that_choose_otherwise_are_not_equal(entry: str):
    other = CHOSEN.replace("mean", "max")
    one, same, two = (attndsl.compile(text, entry=entry) for text in (CHOSEN, CHOSEN, other))
    assert one == same
    assert hash(one) == hash(same)
    assert one != two
