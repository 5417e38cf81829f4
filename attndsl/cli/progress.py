"""How far long work is: a line on the error stream, which rich draws once nothing has been said for two seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TextIO

PATIENCE: Final = 2.0  # seconds without a word, after which people wonder


class Progress:
    """A line that comes when work takes long and goes when something is said; none where nobody watches.

    rich is imported when the line comes: commands that answer at once do not wait for it.
    """

    def __init__(self, stream: TextIO) -> None:
        self.title = ""
        self._text = ""
        self._stream = stream
        self._began = time.monotonic()
        self._shown: Any = None  # rich.progress.Progress, while there is a line
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._wait()

    def say(self, text: str) -> None:
        """Takes how far the work is, as often as one likes."""
        self._text = text
        with self._lock:
            if self._shown is not None:
                self._shown.update(0, description=self._words())

    @contextmanager
    def off(self) -> Iterator[None]:
        """No line while the body writes; it comes again if nothing more is written."""
        with self._lock:
            self.end()
            try:
                yield
            finally:
                self._wait()

    def end(self) -> None:
        """Clears the line, or waits no longer for it to come."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            if self._shown is not None:
                self._shown.stop()
            self._timer = self._shown = None

    def _wait(self) -> None:
        if self._stream.isatty():
            self._timer = threading.Timer(PATIENCE, self._come)
            self._timer.daemon = True
            self._timer.start()

    def _words(self) -> str:
        return f"{self.title}: {self._text}" if self._text else self.title

    def _come(self) -> None:
        from rich.console import Console
        from rich.progress import Progress as Line
        from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

        with self._lock:
            if self._timer is not threading.current_thread():
                return  # something was said, or all was done, meanwhile
            columns = (
                SpinnerColumn("line"),  # ASCII
                TextColumn("{task.description}", markup=False),
                TimeElapsedColumn(),
            )
            self._shown = Line(
                *columns, console=Console(file=self._stream), transient=True, redirect_stdout=False,
                redirect_stderr=False,
            )  # fmt: skip
            task = self._shown.add_task(self._words(), total=None)
            self._shown.tasks[task].start_time = self._began
            self._shown.start()
