"""Diagnostics as data; the text a user reads is rendered from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from .spans import Span

MOST_SHOWN = 10
"""So many errors are written out together; more are only counted."""


@dataclass(frozen=True, slots=True)
class Label:
    """A remark under a place: ``^`` for the culprit (primary), ``-`` for its cause."""

    span: Span
    text: str = ""
    primary: bool = True


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One fault.

    Families of codes: A1 syntax, A2 names and types, A3 meaning, A4 lengths and schedules,
    A5 tensors at run time, A6 the command line, A9 a fault of attndsl itself.
    """

    code: str
    title: str
    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    helps: tuple[str, ...] = ()

    @property
    def span(self) -> Span | None:
        """Where to look first: the first primary label, else the first label."""
        ordered = sorted(self.labels, key=lambda label: not label.primary)
        return ordered[0].span if ordered else None


class AttnDslError(Exception):
    """An error of the user; ``str(error)`` shows where and why.

    Attributes:
        diagnostics: All faults found together, in the order of the text; never empty.
    """

    def __init__(self, diagnostics: Iterable[Diagnostic] | Diagnostic) -> None:
        """Take one fault or several."""
        given = (diagnostics,) if isinstance(diagnostics, Diagnostic) else tuple(diagnostics)
        if not given:
            raise ValueError("an AttnDslError needs a diagnostic")
        super().__init__(given)  # `args` is what pickle and copy hand back to `__init__`
        self.diagnostics = given

    @property
    def code(self) -> str:
        """The code of the first fault."""
        return self.diagnostics[0].code

    def __str__(self) -> str:
        from .rendering import render_all

        return render_all(self.diagnostics)


class InternalError(AttnDslError):
    """attndsl broke a promise of its own: a bug to report, whatever the input was."""

    def __init__(self, diagnostics: Iterable[Diagnostic] | Diagnostic | str) -> None:
        """Take the broken promise in words, or ready diagnostics (A9)."""
        if isinstance(diagnostics, str):
            diagnostics = Diagnostic(
                code="A901",
                title=diagnostics,
                notes=("this is a bug in attndsl, not in the pattern; please report it",),
            )
        super().__init__(diagnostics)


def brief(value: object, most: int = 40) -> str:
    """A value as Python writes it, for an error; its type, where that is long or cannot be had."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - of a huge integer or a stranger's object anything may be raised
        text = ""
    return text if 0 < len(text) <= most else f"a value of type {type(value).__name__}"


def suggest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that ``name`` was probably meant to be, if one is near.

    >>> suggest("widow", ["window", "causal"])
    'window'
    """
    if not 0 < len(name) <= 64:  # the comparison is quadratic, and no one mistypes a page
        return None
    known = sorted({candidate for candidate in candidates if len(candidate) <= 64})
    folded = {candidate.casefold(): candidate for candidate in known}
    near = get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    return folded[near[0]] if near else None
