"""`attndsl lsp`: the language server, for editors."""

from __future__ import annotations

import argparse
import importlib.util

from attndsl import editing

from .commands import Command, mistake
from .terminal import Terminal


def configure(parser: argparse.ArgumentParser) -> None:
    del parser  # an editor starts it, and says the rest by the protocol


def run(options: argparse.Namespace, terminal: Terminal) -> int:
    del options, terminal  # the output belongs to the protocol
    if importlib.util.find_spec("pygls") is None:
        helps = ('pip install "attndsl[lsp]"',)
        raise mistake("A601", "`attndsl lsp` needs pygls", helps=helps)
    editing.serve()
    return 0


COMMAND = Command(
    ("attndsl lsp",),
    configure,
    run,
    words="It speaks the language server protocol on its standard streams; editors/vscode starts it.",
    serves=True,
)
