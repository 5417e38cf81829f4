from __future__ import annotations
from dataclasses import dataclass
from attndsl.source import Diagnostic, Label, Source, Span
from .building import Refusal


@dataclass(frozen=True, slots=True)
class Mistake:
    source: Source
    begin: int
    start: int
    stop: int
    found: str
    expected: frozenset[str]


def explain(mistake: Mistake) -> Refusal:
    span = Span(mistake.source, mistake.start, mistake.stop)
    return Refusal(
        Diagnostic(
            "A101", f"unexpected {mistake.found}", (Label(span, str(sorted(mistake.expected))),)
        )
    )
