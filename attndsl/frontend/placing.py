"""How the queries of a pattern are placed when there are fewer or more of them than keys."""

from __future__ import annotations

from attndsl import ir
from attndsl.source import AttnDslError, Span, brief

from .errors import make_error
from .spaces import Pair


def placed(pair: Pair, name: str, written: str | None, asked: str | None, span: Span) -> ir.Align:
    """The alignment that a pattern says itself; or else the one asked for; or else the usual one.

    Args:
        pair: Its spaces. Positions in different ones are counted from their starts.
        name: What errors call the pattern.
        written: "start", "end", or None where the pattern says nothing.
        asked: Likewise, by whoever compiles it.
        span: Where it is written.

    Raises:
        AttnDslError: A212, there is no such alignment, the two differ, or the spaces do.
    """
    if asked is not None and asked not in set(ir.Align):
        raise AttnDslError(
            make_error("A212", f'align is "start" or "end", not {brief(asked)}', span)
        )
    if written is not None and asked not in (None, written):
        title = f"`{name or 'the pattern'}` is aligned at the {written}, not at the {asked}"
        raise AttnDslError(make_error("A212", title, span, "it says so itself"))
    usual = ir.Align.START if pair.is_rectangular else ir.Align.END
    place = ir.Align(asked or written or usual)
    if place is ir.Align.END and pair.is_rectangular:
        title = "positions in different spaces cannot be aligned at their ends"
        raise AttnDslError(make_error("A212", title, span))
    return place
