"""Labels, ranks, choices by column and folds over rows and queries, against loops."""

import math
import pickle

import numpy as np
import pytest
import torch

import attndsl
from attndsl import selecting, syntax
from attndsl.source import AttnDslError
from tests.support.selection_loops import blocks, dot, listed, mean, softmax, top

HEADS, KEY_HEADS, LENGTH = 4, 2, 37


def drawn(seed, *shape, integers=True):
    random = torch.Generator().manual_seed(seed)
    if integers:
        return torch.randint(-2, 3, shape, generator=random).float()
    return torch.randn(shape, generator=random)


def tensors(integers=True):
    q, k = drawn(0, 2, HEADS, LENGTH, 6, integers=integers), drawn(1, 2, KEY_HEADS, LENGTH, 6)
    k[:, :, LENGTH // 2] = k[:, :, 0]
    k[0, 0, LENGTH // 3, 0] = -math.inf
    return q, k


def keys_of(k, b, h):
    return k[b, h * KEY_HEADS // HEADS].numpy()


def set_of(p, q, k, **inputs):
    """The pairs that a call attends to."""
    return p.mask(q.shape[2], k.shape[2], heads=HEADS, batch=2, **inputs)


NEAR = {"atol": 1e-5, "rtol": 1e-4}  # of float32
LABELS = """
input centre: real[c, d]
label of_key = argmax c in 0..len(centre.c): dot(k, centre[c])
label of_query = argmax c in 0..len(centre.c): dot(q, centre[c])
rank place = by of_key[k], k % 3
pattern p = of_key[k] == of_query[q] and place[q] // 8 == place[k] // 8
"""


def label(vector, centre):
    scores = {c: dot(vector, centre[c]) for c in range(len(centre))}
    return (top(scores, 1) or [-1])[0]


def test_a_label_is_the_first_best_number_and_a_rank_the_place_when_sorted():
    p, centre = attndsl.compile(LABELS), drawn(2, 5, 6)
    q, k = tensors()
    k[1, 1, 3] = math.nan
    found = p.select(q, k, centre=centre)
    of_key = np.zeros((2, HEADS, LENGTH), int)
    for b, h, i in np.ndindex(2, HEADS, LENGTH):
        of_key[b, h, i] = label(keys_of(k, b, h)[i], centre.numpy())
        assert found["of_query"][b, h, i, 0] == label(q[b, h, i].numpy(), centre.numpy())
    assert (found["of_key"][..., 0].repeat_interleave(2, 1).numpy() == of_key).all()
    assert of_key[1, 2, 3] == -1
    mask = set_of(
        p, q, k, **p._selector.completed(q, k, None, {"centre": centre}, {}, {}, False)[0]
    )
    for b, h in np.ndindex(2, HEADS):
        order = sorted(range(LENGTH), key=lambda i: (of_key[b, h, i], i % 3))
        place = {token: at for at, token in enumerate(order)}
        assert found["place"][b, h].tolist() == [place[i] for i in range(LENGTH)]
        for i, j in np.ndindex(LENGTH, LENGTH):
            alike = found["of_query"][b, h, i, 0] == of_key[b, h, j]
            assert mask[b, h, i, j] == (alike and place[i] // 8 == place[j] // 8)


def test_labels_and_columns_are_the_same_for_some_units_at_once():
    p, centre = attndsl.compile("""
        input centre: real[c, d]
        label of_key = argmax c in 0..8:
            sum i in 0..3: (if c // pow2(i) % 2 == 1 then 1.0 else -1.0) * dot(k, centre[i])
        label of_query = argmax c in 0..8:
            sum i in 0..3: dot(q, centre[i]) * (if c // pow2(i) % 2 == 1 then 1.0 else -1.0)
        select heard over blocks(8) = dot(q, mean(k)) where block.end <= q + 1 take top 3 by column
        pattern p = of_key[k] == of_query[q] and k in heard[q]
    """), drawn(2, 3, 6)  # fmt: skip
    q, k = tensors()
    given = selecting.Activations(q, k, 0.4, reals={"centre": centre})
    for each in p.ir.selections:
        whole = selecting.produce(each, given)
        for strip in (1, 300):
            assert torch.equal(selecting.produce(each, given, strip), whole)
    for side, x in (("of_query", q), ("of_key", k)):
        found = p.select(q, k, centre=centre)[side][..., 0]
        for b, h, i in np.ndindex(found.shape):
            products = [dot(x[b, h, i].numpy(), row) for row in centre.numpy()]
            sums = {
                c: sum(y * (1 if c >> n & 1 else -1) for n, y in enumerate(products))
                for c in range(8)
            }
            assert found[b, h, i] == (top(sums, 1) or [-1])[0]


def test_numbers_take_tokens_and_units_take_queries():
    p = attndsl.compile("""
        input mu: real[head, c, d]
        select member(n: int = 5) for c in 0..len(mu.c) = dot(unit(k), mu[c]) take top n
        select heard over blocks(8) = dot(q, mean(k)) where block.end <= q + 1 take top 3 by column
        pattern p = (any c in 0..len(mu.c): k in member[c] and q in member[c]) or k in heard[q]
    """)
    q, k = tensors()
    mu = drawn(3, HEADS, 3, 6)
    found, mask = p.select(q, k, mu=mu), None
    given = p._selector.completed(q, k, None, {"mu": mu}, {}, {}, False)[0]
    mask = set_of(p, q, k, **given)
    for b, h in np.ndindex(2, HEADS):
        keys = keys_of(k, b, h).astype(np.float64)
        with np.errstate(invalid="ignore"):
            long = np.sqrt((keys**2).sum(1, keepdims=True))
            unit = (keys / np.where(long == 0, 1, long)).astype(np.float32)
        members = [
            top({j: dot(unit[j], mu[h, c].numpy()) for j in range(LENGTH)}, 5) for c in range(3)
        ]
        assert [listed(found["member"][b, h, c].numpy()) for c in range(3)] == members
        heard = []
        for a, z in blocks(8, 8, LENGTH):
            row = mean(keys_of(k, b, h), a, z)
            heard.append(top({i: dot(q[b, h, i].numpy(), row) for i in range(z - 1, LENGTH)}, 3))
        assert [listed(row.numpy()) for row in found["heard"][b, h]] == heard
        for i, j in np.ndindex(LENGTH, LENGTH):
            expected = any(i in own and j in own for own in members) or i in heard[j // 8]
            assert mask[b, h, i, j] == expected


def probabilities(q, k, b, h):
    """Causal attention of each query, a dict of each row."""
    keys = keys_of(k, b, h)
    return [
        softmax({j: 6**-0.5 * dot(q[b, h, i].numpy(), keys[j]) for j in range(i + 1)})
        for i in range(LENGTH)
    ]


def test_columns_and_diagonals_of_attention_are_summed_over_queries():
    p = attndsl.compile("""
        def past() = q - k >= 0
        select columns for all =
            sum over queries where len(k) - q <= 9:
                softmax over keys where k <= q: scale * dot(q, k)
            keeping k < 2
            take top 6
        select lines for all =
            sum over diagonals where len(k) - q <= 9:
                softmax over keys where k <= q: scale * dot(q, k)
            take top 4
        pattern p = k <= q and (k in columns[q] or q - k in lines[q])
    """)
    q, k = tensors(integers=False)
    k[0, 0, LENGTH // 3, 0] = 1.0
    found = p.select(q, k)
    for b, h in np.ndindex(2, HEADS):
        rows = probabilities(q, k, b, h)[-9:]
        sums = {j: sum(row.get(j, 0.0) for row in rows) for j in range(LENGTH)}
        assert listed(found["columns"][b, h, 0].numpy()) == top(sums, 6, [0, 1])
        first = LENGTH - 9
        lines = {
            d: sum(row.get(first + i - d, 0.0) for i, row in enumerate(rows)) for d in range(LENGTH)
        }
        assert listed(found["lines"][b, h, 0].numpy()) == top(lines, 4)
    (selection,) = (each for each in p.ir.selections if each.name == "lines")
    given = selecting.Activations(q, k, 6**-0.5)
    assert torch.equal(selecting.produce(selection, given, 1), found["lines"])
    with pytest.raises(
        AttnDslError, match="chooses for all queries, and the first query stands at"
    ):
        p.select(q[:, :, 5:], k)


def test_antidiagonals_are_shared_out_and_summed_over_the_units_of_a_block():
    p = attndsl.compile("""
        units strip = blocks(4)
        select near over blocks(8) for blocks(8) =
            sum over queries in strip: sum over strip:
                softmax over strip where strip <= q.index: scale / 4 * antidiagonal(q, k)
            where block <= q.index
            keeping block == q.index or block == 0
            take reaching 0.6
        pattern p = k <= q and k in near[q]
    """)
    q, k = tensors(integers=False)
    k[0, 0, LENGTH // 3, 0] = 1.0
    found = p.select(q, k)["near"]
    for b, h in np.ndindex(2, HEADS):
        keys, width = keys_of(k, b, h), -(-LENGTH // 4)
        pad = np.zeros((4, 6), np.float32)
        qs, ks = np.concatenate((q[b, h].numpy(), pad)), np.concatenate((keys, pad))
        shares = [
            softmax({
                u: 6**-0.5 / 4 * sum(dot(qs[4 * r + i], ks[4 * u + 3 - i]) for i in range(4))
                for u in range(r + 1)
            })
            for r in range(width)
        ]  # fmt: skip
        for row in range(-(-LENGTH // 8)):
            score = {
                u: np.float32(
                    sum(
                        shares[r].get(s, 0.0)
                        for r in range(2 * row, min(2 * row + 2, width))
                        for s in (2 * u, 2 * u + 1)
                    )
                )
                for u in range(row + 1)
            }
            order = sorted(score, key=lambda u: (u not in (0, row), -score[u], u))
            total, so_far, taken = sum(map(float, score.values())), 0.0, []
            for u in order:
                taken += [u] if so_far < 0.6 * total or u in (0, row) else []
                so_far += float(score[u])
            assert listed(found[b, h, row].numpy()) == sorted(taken), (b, h, row)


def test_rows_have_a_maximum_a_sum_and_a_logarithm_of_both():
    p = attndsl.compile("""
        select high = dot(q, k) where k <= q take above (max over all keys where k <= q: dot(q, k)) - 2.0
        select much = exp(dot(q, k) - (lse over all keys where k <= q: dot(q, k))) where k <= q take above 0.1
        select mean_of = dot(q, k) where k <= q
            take above (sum over all keys where k <= q: dot(q, k)) / (sum over all keys where k <= q: 1.0)
        select alike = 1.0 where k <= q and dot(unit(q), unit(k)) > 0.5 take above 0.0
        pattern p = k in high[q] or k in much[q] or k in mean_of[q] or k in alike[q]
    """)
    q, k = tensors()
    k[0, 0, LENGTH // 3, 0] = 2.0
    found = p.select(q, k)
    for b, h, i in np.ndindex(2, HEADS, LENGTH):
        row, keys = q[b, h, i].numpy(), keys_of(k, b, h)
        scores = {j: dot(row, keys[j]) for j in range(i + 1)}
        most = max(scores.values())
        assert listed(found["high"][b, h, i].numpy()) == [j for j in scores if scores[j] > most - 2]
        shares = softmax(scores)
        assert listed(found["much"][b, h, i].numpy()) == [j for j in scores if shares[j] > 0.1]
        bar = sum(scores.values()) / (i + 1)
        assert listed(found["mean_of"][b, h, i].numpy()) == [j for j in scores if scores[j] > bar]
        close = [
            j
            for j in scores
            if scores[j] > 0.5000001 * np.sqrt(dot(row, row) * dot(keys[j], keys[j])) > 0
        ]
        assert set(close) <= set(listed(found["alike"][b, h, i].numpy()))


def test_all_units_without_a_name_are_folded_as_units():
    p = attndsl.compile("""
        select best over blocks(4) =
            dot(q, mean(k)) - (max over all block where block.end <= q + 1: dot(q, mean(k)))
            where block.end <= q + 1 take above -0.000001
        pattern p = k in best[q]
    """)
    q, k = (torch.randn(1, 1, 14, 3, generator=torch.manual_seed(i)) for i in (0, 1))
    found = p.select(q, k)["best"][0, 0]
    for i in range(14):
        means = [mean(k[0, 0].numpy(), b, b + 4) for b in range(0, i - 2, 4)]
        scores = {u: dot(q[0, 0, i].numpy(), each) for u, each in enumerate(means)}
        assert listed(found[i].numpy()) == top(scores, 1)


REAL_RANKS = """
input value: real[batch, pos]
rank by_value = by value[k], -k
rank by_attention = by -(sum over queries: softmax over keys: scale * dot(q, k))
pattern p = by_value[q] == by_value[k] or by_attention[k] < 2
"""


def test_keys_are_ranked_by_reals_and_by_the_attention_they_get():
    value = drawn(3, 2, LENGTH)
    value[0, 5], value[1, 6], value[1, 7] = math.nan, -math.inf, -0.0
    q, k = tensors()
    k[0, 0, LENGTH // 3, 0] = 2.0
    place, dot_ = attndsl.selections.rank, attndsl.reals.dot
    given, share = attndsl.table("value", "real", "batch", "pos"), attndsl.selections.fold
    shares = share("softmax", attndsl.selections.scale * dot_(attndsl.q, attndsl.k), "keys")
    one, two = (
        place("by_value", given[attndsl.k], -attndsl.k),
        place("by_attention", -share("sum", shares, "queries")),
    )
    built = attndsl.compile((one[attndsl.q] == one[attndsl.k]) | (two[attndsl.k] < 2))
    text = attndsl.compile(REAL_RANKS)
    for p in (text, pickle.loads(pickle.dumps(text)), built):
        found = p.select(q, k, value=value)
        for b in range(2):
            keys = [(math.isnan(x), x, -j) for j, x in enumerate(value[b].tolist())]
            order = sorted(range(LENGTH), key=keys.__getitem__)
            assert [found["by_value"][b].tolist()[j] for j in order] == list(range(LENGTH))
        for b, h in np.ndindex(2, HEADS):
            sums = np.zeros(LENGTH)
            for row in q[b, h].numpy():
                shares = softmax({j: 6**-0.5 * dot(row, x) for j, x in enumerate(keys_of(k, b, h))})
                sums += [shares[j] for j in range(LENGTH)]
            order = np.argsort(-np.float32(sums), kind="stable")
            places = found["by_attention"][b, h].numpy()
            gaps = np.diff(np.float32(sums)[np.argsort(places)])
            assert (gaps <= 1e-6).all()  # the order of sums, but where they differ by rounding
            assert (places[order] == np.arange(LENGTH)).mean() > 0.8
    with pytest.raises(AttnDslError, match="the first query stands at 3"):
        text.select(q[:, :, 3:], k, value=value)


def test_rounds_of_hashing_are_one_softmax_over_their_pairs():
    text = "input rotations: real[r, c, d]\n"
    for r, name in enumerate("ab"):
        text += f"label bucket_{name} = argmax c in 0..4: dot(k, rotations[{r}, c])\n"
        text += f"rank place_{name} = by bucket_{name}[k]\n"
    near = " or ".join(f"0 <= place_{n}[q] // 4 - place_{n}[k] // 4 <= 1" for n in "ab")
    p = attndsl.compile(f"{text}pattern p = k <= q and ({near})")
    length, k, v = 21, drawn(11, 1, 1, 21, 6), drawn(12, 1, 1, 21, 5)
    rotations = drawn(13, 2, 4, 6)
    rounds = []
    for directions in rotations.double():
        bucket = (k[0, 0].double() @ directions.T).argmax(-1).numpy()
        place = np.argsort(np.lexsort((np.arange(length), bucket))) // 4
        ahead = place[:, None] - place[None]
        rounds.append(torch.from_numpy(np.tri(length, dtype=bool) & (ahead >= 0) & (ahead <= 1)))
    times = sum(seen.double() for seen in rounds)
    outs, masses = [], []
    for seen in rounds:  # as published: a pair of two rounds has half of its weight in each
        scores = k[0, 0].double() @ k[0, 0].double().T * 6**-0.5 - times.clamp(min=1).log()
        scores = scores.masked_fill(~seen, -math.inf)
        outs.append(scores.softmax(-1) @ v[0, 0].double())
        masses.append(scores.logsumexp(-1))
    shares = torch.stack(masses).softmax(0)
    merged = sum(x * share[:, None] for x, share in zip(outs, shares, strict=True))
    torch.testing.assert_close(p(k, k, v, rotations=rotations)[0, 0].double(), merged, **NEAR)


def test_they_are_saved_and_written_as_they_were(tmp_path):
    p = attndsl.compile(LABELS)
    p.save(tmp_path / "p.json")
    for again in (attndsl.Pattern.load(tmp_path / "p.json"), pickle.loads(pickle.dumps(p))):
        assert again.ir.selections == p.ir.selections
        assert [each.digest for each in again.ir.selections] == [
            each.digest for each in p.ir.selections
        ]
    module = syntax.parse(LABELS)
    assert syntax.parse(syntax.format(module)) == module


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label b = argmax c in 1..4: dot(k, k) pattern p = b[k] == 0", "begin at 0"),
        ("label b = argmax c in 0..4: dot(q, k) pattern p = b[k] == 0", "one of queries, or one"),
        ("rank r = by q pattern p = r[k] == 0", "numbers queries, and this is a key"),
        ("rank r = by dot(q, q) pattern p = r[q] == 0", "queries are ranked by ints alone"),
        ("rank r = by sum over queries: dot(q, k), q pattern p = r[q] == 0", "there is no `q`"),
        ("rank r = by q pattern p = k in r[q]", "one number for each token"),
        ("rank r = by q pattern p = r == 0", "has a number for each token"),
        ("select s = dot(q, k) take top 2 pattern p = s[q] == 0", "stands right of `in`"),
        ("select s = dot(q, k) take top 2 by row pattern p = k in s[q]", "not `by row`"),
        ("select s = dot(q, k) take above 0.0 by column pattern p = k in s[q]", "by column"),
        ("select s for c in 0..3 = dot(q, k) take top 2 pattern p = k in s[0]", "there is no `q`"),
        ("select s = sum over queries: dot(q, k) take top 2 pattern p = k in s[q]", "a unit of"),
        ("select s = lse over keys: dot(q, k) take top 2 pattern p = k in s[q]", "lse over all"),
        ("select s = antidiagonal(q, k) take top 2 pattern p = k in s[q]", "a unit of queries"),
        ("select s = dot(q, k) where dot(q, k) == 0.5 take top 2 pattern p = k in s[q]", "A216"),
        (
            "label b(n: int) = argmax c in 0..n: c * dot(k, k) rank r = by b(2)[k] pattern p = r[q] == b(3)[k]",
            "that differ are named 'b'",
        ),
    ],
)
def test_what_is_none_is_refused(text, message):
    with pytest.raises(AttnDslError, match=message):
        attndsl.compile(text)
