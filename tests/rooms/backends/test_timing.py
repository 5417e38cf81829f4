"""Predicted times: the counts are those of what runs, and the order that the search takes is theirs."""

from collections.abc import Iterator
from dataclasses import astuple, replace

import numpy as np
import pytest
import torch

import attndsl
from attndsl import backends
from attndsl.backends import REFERENCE, Request, strip_passes, tile_costs_of, timing
from attndsl.backends.block_batches import batches_of
from attndsl.backends.places import Index, Span
from attndsl.backends.work_counts import BLOCKS, STRETCH, TERMS, WorkCounts, work_counts
from attndsl.schedule import Schedule
from tests.support.dense_schedule import lowered

PATTERNS = [
    ("causal_window", {"w": 100}, 500, "natural"),
    ("dilated", {"left": 9, "d": 8}, 700, "auto"),
    ("longformer", {"w": 40, "g": 3}, 333, "natural"),
    ("strided", {"s": 16}, 400, "auto"),
    ("strided_by_head", {"s": 16}, 300, "auto"),
    ("bigbird", {"b": 16, "count": 2}, 320, "natural"),
    ("power_of_two", {}, 900, "natural"),
    ("full", {}, 900, "natural"),
]


def running(name: str, values: dict[str, int], length: int, layout: str) -> list[Schedule]:
    """The schedules that a call with two heads runs on a CPU."""
    pattern = attndsl.compile(name, **values)
    return list(pattern.running(length, heads=2, head_dim=16, layout=layout))


class Counter:
    """Wraps the kernels and the places that a call touches, and counts what passes through them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen = dict.fromkeys(TERMS, 0)
        for name in ("flash", "flash_backward"):
            monkeypatch.setattr(strip_passes, name, self.kernel(getattr(strip_passes, name)))
        monkeypatch.setattr(strip_passes, "_bias", self.bias(strip_passes._bias))
        read, add = Index.read, {kind: kind.add for kind in (Index, Span)}
        monkeypatch.setattr(Index, "read", lambda places, x: self.gather(read(places, x), places))
        for kind in (Index, Span):
            monkeypatch.setattr(
                kind,
                "add",
                lambda places, x, value, kind=kind: self.add(add[kind], places, x, value),
            )

    def kernel(self, run):
        def counted(*tensors, attn_mask=None, **options):
            backward = len(tensors) > 5
            q, k = tensors[1:3] if backward else tensors[:2]
            (items, heads, queries, width), keys = q.shape, k.shape[2]
            size = next(size for least, size in BLOCKS if queries >= least)
            blocks = items * heads * len(range(0, queries, size))
            self.seen["calls"] += 1
            self.seen["blocks"] += blocks * len(range(0, keys, STRETCH))
            self.seen["loaded"] += blocks * keys * width
            self.seen["weights"] += items * heads * queries * keys
            self.seen["products"] += items * heads * queries * keys * width
            self.seen["masked"] += items * heads * queries * keys * (attn_mask is not None)
            return run(*tensors, attn_mask=attn_mask, **options)

        return counted

    def bias(self, run):
        def counted(strip, like):
            made = run(strip, like)
            self.seen["biases"] += 0 if made[0] is None else made[0].numel()
            return made

        return counted

    def gather(self, value, places):
        # A mask shared by all items is copied once.
        self.seen["gathered"] += value.numel() // (places.items if len(places.index) == 1 else 1)
        return value

    def add(self, run, places, x, value):
        self.seen["merged"] += value.numel()
        phases = len(range(0, places.length, places.step)) if getattr(places, "step", 0) else 1
        self.seen["additions"] += len(places.index) if isinstance(places, Index) else phases
        return run(places, x, value)


def runs(schedule: Schedule) -> Iterator[dict[str, float]]:
    """Operations counted in a forward and a backward pass of two heads of 16."""
    lengths = schedule.q_len, schedule.k_len, schedule.k_len, schedule.q_len
    q, k, v, dout = (torch.randn(1, 2, n, 16) for n in lengths)
    request = Request.of(q, k, v, gradient=True)
    kernels = lowered(backends.Blocked(), request, lambda tile: schedule)
    kernels = replace(
        kernels, square=None
    )  # whole squares take one call, whose time tiles predict well
    with pytest.MonkeyPatch.context() as patch:
        seen = Counter(patch).seen
        out, lse = kernels.forward(q, k, v, scale=0.25)
    yield seen
    with pytest.MonkeyPatch.context() as patch:
        seen = Counter(patch).seen
        kernels.backward(q, k, v, out, lse, dout, None, scale=0.25)
    yield seen


@pytest.mark.parametrize(("name", "values", "length", "layout"), PATTERNS)
@pytest.mark.parametrize("budget", [strip_passes.BUDGET, 1 << 18])
def test_counts_are_those_of_what_runs(name, values, length, layout, budget, monkeypatch):
    monkeypatch.setattr(strip_passes, "BUDGET", budget)
    kernel = ("calls", "blocks", "loaded", "products", "weights", "masked", "biases")
    for schedule in running(name, values, length, layout):
        # Tensors taken in another order have every row gathered; the backend does it by other means.
        plans = (replace(plan, q_order=None, k_order=None) for plan in schedule.plans)
        plain = replace(schedule, plans=tuple(plans))
        told = work_counts(plain, 16, heads=2)
        for each, seen, terms in zip(
            told, runs(plain), (kernel, (*kernel, "additions", "merged")), strict=True
        ):
            assert {term: getattr(each, term) for term in terms} == {
                term: seen[term] for term in terms
            }
        forward, seen = told[0], next(runs(plain))
        indexed = [s for p in batches_of(plain) for s in p if isinstance(s.queries, Index)]
        if not indexed:
            assert forward.gathered == seen["gathered"]


def test_merging_writes_what_is_not_fresh():
    (schedule,) = running("longformer", {"w": 40, "g": 3}, 333, "natural")
    block_batches = batches_of(schedule)[0]
    old = sum(s.queries.items * s.queries.length for s in block_batches if not s.first_writer)
    assert old > 0
    assert work_counts(schedule, 16, heads=2)[0].merged == 2 * 16 * old


def test_heads_of_different_plans_are_counted_by_their_plans():
    (schedule,) = running("strided_by_head", {"s": 16}, 300, "auto")
    apart = sum(
        (
            work_counts(replace(schedule, plan_of=np.array([[n]], np.int32)), 16)[0]
            for n in schedule.plan_of[0]
        ),
        start=WorkCounts(),
    )
    assert work_counts(schedule, 16, heads=2)[0] == apart


def seconds(
    name: str, length: int = 4096, heads: int = 4, head_dim: int = 64, **values: int
) -> float:
    found = attndsl.compile(name, **values).predict(length, heads=heads, head_dim=head_dim)
    assert found.forward < found.backward
    return found.both


def test_more_work_takes_longer():
    ladders = [
        [seconds("causal_window", w=w) for w in (64, 256, 1024)] + [seconds("causal")],
        [seconds("window", length=n, left=64) for n in (512, 1024, 4096, 16_384)],
        [seconds("causal_window", w=256, heads=h) for h in (1, 2, 8)],
        [seconds("causal_window", w=256, head_dim=d) for d in (16, 64, 128)],
        [seconds("longformer", w=64, g=g) for g in (0, 4, 64)],
    ]
    assert ladders == [sorted(ladder) for ladder in ladders]
    dense = backends.predict_dense(4096, 4096, 64, REFERENCE, heads=4).both
    assert ladders[0][-1] < dense == pytest.approx(seconds("full"), rel=0.4)


def test_threads_share_the_work_but_not_the_calls():
    effort = WorkCounts(calls=10, products=1e9)
    one, four = REFERENCE, replace(REFERENCE, threads=4)
    calls = one.seconds(WorkCounts(calls=10), WorkCounts()).forward
    products = one.seconds(WorkCounts(products=1e9), WorkCounts()).forward
    assert one.seconds(effort, WorkCounts()).forward == pytest.approx(calls + products)
    assert four.seconds(effort, WorkCounts()).forward == pytest.approx(calls + products / 4)


def test_factors_explain_times_of_efforts_that_were_not_measured():
    rng = np.random.default_rng(0)
    usual = np.array(astuple(REFERENCE.forward))
    true = usual * 3 * rng.uniform(0.7, 1.4, len(TERMS))
    counts = rng.exponential(1e6 / usual, (60, len(TERMS)))
    times = counts @ true * 1e-9
    rows = [WorkCounts(*each) for each in counts[:40].tolist()]
    found = timing.fitted(rows, times[:40], REFERENCE.forward).vector()
    assert np.allclose(counts[40:] @ found * 1e-9, times[40:], rtol=0.1)
    assert not np.allclose(counts[40:] @ usual * 3e-9, times[40:], rtol=0.1)
    noisy = timing.fitted(rows, times[:40] * rng.uniform(0.1, 9, 40), REFERENCE.forward)
    assert min(astuple(noisy)) >= 0


def test_this_machine_is_measured_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timing, "ROUNDS", 1)
    timing._measured.cache_clear()
    found = timing.this_machine()
    assert found is timing.this_machine()
    assert min(*astuple(found.forward), *astuple(found.backward)) >= 0
    assert attndsl.compile("causal").predict(512, machine=found).both > 0
    timing._measured.cache_clear()


SQUARE = {"y": 64, "x": 64}


@pytest.mark.parametrize(
    ("text", "others"),
    [
        ("pattern p over image = neighborhood2d(7)", ("boxes(y=8, x=8)", "boxes(y=4, x=16)")),
        ("pattern p over image = neighborhood2d(13)", ("boxes(y=8, x=8)", "boxes(y=2, x=32)")),
        ("pattern p over image = maxvit_grid(8)", ("residues(y=8, x=8)",)),
        # A first look at a few rows takes another order for twice as cheap.
        ("pattern p over image = box2d(5, 5, 4)", ("residues(y=4, x=4)", "boxes(y=8, x=8)")),
        ("pattern p over image = cross2d", ("axes(x, y)",)),
    ],
)
def test_the_order_taken_is_within_a_tenth_of_the_best_by_the_same_prediction(text, others):
    pattern = attndsl.compile(text)

    def told(layout: str) -> float:
        return pattern.predict(4096, heads=4, layout=layout, extents=SQUARE).both

    assert told("auto") <= 1.1 * min(map(told, ("natural", *others)))


def test_the_search_goes_by_the_reference_whatever_the_machine():
    assert tile_costs_of(4, 64) is tile_costs_of(4, 64)
    (schedule,) = running("causal_window", {"w": 100}, 500, "natural")
    cost_model = tile_costs_of(4, 64).cost_model
    assert cost_model is not None
    assert cost_model([schedule]) == backends.predict([schedule], 64, REFERENCE, heads=4).both
