"""Diagnostics as text: a pure function of them. Colour is a decoration, added by option only.

The shape::

    error[A203]: window needs a positive size
     --> local.attn:3:21
      |
    1 | pattern local(w) =
      |               - `w` is 0 in this use
    ...
    3 |     causal & window(w)
      |                     ^ expected at least 1
      |
      = note: window(0) keeps no key
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .diagnostics import MOST_SHOWN, Diagnostic, Label
from .spans import Source

WIDTH = 96
"""Display columns shown of one source line; longer lines are windowed around their labels."""
TAB = 4

_RED, _BLUE, _GREEN, _BOLD, _PLAIN = "\x1b[1;31m", "\x1b[1;34m", "\x1b[1;32m", "\x1b[1m", "\x1b[0m"


def render_all(diagnostics: Sequence[Diagnostic], colour: bool = False) -> str:
    """Several faults, a blank line apart; at most ten are written out, the rest are counted."""
    parts = [render(diagnostic, colour) for diagnostic in diagnostics[:MOST_SHOWN]]
    if (more := len(diagnostics) - MOST_SHOWN) > 0:
        parts.append(f"... and {more} more error{'s' if more > 1 else ''}")
    return "\n\n".join(parts)


def render(diagnostic: Diagnostic, colour: bool = False) -> str:
    """One fault as text, without a final line end.

    Args:
        diagnostic: What to say.
        colour: Add ANSI colours; nothing else changes.
    """
    paint = _Paint(colour)
    groups = _by_source(diagnostic.labels)
    gutter = max((_gutter(source, labels) for source, labels in groups), default=1)
    lines = [
        paint(_RED, f"error[{diagnostic.code}]") + paint(_BOLD, f": {printable(diagnostic.title)}")
    ]
    for index, (source, labels) in enumerate(groups):
        lines.extend(_excerpt(source, labels, gutter, paint, first=index == 0))
    remarks = [("note", text) for text in diagnostic.notes]
    remarks += [("help", text) for text in diagnostic.helps]
    if groups and remarks:
        lines.append(_edge(gutter, paint).rstrip())
    for kind, text in remarks:
        lines.extend(_remark(kind, text, gutter, paint))
    return "\n".join(lines)


def printable(text: str) -> str:
    """The text with every character that would break or disguise a line made visible."""
    return "".join(_glyph(char) if char != "\n" else char for char in text)


@dataclass(frozen=True, slots=True)
class _Paint:
    on: bool

    def __call__(self, colour: str, text: str) -> str:
        return f"{colour}{text}{_PLAIN}" if self.on and text else text


def _by_source(labels: Iterable[Label]) -> list[tuple[Source, list[Label]]]:
    """Labels by source; the source of the first primary label comes first."""
    groups: list[tuple[Source, list[Label]]] = []
    for label in sorted(labels, key=lambda label: not label.primary):
        for source, members in groups:
            if source == label.span.source:
                members.append(label)
                break
        else:
            groups.append((label.span.source, [label]))
    return groups


def _gutter(source: Source, labels: list[Label]) -> int:
    last = max(source.locate(max(label.span.start, label.span.stop - 1))[0] for label in labels)
    return len(str(last))


def _edge(gutter: int, paint: _Paint, number: str = "") -> str:
    return paint(_BLUE, f"{number:>{gutter}} |") + " "


def _remark(kind: str, text: str, gutter: int, paint: _Paint) -> list[str]:
    head = f"{' ' * gutter} = {kind}: "
    first, *rest = printable(text).split("\n")
    painted = f"{' ' * gutter} {paint(_BLUE, '=')} {paint(_BOLD, kind)}: "
    return [painted + first, *(" " * len(head) + line for line in rest)]


def _excerpt(
    source: Source, labels: list[Label], gutter: int, paint: _Paint, *, first: bool
) -> Iterator[str]:
    """The arrow and the labelled lines of one source."""
    arrow = "-->" if first else ":::"
    yield f"{' ' * gutter}{paint(_BLUE, arrow)} {printable(str(labels[0].span))}"
    yield _edge(gutter, paint).rstrip()
    by_line: dict[int, list[_Mark]] = {}
    for label in labels:
        for mark in _marks(label):
            by_line.setdefault(mark.line, []).append(mark)
    previous = None
    for number in sorted(by_line):
        if previous is not None and number == previous + 2:
            whole = _whole(source.line(number - 1))
            yield (_edge(gutter, paint, str(number - 1)) + whole).rstrip()
        elif previous is not None and number > previous + 2:
            yield paint(_BLUE, "...")
        previous = number
        view = _View.around(source.line(number), by_line[number])
        yield (_edge(gutter, paint, str(number)) + view.text).rstrip()
        for row in _underlines(view, by_line[number], paint):
            yield _edge(gutter, paint) + row


@dataclass(frozen=True, slots=True)
class _Mark:
    """The part of a label on one line: characters ``[start, stop)`` of that line."""

    line: int
    start: int
    stop: int
    text: str
    primary: bool


def _marks(label: Label) -> list[_Mark]:
    """One mark, or for a label over several lines one on its first and one on its last line."""
    span = label.span
    line, column = span.source.locate(span.start)
    last, last_column = span.source.locate(max(span.start, span.stop - 1))
    if line == last:
        stop = max(last_column, column)
        return [_Mark(line, column - 1, stop, label.text, label.primary)]
    first_text, last_text = span.source.line(line), span.source.line(last)
    indent = len(last_text) - len(last_text.lstrip())
    return [
        _Mark(line, column - 1, max(len(first_text), column), "", label.primary),
        _Mark(last, min(indent, last_column - 1), last_column, label.text, label.primary),
    ]


@dataclass(frozen=True, slots=True)
class _View:
    """A window on a line: its text for display, and the display column of each character in it."""

    text: str
    first: int  # the first character shown
    columns: tuple[int, ...]  # of characters first, first + 1, ..., and of the end

    @classmethod
    def around(cls, line: str, marks: Sequence[_Mark]) -> _View:
        """The whole line where it fits, else a window that shows the first primary mark."""
        focus = min(marks, key=lambda mark: (not mark.primary, mark.start))
        if len(line) <= WIDTH:
            text, columns = _display(line)
            if columns[-1] <= WIDTH:
                return cls(text, 0, columns)
        stop = min(len(line), focus.start + WIDTH)
        first = max(0, min(focus.start - WIDTH // 3, len(line) - WIDTH // 2))
        if first <= 4:  # the dots would take the room of what they hide
            first = 0
        text, columns = _display(line[first:stop])
        room = WIDTH - (4 if first else 0)
        shown = sum(1 for column in columns[1:] if column <= room)
        text, columns = _display(line[first : first + shown])
        shift = 4 if first else 0
        before, after = "... " if first else "", " ..." if first + shown < len(line) else ""
        return cls(before + text + after, first, tuple(column + shift for column in columns))

    def column(self, character: int) -> int:
        """The display column of a character of the line, clipped to the window."""
        return self.columns[min(max(character - self.first, 0), len(self.columns) - 1)]


def _whole(line: str) -> str:
    return _View.around(line, [_Mark(0, 0, 0, "", False)]).text


def _display(text: str) -> tuple[str, tuple[int, ...]]:
    """The text with tabs spread and oddities made visible, and each character's column."""
    parts, columns, column = [], [], 0
    for char in text:
        columns.append(column)
        shown = " " * (TAB - column % TAB) if char == "\t" else _glyph(char)
        parts.append(shown)
        column += len(shown) if char == "\t" else _width(shown)
    return "".join(parts), (*columns, column)


def _glyph(char: str) -> str:
    """The character itself, or a picture of it when it would not stay in its place."""
    if " " <= char <= "~":
        return char
    code = ord(char)
    if code < 0x20 or code == 0x7F:
        return chr(0x2400 + code) if code < 0x20 else "\u2421"
    # Controls, direction overrides, line separators and lone surrogates; joiners stay, width 0.
    hidden = unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp", "Co", "Cn")
    override = 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069 or code in (0x200E, 0x200F)
    return "\ufffd" if hidden or override else char


def _width(char: str) -> int:
    if char < "\u0300":
        return 1
    if unicodedata.category(char) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def _underlines(view: _View, marks: Sequence[_Mark], paint: _Paint) -> list[str]:
    """The row of marks, the text of the rightmost on it; the other texts hang below, by bars."""
    ordered = sorted(marks, key=lambda mark: (mark.start, mark.primary))
    row: dict[int, tuple[str, str]] = {}
    for mark in sorted(ordered, key=lambda mark: mark.primary):  # primary is painted over
        start = view.column(mark.start)
        stop = max(view.column(mark.stop), start + 1)
        sign = ("^", _RED) if mark.primary else ("-", _BLUE)
        row.update(dict.fromkeys(range(start, stop), sign))
    spoken = [mark for mark in ordered if mark.text]
    beside = spoken[-1] if spoken and _is_last(spoken[-1], ordered, view) else None
    rows = [_paint_row(row, paint) + (_said(beside, paint, " ") if beside else "")]
    hanging = [mark for mark in spoken if mark is not beside]
    for index in range(len(hanging) - 1, -1, -1):
        bars = {
            view.column(mark.start): ("|", _RED if mark.primary else _BLUE)
            for mark in hanging[:index]
        }
        at = view.column(hanging[index].start)
        bars = {column: sign for column, sign in bars.items() if column < at}
        lead = _paint_row(bars, paint, until=at)
        rows.append(lead + _said(hanging[index], paint))
    return rows


def _is_last(mark: _Mark, marks: Sequence[_Mark], view: _View) -> bool:
    return all(view.column(other.stop) <= view.column(mark.stop) for other in marks)


def _said(mark: _Mark, paint: _Paint, lead: str = "") -> str:
    text = printable(mark.text).replace("\n", " ")
    return lead + paint(_RED if mark.primary else _BLUE, text)


def _paint_row(row: dict[int, tuple[str, str]], paint: _Paint, until: int = 0) -> str:
    """Signs at their columns, neighbours of one colour painted together, spaces between."""
    parts: list[str] = []
    run, run_colour = "", ""
    for column in range(max(max(row, default=-1) + 1, until)):
        sign, colour = row.get(column, (" ", ""))
        if colour != run_colour:
            parts.append(paint(run_colour, run))
            run, run_colour = "", colour
        run += sign
    parts.append(paint(run_colour, run))
    return "".join(parts)
