"""Facts of a pattern: for all lengths, proved or refuted by an example; at one length, exactly."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np

from attndsl import analysis, ir
from attndsl.analysis import Fact, Reach
from attndsl.claims.examples import MOST_STEPS, BoolArray, Ranges, calls, dense, steps
from attndsl.claims.graph import Components, TokenGraph
from attndsl.claims.rows import (
    Rows,
    ShortArray,
    diagonal_is_seen,
    distances,
    is_symmetric,
    rows_without_keys,
)
from attndsl.schedule import Call, Plan, Schedule
from attndsl.source import AttnDslError

FactValue: TypeAlias = Fact | Reach | Rows | Components

_TRIED = 64  # short calls on which undecided facts are tried
_LONGEST = 12
_FARTHEST = 1_500  # the largest number of a pattern that one more call goes beyond


def facts(mask: ir.Mask, normal: ir.Mask, layer: int = 0) -> dict[str, FactValue]:
    """Properties for every length (see `analysis.facts`), and the ``reach``.

    A property that could not be proved is tried on small calls, and on one that is long enough for the numbers in the
    pattern to matter, so that most of what is false says so.
    """
    found = analysis.facts(normal)
    ranges = Ranges.of(mask, (mask.root,), layer)
    short = itertools.islice(calls(mask, ranges, 1, _LONGEST), _TRIED)
    left = MOST_STEPS
    for call in itertools.chain(short, _long(mask, ranges)):
        left -= steps(call, mask.root)
        if Fact.UNDECIDED not in found.values() or left < 0:
            break
        try:
            pairs = dense(mask, call)
        except AttnDslError:  # a quantifier too wide to be tried
            break
        truth = _holds(pairs, mask.shift(call.q_len, call.k_len))
        for name, fact in found.items():
            if fact is Fact.UNDECIDED and not truth.get(name, True):
                found[name] = Fact.REFUTED
    return {**found, "reach": analysis.reach(mask, normal)}


def _long(mask: ir.Mask, ranges: Ranges) -> Iterator[Call]:
    """A call that goes beyond every number of the pattern, where tokens are not on grids."""
    far = max((n for n in ir.numbers(mask.root) if n <= _FARTHEST), default=0)
    if far >= _LONGEST and not mask.queries.segments and not mask.keys.segments:
        yield from itertools.islice(calls(mask, ranges, far + _LONGEST, far + _LONGEST), 1)


def _holds(pairs: BoolArray, shift: int) -> dict[str, bool]:
    """The facts that hold in the dense mask of one call, bool [batch, heads, q_len, k_len]."""
    q_len, k_len = pairs.shape[2:]
    square = q_len == k_len
    return {
        "causal": not np.triu(pairs, 1 + shift).any(),
        "symmetric": not square or np.array_equal(pairs, pairs.swapaxes(2, 3)),
        "translation_invariant": np.array_equal(pairs[..., :-1, :-1], pairs[..., 1:, 1:]),
        "sees_itself": not square or bool(pairs.diagonal(0, 2, 3).all()),
        "every_row_non_empty": k_len < q_len or bool(pairs.any(axis=3).all()),
        "same_for_all_heads": bool((pairs == pairs[:, :1]).all()),
        "same_for_all_batches": bool((pairs == pairs[:1]).all()),
    }


def facts_at(mask: ir.Mask, call: Call, schedule: Schedule) -> dict[str, FactValue]:
    """The truth at one call, from its schedule: no fact is undecided.

    Beside `analysis.facts` (but for translation invariance): ``rows_without_keys``, the ``reach`` and,
    for as many queries as keys of one space, the ``classes`` of tokens that nothing joins.

    Args:
        mask: The pattern.
        call: Lengths, heads, inputs.
        schedule: Its schedule, in natural order with square tiles.
    """
    rows = rows_without_keys(schedule)
    ends = distances(schedule, mask.shift(call.q_len, call.k_len))
    nowhere = analysis.Far.NOWHERE
    reach = Reach(nowhere, nowhere) if ends is None else Reach(ends[1], -ends[0])
    truths = {
        "causal": ends is None or ends[0] >= 0,
        "every_row_non_empty": len(rows) == 0,
        "same_for_all_heads": _alike(schedule, schedule.plan_of[:, :1]),
        "same_for_all_batches": _alike(schedule, schedule.plan_of[:1]),
    }
    found: dict[str, FactValue] = {"rows_without_keys": rows, "reach": reach}
    if call.q_len == call.k_len and not mask.is_rectangular:
        classes = TokenGraph(schedule).components()
        found["classes"] = classes
        truths["symmetric"] = is_symmetric(schedule)
        truths["sees_itself"] = diagonal_is_seen(schedule)
        truths["block_diagonal"] = len(classes) > 1
    return {**_stated(truths), **found}


def _stated(truths: Mapping[str, bool]) -> dict[str, Fact]:
    return {name: Fact.PROVED if true else Fact.REFUTED for name, true in truths.items()}


def _alike(schedule: Schedule, first: ShortArray) -> bool:
    """Whether every (batch, head) has the pairs that the first one along a dim has."""
    pairs = np.stack(np.broadcast_arrays(schedule.plan_of, first), axis=-1).reshape(-1, 2)
    return all(
        _same_pairs(schedule.plans[a], schedule.plans[b]) for a, b in np.unique(pairs, axis=0)
    )


def _same_pairs(one: Plan, other: Plan) -> bool:
    """Equal masks have equal ids, so plans hold the same pairs just if their arrays are equal."""
    return (
        np.array_equal(one.full.pairs(), other.full.pairs())
        and np.array_equal(one.partial.pairs(), other.partial.pairs())
        and np.array_equal(one.mask_ids, other.mask_ids)
    )
