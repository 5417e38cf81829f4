"""A command, and the parser of its words. Loads nothing of the compiler: help is quick."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from attndsl.source import AttnDslError, Diagnostic, suggest

from .terminal import Terminal, put

Run = Callable[[argparse.Namespace, Terminal], int]


@dataclass(frozen=True)
class Command:
    """One subcommand: what its `--help` says, its arguments, and what runs."""

    examples: tuple[str, ...]
    configure: Callable[[argparse.ArgumentParser], None]
    run: Run
    words: str = ""
    serves: bool = False  # until somebody ends it


class Parser(argparse.ArgumentParser):
    """argparse, but a mistake is a diagnostic."""

    def error(self, message: str) -> NoReturn:
        """Anything that argparse itself objects to."""
        raise mistake(
            "A601",
            f"{self.prog}: {message.removeprefix('argument ')}",
            helps=(f"see `{self.prog} --help`",),
        )

    def _print_message(self, message: str, file: Any = None) -> None:
        put(file, message, end="")  # its own way fails on streams that speak ASCII or are closed


def mistake(code: str, title: str, *, helps: Iterable[str | None] = ()) -> AttnDslError:
    """A fault without a place: it lies in the command, not in a text."""
    return AttnDslError(Diagnostic(code, title, helps=tuple(filter(None, helps))))


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Help for a word that is nearly another one."""
    near = suggest(name, known)
    return f"did you mean `{near}`?" if near else None


def check_options(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Options that nobody declared: argparse would say so without a hint."""
    known = parser._option_string_actions  # argparse lists them nowhere else
    for word in words:
        if word == "--":
            return
        name = word.partition("=")[0]
        if name.startswith("--") and name not in known:
            title = f"{parser.prog} has no option `{name}`"
            helps = (did_you_mean(name, known), f"see `{parser.prog} --help`")
            raise mistake("A601", title, helps=helps)
