"""Imports from disk: relative, below the main file's folder, and pattern files only."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from attndsl import syntax as syn
from attndsl.source import AttnDslError, Span

from .errors import make_error
from .linking import Resolve


def files(root: str | Path) -> Resolve:
    """A ``resolve`` for `elaborate` that reads files.

    A path is relative to the file that imports it, written with `/`, and ends in `.attn`. The file it
    leads to, links followed, must lie in the folder ``root`` (that of the main file) or below it:
    a pattern from elsewhere cannot read the rest of the disk. Absolute paths are refused.
    """
    base = Path(root)

    def resolve(path: str, span: Span) -> syn.Module:
        refusal = _refusal(path)
        importer = Path(span.source.name).parent
        target = _tidy((importer if importer.is_relative_to(base) else base) / path)
        # not Path.resolve, which crashes on links that go round in circles
        inside = Path(os.path.realpath(target)).is_relative_to(os.path.realpath(base))
        if refusal is None and not inside:
            refusal = "it leads out of the folder of the main file"
        if refusal is not None:
            title = f"`{path}` cannot be imported"
            raise AttnDslError(make_error("A208", title, span, refusal))
        try:
            source = syn.read(target)
        except AttnDslError as error:
            reason = error.diagnostics[0].title
            raise AttnDslError(
                make_error("A208", f"`{path}` cannot be imported", span, reason)
            ) from error
        return syn.parse(source.text, source.name)

    return resolve


def _refusal(path: str) -> str | None:
    if path.startswith(("/", "~")) or ":" in path or "\\" in path:
        return "a path is relative and uses `/`"
    if PurePosixPath(path).suffix != ".attn":
        return "only `.attn` files can be imported"
    return None


def _tidy(path: Path) -> Path:
    """Without `x/..`: one file, one name, however it is reached."""
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        else:
            parts.append(part)
    return Path(*parts)
