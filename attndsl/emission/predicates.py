"""A mask as a function on tensors, to be run in this process."""

from __future__ import annotations

from attndsl import ir
from attndsl.emission.bounds import limits
from attndsl.emission.relations import prepared, written


def predicate(mask: ir.Mask) -> tuple[str, dict[str, str]]:
    """The text of ``in_pattern(q, k, batch, head, ...)``, and the inputs that its other parameters stand for.

    The mask says all lengths itself. The text asks for torch and the functions of ``backends.integers``.

    Raises:
        AttnDslError: A403, numbers of the mask do not fit 64 bits however short sequences are.
    """
    relation = written(mask, 0, limits(mask, prepared(mask, 0)).magnitudes)
    assert not relation.sizes, "lengths are known"
    return relation.in_pattern, relation.tables
