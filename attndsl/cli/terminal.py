"""Where a command speaks: words on the output, faults and progress on the error stream."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, TextIO

from attndsl.source import AttnDslError, Diagnostic, printable, render_all

from .progress import Progress

if TYPE_CHECKING:
    from attndsl.views import Charset, Ink

BOLD, FAINT, GREEN, RED, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m"
WIDEST = 100  # columns: prose wider than this is hard to read
NARROWEST = 24  # columns: narrower than this there is no room beside indents and names


@dataclass(frozen=True)
class Terminal:
    """The two streams of a command and what each can show."""

    out: TextIO = field(default_factory=lambda: _open(sys.stdout))
    err: TextIO = field(default_factory=lambda: _open(sys.stderr))
    _waiting: list[Progress] = field(
        default_factory=list
    )  # the line of progress, while there is one

    @property
    def charset(self) -> Charset:
        """The characters that pictures may use."""
        from attndsl.views import charset_for  # loads the compiler: help does without

        return charset_for(self.out.encoding)

    @property
    def width(self) -> int:
        """Columns to fill; on a very narrow terminal lines are longer than it is wide."""
        return min(max(shutil.get_terminal_size().columns, NARROWEST), WIDEST)

    def say(self, text: str = "") -> None:
        """A line, or several, on the output.

        Raises:
            AttnDslError: A603, it cannot be written: a disk is full.
        """
        with self._line_off():
            _complain_of(put(self.out, text))

    def say_exactly(self, text: str) -> None:
        """A program on the output: UTF-8 whatever the stream speaks, and not a byte more.

        Raises:
            AttnDslError: A603, as `say`.
        """
        with self._line_off():
            _complain_of(put(self.out, text, end="", exactly=True))

    def warn(self, text: str) -> None:
        """A line on the error stream."""
        with self._line_off():
            put(self.err, text)  # if that fails there is nowhere left to complain

    def head(self, text: str) -> None:
        """A heading, with a blank line before it."""
        self.say(f"\n{self.paint(BOLD, text)}")

    def prose(self, text: str, indent: str = "  ") -> None:
        """Paragraphs, wrapped; a line that is indented is kept as it is."""
        wide = self.width
        for paragraph in paragraphs(visible(text)):
            keep = paragraph.startswith((" ", "\t"))
            made = paragraph if keep else textwrap.fill(paragraph, wide - len(indent))
            self.say(textwrap.indent(made, indent))

    def item(self, name: str, text: str, column: int = 9) -> None:
        """`name  text`, the text wrapped in a column of its own."""
        lines = textwrap.wrap(visible(" ".join(text.split())), self.width - column - 2)
        first, *rest = lines or [""]
        self.say(f"  {self.paint(FAINT, f'{name:{column}}')}{first}")
        for line in rest:
            self.say(f"{'':{column + 2}}{line}")

    def code(self, text: str, indent: str = "  ") -> None:
        """Text of the language, as it stands."""
        self.say(textwrap.indent(visible(text), indent))

    def picture(self, text: str, inks: Iterable[Ink]) -> None:
        """A drawing, its cells in the colours of their inks."""
        glyphs = {
            ink.glyph.strip(): ink.colour for ink in inks if ink.glyph.strip() not in ("", "·")
        }
        colours = {glyph: _ansi(colour) for glyph, colour in glyphs.items()}
        drawn = textwrap.indent(text, "  ")
        if colours:
            runs = re.compile("|".join(f"{re.escape(glyph[0])}+" for glyph in colours))
            found = {glyph[0]: colour for glyph, colour in colours.items()}
            drawn = runs.sub(lambda run: self.paint(found[run[0][0]], run[0]), drawn)
        self.say(drawn)

    def paint(self, colour: str, text: str) -> str:
        """The text in a colour, where the output shows colours."""
        return f"{colour}{text}{PLAIN}" if shows_colour(self.out) else text

    def complain(self, error: AttnDslError) -> None:
        """Every fault, rendered, on the error stream."""
        self.warn(render_all(error.diagnostics, colour=shows_colour(self.err)))

    @contextmanager
    def progress(self, title: str) -> Iterator[Callable[[str], None]]:
        """Says on the error stream how far the body is, if it takes long and somebody watches.

        Within another one the title is this one's until the body ends.
        """
        line = self._waiting[0] if self._waiting else Progress(self.err)
        before = line.title
        line.title = title
        self._waiting.append(line)
        try:
            yield line.say
        finally:
            self._waiting.pop()
            line.title = before
            if not self._waiting:
                line.end()

    def _line_off(self) -> contextlib.AbstractContextManager[None]:
        """No line of progress while something else is written."""
        return self._waiting[0].off() if self._waiting else contextlib.nullcontext()


def shows_colour(stream: TextIO) -> bool:
    """A terminal that was not asked to be plain (no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _ansi(colour: str) -> str:
    """The nearest of the 216 colours that terminals have in a cube."""
    red, green, blue = (round(value / 51) for value in bytes.fromhex(colour[1:]))
    return f"\x1b[38;5;{16 + 36 * red + 6 * green + blue}m"


def visible(text: str) -> str:
    """Text of a file, without the means to steer the terminal."""
    return printable(text.expandtabs(4))


def wrapped(text: str, width: int) -> Iterator[str]:
    """Lines no wider than that, where they have spaces; the rest of a line hangs below its second column of words."""
    for line in text.splitlines():
        lead = re.match(r"\s*(?:\S+\s{2,}|advice\s+)?", line)
        indent = " " * (lead.end() if lead and lead.end() < width // 2 else 2)
        yield from textwrap.wrap(
            line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False,
            drop_whitespace=True, replace_whitespace=False,
        ) or [""]  # fmt: skip


def paragraphs(text: str) -> Iterator[str]:
    """Lines joined into paragraphs: a blank line, or an indented one, ends what stands before it."""
    run: list[str] = []
    for line in text.splitlines():
        if line.strip() and not line.startswith(" "):
            run.append(line)
            continue
        if run:
            yield " ".join(run)
            run = []
        yield line
    if run:
        yield " ".join(run)


def _complain_of(reason: str | None) -> None:
    if reason is not None:
        raise AttnDslError(Diagnostic("A603", f"cannot write the output: {reason}"))


def put(stream: IO[str] | None, text: str, end: str = "\n", *, exactly: bool = False) -> str | None:
    """Writes text; what the stream cannot encode as an escape: a picture is no reason to fail.

    A reader who leaves, as `head` does, has seen enough: what follows goes nowhere, and the command
    does its work to the end.

    Args:
        stream: Where to; None for one that is closed, nowhere.
        text: What.
        end: Behind it.
        exactly: In UTF-8, past the stream's own encoding, where there are bytes below it.

    Returns:
        Why it cannot be written, if so.
    """
    if stream is None:
        return None
    encoding = getattr(stream, "encoding", None) or "utf-8"
    raw = getattr(stream, "buffer", None) if exactly else None
    try:
        if raw is None:
            plain = text.encode(encoding, "backslashreplace").decode(encoding)
            print(plain, end=end, file=stream, flush=True)
        else:
            stream.flush()
            raw.write(f"{text}{end}".encode())
            raw.flush()
    except BrokenPipeError:
        _silence(stream)
    except (OSError, ValueError) as error:  # ValueError: the stream was closed
        _silence(stream)
        return getattr(error, "strerror", None) or str(error)
    return None


def _silence(stream: IO[str]) -> None:
    """Sends the rest nowhere: Python flushes once more when it ends, and would complain."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a file behind it
        number = stream.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, number)
        os.close(nowhere)


def open_closed_streams() -> None:
    """Leads standard streams that are closed (`>&-`) nowhere: the next file opened would take their place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _open(stream: TextIO | None) -> TextIO:
    """The stream, or nowhere if it is closed: Python has None for one that was closed from the start."""
    if stream is not None and not stream.closed:
        return stream
    return Path(os.devnull).open("w", encoding="utf-8")
