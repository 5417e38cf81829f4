"""A text whose declarations are parsed one at a time: of a long file a program may need little."""

from __future__ import annotations

import re
from typing import TypeAlias

from attndsl.source import Source, Span

from . import tree
from .parsing import parse_part

Named: TypeAlias = (
    tree.Grid | tree.Space | tree.Input | tree.Def | tree.Pattern | tree.Attention
    | tree.Units | tree.Choosing
)  # fmt: skip

# A declaration begins where its documentation does, and ends where the next one begins.
_HEAD = re.compile(
    r"(?:^##(?!#)[^\n]*\n)*^(grid|space|input|def|pattern|attention|units|select|label|rank)[ ]+(\w+)",
    re.MULTILINE,
)


class Outline:
    """Where each name of a text is declared; of a sound one, which imports nothing and has no name twice, also how."""

    def __init__(self, text: str, name: str) -> None:
        """``name`` is what errors call it."""
        self.source = Source(name, text)
        heads = list(_HEAD.finditer(text))
        stops = [*(head.start() for head in heads[1:]), len(text)]
        self._places = {
            head[2]: (head.start(), stop) for head, stop in zip(heads, stops, strict=True)
        }
        self._words = {head[2]: head[1] for head in heads}

    @property
    def names(self) -> tuple[str, ...]:
        """Names that the file declares, in order."""
        return tuple(self._places)

    def declared(self, *words: str) -> list[str]:
        """The names that are declared by one of these words, "grid" or "pattern" say. Parses nothing."""
        return [name for name, word in self._words.items() if word in words]

    def __contains__(self, name: str) -> bool:
        """Whether it declares that name."""
        return name in self._places

    def place(self, name: str) -> Span:
        """Where a name is declared, from its documentation up to the next declaration. Parses nothing."""
        return Span(self.source, *self._places[name])

    def declaration(self, name: str) -> Named:
        """Parses the declaration of a name; equal to what `parse` makes of it, at the same place."""
        (declaration,) = parse_part(self.source, *self._places[name]).declarations
        assert not isinstance(declaration, tree.Import)
        return declaration
