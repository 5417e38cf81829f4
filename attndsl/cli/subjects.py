"""The subject of a command, a pattern or attention with its values, and a call that the options ask for."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from attndsl import ir, patterns, settings
from attndsl.files import open_file
from attndsl.settings import (
    LARGE,
    SMALL,
    Setting,
    Subject,
    example_setting,
    literal,
    spelled,
    with_values,
)
from attndsl.source import AttnDslError, Diagnostic
from attndsl.sources import describe

from . import arguments as args
from .commands import mistake

__all__ = [
    "LARGE", "Setting", "Subject", "entry_name", "example_setting", "literal", "part_of", "setting", "spelled",
    "subject", "with_values",
]  # fmt: skip


def subject(options: argparse.Namespace, *, by_example: bool = False) -> Subject:
    """The pattern of a command line. Parameters that have no default and were not given are chosen.

    ``by_example``: an entry of the library about which nothing else was said is set as its example is.

    Raises:
        AttnDslError: whatever is wrong with the words, the file, the program or the values.
    """
    source = options.pattern
    given = args.parameters(options.param)
    name = entry_name(source)
    asked = options.q_len or options.k_len or options.heads or options.extents or options.input
    if not by_example or name is None or given or asked:
        return with_values(source, describe(source), given, None, options.align, options.layer)
    example = patterns.trial(patterns.entry(name), seed=options.seed)
    about = with_values(
        source, describe(source), example.values, None, options.align, options.layer
    )
    return replace(about, chosen=example.values, example=example)


def part_of(about: Subject, number: int) -> ir.Mask:
    """The pattern of a part of an attention; part 0 of a pattern is itself.

    Raises:
        AttnDslError: A602, there is no such part.
    """
    count = len(about.masks)
    if number >= count:
        title = f"there is no part {number}: `{about.signature.name}` has {count}, counted from 0"
        raise mistake("A602", title)
    return about.masks[number]


def entry_name(source: str) -> str | None:
    """The entry of the library that this names, if any; names of the prelude come first."""
    return None if patterns.is_name(source) else patterns.find(source)


def setting(
    mask: ir.Mask, options: argparse.Namespace, sides: Mapping[int, int] = SMALL
) -> Setting:
    """The call that the options describe, completed as `settings.setting` does.

    Raises:
        AttnDslError: lengths, extents or inputs that do not fit the pattern.
    """
    given = args.extents(options.extents)
    loaded = {name: _loaded(path) for name, path in args.files(options.input).items()}
    asked = settings.Asked(
        options.q_len, options.k_len, options.heads, options.batch, given, loaded, options.seed, options.layer
    )  # fmt: skip
    try:
        return settings.setting(mask, asked, sides)
    except AttnDslError as error:
        raise _in_words_of_the_shell(error) from None


def _loaded(path: Path) -> Any:
    """The array of a file: mapped, not read, so that a false header costs no memory; never unpickled."""
    try:
        open_file(path).close()  # a pipe is refused, not waited for
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise _unreadable(path, reason) from None
    if not isinstance(found, np.ndarray):
        found.close()
        raise _unreadable(path, "it is an archive of several arrays")
    return found


def _unreadable(path: Path, reason: str) -> AttnDslError:
    helps = ("write one with `numpy.save(path, array)`",)
    return mistake("A603", f"cannot read {path}: {reason}", helps=helps)


def _in_words_of_the_shell(error: AttnDslError) -> AttnDslError:
    """The fault with a help that can be typed here, in place of one for Python."""
    spoken = {"A401": "on the command line: `--extents y=8,x=8`",
              "A501": "on the command line: `--input name=FILE.npy`",
              "A602": "on the command line: `--input name=FILE.npy`"}  # fmt: skip

    def said(diagnostic: Diagnostic) -> Diagnostic:
        more = spoken.get(diagnostic.code)
        kept = tuple(text for text in diagnostic.helps if not text.startswith("pass extents="))
        helps = (*kept, more) if more else diagnostic.helps
        return Diagnostic(
            diagnostic.code, diagnostic.title, diagnostic.labels, diagnostic.notes, helps
        )

    return AttnDslError(map(said, error.diagnostics))
