"""From the words of the shell to a command, and from what it raises to an exit status."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

from attndsl import __version__
from attndsl.source import AttnDslError

from .commands import Command, Parser, check_options, did_you_mean, mistake
from .terminal import Terminal, open_closed_streams

# The lines of `attndsl --help`; the file of a command is loaded when it is asked for.
SUMMARIES: Final = {
    "show": "what a pattern or attention is: its words, its definition, its picture",
    "check": "parse files, check every pattern and attention in them, and verify what is compiled from it",
    "explain": "a pattern or attention as the compiler sees it: facts, tiles, work; or what an error code means",
    "explore": "a page on this machine: write a pattern, look at it, compare it",
    "emit": "a pattern as one stand-alone file: kernels and autograd, torch and triton alone",
    "export": "the pairs of a call as arrays for other kernels: block-sparse rows, cu_seqlens, slices, a bias",
    "fmt": "rewrite files in the canonical layout",
    "lsp": "the language server for editors: faults, hover, definitions, completion, layout",
    "list": "the patterns and attentions that come with the package, a line each",
    "bench": "time the CPU backend against dense-mask SDPA and FlexAttention",
    "demo": "write a pattern, compile, explain, draw and verify it, train a small model with it",
}
_FILES: Final = {"list": "listing", "demo": "demonstrate"}  # of the others the name is the file's


def load(name: str) -> Command:
    """The command of that name, and whatever it imports."""
    found: Command = importlib.import_module(f"{__package__}.{_FILES.get(name, name)}").COMMAND
    return found


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
    words = _words_so_far() if "_ARGCOMPLETE" in os.environ else argv
    first = words[0] if words else ""
    parser, chosen = _parsers(first)
    _complete(parser)
    if not argv:
        parser.print_help()
        return 0
    if not first.startswith("-") and first not in SUMMARIES:
        title = f"attndsl has no command `{first}`"
        helps = (did_you_mean(first, SUMMARIES), f"commands: {', '.join(SUMMARIES)}")
        raise mistake("A601", title, helps=helps)
    check_options(chosen or parser, argv[1:] if chosen else argv)
    options = parser.parse_args(argv)
    command: Command = options.command
    with contextlib.nullcontext() if command.serves else terminal.progress(first):
        return command.run(options, terminal)


def _words_so_far() -> Sequence[str]:
    """The words behind `attndsl` on the line that a shell wants completed."""
    return os.environ.get("COMP_LINE", "").split()[1:]


def _complete(parser: Parser) -> None:
    """Answers a shell that asks for completions, and ends; nothing otherwise."""
    if "_ARGCOMPLETE" in os.environ:
        with contextlib.suppress(ImportError):
            import argcomplete

            argcomplete.autocomplete(parser)


def _parsers(first: str) -> tuple[Parser, Parser | None]:
    """The parser of all, and that of the command that is asked for: of the others it knows the names."""
    parser = Parser(
        prog="attndsl",
        description="A compiler for attention patterns: which key each query may see, "
        "written as a relation.",
        epilog="`attndsl COMMAND --help` has examples.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"attndsl {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    chosen = None
    for name, summary in SUMMARIES.items():
        if name == first:
            chosen = _configured(subparsers, name, load(name))
        else:
            subparsers.add_parser(name, help=summary)
    return parser, chosen


def _configured(
    subparsers: argparse._SubParsersAction[Parser], name: str, command: Command
) -> Parser:
    said = SUMMARIES[name]
    summary = f"{said[:1].upper()}{said[1:]}."
    examples = "\n".join(f"  {line}" for line in command.examples)
    made = subparsers.add_parser(
        name,
        help=said,
        description=f"{summary}\n\n{command.words}" if command.words else summary,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.configure(made)
    made.set_defaults(command=command)
    return made
