"""The parser that lark makes of grammar.lark: built once a process, kept between processes.

Making the tables takes some 50 ms, loading them 5 ms. They are kept where ``cache`` keeps things; where
nothing can be kept, they are made anew. The file is lark's own, which is why ``cache`` does not write it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import lark

from attndsl.cache import location

from .building import Builder

BUILDER = Builder()
"""Tied into the parser: set its `source` before parsing."""


@lru_cache(maxsize=1)
def parser() -> lark.Lark:
    """The parser. Its lexer is lark's basic one: a reserved word is reserved everywhere."""
    grammar = (Path(__file__).parent / "grammar.lark").read_text(encoding="utf-8")
    folder = location()
    if folder is not None:
        with contextlib.suppress(OSError):  # it is read-only, or full
            return _kept(grammar, folder / _file_name(grammar))
    return _made(grammar, cache=False)


def _made(grammar: str, cache: bool | str) -> lark.Lark:
    options: dict[str, Any] = {"parser": "lalr", "lexer": "basic", "maybe_placeholders": False}
    return lark.Lark(grammar, transformer=BUILDER, cache=cache, **options)


def _kept(grammar: str, path: Path) -> lark.Lark:
    """The parser from its cache file, which is only ever replaced whole."""
    if path.exists():
        return _made(grammar, cache=str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    os.close(handle)
    try:
        Path(partial).unlink()  # lark reads what is there, and complains of an empty file
        made = _made(grammar, cache=partial)
        Path(partial).replace(path)
    finally:
        Path(partial).unlink(missing_ok=True)
    return made


def _file_name(grammar: str) -> str:
    """A name that changes with everything the tables depend on."""
    parts = (grammar, lark.__version__, sys.version)
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return f"grammar-{digest[:24]}.lark"
