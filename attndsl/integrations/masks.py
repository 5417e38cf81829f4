"""Masks of models joined with patterns: what the integrations share."""

from __future__ import annotations

from typing import Final

import attndsl
from attndsl.ir import Align, Mask, conj
from attndsl.source import AttnDslError, Diagnostic

# Keys that are no padding; an entry for each position of the keys.
NO_PADDING: Final = attndsl.compile(
    "input padding: bool[batch, slots]\npattern no_padding align start = padding[k]"
).ir


def both(mask: Mask, other: Mask) -> Mask:
    """The pairs of two masks, in the spaces of the first, the first query at position 0 unless a call says otherwise.

    Raises:
        AttnDslError: A506, both have an input of one name.
    """
    tables = {table.name: table for table in (*mask.tables, *other.tables)}
    if len(tables) < len(mask.tables) + len(other.tables):
        raise refusal("the mask of the model has an input of the same name")
    ordered = tuple(sorted(tables.values(), key=lambda table: table.name))
    joined = Mask(mask.root, mask.queries, mask.keys, ordered, Align.START, mask.name)
    return joined.with_root(conj(mask.root, other.root))


def refusal(title: str, *helps: str) -> AttnDslError:
    """The error for what a model asks and is not done here."""
    return AttnDslError(Diagnostic("A506", title, helps=helps))
