"""The prelude: read and checked piece by piece, each when a program first names it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from attndsl import syntax as syn
from attndsl.source import Diagnostic, Span

from .linking import Linker
from .scope import Definition, Item, Unit
from .typecheck import check


class LazyModule(Unit):
    """A sound file of which most programs use little. Threads may ask at the same time."""

    def __init__(self, outline: syn.Outline) -> None:
        """Nothing is read yet."""
        source = outline.source
        super().__init__(syn.Module(span=Span(source, 0, len(source.text))), None)
        self._outline = outline
        self._linker = Linker(None, None)
        self._lock = threading.RLock()  # reading one declaration asks for those that it names

    def find(self, name: str) -> Item | None:
        """Finds the meaning of a name, reading its declaration if that was not read before."""
        if name not in self._outline:
            return None
        with self._lock:
            if name not in self.own:
                self._read(name)
            return self.own[name]

    def declared(self, *words: str) -> list[str]:
        """The names that are declared by one of these words, in the order of the text. Reads nothing."""
        return self._outline.declared(*words)

    def definitions(self) -> Iterator[Definition]:
        """All its definitions, in the order of the text."""
        found = map(self.find, self._outline.names)
        return (item for item in found if isinstance(item, Definition))

    def _read(self, name: str) -> None:
        self._linker.declare(self, self._outline.declaration(name))
        item, diagnostics = self.own[name], list[Diagnostic]()
        if isinstance(item, Definition):
            self._linker.resolve_names(item)
            check([item], diagnostics)
        assert not diagnostics + self._linker.diagnostics, f"{self.name} is unsound at {name}"
