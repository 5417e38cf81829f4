"""Where in a Python program an expression was written."""

from __future__ import annotations

import itertools
import linecache
import sys
from types import FrameType

from attndsl.source import Source, Span

_OURS = (__name__.partition(".")[0] + ".", "torch.")  # torch calls this package back


def here() -> Span:
    """The expression, in the nearest frame outside this package and torch, that is being evaluated.

    Where the program's text cannot be had, the span is empty; its source still names the file.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_back and _is_ours(frame):
        frame = frame.f_back
    assert frame is not None, "a call has a caller"
    name, text = frame.f_code.co_filename, "".join(linecache.getlines(frame.f_code.co_filename))
    source = Source(name if text else f"{name}:{frame.f_lineno}", text)
    return _span(source, frame) if text else Span(source, 0, 0)


def _is_ours(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith(_OURS)


def _span(source: Source, frame: FrameType) -> Span:
    positions = itertools.islice(frame.f_code.co_positions(), frame.f_lasti // 2, None)
    line, last, column, end = next(positions, (frame.f_lineno, None, None, None))
    start, stop = source.bounds(line or frame.f_lineno)
    if line is None or column is None or end is None or last != line:
        return Span(source, start, stop)
    raw = source.line(line).encode()  # columns are counted in bytes
    left, right = (len(raw[:place].decode(errors="replace")) for place in (column, end))
    return Span(source, start + left, start + right)
