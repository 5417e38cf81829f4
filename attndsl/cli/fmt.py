"""`attndsl fmt`: the one canonical layout of a file."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from attndsl import syntax as syn
from attndsl.source import AttnDslError

from . import arguments as args
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
    text = sys.stdin.read(1 << 21)  # beyond the largest file, which the parser refuses
    made = syn.format(syn.parse(text, "<stdin>"))
    if not options.check:
        terminal.out.write(made)
    elif made != text:
        terminal.say("<stdin> would be reformatted")
    return made != text


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
        replace(path, made)
    except OSError as error:
        raise args.mistake("A603", f"cannot write {name}: {error.strerror}") from None
    terminal.say(f"reformatted {name}")
    return True


def replace(path: Path, data: bytes) -> None:
    """Write all of it or nothing: a full disk must not cost the user the file."""
    target = path.resolve()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.name)
    made = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        made.chmod(target.stat().st_mode)
        made.replace(target)
    except OSError:
        made.unlink(missing_ok=True)
        raise


COMMAND = args.Command(
    "fmt",
    "rewrite files in the canonical layout",
    (
        "attndsl fmt *.attn",
        "attndsl fmt --check patterns/*.attn",
        "echo 'pattern p=k<=q' | attndsl fmt -",
    ),
    configure,
    run,
)
