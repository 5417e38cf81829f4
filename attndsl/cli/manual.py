"""The entries of error codes: a page of Markdown in the package, a section a code."""

from __future__ import annotations

import functools
import re
from importlib.resources import files

_SECTION = re.compile(r"^## (?P<code>A\d{3}): .*?(?=^## A\d{3}|\Z)", re.DOTALL | re.MULTILINE)


@functools.cache
def _entries() -> dict[str, str]:
    text = (files("attndsl") / "cli" / "errors.md").read_text(encoding="utf-8")
    return {
        match["code"]: match[0].removeprefix("## ").strip() for match in _SECTION.finditer(text)
    }


def codes() -> tuple[str, ...]:
    """Codes that have an entry in the manual."""
    return tuple(_entries())


def entry(code: str) -> str | None:
    """Title, rule, an example that provokes it, and one that does not; None if there is no such code."""
    return _entries().get(code)
