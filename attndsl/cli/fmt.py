"""`attndsl fmt`: the one canonical layout of a file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from attndsl import syntax as syn
from attndsl.files import write_file
from attndsl.source import AttnDslError

from .commands import Command, mistake
from .terminal import Terminal


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="+", metavar="FILE", help="files to rewrite; - reads stdin")
    parser.add_argument(
        "--check", action="store_true", help="rewrite nothing; exit 1 if a file is not canonical"
    )


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    status = 0
    for name in options.file:
        try:
            changes = _stdin(options, terminal) if name == "-" else _file(name, options, terminal)
        except AttnDslError as error:  # the other files can still be formatted
            terminal.complain(error)
            status = 2
        else:
            status = max(status, int(changes and options.check))
    return status


def _stdin(options: argparse.Namespace, terminal: Terminal) -> bool:
    if sys.stdin is None or sys.stdin.closed:
        raise mistake("A603", "cannot read the standard input: it is closed")
    raw = getattr(sys.stdin, "buffer", None)
    most = 1 << 21  # bytes: beyond the largest file, which the parser refuses
    try:
        given = sys.stdin.read(most).encode() if raw is None else raw.read(most)
    except OSError as error:
        raise mistake("A603", f"cannot read the standard input: {error.strerror}") from None
    source = syn.decode(given, "<stdin>")
    made = syn.format(syn.parse(source.text, source.name))
    if not options.check:
        terminal.say_exactly(made)
    elif made.encode() != given:
        terminal.say("<stdin> would be reformatted")
    return made.encode() != given


def _file(name: str, options: argparse.Namespace, terminal: Terminal) -> bool:
    source = syn.read(name)
    made = syn.format(syn.parse(source.text, source.name)).encode()
    path = Path(name)
    if made == path.read_bytes():
        return False
    if options.check:
        terminal.say(f"{name} would be reformatted")
        return True
    try:
        write_file(path, made)
    except OSError as error:
        raise mistake("A603", f"cannot write {name}: {error.strerror}") from None
    terminal.say(f"reformatted {name}")
    return True


COMMAND = Command(
    (
        "attndsl fmt *.attn",
        "attndsl fmt --check patterns/*.attn",
        "echo 'pattern p=k<=q' | attndsl fmt -",
    ),
    configure,
    run,
)
