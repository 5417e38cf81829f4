"""Queries that are no tokens: those before the first position, where the ends of fewer keys are aligned.

    root        -->  0 <= q and root            (where there may be such queries)

Law: both sides mean the same, as a query at a negative position sees nothing whatever the root says (see
``ir.Mask.absent``). Calls without such queries need no condition, so that schedules and kernels have it in the
others alone; emitted files, which serve all lengths, have it wherever it is not implied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attndsl import ir
from attndsl.passes.drop_implied import of_every_call

PRESENT: Final = ir.ge(ir.Pos(ir.Side.QUERY), ir.ZERO)


def placed(step: Callable[[ir.Mask], ir.Mask]) -> Callable[[ir.Mask], ir.Mask]:
    """The pass, such that the same queries see nothing where it leaves no word of the query."""

    def keeping(mask: ir.Mask) -> ir.Mask:
        made = step(mask)
        if mask.is_placed and not made.is_placed:
            return made.with_root(ir.conj(PRESENT, made.root))
        return made

    return keeping


def in_every_call(mask: ir.Mask) -> tuple[ir.Node, ir.Node]:
    """The root and the count of zero keys, such that they say themselves which queries see nothing."""
    if not mask.is_placed or mask.align is ir.Align.START or mask.keys.segments:
        return mask.root, mask.zeros
    known = of_every_call(mask, present=False)
    known.learn(mask.root)
    is_implied = known.decide(PRESENT) is True
    root = mask.root if is_implied else ir.conj(PRESENT, mask.root)
    return root, ir.select(PRESENT, mask.zeros, ir.ZERO)
