"""The order in which a call that names none takes its tokens into tiles."""

from __future__ import annotations

from typing import Final

from attndsl import ir
from attndsl.schedule import Call

SEARCHED: Final = 512  # tokens of a side, below which no order is looked for unless asked


def default_layout(mask: ir.Mask, call: Call, device: str) -> str:
    """The layout of calls that name none: that of ranks, "auto" where it is known to pay, else "natural".

    On CPUs alone, where it was measured, and not of few tokens, where an order costs more than it saves. "auto" is not
    taken where run-time inputs or positions would decide the order, so that equal calls give equal bits whatever was
    called before.
    """
    if device != "cpu" or min(call.q_len, call.k_len) < SEARCHED or call.positions is not None:
        return "natural"
    if not call.tables:
        return "auto"
    ranks = [_rank_of(side, mask) for side in ir.Side]
    return "natural" if None in ranks else "/".join(f"sorted({name})" for name in ranks)


def _rank_of(side: ir.Side, mask: ir.Mask) -> str | None:
    """The rank that the relation reads at the tokens of a side, where it reads one; the places are then an order."""
    ranks = {each.name for each in mask.selections if isinstance(each, ir.Rank)}
    read = {
        node.table
        for node in ir.postorder(mask.root)
        if isinstance(node, ir.Load)
        and node.table in ranks
        and node.deps & ir.Deps.PAIR == side.deps
    }
    return read.pop() if len(read) == 1 else None
