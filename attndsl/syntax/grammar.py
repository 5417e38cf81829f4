"""The parser that lark makes of grammar.lark. Its tables are data of the package: JSON that ``make grammar`` writes.

Making the tables takes some 50 ms, reading them 5 ms. Where they are of another grammar, as while one is edited, or
of another release of lark than the tests read them with, they are made anew.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from importlib.resources import files
from typing import Any, Final

import lark
from lark.grammar import Rule
from lark.lexer import TerminalDef

from .building import Builder

BUILDER = Builder()
"""Tied into the parser: set its `source` before parsing."""

TABLES: Final = "grammar.json"
_READABLE: Final = (
    "1.2",
    "1.3",
)  # releases of lark that read the tables, as the tests do with each
_OPTIONS: Final[dict[str, Any]] = {
    "parser": "lalr",
    "lexer": "basic",
    "maybe_placeholders": False,
}


@lru_cache(maxsize=1)
def parser() -> lark.Lark:
    """The parser. Its lexer is lark's basic one: a reserved word is reserved everywhere."""
    if lark.__version__.rpartition(".")[0] in _READABLE:
        stored = json.loads(files(__package__).joinpath(TABLES).read_bytes())
        if stored["grammar"] == _digest():
            # Keys of JSON are text; these two kinds are looked up by number.
            memo = {int(key): value for key, value in stored["memo"].items()}
            table = stored["data"]["parser"]["parser"]
            table["states"] = {int(key): value for key, value in table["states"].items()}
            made: lark.Lark = lark.Lark._load_from_dict(  # type: ignore[no-untyped-call]
                stored["data"], memo, transformer=BUILDER
            )
            return made
    return lark.Lark(_text(), transformer=BUILDER, **_OPTIONS)


def tables() -> str:
    """Contents of grammar.json: lark's own data, which its ``tools.serialize`` writes as JSON too."""
    data, memo = lark.Lark(_text(), **_OPTIONS).memo_serialize([TerminalDef, Rule])
    data["options"] = _OPTIONS  # the others are lark's defaults, of which each release has its own
    document = {"grammar": _digest(), "data": data, "memo": memo}
    return json.dumps(document, separators=(",", ":")) + "\n"


def _text() -> str:
    return files(__package__).joinpath("grammar.lark").read_text(encoding="utf-8")


def _digest() -> str:
    """A hash of everything that the tables are made of."""
    text = json.dumps([_text(), _OPTIONS])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
