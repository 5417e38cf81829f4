"""What holds for every length, proved from the IR alone.

A fact is proved by interval reasoning over all positions (up to 2**40), or left undecided. Nothing here
guesses: undecided means that this analysis found no proof, not that the fact is false.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import numpy as np

from attndsl import ir
from attndsl.analysis.boxes import Interpreter
from attndsl.analysis.ranges import Range, Truths

FAR: Final = 1 << 40


class Fact(StrEnum):
    """How a claim stands."""

    PROVED = "proved"
    UNDECIDED = "not decided"


def facts(mask: ir.Mask) -> dict[str, Fact]:
    """Facts of a normal mask: causal, symmetric, translation_invariant, sees_itself, per_head, per_batch."""
    root = mask.root
    claims = {
        "causal": is_causal(root),
        "symmetric": _swapped(root) is root,
        "translation_invariant": is_translation_invariant(root),
        "sees_itself": sees_itself(root),
        "same_for_all_heads": not root.rank & ir.Rank.HEAD,
        "same_for_all_batches": not root.rank & ir.Rank.BATCH,
    }
    return {name: Fact.PROVED if true else Fact.UNDECIDED for name, true in claims.items()}


def is_causal(root: ir.Node) -> bool:
    """No query sees a later key: the pattern at k = q + d is empty for every d >= 1."""
    distance = ir.Index(_DISTANCE)
    shifted = ir.substitute(root, {_K: ir.add(_Q, distance)})
    return not _truths(shifted, {distance: (1, FAR)}).may_hold[0]


def sees_itself(root: ir.Node) -> bool:
    """Every query sees the key of its own position; so no row is empty when lengths are equal."""
    return not _truths(ir.substitute(root, {_K: _Q}), {}).may_fail[0]


def is_translation_invariant(root: ir.Node) -> bool:
    """Whether a pair is in depends on k - q alone: moving both by any amount changes no expression."""
    moved = ir.Index(_DISTANCE)
    values: dict[ir.Node, ir.Node] = {_Q: ir.add(_Q, moved), _K: ir.add(_K, moved)}
    return ir.substitute(root, values) is root


# A level no quantifier of a real program reaches: the analysis' own variable.
_DISTANCE = 1 << 20
_Q, _K = ir.Pos(ir.Side.QUERY), ir.Pos(ir.Side.KEY)


def _swapped(root: ir.Node) -> ir.Node:
    return ir.substitute(root, {_Q: _K, _K: _Q})


def _truths(root: ir.Node, ranges: dict[ir.Node, tuple[int, int]]) -> Truths:
    def known(node: ir.Node) -> Range | Truths | None:
        match node:
            case ir.Pos():
                return _range(-FAR, FAR)
            case ir.Size():
                return _range(0, FAR)
            case ir.Var():
                return _range(0, FAR)
            case ir.Index() if node in ranges:
                return _range(*ranges[node])
            case _:
                return None

    return Interpreter(known, np.zeros(1, dtype=object)).truths(root)


def _range(low: int, high: int) -> Range:
    return Range(np.array([low], dtype=object), np.array([high], dtype=object))
