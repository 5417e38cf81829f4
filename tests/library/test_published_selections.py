"""Published selections against loops: the sets they choose, unit for unit."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import attndsl
from attndsl import library, patterns, syntax
from tests.library import test_published_sets, test_selections_of_rows
from tests.support.selection_loops import blocks, dot, listed, mean, softmax, top

FOLDER = Path(patterns.__file__).parent / "selections"
HEADS, KEY_HEADS = 4, 2


class Case:
    """Tensors of one call as float32 arrays: random ones, or small integers so that scores tie, some keys alike."""

    def __init__(self, length, *, integers):
        random = torch.Generator().manual_seed(length)

        def draw(*shape):
            if integers:
                return torch.randint(-1, 2, shape, generator=random).float()
            return torch.randn(shape, generator=random)

        self.length, self.draw = length, draw
        self.q, self.k = draw(1, HEADS, length, 4), draw(1, KEY_HEADS, length, 4)
        self.k[:, :, length // 2] = self.k[:, :, 0]
        self.k[0, 0, length // 3] = -math.inf

    def row(self, h, i):
        return self.q[0, h, i].numpy()

    def keys(self, h):
        return self.k[0, h * KEY_HEADS // HEADS].numpy()


def select_moba(case, h, i):
    units = blocks(16, 16, case.length)
    return top({u: dot(case.row(h, i), mean(case.keys(h), *units[u])) for u in range(i // 16)}, 2)


def shares(case, h, i):
    """Windows of 32, one every 16, that end at the query or before, and the softmax of their means."""
    windows = [each for each in blocks(32, 16, case.length, whole=True) if each[1] <= i + 1]
    values = {w: 0.5 * dot(case.row(h, i), mean(case.keys(h), *w)) for w in windows}
    return softmax(values)


def select_nsa(case, g, i):
    total = {}
    for u, (start, stop) in enumerate(blocks(32, 32, case.length)):
        if start <= i:
            found = [shares(case, h, i) for h in (2 * g, 2 * g + 1)]
            total[u] = sum(
                share * max(0, min(w[1], stop) - max(w[0], start)) / 32
                for each in found
                for w, share in each.items()
            )
    return top(total, 3, [u for u in total if u < 1 or i // 32 - u < 2])


def select_infllm2(case, g, i):
    found = [shares(case, h, i) for h in (2 * g, 2 * g + 1)]
    windows = blocks(32, 16, case.length, whole=True)
    most = {}
    for u, (start, stop) in enumerate(blocks(32, 32, case.length)):
        if start <= i:
            near = [w for w in windows if w[0] < stop and w[1] > start]
            most[u] = max(
                (sum(each.get(w, 0.0) for each in found) for w in near), default=-math.inf
            )
    return top(most, 3, [u for u in most if u < 1 or i // 32 - u <= 1])


def select_dsa(case, i):
    given = {name: x.numpy() for name, x in case.inputs.items()}
    scores = {
        j: sum(
            float(given["index_w"][0, i, e])
            * max(0.0, dot(given["index_q"][0, i, e], given["index_k"][0, j]))
            for e in range(2)
        )
        for j in range(i + 1)
    }
    return top(scores, 5)


def select_quest(case, h, i):
    row, keys = case.row(h, i).astype(np.float64), case.keys(h).astype(np.float64)
    scores = {}
    for u, (start, stop) in enumerate(blocks(8, 8, case.length)):
        if start <= i:
            low, high = keys[start:stop].min(0), keys[start:stop].max(0)
            with np.errstate(invalid="ignore"):
                scores[u] = float(np.maximum(row * low, row * high).sum())
    return top(scores, 3)


def select_seer(case, h, r):
    gate_q, gate_k = (case.inputs[name][0, h].numpy() for name in ("gate_q", "gate_k"))
    return top(softmax({u: 0.5 * dot(gate_q[r], gate_k[u]) for u in range(r + 1)}), 2)


def fits(case, h, r, size, last=None):
    """Products of the mean query of a block with the mean keys of all, or of those up to a last one."""
    units = blocks(size, size, case.length)
    row = mean(case.q[0, h].numpy(), *units[r])
    reach = len(units) if last is None else last + 1
    return {u: dot(row, mean(case.keys(h), *units[u])) for u in range(reach)}


def select_minference(case, h, r):
    return top(fits(case, h, r, 16, r), 2)


def select_vsa(case, h, r):
    return top(fits(case, h, r, 16), 2)


def select_biformer(case, r):
    found = [fits(case, h, r, 16) for h in range(HEADS)]
    return top({u: sum(each[u] for each in found) for u in found[0]}, 2)


def select_dma(case, h, i):
    bias = case.inputs["key_bias"][0, h].numpy()
    return top({j: float(bias[j]) for j in range(i + 1)}, 5)


SYSTEMS = {
    select_moba: {"b": 16, "n": 3},
    select_nsa: {"b": 32, "n": 3},
    select_infllm2: {"b": 32, "n": 3, "local": 1, "dense": 0},
    select_dsa: {"n": 5},
    select_quest: {"b": 8, "n": 3},
    select_seer: {"b": 16, "n": 2},
    select_minference: {"b": 16, "n": 2},
    select_vsa: {"b": 16, "n": 2},
    select_biformer: {"b": 16, "n": 2},
    select_dma: {"n": 5},
}


def inputs_of(name, case):
    n, rows = case.length, -(-case.length // 16)
    shapes = {
        "select_dsa": {"index_q": (1, n, 2, 4), "index_k": (1, n, 4), "index_w": (1, n, 2)},
        "select_seer": {"gate_q": (1, HEADS, rows, 4), "gate_k": (1, HEADS, rows, 4)},
        "select_dma": {"key_bias": (1, HEADS, n)},
    }
    return {name: case.draw(*shape) for name, shape in shapes.get(name, {}).items()}


@pytest.mark.parametrize("integers", [False, True], ids=["random", "ties"])
@pytest.mark.parametrize("oracle", SYSTEMS, ids=lambda each: each.__name__)
def test_a_system_chooses_the_units_that_its_loop_does(oracle, integers):
    p = attndsl.compile(oracle.__name__, **SYSTEMS[oracle])
    for length in (75, 1):
        case = Case(length, integers=integers)
        case.inputs = inputs_of(oracle.__name__, case)
        (table,) = p.select(case.q, case.k, **case.inputs).values()
        for at in np.ndindex(*table.shape[1:-1]):
            assert listed(table[(0, *at)].numpy()) == oracle(case, *at), (length, at)


def test_every_file_is_a_system_with_a_loop():
    names = sorted(path.stem for path in FOLDER.glob("*.attn"))
    others = [f"select_{each.__name__}" for each in test_published_sets.SYSTEMS]
    more = [f"select_{name}" for name in test_selections_of_rows.SYSTEMS]
    assert names == sorted([*(each.__name__ for each in SYSTEMS), *others, *more])
    assert names == sorted(library.selections())


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.attn")), ids=lambda path: path.stem)
def test_the_files_are_in_canonical_layout(path):
    text = path.read_text(encoding="utf-8")
    assert syntax.format(syntax.parse(text, path.name)) == text
    assert max(map(len, text.splitlines())) <= 102


@pytest.mark.parametrize("name", library.selections())
def test_the_example_of_a_selection_runs_in_one_line(name):
    shown = library.example(name)
    out = shown.call()
    assert out.shape == shown.q.shape
    assert out.isfinite().all()
    torch.testing.assert_close(out, shown.call(backend="reference"), rtol=0, atol=1e-5)
    entry = library.describe(name)
    assert entry.summary
    assert entry.source
    assert entry.name == name


@pytest.mark.parametrize("name", ["select_moba", "select_nsa", "select_infllm2", "select_quest"])
def test_a_step_of_decoding_chooses_what_the_last_row_of_a_prefill_does(name):
    p = attndsl.compile(name, **{each.__name__: given for each, given in SYSTEMS.items()}[name])
    case = Case(75, integers=False)
    (whole,) = p.select(case.q, case.k).values()
    for length in (75, 74, 49):
        (step,) = p.select(case.q[:, :, length - 1 : length], case.k[:, :, :length]).values()
        (prefill,) = p.select(case.q[:, :, :length], case.k[:, :, :length]).values()
        assert torch.equal(step[:, :, 0], prefill[:, :, -1])
    assert torch.equal(step[:, :, 0], whole[:, :, 48]) or name == "select_quest"


def test_the_bias_that_chooses_is_trained_by_the_scores():
    a = attndsl.compile("select_dma", n=3)
    q = torch.randn(1, 2, 12, 4)
    bias = torch.randn(1, 2, 12, requires_grad=True)
    a(q, q, q, key_bias=bias).square().sum().backward()
    taken = a.select(q, q, key_bias=bias.detach())["strong"]
    for h in range(2):
        assert set(bias.grad[0, h].nonzero().flatten().tolist()) <= set(
            taken[0, h].flatten().tolist()
        )
    assert bias.grad.abs().sum() > 0


def test_a_short_sequence_is_dense_where_the_system_says_so():
    p = attndsl.compile("select_infllm2", b=16, n=2, local=0, dense=64)
    q = torch.randn(1, 2, 64, 4)
    causal = attndsl.compile("causal")
    torch.testing.assert_close(p(q, q, q), causal(q, q, q), rtol=1e-4, atol=1e-5)
