"""Comments: found by one scan of the text, attached to the declarations they stand by.

`##` lines before a declaration are its documentation. An ordinary comment on its own line belongs
to the next declaration, one behind a declaration to that; one *within* a declaration (between its
lines) moves above it, as does a `##` there, which then is an ordinary comment.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from attndsl.source import Source

from . import tree

# Three or more signs are a ruled line, not documentation.
_DOC = re.compile(r"##(?!#) ?(.*)")
_BLANK = re.compile(r"\n[ \t\f]*\n")
_COMMENT = re.compile(r'"[^"\n]*"|#[^\n]*')  # a string first: a `#` within one is no comment


@dataclass(frozen=True, slots=True)
class Comment:
    """One comment, from its `#` to the end of the line."""

    start: int
    text: str

    @property
    def stop(self) -> int:
        return self.start + len(self.text)


def find_comments(text: str, start: int = 0, stop: int = sys.maxsize) -> list[Comment]:
    """All comments of the characters [start, stop) of a text, in order."""
    return [
        Comment(match.start(), match[0])
        for match in _COMMENT.finditer(text, start, stop)
        if match[0][0] == "#"
    ]


def attach(module: tree.Module, source: Source, start: int, stop: int) -> tree.Module:
    """The module of that part of a source, with documentation and remarks on its declarations."""
    comments = find_comments(source.text, start, stop)
    if not comments:
        return module
    declarations: list[tree.Declaration] = []
    taken = 0
    for declaration in module.declarations:
        here = taken
        while taken < len(comments) and _belongs(comments[taken], declaration, source):
            taken += 1
        declarations.append(_commented(declaration, comments[here:taken], source))
    lines = tuple(_lines(comments[taken:], source, stop))
    return replace(module, declarations=tuple(declarations), remarks=_trimmed(lines))


def _belongs(comment: Comment, declaration: tree.Declaration, source: Source) -> bool:
    stop = declaration.span.stop
    return comment.start < stop or "\n" not in source.text[stop : comment.start]


def _commented(
    declaration: tree.Declaration, comments: Sequence[Comment], source: Source
) -> tree.Declaration:
    start, stop = declaration.span.start, declaration.span.stop
    before = [comment for comment in comments if comment.start < start]
    within = [comment for comment in comments if start < comment.start < stop]
    beside = [comment for comment in comments if comment.start >= stop]
    doc = [match[1].rstrip() for comment in before if (match := _DOC.match(comment.text))]
    plain = [comment for comment in before if not _DOC.match(comment.text)]
    above = (*_lines(plain, source, start), *(_ordinary(comment.text) for comment in within))
    remarks = tree.Remarks(above, _ordinary(beside[0].text) if beside else "")
    return replace(declaration, doc="\n".join(doc).strip("\n"), remarks=remarks)


def _ordinary(text: str) -> str:
    """The comment's text, without what would make it documentation."""
    match = _DOC.match(text)
    return f"# {match[1]}".rstrip() if match else text.rstrip()


def _lines(comments: Sequence[Comment], source: Source, end: int) -> Iterator[str]:
    """The comments, and `""` wherever blank lines follow one before the next, or before `end`."""
    stops = [comment.start for comment in comments[1:]] + [end]
    for comment, stop in zip(comments, stops, strict=False):
        yield comment.text.rstrip()
        if _BLANK.search(source.text, comment.stop, stop):
            yield ""


def _trimmed(lines: tuple[str, ...]) -> tuple[str, ...]:
    return lines[:-1] if lines and not lines[-1] else lines
