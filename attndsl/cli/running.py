"""From the words of the shell to a command, and from what it raises to an exit status."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence

from attndsl import __version__
from attndsl.source import AttnDslError

from . import arguments as args
from . import bench, check, demonstrate, emit, explain, explore, export, fmt, listing, lsp, show
from .terminal import Terminal, open_closed_streams

COMMANDS = (
    show.COMMAND,
    check.COMMAND,
    explain.COMMAND,
    explore.COMMAND,
    emit.COMMAND,
    export.COMMAND,
    fmt.COMMAND,
    lsp.COMMAND,
    listing.COMMAND,
    bench.COMMAND,
    demonstrate.COMMAND,
)


def run(argv: Sequence[str] | None) -> int:
    """Runs ``attndsl ARGV``; returns what `main` does."""
    open_closed_streams()
    terminal = Terminal()
    try:
        return _run(sys.argv[1:] if argv is None else argv, terminal)
    except SystemExit as done:  # argparse, after --help and --version
        return int(done.code or 0)
    except AttnDslError as error:
        terminal.complain(error)
        return 2


def _run(argv: Sequence[str], terminal: Terminal) -> int:
    parser, parsers = _parsers()
    _complete(parser)
    if not argv:
        parser.print_help()
        return 0
    first = argv[0]
    if not first.startswith("-") and first not in parsers:
        title = f"attndsl has no command `{first}`"
        helps = (args.did_you_mean(first, parsers), f"commands: {', '.join(parsers)}")
        raise args.mistake("A601", title, helps=helps)
    args.check_options(parsers.get(first, parser), argv[1:] if first in parsers else argv)
    options = parser.parse_args(argv)
    status: int = options.command.run(options, terminal)
    return status


def _complete(parser: args.Parser) -> None:
    """Answers a shell that asks for completions, and ends; nothing otherwise."""
    if "_ARGCOMPLETE" in os.environ:
        with contextlib.suppress(ImportError):
            import argcomplete

            argcomplete.autocomplete(parser)


def _parsers() -> tuple[args.Parser, dict[str, args.Parser]]:
    parser = args.Parser(
        prog="attndsl",
        description="A compiler for attention patterns: which key each query may see, "
        "written as a relation.",
        epilog="`attndsl COMMAND --help` has examples.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"attndsl {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    made = {each.name: _add(subparsers, each) for each in COMMANDS}
    return parser, made


def _add(subparsers: argparse._SubParsersAction[args.Parser], command: args.Command) -> args.Parser:
    summary = f"{command.summary[:1].upper()}{command.summary[1:]}."
    examples = "\n".join(f"  {line}" for line in command.examples)
    made = subparsers.add_parser(
        command.name,
        help=command.summary,
        description=f"{summary}\n\n{command.words}" if command.words else summary,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.configure(made)
    made.set_defaults(command=command)
    return made
