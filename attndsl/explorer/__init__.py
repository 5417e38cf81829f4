"""Floor 8½: a page on this machine to look at a pattern with; a server, and workers with budgets that compute.

    page/             plain HTML, CSS and JavaScript: asks, draws, renders no text of a pattern as HTML
    server.py         starlette: loopback only, hosts checked, questions handed to the workers
    workers.py        processes that answer, bounded in time and memory, killed and started anew
    answers.py        a question about a pattern -> plain data, as JSON has it; reads no file

The server is imported when it is asked for: it needs starlette and uvicorn, of the extra ``explore``.
"""

from .answers import answer
from .opening import application, serve
from .questions import BadQuestion, Question
from .starting import Start, start_of
from .workers import Budget, Busy, Lane, TookTooLong

__all__ = [
    "BadQuestion", "Budget", "Busy", "Lane", "Question", "Start", "TookTooLong", "answer", "application", "serve",
    "start_of",
]  # fmt: skip
