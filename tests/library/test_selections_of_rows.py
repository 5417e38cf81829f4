"""Selections of rows of the catalogue against loops: sets, and outputs and gradients of dense attention on them."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch

import attndsl
from tests.library.test_published_sets import first_best, normal, places
from tests.support.selection_loops import blocks, dot, mean, softmax, top

HEADS, KEY_HEADS, WIDTH, SCALE = 4, 2, 4, 0.5


class Case:
    """Tensors of a call in float64 with numbers of float32: random ones, or small integers so that scores tie."""

    def __init__(self, q_len, k_len, integers):
        self.draws, self.integers = torch.Generator().manual_seed(q_len + k_len), integers
        self.q_len, self.k_len = q_len, k_len
        self.q, self.k = self.draw(HEADS, q_len, WIDTH), self.draw(KEY_HEADS, k_len, WIDTH)
        self.k[:, :, k_len // 2] = self.k[:, :, 0]

    def draw(self, *shape):
        if self.integers:
            return torch.randint(-1, 2, (1, *shape), generator=self.draws).double()
        return torch.randn(1, *shape, generator=self.draws).double()

    def row(self, h, i):
        return self.q[0, h, i].float().numpy()

    def keys(self, h):
        return self.k[0, h * KEY_HEADS // HEADS].float().numpy()

    def fits(self, h, i, last=None):
        """Scaled products of a query with all keys, or with those up to a last one."""
        keys = self.keys(h)
        return {
            j: SCALE * dot(self.row(h, i), keys[j])
            for j in range(self.k_len if last is None else last + 1)
        }

    def array(self, name):
        return self.inputs[name].detach().float().numpy()


def attended(s, seen, v):
    """Softmax of scores over the pairs that are seen; 0 for a query without keys."""
    s = s.masked_fill(~seen, -torch.inf)
    weights = (s - s.amax(-1, keepdim=True).clamp_min(-1e300)).exp()
    return weights / weights.sum(-1, keepdim=True).clamp_min(1e-300) @ v


@dataclass
class System:
    """A loop that gives the keys of a head and query, or several lists; the output from scores, sets, v, inputs."""

    sets: Any
    values: dict[str, Any]
    lengths: tuple[int, int]
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    formula: Any = lambda s, seen, v, given: attended(s, seen[0], v)
    trained: tuple[str, ...] = ()
    foreign: str = ""
    extents: dict[str, int] | None = None


def axformer(case, h, i):
    yield top(case.fits(h, i), 5)


def kept_weights(s, seen, v, given):
    return s.softmax(-1) * seen[0] @ v


def kinetics(case, h, i):
    """Sinks 2, local 6, pages of 4, of which 2."""
    units, group = blocks(4, 4, case.k_len), (h // 2 * 2, h // 2 * 2 + 1)
    first = max(i + 1 - 6, 0) // 4
    scores = {
        u: sum(SCALE * dot(case.row(g, i), mean(case.keys(h), *units[u])) for g in group)
        for u in range(first)
    }
    taken = top(scores, 2)
    yield [j for j in range(i + 1) if j < 2 or j // 4 in taken or j >= 4 * first]


def scalekv(case, h, i):
    columns, old = dict.fromkeys(range(case.k_len), 0.0), case.k_len - case.q_len
    for observer in (0, 3, 6):
        for j, share in softmax(case.fits(h, observer)).items():
            columns[j] += share
    yield top({j: columns[j] for j in range(old)}, 5) + list(range(old, case.k_len))


def spark(case, h, i):
    found = case.fits(h, i, last=i)
    if i >= 6:
        scores = np.array(list(found.values()))
        bar = scores.mean() + float(case.array("quantile")[i]) * scores.std(ddof=1)
        yield [j for j, x in found.items() if np.float32(x) > np.float32(bar)]
    else:
        yield list(found)


def with_factor(s, seen, v, given):
    factor = torch.nn.functional.softplus(given["spare_q"] @ given["spare_k"].mT)
    s = s.masked_fill(~seen[0], -torch.inf)
    return s.softmax(-1).nan_to_num() * factor @ v


def catanet(case, h, i):
    """The sorted sequence, its mirrored end behind it, in steps of one group with windows of two."""
    features, centres, n = (
        normal(case.array("feature")[0]),
        normal(case.array("centre")),
        case.k_len,
    )
    labels = [first_best({c: dot(f, x) for c, x in enumerate(centres)}) for f in features]
    place = places(labels)
    order = sorted(place, key=place.get)
    padded = order + order[::-1]
    start = place[i] // 6 * 6
    end = min(start + 12, -(-n // 6) * 6 + 6)
    yield sorted(set(padded[start:end]))


def with_centres(s, seen, v, given):
    key, value = given["centres"]
    return attended(s, seen[0], v) + (SCALE * given["q"] @ key.mT).softmax(-1) @ value


def drsformer(case, h, i):
    factor = float(case.array("temperature")[h])
    fits = {c: factor * dot(case.row(h, i), key) for c, key in enumerate(case.keys(h))}
    for share in (1 / 2, 2 / 3, 3 / 4, 4 / 5):
        yield top(fits, int(13 * share))


def mixed(s, seen, v, given):
    t = given["temperature"][:, None, None] * s
    return sum(a * attended(t, each, v) for a, each in zip(given["mix"], seen, strict=True))


def acmil(case, h, i):
    coin, salient = case.array("coin")[0, h, i], top(case.fits(h, i), 6)
    masked = top({j: float(coin[j]) for j in salient}, 4)
    yield [j for j in range(case.k_len) if j not in masked]


def simplegvr(case, h, i):
    """Windows of 2 by 3 of 2 frames of 3 by 4."""
    tokens = list(np.ndindex(2, 3, 4))
    of = [(t, y // 2, x // 3) for t, y, x in tokens]
    windows = sorted(set(of))
    where = [[j for j in range(24) if of[j] == each] for each in windows]
    mine, q, keys = windows.index(of[i]), case.q[0, h].float().numpy(), case.keys(h)
    own = mean(q[where[mine]], 0, len(where[mine]))
    fits = {u: dot(own, mean(keys[each], 0, len(each))) for u, each in enumerate(where)}
    taken = {mine, *top({u: x for u, x in fits.items() if u != mine}, 2)}
    yield [j for j in range(24) if windows.index(of[j]) in taken]


def dcal(case, h, i):
    response = case.array("response")[0]
    yield list(range(case.k_len)) if i in top(dict(enumerate(response)), 6) else []


def tcpa(case, h, i):
    """5 prompts for the class token, 6 for patches, 9 tokens."""
    mine, pool = normal(case.array("feature")[0])[i], normal(case.array("pool"))
    fits = {j: dot(mine, pool[j]) for j in (range(5) if i == 0 else range(5, 11))}
    yield top(fits, 2 if i == 0 else 3) + list(range(11, 20))


def magicface(case, h, i):
    """9 own tokens, then 3 references of 5 tokens; the last of 4 concepts is none."""
    concept = first_best(dict(enumerate(case.array("maps")[0, i])))
    seen = case.array("foreground")[0]
    yield [
        j for j in range(24) if j < 9 or ((j - 9) // 5 == concept and seen[concept, (j - 9) % 5])
    ]


def weighted(s, seen, v, given):
    bias = torch.nn.functional.pad(given["weight"].log().repeat_interleave(5), (9, 0))
    return attended(s + bias, seen[0], v)


def sorted_places(case, h):
    value = case.array("value")[0, h]
    return places([float(x) for x in value])


def histoformer(case, h, i):
    """5 bins of 5 tokens, the last of 2."""
    place = sorted_places(case, h)
    yield [j for j in range(22) if place[j] // 5 == place[i] // 5]


def histoformer_frequency(case, h, i):
    place = sorted_places(case, h)
    yield [j for j in range(22) if (place[j] - place[i]) % 5 == 0]


def with_one_more(s, seen, v, given):
    e = s.exp().masked_fill(~seen[0], 0.0)
    return e / (1 + e.sum(-1, keepdim=True)) @ v


def sinklora(case, h, i):
    """The last of 24 tokens, of which 4 are recent."""
    received = case.array("received")[0, h]
    yield [*sorted(top({j: float(received[j]) for j in range(20)}, 5)), 20, 21, 22, 23]


def ems(case, h, i):
    received, lately = case.array("received")[0, h], case.array("lately")[0, h]
    scores = {j: float(received[j]) + 0.5 * float(lately[j]) for j in range(20)}
    yield [*top(scores, 5), 20, 21, 22, 23]


def selective(case, h, i):
    masked = case.array("masked")[0]
    yield [*top({j: -float(masked[j]) for j in range(23)}, 5), 23]


def less_masked(s, seen, v, given):
    return attended(s - given["masked"], seen[0], v)


def nsa_branches(case, h, i):
    """Blocks of 16, of which 3; then the last 7 keys. The 4 windows of 32 keys, one every 16, are given."""
    total = dict.fromkeys(range(i // 16 + 1), 0.0)
    for g in (h // 2 * 2, h // 2 * 2 + 1):
        keys = case.array("pooled_keys")[0, g]
        ready = [w for w in range(4) if 16 * w + 32 <= i + 1]
        for w, share in softmax({w: SCALE * dot(case.row(g, i), keys[w]) for w in ready}).items():
            for u in total:
                total[u] += share * (0.5 if u in (w, w + 1) else 0.0)
    taken = top(total, 3, [u for u in total if u < 1 or i // 16 - u < 2])
    yield [j for j in range(i + 1) if j // 16 in taken]
    yield list(range(max(0, i - 6), i + 1))


def three_branches(s, seen, v, given):
    key, value = given["pooled"]
    ready = 16 * torch.arange(4) + 31 <= torch.arange(80)[:, None]
    parts = attended(SCALE * given["q"] @ key.mT, ready, value), attended(s, seen[0], v)
    return sum(
        given["gate"][..., [at]] * part for at, part in enumerate((*parts, attended(s, seen[1], v)))
    )


SYSTEMS = {
    "axformer": System(axformer, {"n": 5}, (21, 21), formula=kept_weights),
    "kinetics": System(kinetics, {"sink": 2, "local": 6, "b": 4, "n": 2}, (31, 31)),
    "scalekv": System(scalekv, {"n": 5, "window": 3}, (9, 29)),
    "spark": System(
        spark, {"n": 6}, (30, 30),
        {"spare_q": (1, HEADS, 30, 3), "spare_k": (1, HEADS, 30, 3), "quantile": (30,)},
        with_factor, ("spare_q", "spare_k"),
    ),
    "catanet": System(
        catanet, {"group": 6}, (27, 27), {"feature": (1, 27, 3), "centre": (4, 3)}, with_centres,
        foreign="centres",
    ),
    "drsformer": System(
        drsformer, {"c": 13}, (13, 13), {"temperature": (HEADS,), "mix": (4,)}, mixed,
        ("temperature", "mix"),
    ),
    "acmil": System(acmil, {"n": 6, "m": 4}, (3, 24), {"coin": (1, HEADS, 3, 24)}),
    "simplegvr": System(
        simplegvr, {"wy": 2, "wx": 3, "n": 2}, (24, 24), extents={"t": 2, "y": 3, "x": 4}
    ),
    "dcal": System(dcal, {"r": 6}, (19, 19), {"response": (1, 19)}),
    "tcpa": System(
        tcpa, {"c": 5, "g": 6, "n": 2, "m": 3}, (9, 20), {"feature": (1, 9, 3), "pool": (20, 3)}
    ),
    "magicface": System(
        magicface, {}, (9, 24), {"maps": (1, 9, 4), "foreground": (1, 3, 5), "weight": (3,)},
        weighted, ("weight",), extents={"c": 3},
    ),
    "histoformer": System(
        histoformer, {"bins": 5}, (22, 22), {"value": (1, HEADS, 22)}, with_one_more
    ),
    "histoformer_frequency": System(
        histoformer_frequency, {"bins": 5}, (22, 22), {"value": (1, HEADS, 22)}, with_one_more
    ),
    "sinklora": System(sinklora, {"n": 5, "recent": 4}, (1, 24), {"received": (1, HEADS, 24)}),
    "ems": System(
        ems, {"n": 5, "recent": 4, "balance": 0.5}, (1, 24),
        {"received": (1, HEADS, 24), "lately": (1, HEADS, 24)},
    ),
    "selective": System(
        selective, {"n": 6}, (1, 24), {"masked": (1, 24)}, less_masked, ("masked",)
    ),
    "nsa_branches": System(
        nsa_branches, {"b": 16, "n": 3, "w": 7}, (80, 80),
        {"gate": (1, HEADS, 80, 3), "pooled_keys": (1, HEADS, 4, WIDTH), "position": (80,)},
        three_branches, ("gate",), "pooled",
    ),
}  # fmt: skip


def seen_by_loops(system, case):
    """Masks [1, heads, queries, keys], one for each list that the loop gives for a query."""
    found = [[list(system.sets(case, h, i)) for i in range(case.q_len)] for h in range(HEADS)]
    seen = torch.zeros(len(found[0][0]), 1, HEADS, case.q_len, case.k_len, dtype=torch.bool)
    for h, rows in enumerate(found):
        for i, lists in enumerate(rows):
            for at, keys in enumerate(lists):
                seen[at, 0, h, i, keys] = True
    return seen


@pytest.mark.parametrize("integers", [False, True], ids=["random", "ties"])
@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_is_dense_attention_on_the_sets_of_its_loop(name, integers):
    system = SYSTEMS[name]
    p = attndsl.compile(f"select_{name}", **system.values)
    case = Case(*system.lengths, integers)
    case.inputs = {each: case.draw(*shape)[0] for each, shape in system.inputs.items()}
    if name == "magicface":
        case.inputs["foreground"] = case.inputs["foreground"] > 0
        case.inputs["weight"] = case.inputs["weight"].abs() + 0.5
    if "position" in case.inputs:
        case.inputs["position"] = torch.arange(case.k_len)
    if system.foreign:
        key, value = torch.randn(2, 1, HEADS, 4, WIDTH, dtype=torch.float64)
        case.inputs[system.foreign] = key.requires_grad_(), value.requires_grad_()
    seen = seen_by_loops(system, case)
    trained = [case.inputs[each].requires_grad_() for each in system.trained]
    leaves = [case.q.requires_grad_(), case.k.requires_grad_(), *trained]
    leaves += case.inputs.get(system.foreign, ())
    s = SCALE * case.q @ case.k.repeat_interleave(2, 1).mT
    width = value.shape[3] if system.foreign else case.k_len
    eye = torch.eye(case.k_len, width, dtype=torch.float64).expand(1, KEY_HEADS, -1, -1)
    v = (eye + torch.randn(1, KEY_HEADS, case.k_len, width, generator=case.draws)).requires_grad_()
    given = {**case.inputs, "q": case.q}
    for values in (eye, v):  # weights themselves, then sums of them
        found = p(case.q, case.k, values, extents=system.extents, **case.inputs)
        wanted = system.formula(s, seen, values.repeat_interleave(2, 1), given)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    grads, right = (
        torch.autograd.grad(out.sin().sum(), [*leaves, v], allow_unused=True)
        for out in (found, wanted)
    )
    for mine, theirs in zip(grads, right, strict=True):
        mine, theirs = (torch.zeros(1) if x is None else x for x in (mine, theirs))
        torch.testing.assert_close(mine.double(), theirs.double(), rtol=1e-8, atol=1e-10)


def test_steps_of_heavy_hitters_evict_the_key_that_received_least():
    """Against a cache that drops, step by step, the least of its keys that is not recent."""
    a = attndsl.compile("select_sinklora", n=3, recent=2)
    q, k = torch.randn(2, 1, 1, 14, WIDTH, generator=torch.Generator().manual_seed(0)).double()
    received, cache, sums = torch.zeros(1, 1, 14, dtype=torch.float64), [], {}
    for i in range(14):
        given = {"received": received[:, :, : i + 1]}
        step = q[:, :, i : i + 1], k[:, :, : i + 1]
        columns = a.column_sums(*step, inputs=given)
        cache, sums = [*cache, i], {**sums, i: 0.0}
        if len(cache) > 5:
            cache.remove(min(cache[:-2], key=lambda j: (sums[j], -j)))
        shares = softmax({j: SCALE * float(q[0, 0, i] @ k[0, 0, j]) for j in cache})
        assert columns[0, 0].nonzero().flatten().tolist() == cache
        for j, share in shares.items():
            sums[j] += share
        received[:, :, : i + 1] += columns
        received[:, :, : i + 1][columns == 0] = -torch.inf


def test_steps_of_selective_attention_evict_the_key_that_was_masked_most():
    """Against a cache of five keys, their masking summed up one by one."""
    a = attndsl.compile("select_selective", n=5)
    q, k = torch.randn(2, 1, 2, 14, WIDTH, generator=torch.Generator().manual_seed(0)).double()
    cache, sums = [], {}
    for i in range(14):
        cache, sums = [*cache, i], {**sums, i: 0.0}
        masked = torch.tensor([[sums[j] for j in range(i + 1)]], dtype=torch.float64)
        step, keys = q[:, :, i : i + 1], k[:, :, : i + 1]
        weights = a(step, keys, torch.eye(i + 1).double().expand(1, 2, -1, -1), masked=masked)
        if len(cache) > 5:
            gone = max(cache[:-1], key=lambda j: (sums[j], j))
            cache.remove(gone)
            sums[gone] = math.inf
        for h in range(2):
            scores = {j: SCALE * float(q[0, h, i] @ k[0, h, j]) for j in cache}
            shares = softmax({j: x - sums[j] for j, x in scores.items()})
            assert weights[0, h, 0].nonzero().flatten().tolist() == cache
            assert np.allclose(weights[0, h, 0, cache], [shares[j] for j in cache], rtol=1e-9)
        for j in cache[:-1]:
            sums[j] += max(0.0, SCALE * float(q[0, 0, i] @ k[0, 0, j])) if j else 0.0


def test_a_step_of_all_branches_is_the_last_row_of_a_prefill():
    a = attndsl.compile("select_nsa_branches", b=16, n=3, w=7)
    draws = torch.Generator().manual_seed(0)
    q, k, v, gate = (torch.randn(1, 2, 80, x, generator=draws) for x in (4, 4, 4, 3))
    pooled = torch.randn(2, 1, 2, 4, 4, generator=draws).unbind()
    rest = {"pooled": pooled, "pooled_keys": pooled[0]}
    whole = a(q, k, v, gate=gate, position=torch.arange(80), **rest)
    step = a(q[:, :, -1:], k, v, gate=gate[:, :, -1:], position=torch.tensor([79]), **rest)
    torch.testing.assert_close(step, whole[:, :, -1:], rtol=1e-5, atol=1e-6)
