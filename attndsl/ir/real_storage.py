"""Nodes of real expressions as JSON: the reader of them, beside those of masks."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Final

from attndsl.ir import reals, storage
from attndsl.ir.documents import Field
from attndsl.ir.interning import Node, Side, Sort

_CLASSES: Final[dict[str, type[Node]]] = {
    cls.__name__: cls
    for cls in (
        reals.Number, reals.FromInt, reals.Score, reals.Plus, reals.Times, reals.Over, reals.Apply,
        reals.Least, reals.Greatest, reals.Choose, reals.Row, reals.Own, reals.Dot,
    )
}  # fmt: skip


class RealReader(storage.Reader):
    """Nodes of ints, bools and reals."""

    classes: ClassVar[dict[str, type[Node]]] = {**storage.Reader.classes, **_CLASSES}

    def real(self, item: Field) -> Node:
        """One of the nodes, a whole real."""
        return self.whole(item, Sort.REAL)

    def real_or_none(self, item: Field) -> Node | None:
        """The same, or None."""
        return None if item.value is None else self.real(item)

    def arguments(self, cls: type[Node], given: list[Field]) -> list[Any]:
        """The fields of a node."""
        match cls, given:
            case reals.Number, [value]:
                if type(value.value) is not float or not math.isfinite(value.value):
                    raise value.wrong("a finite number with a point")
                return [value.value]
            case reals.Score, []:
                return []
            case reals.Own, [side]:
                return [side.one_of(Side)]
            case reals.FromInt, [item]:
                return [self.node(item, Sort.INT)]
            case reals.Plus, [items]:
                return [tuple(self.node(each, Sort.REAL) for each in items.items(2))]
            case reals.Apply, [function, item]:
                return [function.word(*reals.FUNCTIONS), self.node(item, Sort.REAL)]
            case reals.Choose, [cond, yes, no]:
                sides = [self.node(each, Sort.REAL) for each in (yes, no)]
                return [self.node(cond, Sort.BOOL), *sides]
            case reals.Dot, _:
                return [self.node(each, Sort.VECTOR) for each in given]
            case reals.Row, [table, index, ambient]:
                return self._row(table, index, ambient)
            case ((reals.Times | reals.Over | reals.Least | reals.Greatest), _):
                return [self.node(each, Sort.REAL) for each in given]
            case _:
                return super().arguments(cls, given)

    def _row(self, table: Field, index: Field, ambient: Field) -> list[Any]:
        found = self.tables[table.declared(self.tables)]
        if found.kind is not Sort.REAL or not found.indexed_dims:
            raise table.wrong("an input of reals with a dim to index")
        ambient.number(int(found.ambient), int(found.ambient))
        places = tuple(self.node(each, Sort.INT) for each in index.items())
        if len(places) != len(found.indexed_dims) - 1:
            raise index.wrong(f"{len(found.indexed_dims) - 1} of them")
        return [found.name, places, found.ambient]
