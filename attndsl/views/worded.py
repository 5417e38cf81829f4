"""Results that are words, as notebooks show them."""

from __future__ import annotations

from html import escape


class Worded:
    """A result whose ``str`` is written to be read: a notebook shows it in its own layout, never as HTML."""

    __slots__ = ()

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"
