"""How this room speaks of faults: short constructors for diagnostics, and words for code."""

from __future__ import annotations

from collections.abc import Iterable

from attndsl.source import AttnDslError, Diagnostic, Label, Span, suggest

MOST_REPORTED = 10


def make_error(
    code: str,
    title: str,
    at: Span | None = None,
    label: str = "",
    *,
    also: Iterable[tuple[Span, str]] = (),
    notes: Iterable[str] = (),
    helps: Iterable[str | None] = (),
) -> Diagnostic:
    """One fault: the culprit ``at``, its causes ``also``."""
    labels = [Label(at, label)] if at is not None else []
    labels += [Label(span, text, primary=False) for span, text in also]
    kept = tuple(text for text in helps if text)
    return Diagnostic(code, title, tuple(labels), tuple(notes), kept)


def did_you_mean(name: str, candidates: Iterable[str]) -> str | None:
    """Help for a name that is nearly another one."""
    near = suggest(name, candidates)
    return f"did you mean `{near}`?" if near else None


def quoted(span: Span, most: int = 40) -> str:
    """Quotes the text of a span, or a word for it where it is long."""
    text = " ".join(span.text.split())
    return f"`{text}`" if 0 < len(text) <= most else "this"


def unbracketed(span: Span) -> str:
    """The text of a span, without the brackets around the whole."""
    text = " ".join(span.text.split())
    return text[1:-1] if text[:1] == "(" and text[-1:] == ")" else text


def listed(names: Iterable[str]) -> str:
    """Names for a sentence: `a`, `b` and `c`."""
    ticked = [f"`{name}`" for name in names]
    return " and ".join(filter(None, (", ".join(ticked[:-1]), ticked[-1]))) if ticked else "none"


def stop_if_any(diagnostics: Iterable[Diagnostic]) -> None:
    """Raise what was found, each once, in the order of the text, at most ten."""
    distinct: dict[object, Diagnostic] = {}
    for each in diagnostics:
        distinct.setdefault((each.code, each.span, each.title), each)
    ordered = sorted(distinct.values(), key=_order)
    if ordered:
        raise AttnDslError(ordered[:MOST_REPORTED])


def _order(diagnostic: Diagnostic) -> tuple[str, int]:
    span = diagnostic.span
    return (span.source.name, span.start) if span else ("", 0)
