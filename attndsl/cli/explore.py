"""`attndsl explore`: a page on this machine to write, look at and compare patterns."""

from __future__ import annotations

import argparse
import importlib.util
import webbrowser

from attndsl import explorer

from . import arguments as args
from .commands import Command, mistake
from .terminal import Terminal

_PORT = 8421


def configure(parser: argparse.ArgumentParser) -> None:
    named = parser.add_argument(
        "pattern", nargs="?", metavar="PATTERN",
        help="a file.attn or file.attn:name, or a name (`attndsl list`); default: a small example",
    )  # fmt: skip
    args.complete_names(named)
    parser.add_argument(
        "--port", type=args.whole(0, 65535), default=_PORT, metavar="N",
        help=f"default {_PORT}; 0 takes any that is free",
    )  # fmt: skip
    parser.add_argument("--no-browser", action="store_true", help="print the address, open nothing")


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    start = explorer.start_of(options.pattern)
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        title = f"`attndsl explore` needs {' and '.join(missing)}"
        raise mistake("A601", title, helps=('pip install "attndsl[explore]"',))

    def ready(address: str) -> None:
        terminal.say(f"exploring {start.name} at {address} (Ctrl-C ends it)")
        if not options.no_browser and not webbrowser.open(address):
            terminal.warn("no browser could be opened: follow the address")

    explorer.serve(start, options.port, ready)
    return 0


COMMAND = Command(
    (
        "attndsl explore",
        "attndsl explore local.attn",
        "attndsl explore swin --port 9000 --no-browser",
    ),
    configure,
    run,
    serves=True,
)
