"""Published selections: sets computed from q and k, one in each file of ``selections/``.

Each is told by a comment with the fields of an entry of the library; systems beyond the catalogue have no row.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from importlib.resources import files as resources

from attndsl import syntax as syn
from attndsl.frontend import inputs_declared, signature

from .entries import Entry, read_entry


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


@functools.cache
def selection(name: str) -> Entry:
    """One of them as an entry, whose inputs are those of its file: of its selections, too."""
    module = module_of_selection(name)
    shown = replace(signature(module, name), inputs=inputs_declared(module))
    return read_entry(shown, name)


@functools.cache
def selections_of(row: str) -> tuple[str, ...]:
    """Names of the selections of a row of the catalogue."""
    return tuple(name for name in selections() if selection(name).row == row)
