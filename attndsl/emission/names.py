"""Names in an emitted file: made from what the user wrote, but never more than an identifier."""

from __future__ import annotations

import builtins
import itertools
import keyword
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

_TAKEN: Final = frozenset(keyword.kwlist) | frozenset(keyword.softkwlist) | frozenset(dir(builtins))
_ODD = re.compile(r"[^A-Za-z0-9_]")
_WIDTH = 110  # of a line of comment, behind its "# "


class Names:
    """Identifiers, each given once: ``of(key, wanted)`` is the same for the same key."""

    def __init__(self, *reserved: str) -> None:
        self._used = set(reserved)
        self._known: dict[object, str] = {}
        self._counts: defaultdict[str, Iterator[int]] = defaultdict(lambda: itertools.count(1))

    def of(self, key: object, wanted: str) -> str:
        """``wanted`` as far as it is an identifier that nothing else has."""
        if key not in self._known:
            self._known[key] = self.fresh(wanted)
        return self._known[key]

    def fresh(self, wanted: str) -> str:
        """A name that nothing has."""
        plain = _ODD.sub("_", wanted) or "_"
        plain = f"_{plain}" if plain[0].isdigit() else plain
        found, count = plain, 1
        while found in self._used or found in _TAKEN:
            count += 1
            found = f"{plain}_{count}"
        self._used.add(found)
        return found

    def numbered(self, prefix: str) -> str:
        """``prefix1``, ``prefix2``, ..."""
        return self.fresh(f"{prefix}{next(self._counts[prefix])}")


def printable(text: str) -> str:
    """One line: whatever could end it, hide in it or turn it around is spelled out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def escaped(text: str) -> str:
    """The text within a string of double quotes: nothing in it ends the string or the line, or hides."""
    return text.encode("unicode_escape").decode("ascii").replace('"', '\\"')


def quoted(text: str) -> str:
    """The text as a string of Python."""
    return f'"{escaped(text)}"'


def commented(text: str) -> str:
    """The text as comment lines, whatever it holds."""
    lines = [piece for line in text.splitlines() for piece in _broken(printable(line.expandtabs()))]
    return "\n".join(f"# {line}".rstrip() for line in lines)


def calling(head: str, items: Sequence[str], tail: str = "", room: int = 96) -> list[str]:
    """``head(items)`` and ``tail``, as the formatter would break it where lines have so many columns."""
    together = ", ".join(items)
    if len(head) + len(tail) + 2 + len(together) <= room:
        return [f"{head}({together}){tail}"]
    if 4 + len(together) <= room:
        return [f"{head}(", f"    {together}", f"){tail}"]
    return [f"{head}(", *(f"    {item}," for item in items), f"){tail}"]


def _broken(line: str) -> list[str]:
    """The line in pieces that fit, cut between words where there are words; indented as it was."""
    margin = line[: len(line) - len(line.lstrip())][:40]
    pieces: list[str] = []
    while len(line) > _WIDTH:
        cut = line.rfind(" ", len(margin) + 20, _WIDTH)
        cut = _WIDTH if cut < 0 else cut
        pieces.append(line[:cut].rstrip())
        line = f"{margin}    {line[cut:].strip()}"
    return [*pieces, line]
