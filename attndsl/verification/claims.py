"""Facts and claims evaluated on a dense mask, to check proved facts and all claims against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from attndsl import ir
from attndsl.analysis import Distance, Far, Reach, separators
from attndsl.claims import Judgement
from attndsl.compiled import Pattern
from attndsl.passes import normalise
from attndsl.verification.references import Fault

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
    first = max(0, -position)  # rows before the first token see nothing
    wrong[:, :, first + 1 :, 1:] = dense[:, :, first + 1 :, 1:] ^ dense[:, :, first:-1, :-1]
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


def frames(p: Pattern, facts: Mapping[str, Any]) -> dict[str, Pattern]:
    """Patterns that contain ``p`` if what is proved of it is true, by what is proved.

    ``block_diagonal``: a query sees keys of its class alone, for each function that is said to tell
    classes. The reach along an axis: coordinates of a pair are no farther apart.
    """
    found = {}
    if str(facts.get("block_diagonal")) == "proved":
        same = ir.conj(*map(_same_at_both, separators(normalise(p.ir).root)))
        found["block_diagonal: proved"] = same
    reach = facts.get("reach")
    if isinstance(reach, Reach) and reach.axes:
        axes = [(each, axis.name) for each in p.ir.keys.segments for axis in each.axes]
        for (segment, name), (_, back, ahead) in zip(axes, reach.axes, strict=True):
            said = f"reach: {name}: {back} back, {ahead} ahead"
            found[said] = ir.conj(*_near(segment.name, name, back, ahead))
    return {said: Pattern(p.ir.with_root(root), p.layer) for said, root in found.items()}


def _same_at_both(function: ir.Node) -> ir.Node:
    here, there = ir.Pos(ir.Side.QUERY), ir.Pos(ir.Side.KEY)
    return ir.eq(function, ir.substitute(function, {here: there}))


def _near(segment: str, axis: str, back: Distance, ahead: Distance) -> Iterator[ir.Node]:
    """The pairs within the segment that the bounds allow."""
    mine, theirs = (ir.Coord(side, f"{segment}.{axis}") for side in ir.Side)
    inside = ir.conj(*(ir.Inside(side, segment) for side in ir.Side))
    for apart, bound in ((ir.sub(mine, theirs), back), (ir.sub(theirs, mine), ahead)):
        if isinstance(bound, int):
            yield ir.implies(inside, ir.le(apart, ir.Const(bound)))
        elif bound is Far.NOWHERE:
            yield ir.negate(inside)


def claim_fault(judgements: Sequence[Judgement]) -> Fault | None:
    """The first claim that fails at a call."""
    for each in judgements:
        if (example := each.example) is not None:
            axes = ("batch", "head", "query", "key")
            place = {axis: getattr(example, axis) for axis in axes}
            place = {axis: index for axis, index in place.items() if index is not None}
            return Fault("asserts", place, example.finding or "it does not hold", each.claim.text)
    return None


def frame_fault(frames: Mapping[str, BoolArray], dense: BoolArray) -> Fault | None:
    """The first pair outside a frame, see ``frames``; all masks bool [batch, heads, q_len, k_len]."""
    for said, frame in frames.items():
        for place in np.argwhere(dense & ~frame):
            return Fault("facts", _pair(place), "in the pattern", f"what `{said}` says")
    return None


def _pair(place: Any) -> dict[str, int]:
    return dict(zip(("batch", "head", "query", "key"), map(int, place), strict=True))


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
            said = "in the pattern" if dense[tuple(place)] else "not in the pattern"
            return Fault("facts", _pair(place), said, f"what `{name}: {fact}` says")
    return None
