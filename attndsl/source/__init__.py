"""Floor 0: where things were written, and what to say when they are wrong. Standard library only.

``Source`` and ``Span`` are places in a text, ``Diagnostic`` is a fault with labels on such places,
``render`` is its text, ``AttnDslError`` carries one or more of them to the user.
"""

from .diagnostics import AttnDslError, Diagnostic, InternalError, Label, brief, suggest
from .rendering import printable, render, render_all
from .spans import NOWHERE, Source, Span

__all__ = [
    "NOWHERE",
    "AttnDslError",
    "Diagnostic",
    "InternalError",
    "Label",
    "Source",
    "Span",
    "brief",
    "printable",
    "render",
    "render_all",
    "suggest",
]
