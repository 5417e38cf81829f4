"""How long the CPU backend takes over a schedule, predicted from what its strips make it do.

    seconds  =  sum over the counts of an Effort of  count x factor

Factors are those of a reference core, always the same, or of this machine, after a measurement that takes
less than a second: kernels, gathering and merging are run on strips of a few shapes, and the factors
that explain their times best, yet stay near the reference where nothing speaks against it, are taken.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import numpy as np
import torch

from attndsl.backends.block_batches import BlockBatch, InStrips
from attndsl.backends.places import Index, Span
from attndsl.backends.strip_passes import HeadGroup, backward_unit, forward_unit
from attndsl.backends.work_counts import (
    TERMS,
    FloatArray,
    WorkCounts,
    backward_of,
    dense_work_counts,
    forward_of,
    work_counts,
)
from attndsl.schedule import Schedule, TileCosts

TRUST = 0.03  # how far a factor is drawn to the reference, against one measurement
ROUNDS = 4
HEADS, WIDTH, TOKENS = 2, 64, 2048  # of the tensors that are measured with


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds."""

    forward: float
    backward: float

    @property
    def both(self) -> float:
        """A forward and a backward pass."""
        return self.forward + self.backward


@dataclass(frozen=True, slots=True)
class Machine:
    """Nanoseconds of one of each count of an Effort, on one thread, and how many threads there are."""

    name: str
    forward: WorkCounts
    backward: WorkCounts
    threads: int = 1

    def seconds(self, forward: WorkCounts, backward: WorkCounts) -> Times:
        """The time of a call of such efforts, in float32."""
        return Times(
            _seconds(forward, self.forward, self.threads),
            _seconds(backward, self.backward, self.threads),
        )

    def record(self) -> dict[str, Any]:
        """The value as plain data."""
        return asdict(self)


# Fitted to the times of some forty patterns, each in a few orders of tokens, on one core of an EPYC (Zen 4).
# The factor of biases is not of that fit: they are made faster since, by a measurement on Zen 3, scaled.
REFERENCE: Final = Machine(
    "a reference core",
    WorkCounts(
        calls=45_000,
        additions=6_000,
        blocks=800,
        loaded=0.39,
        products=0.042,
        weights=0.58,
        masked=0.06,
        biases=0.3,
        gathered=0.65,
        moved=0.61,
        merged=3.4,
    ),
    WorkCounts(
        calls=29_000,
        additions=8_600,
        blocks=410,
        loaded=0.3,
        products=0.11,
        weights=1.41,
        masked=0.07,
        biases=0.3,
        gathered=0.63,
        moved=0.17,
        merged=1.7,
    ),
)
SERIAL: Final = np.array([name in ("calls", "additions", "biases") for name in TERMS])


@functools.cache
def tile_costs_of(heads: int, head_dim: int) -> TileCosts:
    """Costs that the search for a token order uses: the prediction for the reference core.

    Not for this machine: the order is part of what a call computes, and must not depend on a measurement.
    """

    def cost_model(parts: Sequence[Schedule]) -> float:
        return predict(parts, head_dim, REFERENCE, heads=heads).both

    return TileCosts(
        gathers=True, cost_model=cost_model, name=f"reference core, {heads} heads of {head_dim}"
    )


def predict(
    parts: Sequence[Schedule | InStrips],
    head_dim: int,
    machine: Machine,
    *,
    heads: int = 1,
    batch: int = 1,
) -> Times:
    """The time of a call that runs these disjoint parts, one after the other, and merges them.

    Args:
        parts: schedules in tiles of ``best_tile``: what the backend asks for; or whole blocks.
        head_dim: size of queries, keys and values.
        machine: what each count takes.
        heads: query heads; keys have as many.
        batch: batch elements.
    """
    forward, backward = WorkCounts(), WorkCounts()
    for part in parts:
        more = work_counts(part, head_dim, heads=heads, batch=batch)
        forward, backward = forward + more[0], backward + more[1]
    tokens = (len(parts) - 1) * batch * heads * head_dim
    forward += WorkCounts(merged=tokens * parts[0].q_len)
    backward += WorkCounts(merged=tokens * (parts[0].q_len + 2 * parts[0].k_len))
    return machine.seconds(forward, backward)


def predict_dense(
    q_len: int, k_len: int, head_dim: int, machine: Machine, *, heads: int = 1, batch: int = 1
) -> Times:
    """The time of attention over all pairs, by the same kernels and without a mask."""
    return machine.seconds(*dense_work_counts(q_len, k_len, head_dim, heads=heads, batch=batch))


def _seconds(counts: WorkCounts, factors: WorkCounts, threads: int) -> float:
    """Kernels and copies are shared out among threads; calls, additions and masks are made by one."""
    nanoseconds = counts.vector() * factors.vector()
    return float((nanoseconds / np.where(SERIAL, 1, threads)).sum()) * 1e-9


# ---------------------------------------------------------------------------- measuring


def this_machine() -> Machine:
    """This machine with as many threads as torch has now, measured once a process: half a second."""
    return _measured(torch.get_num_threads())


@functools.cache
def _measured(threads: int) -> Machine:
    tensors = [torch.ones(HEADS, TOKENS, WIDTH) for _ in range(8)]
    level = torch.zeros(HEADS, TOKENS)
    q, k, v, out, dout, dq, dk, dv = tensors
    found: list[WorkCounts] = []
    for factors, count, run, of_queries, of_keys in (
        (REFERENCE.forward, forward_of, forward_unit, [q, out, level], [k, v]),
        (REFERENCE.backward, backward_of, backward_unit, [q, out, dout, level, dq], [k, v, dk, dv]),
    ):
        rows = [count(strip, HEADS, WIDTH) for strip in _samples()]
        units = [HeadGroup((strip,), list(of_queries), list(of_keys)) for strip in _samples()]
        taken = _shortest([functools.partial(run, unit, WIDTH**-0.5) for unit in units])
        found.append(fitted(rows, taken, factors))
    forward, backward = found
    return Machine(f"this CPU, {threads} thread{'s' * (threads > 1)}", forward, backward)


def _samples() -> Iterator[BlockBatch]:
    """Strips of a few shapes, which differ in what they spend their time on."""
    shapes = ((1, 16, 16), (32, 8, 128), (16, 32, 128), (16, 64, 64), (4, 64, 1024), (2, 192, 512))
    for items, queries, keys in (*shapes, (1, 768, 768)):
        yield _sample(items, queries, keys)
    yield replace(_sample(8, 64, 256), mask=_mask(1, 64, 256))
    yield replace(_sample(8, 64, 256), mask=_mask(8, 64, 256))
    yield replace(_sample(16, 64, 32), first_writer=False)
    for lists in (1, 16):
        rows = (np.arange(lists * 64) * 7919 % TOKENS).reshape(lists, 64)
        yield replace(_sample(16, 64, 64), keys=Index(rows, 16))
        if lists > 1:
            yield replace(_sample(16, 64, 64), queries=Index(rows, 16))


def _sample(items: int, queries: int, keys: int) -> BlockBatch:
    windows = [Span(0, (TOKENS - n) // items, items, n) for n in (queries, keys)]
    return BlockBatch(windows[0], windows[1], mask=None, first_writer=True)


def _mask(lists: int, queries: int, keys: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Causal in each row of keys, so that no query is without one."""
    kept = np.arange(keys) <= np.arange(queries)[:, None] + (keys - queries)
    return np.packbits(np.broadcast_to(kept, (lists, queries, keys)), axis=-1)


def _shortest(runs: Sequence[Callable[[], None]]) -> FloatArray:
    """Seconds of the shortest of some rounds that take turns, [len(runs)]."""
    # On one thread by a clock that is deaf to other programs.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    taken = np.full((ROUNDS + 1, len(runs)), np.inf)
    for turn in range(ROUNDS + 1):
        for number, run in enumerate(runs):
            start = clock()
            run()
            taken[turn, number] = clock() - start
    return np.asarray(taken[1:].min(axis=0))


def fitted(rows: Sequence[WorkCounts], seconds: FloatArray, reference: WorkCounts) -> WorkCounts:
    """Factors, none negative, that explain the times of these efforts, drawn to the reference.

    Least squares of relative errors; a machine that is slower at everything alike is no deviation.
    """
    scale = reference.vector() * 1e-9
    shares = np.stack([row.vector() for row in rows]) * scale / seconds[:, None]
    usual = 1 / float(np.median(shares.sum(1)))
    matrix = shares.T @ shares + TRUST * np.eye(len(scale))
    wanted = shares.sum(0) + TRUST * usual
    found = np.full(len(scale), usual)
    for _ in range(500):  # coordinate descent: the minimum is unique
        for j in range(len(scale)):
            found[j] = max(0.0, found[j] + (wanted[j] - matrix[j] @ found) / matrix[j, j])
    return WorkCounts(*(found * reference.vector()).tolist())
