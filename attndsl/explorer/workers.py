"""Processes that answer questions: each has so many seconds and so much memory; one that takes more is killed."""

from __future__ import annotations

import multiprocessing
import resource
import threading
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Final

_WAITING: Final = 8  # questions that wait for one worker; more are sent away
_START: Final = 60.0  # seconds that a worker may take to import what it needs


class TookTooLong(Exception):
    """A question was given up; its text is one sentence."""


class Busy(Exception):
    """Too many questions wait already."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of one answer: seconds, and bytes beside what an idle worker holds."""

    seconds: float = 5.0
    memory: int = 2 << 30


@dataclass
class Lane:
    """One worker process and the questions in front of it; started with the first of them, or by ``warm``."""

    budget: Budget = field(default_factory=Budget)
    _process: SpawnProcess | None = None
    _pipe: Connection[Any, Any] | None = None
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _places: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(_WAITING))

    def ask(self, kind: str, question: dict[str, Any]) -> dict[str, Any]:
        """The answer of a worker, as `answers.answer` gives it; {"error": a sentence} where there is none.

        Raises:
            TookTooLong: It took more time or memory than there is; the worker has been replaced.
            Busy: Too many others wait.
        """
        if not self._places.acquire(blocking=False):
            raise Busy(f"{_WAITING} questions wait already: ask again in a moment")
        try:
            with self._turn:
                return self._ask(kind, question)
        finally:
            self._places.release()

    def warm(self) -> None:
        """Starts the worker, so that the first question need not wait for its imports."""
        with self._turn:
            self._ready()

    def close(self) -> None:
        """Ends the worker."""
        with self._turn:
            self._kill()

    def _ask(self, kind: str, question: dict[str, Any]) -> dict[str, Any]:
        pipe = self._ready()
        try:
            pipe.send((kind, question))
            if not pipe.poll(self.budget.seconds):
                self._kill()
                raise TookTooLong(
                    f"given up after {self.budget.seconds:g} s: shorten the sequence, or bound the pattern"
                )
            found: dict[str, Any] = pipe.recv()
        except (EOFError, OSError):
            self._kill()
            raise TookTooLong("the worker ended before it had an answer") from None
        if found.get("out_of_memory"):
            self._kill()
            raise TookTooLong(
                f"given up: it takes more than {self.budget.memory >> 20:,} MB of memory"
            )
        return found

    def _ready(self) -> Connection[Any, Any]:
        if self._pipe is not None and self._process is not None and self._process.is_alive():
            return self._pipe
        self._kill()
        spawn = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_work, args=(theirs, self.budget.memory), daemon=True)
        self._process.start()
        theirs.close()
        if not self._pipe.poll(_START) or self._pipe.recv() != "ready":
            self._kill()
            raise TookTooLong("no worker could be started")
        return self._pipe

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def _work(pipe: Connection[Any, Any], memory: int) -> None:
    """The life of a worker: says that it is ready, then answers until the pipe is closed."""
    from .answers import answer
    from .questions import BadQuestion

    _bound(memory)
    pipe.send("ready")
    while True:
        try:
            kind, question = pipe.recv()
        except (EOFError, KeyboardInterrupt):
            return
        found: dict[str, Any]
        try:
            found = answer(kind, question)
        except BadQuestion as error:
            found = {"error": str(error)}
        except MemoryError:
            found = {"out_of_memory": True}
        except Exception as error:  # noqa: BLE001 - one question must not end the worker of all tabs
            found = {"error": f"a fault of attndsl, please report it: {type(error).__name__}"}
        try:
            pipe.send(found)
        except BrokenPipeError:
            return


def _bound(memory: int) -> None:
    """Bounds the memory that the process may take from now on, where the system can do so."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:  # no /proc: time alone bounds an answer
        return
    limit = pages * resource.getpagesize() + memory
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
