"""What facts say of a dense mask, so that a proved one can be held to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from attndsl.analysis import Far, Reach
from attndsl.verification.truths import Fault

BoolArray: TypeAlias = Any  # np.ndarray of bool

# name -> the pairs (batch, head, query, key) that contradict it, bool of the mask's shape.
# ``position`` is that of query 0.
Judge: TypeAlias = Callable[[BoolArray, int], BoolArray]


def _causal(dense: BoolArray, position: int) -> BoolArray:
    return dense & (_key(dense) > _query(dense, position))


def _symmetric(dense: BoolArray, position: int) -> BoolArray:
    if position or dense.shape[2] != dense.shape[3]:
        return np.zeros_like(dense)
    return dense ^ dense.swapaxes(2, 3)


def _sees_itself(dense: BoolArray, position: int) -> BoolArray:
    return ~dense & (_key(dense) == _query(dense, position))


def _translation_invariant(dense: BoolArray, position: int) -> BoolArray:
    wrong = np.zeros_like(dense)
    wrong[:, :, 1:, 1:] = dense[:, :, 1:, 1:] ^ dense[:, :, :-1, :-1]
    return wrong


def _every_row_non_empty(dense: BoolArray, position: int) -> BoolArray:
    if _has_more_queries(dense) or dense.shape[3] == 0:
        return np.zeros_like(dense)
    return np.broadcast_to(~dense.any(axis=3, keepdims=True), dense.shape)


def _same_for_all_heads(dense: BoolArray, position: int) -> BoolArray:
    return dense ^ dense[:, :1]


def _same_for_all_batches(dense: BoolArray, position: int) -> BoolArray:
    return dense ^ dense[:1]


def _has_more_queries(dense: BoolArray) -> bool:
    """Some facts speak of calls with no more queries than keys."""
    return bool(dense.shape[2] > dense.shape[3])


def _query(dense: BoolArray, position: int) -> Any:
    return np.arange(dense.shape[2])[:, None] + position


def _key(dense: BoolArray) -> Any:
    return np.arange(dense.shape[3])


JUDGES: Mapping[str, Judge] = {
    "causal": _causal,
    "symmetric": _symmetric,
    "sees_itself": _sees_itself,
    "translation_invariant": _translation_invariant,
    "every_row_non_empty": _every_row_non_empty,
    "same_for_all_heads": _same_for_all_heads,
    "same_for_all_batches": _same_for_all_batches,
}


def _beyond(reach: Reach, dense: BoolArray, position: int) -> BoolArray:
    """Pairs that are farther apart than the reach says; it speaks of no more queries than keys."""
    back = _query(dense, position) - _key(dense)
    wrong = np.zeros_like(dense)
    for distance, bound in ((back, reach.back), (-back, reach.ahead)):
        if isinstance(bound, int):
            wrong |= dense & (distance > bound)
        elif bound is Far.NOWHERE:
            wrong |= dense
    return np.zeros_like(wrong) if _has_more_queries(dense) else wrong


def fact_fault(facts: Mapping[str, Any], dense: BoolArray, position: int) -> Fault | None:
    """The first pair that contradicts a proved fact.

    Args:
        facts: What ``Pattern.facts`` says.
        dense: The meaning of one call, bool [batch, heads, q_len, k_len].
        position: That of query 0.
    """
    for name, fact in facts.items():
        if isinstance(fact, Reach):
            wrong = _beyond(fact, dense, position)
        elif name in JUDGES and str(fact) == "proved":
            wrong = JUDGES[name](dense, position)
        else:
            continue
        for place in np.argwhere(wrong):
            axes = ("batch", "head", "query", "key")
            pair = dict(zip(axes, map(int, place), strict=True))
            said = "in the pattern" if dense[tuple(place)] else "not in the pattern"
            return Fault("facts", pair, said, f"what `{name}: {fact}` says")
    return None
