"""Selections in Python: ``past = select("past", dot(q, block.mean()), top(7), over=block, where=block.end <= q)``.

Asked in a pattern by ``k.isin(past[q])``; labels and ranks by ``bucket[k]``. Each builds what its text form does.
"""

from attndsl.frontend import (
    Blocks,
    Chosen,
    Tiles,
    above,
    blocks,
    exceeds,
    fold,
    label,
    rank,
    reaching,
    sample,
    scale,
    select,
    tiles,
    top,
    unit,
    within,
)

__all__ = [
    "Blocks",
    "Chosen",
    "Tiles",
    "above",
    "blocks",
    "exceeds",
    "fold",
    "label",
    "rank",
    "reaching",
    "sample",
    "scale",
    "select",
    "tiles",
    "top",
    "unit",
    "within",
]
