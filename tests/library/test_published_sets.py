"""Published systems of several selections against loops: the pairs that they attend to, and with what weight."""

import math

import numpy as np
import pytest
import torch

import attndsl
from tests.support.selection_loops import blocks, dot, mean, softmax, top

HEADS, KEY_HEADS, WIDTH = 4, 2, 4


class Case:
    """Tensors of one call: random ones, or small integers so that scores tie, some keys alike."""

    def __init__(self, length, *, integers, shared=False):
        random = torch.Generator().manual_seed(length)

        def draw(*shape):
            if integers:
                return torch.randint(-1, 2, shape, generator=random).float()
            return torch.randn(shape, generator=random)

        self.length, self.draw = length, draw
        self.k = draw(1, HEADS if shared else KEY_HEADS, length, WIDTH)
        self.k[:, :, length // 2] = self.k[:, :, 0]
        self.q = self.k if shared else draw(1, HEADS, length, WIDTH)

    def row(self, h, i):
        return self.q[0, h, i].numpy()

    def keys(self, h):
        return self.k[0, h * self.k.shape[1] // HEADS].numpy()


def first_best(scores):
    return top(scores, 1)[0]


def places(labels):
    order = sorted(range(len(labels)), key=lambda i: labels[i])
    return {token: at for at, token in enumerate(order)}


def reformer(case, h):
    directions = case.inputs["rotations"].numpy().astype(np.float64)
    buckets = []
    for key in case.keys(h).astype(np.float64):
        turned = directions @ key
        buckets.append(first_best(dict(enumerate([*turned, *-turned]))))
    place = places(buckets)
    for i in range(case.length):
        near = [j for j in range(i + 1) if place[i] // 8 - place[j] // 8 in (0, 1)]
        yield {j: 0.0 for j in near if j != i} or {i: 0.0}


def signs(vector, planes):
    """The number, in the order of the Gray code, of the signs of a vector; a product of 0 is what is first."""
    best, found = -math.inf, None
    for c in range(2 ** len(planes)):
        gray = c ^ c >> 1
        total = np.float32(
            sum((1 if gray >> i & 1 else -1) * dot(vector, p) for i, p in enumerate(planes))
        )
        if total > best:
            best, found = total, c
    return found


def hyper(case, h):
    planes, n = case.inputs["planes"].numpy(), case.length
    one = places([signs(case.row(h, i), planes) for i in range(n)])
    two = places([signs(key, planes) for key in case.keys(h)])
    taken = case.tables["sampled"][0, h, 0].tolist()
    assert len({j for j in taken if j >= 0}) == min(n, 6)
    for i in range(n):
        own = {j: 0.0 for j in range(n) if one[i] // 8 == two[j] // 8}
        far = {j: math.log(n / 6) for j in taken if j >= 0 and one[i] // 8 != two[j] // 8}
        yield own | far


def normal(rows):
    wide = rows.astype(np.float64)
    length = np.sqrt((wide**2).sum(-1, keepdims=True))
    return (wide / np.where(length == 0, 1.0, length)).astype(np.float32)


def routing(case, h):
    keys, centres = normal(case.keys(h)), case.inputs["centres"][h].numpy()
    members = [top({j: dot(keys[j], c) for j in range(case.length)}, 9) for c in centres]
    for i in range(case.length):
        yield {j: 0.0 for j in range(i + 1) if any(i in own and j in own for own in members)}


def causal(case, h, first=0):
    """Rows of causal attention of the queries from one on."""
    keys = case.keys(h)
    return [
        softmax({j: 0.5 * dot(case.row(h, i), keys[j]) for j in range(i + 1)})
        for i in range(first, case.length)
    ]


def reaching(scores, share, forced=()):
    rounded = {u: float(np.float32(x)) for u, x in scores.items()}
    order = sorted(rounded, key=lambda u: (u not in forced, -rounded[u], u))
    taken, so_far, total = set(forced), 0.0, sum(rounded[u] for u in order)
    for u in order:
        taken |= {u} if so_far < share * total else set()
        so_far += rounded[u]
    return taken


def of_blocks(case, size, taken):
    """The pairs of blocks of queries and of keys."""
    for i in range(case.length):
        yield {j: 0.0 for j in range(i + 1) if j // size[1] in taken[i // size[0]]}


def xattention(case, h):
    n, width = case.length, -(-case.length // 8)
    pad = np.zeros((8, WIDTH), np.float32)
    qs, ks = (np.concatenate((x, pad)) for x in (case.q[0, h].numpy(), case.keys(h)))
    shares = [
        softmax({
            u: sum(dot(qs[8 * r + i], ks[8 * u + 7 - i]) for i in range(8)) * 0.5 / 8
            for u in range(r + 1)
        })
        for r in range(width)
    ]  # fmt: skip
    taken = []
    for row in range(-(-n // 16)):
        rows = [shares[r] for r in range(2 * row, min(2 * row + 2, width))]
        scores = {
            u: sum(x.get(2 * u, 0) + x.get(2 * u + 1, 0) for x in rows) for u in range(row + 1)
        }
        taken.append(reaching(scores, 0.6, {0, row}))
    return of_blocks(case, (16, 16), taken)


def sparge(case, h):
    def agreement(x):
        unit = normal(x)
        middle = mean(unit, 0, len(unit))
        return dot(middle, middle)

    q, keys, taken = case.q[0, h].numpy(), case.keys(h), []
    units = blocks(8, 8, case.length)
    agree = {u: agreement(keys[a:b]) > 0.3 for u, (a, b) in enumerate(units)}
    for a, b in blocks(16, 16, case.length):
        past = [u for u, (start, _) in enumerate(units) if start < b]
        fits = {u: 0.5 * dot(mean(q, a, b), mean(keys, *units[u])) for u in past if agree[u]}
        shares, found, so_far = softmax(fits), set(top({u: 2 * x for u, x in fits.items()}, 1)), 0.0
        rounded = {u: float(np.float32(x)) for u, x in shares.items()}
        for u in sorted(rounded, key=lambda u: (-rounded[u], u)):
            so_far += rounded[u]
            found |= {u} if so_far <= 0.7 * sum(rounded.values()) else set()
        stray = agreement(q[a:b]) <= 0.3
        taken.append(found | {u for u in past if stray or not agree[u]})
    return of_blocks(case, (16, 8), taken)


def lines(case, h, columns, distances):
    for i in range(case.length):
        yield {j: 0.0 for j in range(i + 1) if j in columns or i - j in distances}


def sums(case, h, first):
    """Attention of the queries from one on, summed by key, and by distance."""
    columns, distances = (dict.fromkeys(range(case.length), 0.0) for _ in "cd")
    for i, row in enumerate(causal(case, h, first), start=first):
        for j, share in row.items():
            columns[j] += share
            distances[i - j] += share
    return columns, distances


def minference_lines(case, h):
    columns, distances = sums(case, h, max(0, case.length - 16))
    return lines(case, h, top(columns, 6, {0, 1}), top(distances, 7, {0, 1, 2}))


def flexprefill(case, h):
    n = case.length
    last = (n - 1) // 128
    columns, distances = sums(case, h, 128 * last)
    units, q, keys = blocks(128, 128, n), case.q[0, h].numpy(), case.keys(h)
    guess = softmax({
        u: 0.5 * dot(mean(q, *units[last]), mean(keys, *each)) for u, each in enumerate(units)
    })  # fmt: skip
    total = 0.0
    for u, (a, b) in enumerate(units):
        truth = sum(columns[j] for j in range(a, b)) / (n - 128 * last)
        half = (guess[u] + truth) / 2
        total += sum(0.5 * x * math.log(x / half) for x in (guess[u], truth) if x > 0)
    if math.sqrt(max(total, 0)) < case.tau:
        taken = []
        for r, (a, b) in enumerate(units):
            fits = {u: 0.5 * dot(mean(q, a, b), mean(keys, *units[u])) for u in range(r + 1)}
            taken.append(reaching(softmax(fits), 0.7, {0, r}))
        return of_blocks(case, (128, 128), taken)
    return lines(case, h, reaching(columns, 0.7, {0}), reaching(distances, 0.7, {0}))


def anchor(case, h):
    """In groups of two blocks of 128."""
    n, q, keys = case.length, case.q[0, h].numpy(), case.keys(h)
    found = {group: set() for group in range(-(-n // 256))}
    scores = 0.5 * q.astype(np.float64) @ keys.astype(np.float64).T
    for a, b in blocks(128, 128, n):
        most = [
            max(scores[i, j] for j in range(i + 1) if j < 128 or j // 128 == i // 128)
            for i in range(a, b)
        ]
        fits = 0.5 * keys.astype(np.float64) @ mean(q, a, b).astype(np.float64)
        far = np.float32(fits - sum(most) / (b - a))
        end = min(256 * (a // 256 + 1), n)
        found[a // 256] |= {j for j in range(end) if far[j] > -4.0}
    for i in range(n):
        taken = found[i // 256]
        yield {j: 0.0 for j in range(i + 1) if j < 128 or j // 128 == i // 128 or j in taken}


SYSTEMS = {
    anchor: ({"group": 2, "theta": 4.0}, {}, (270,)),
    reformer: ({"c": 8}, {"rotations": (3, WIDTH)}, (43, 1)),
    hyper: ({"b": 8, "m": 6, "r": 3}, {"planes": (3, WIDTH)}, (43, 1)),
    routing: ({"n": 9}, {"centres": (HEADS, 3, WIDTH)}, (43, 1)),
    xattention: ({"b": 16, "p": 0.6}, {}, (43, 1)),
    sparge: ({"bq": 16, "bk": 8, "p": 0.7, "agree": 0.3}, {}, (43, 1)),
    minference_lines: ({"v": 6, "s": 7, "first": 2, "near": 3, "last": 16}, {}, (43, 7)),
    flexprefill: ({"gamma": 0.7}, {}, (150,)),
}


def check(oracle, length, integers, **more):
    given, shapes, _ = SYSTEMS[oracle]
    p = attndsl.compile(f"select_{oracle.__name__}", **given, **more)
    case = Case(length, integers=integers, shared=oracle in (reformer, routing))
    case.inputs = {name: case.draw(*shape) for name, shape in shapes.items()}
    case.tables, case.tau = p.select(case.q, case.k, **case.inputs), more.get("tau", 0.1)
    identity = torch.eye(length).expand(1, case.k.shape[1], -1, -1)
    weights = p(case.q, case.k, identity, **case.inputs)[0]
    for h in range(HEADS):
        keys = case.keys(h)
        for i, row in enumerate(oracle(case, h)):
            found = weights[h, i].nonzero().flatten().tolist()
            assert found == sorted(row), (h, i)
            if length > 100 and i % 16:  # weights of some rows are enough where there are many
                continue
            expected = softmax({j: 0.5 * dot(case.row(h, i), keys[j]) + x for j, x in row.items()})
            values = [expected[j] for j in found]
            assert np.allclose(weights[h, i, found], values, rtol=1e-4, atol=1e-6), (h, i)
    return case


@pytest.mark.parametrize("integers", [False, True], ids=["random", "ties"])
@pytest.mark.parametrize("oracle", SYSTEMS, ids=lambda each: each.__name__)
def test_a_system_attends_to_the_pairs_that_its_loop_does(oracle, integers):
    for length in SYSTEMS[oracle][2]:
        check(oracle, length, integers)


def test_heads_that_are_well_estimated_by_means_take_blocks():
    case = check(flexprefill, 150, False, tau=0.9)
    assert (case.tables["flex_aware"] == 0).any()
