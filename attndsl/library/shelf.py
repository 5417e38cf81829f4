"""Names, rows and entries of the library, and patterns compiled from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from attndsl import patterns
from attndsl.attentions import Attention
from attndsl.compiled import Pattern
from attndsl.frontend import Given
from attndsl.patterns import Entry
from attndsl.sources import is_attention, joined, read_attention, read_mask


def names() -> tuple[str, ...]:
    """All entries, by row of the catalogue."""
    return patterns.published()


def rows() -> dict[str, tuple[str, ...]]:
    """The entries of each row, "001" to "110"."""
    found: dict[str, tuple[str, ...]] = {}
    for name in names():
        row = describe(name).row
        found[row] = (*found.get(row, ()), name)
    return found


def describe(name: str) -> Entry:
    """Describes an entry, by its name or the number of its row (then its first), or a published selection.

    Raises:
        AttnDslError: A211, there is none.
    """
    return patterns.selection(name) if name in patterns.selections() else patterns.entry(name)


def load(
    name: str,
    /,
    *,
    layer: int = 0,
    align: Literal["start", "end"] | None = None,
    values: Mapping[str, Given] | None = None,
    **named: Given,
) -> Pattern | Attention:
    """An entry, a pattern of the prelude, a published attention or selection, compiled.

    Args:
        name: Its name, or the number of its row.
        layer: The value of ``layer``, where layers differ.
        align: As in ``attndsl.compile``.
        values: For its parameters; the others keep the paper's defaults.
        **named: The same, by name.

    Raises:
        AttnDslError: A2xx and A3xx, what is wrong with the name or the values.
    """
    given = joined(values, named)
    if is_attention(name):
        return Attention(read_attention(name, None, given, align, layer), layer)
    return Pattern(read_mask(name, None, given, align, layer), layer)


def load_pattern(name: str, layer: int, values: Mapping[str, Given]) -> Pattern:
    """An entry, compiled."""
    return Pattern(read_mask(name, None, joined(values, {}), None, layer), layer)


def selections() -> tuple[str, ...]:
    """All published selections, sets that are computed from q and k: names for ``attndsl.compile``."""
    return patterns.selections()


def attentions() -> tuple[str, ...]:
    """All published attentions: biases, caps, sinks, weights and branches over patterns.

    First those that papers name, then those of the library's systems: `hat_attention` of the entry `hat`.
    """
    return patterns.attentions()


def attention(
    name: str,
    /,
    *,
    layer: int = 0,
    values: Mapping[str, Given] | None = None,
    **named: Given,
) -> Attention:
    """A published attention, compiled; ``attndsl.compile`` takes its name as well.

    Args:
        name: Its name.
        layer: The value of ``layer``, where layers differ.
        values: For its parameters; the others keep the paper's defaults.
        **named: The same, by name.

    Raises:
        AttnDslError: A2xx and A3xx, what is wrong with the name or the values.
    """
    return Attention(read_attention(name, None, joined(values, named), None, layer), layer)
