"""The library: published patterns, a `.attn` file a family, each entry told by its `##` comment.

The comment opens with what a query sees; then come fields, a line `Name: text` each, running on until
the next field. A file is read when one of its entries is asked for; to know where an entry stands,
only its `## Row:` and `pattern` lines are looked at.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from importlib.resources import files as resources

from attndsl import syntax as syn
from attndsl.frontend import Signature, signatures
from attndsl.source import AttnDslError, Diagnostic, suggest

FIELDS = (
    "Row", "Source", "Compared", "Reading", "Edges", "Part", "Missing", "Example", "Large",
)  # fmt: skip
_FIELD = re.compile(rf"^({'|'.join(FIELDS)}): +(.*)$")
_HEADING = re.compile(r"^## Row: (\d{3})|^pattern (\w+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Entry:
    """One published pattern.

    Attributes:
        name: The declared name.
        row: Its number in the catalogue of published systems, three digits; systems of several
            index sets have several entries.
        title: The title of the paper.
        family: The file it stands in, without `.attn`.
        summary: Exactly which keys a query sees.
        source: Authors, year and where it was published.
        compared: Sources that the row was held against: the catalogue, released code as owner/name and
            path, or others' code.
        reading: The source that is followed where sources disagree or say too little; "" where they do not.
        edges: The behaviour at the edges.
        part: The part of the system that this is, where it is more than an index set.
        missing: Parts that were published with it and are not here, each behind its kind: "Selection:"
            from activations, "Scores:" beside scaled products and a softmax, "Keys:" that are made of
            others, "Branch:" with a normaliser of its own.
        example: Sizes and inputs to try it on, see `trials`.
        large: Sizes like those of the paper, where they do not follow from one length or extent.
        signature: Parameters, inputs, spaces, and the place of its text.
    """

    name: str
    row: str
    title: str
    family: str
    summary: str
    source: str
    compared: str
    reading: str
    edges: str
    part: str
    missing: str
    example: str
    large: str
    signature: Signature

    @property
    def text(self) -> str:
        """The declaration as it stands in the file."""
        return self.signature.span.text


@functools.cache
def _places() -> dict[str, tuple[str, str]]:
    """Entry -> (row, family), in the order of the rows."""
    found: dict[str, tuple[str, str]] = {}
    for family in _families():
        row = None
        for match in _HEADING.finditer(_text(family)):
            if match[1] is not None:
                row = match[1]
            elif row is not None:
                found[match[2]] = row, family
                row = None
    return dict(sorted(found.items(), key=lambda item: item[1]))


@functools.cache
def _families() -> tuple[str, ...]:
    folder = resources("attndsl") / "patterns" / "library"
    names = (path.name for path in folder.iterdir())
    return tuple(sorted(name.removesuffix(".attn") for name in names if name.endswith(".attn")))


@functools.cache
def _text(family: str) -> str:
    path = resources("attndsl") / "patterns" / "library" / f"{family}.attn"
    return path.read_text(encoding="utf-8")


@functools.cache
def _module(family: str) -> syn.Module:
    return syn.parse(_text(family), f"library/{family}.attn")


@functools.cache
def _signatures(family: str) -> dict[str, Signature]:
    """Signatures of a file's patterns by name: the file is checked once, not for each of them."""
    return {each.name: each for each in signatures(_module(family))}


def signatures_beside(entry_name: str) -> dict[str, Signature]:
    """Signatures of all patterns and attentions in the file of an entry, by name."""
    return _signatures(_places()[_known(entry_name)][1])


def published() -> tuple[str, ...]:
    """The entries of the library, by row."""
    return tuple(_places())


def find(name: str) -> str | None:
    """The entry of that name; of a row number ("049"), its first."""
    places = _places()
    if name in places:
        return name
    return next((each for each, (row, _) in places.items() if row == name), None)


def module_of(name: str) -> syn.Module:
    """The file of an entry, parsed.

    Raises:
        AttnDslError: A211, there is none of that name.
    """
    return _module(_places()[_known(name)][1])


@functools.cache
def entry(name: str) -> Entry:
    """An entry of the library by its name or the number of its row.

    Raises:
        AttnDslError: A211, there is none.
    """
    name = _known(name)
    row, family = _places()[name]
    told = read_entry(_signatures(family)[name], family)
    assert told.row == row, "the fields of a comment stand above its own pattern"
    first = find(row)
    assert first is not None, "this entry has the row"
    if name == first:
        return told
    one = entry(first)
    return replace(told, title=told.title or one.title, compared=told.compared or one.compared)


def read_entry(shown: Signature, family: str) -> Entry:
    """The entry that a comment with fields tells of; "" for those it has not."""
    summary, fields = _read(shown.doc)
    row, _, title = fields.pop("Row", "").partition(" ")
    told = dict.fromkeys((field.lower() for field in FIELDS if field != "Row"), "")
    told |= {field.lower(): text for field, text in fields.items()}
    return Entry(
        name=shown.name, row=row, title=title, family=family, summary=summary, signature=shown,
        **told,
    )  # fmt: skip


def _known(name: str) -> str:
    found = find(name)
    if found is None:
        near = suggest(name, published())
        helps = (f"did you mean `{near}`?",) if near else ()
        title = f"the library has no pattern `{name}`"
        raise AttnDslError(Diagnostic("A211", title, helps=helps))
    return found


def _read(doc: str) -> tuple[str, dict[str, str]]:
    """Splits a comment into the text before the fields, and the fields."""
    fields: dict[str, list[str]] = {"": []}
    current = ""
    for line in doc.splitlines():
        if match := _FIELD.match(line):
            current = match[1]
            fields[current] = [match[2]]
        else:
            fields[current].append(line)
    joined = {name: " ".join(" ".join(lines).split()) for name, lines in fields.items()}
    return joined.pop(""), joined
