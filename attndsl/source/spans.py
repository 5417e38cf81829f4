"""Places in a text: offsets are stored, lines and columns are derived when someone asks."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Source:
    """A named text. Lines end at a newline; readers turn other line ends into it first."""

    name: str
    text: str = field(repr=False)
    # Offsets at which lines start, found once when a line is first asked for.
    _starts: list[int] = field(init=False, repr=False, compare=False, default_factory=list)

    def locate(self, offset: int) -> tuple[int, int]:
        """The 1-based line and column (in characters) of an offset; clipped to the text."""
        starts = self._line_starts()
        offset = min(max(offset, 0), len(self.text))
        line = bisect_right(starts, offset)
        return line, offset - starts[line - 1] + 1

    def bounds(self, line: int) -> tuple[int, int]:
        """Offsets ``[start, stop)`` of a 1-based line, without its line end."""
        starts = self._line_starts()
        if not 1 <= line <= len(starts):
            raise IndexError(f"{self.name} has {len(starts)} lines, not {line}")
        stop = starts[line] - 1 if line < len(starts) else len(self.text)
        return starts[line - 1], stop

    def line(self, line: int) -> str:
        """The text of a 1-based line, without its line end."""
        start, stop = self.bounds(line)
        return self.text[start:stop]

    def _line_starts(self) -> list[int]:
        if not self._starts:
            # One assignment: threads that race here write the same list twice.
            self._starts[:] = [0, *(match.end() for match in re.finditer("\n", self.text))]
        return self._starts


@dataclass(frozen=True, slots=True)
class Span:
    """The characters ``[start, stop)`` of a source."""

    source: Source = field(repr=False)
    start: int
    stop: int

    @property
    def line(self) -> int:
        """The 1-based line of the first character."""
        return self.source.locate(self.start)[0]

    @property
    def column(self) -> int:
        """The 1-based column of the first character, counted in characters."""
        return self.source.locate(self.start)[1]

    @property
    def text(self) -> str:
        """The text of the span."""
        return self.source.text[self.start : self.stop]

    def to(self, other: Span) -> Span:
        """From the start of this span to the end of the other, in the same source."""
        return Span(self.source, self.start, other.stop)

    def __str__(self) -> str:
        line, column = self.source.locate(self.start)
        return f"{self.source.name}:{line}:{column}"


NOWHERE = Span(Source("<nowhere>", ""), 0, 0)
"""The span of a tree that was built, not read."""
