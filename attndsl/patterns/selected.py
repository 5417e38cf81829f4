"""Published selections: sets computed from q and k, one in each file of ``selections/``."""

from __future__ import annotations

import functools
from importlib.resources import files as resources

from attndsl import syntax as syn


@functools.cache
def selections() -> tuple[str, ...]:
    """Names of all published selections, in alphabetical order."""
    folder = resources("attndsl") / "patterns" / "selections"
    names = (each.name for each in folder.iterdir())
    return tuple(sorted(name.removesuffix(".attn") for name in names if name.endswith(".attn")))


@functools.cache
def module_of_selection(name: str) -> syn.Module:
    """The file of one of them, parsed."""
    path = resources("attndsl") / "patterns" / "selections" / f"{name}.attn"
    return syn.parse(path.read_text(encoding="utf-8"), f"selections/{name}.attn")
