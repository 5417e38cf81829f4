"""Selections as JSON, beside the mask that asks them: ``written_selections``, ``read_selections``."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar, Final

from attndsl.ir import logic, storage
from attndsl.ir import nodes as n
from attndsl.ir import selection as s
from attndsl.ir.attention import tables_read
from attndsl.ir.documents import Field
from attndsl.ir.mask import FLAT, Align, Mask
from attndsl.ir.nodes import Deps, Node, Side, Sort
from attndsl.ir.real_storage import RealReader
from attndsl.ir.rules import mask_fault

_CLASSES: Final[dict[str, type[Node]]] = {
    cls.__name__: cls for cls in (s.Pooled, s.Bound, s.Scale, s.Reduced, s.Series)
}
_LARGEST_UNIT: Final = 1 << 20  # tokens, as in the language
_DEEPEST: Final = 8  # selections that ask each other


def written_selections(selections: Iterable[s.Selection]) -> list[dict[str, Any]]:
    """Selections as data; ``read_selections`` gives their equals."""
    return [_written(each) for each in selections]


def _written(selection: s.Selection) -> dict[str, Any]:
    roots = list(selection.expressions())
    order = list(dict.fromkeys(itertools.chain.from_iterable(map(n.postorder, roots))))
    place = {node: index for index, node in enumerate(order)}
    queries, choice = selection.queries, selection.choice
    return {
        "name": selection.name,
        "doc": selection.doc,
        "units": _units(selection.units),
        "queries": None if queries is None else _units(queries),
        "take": [choice.take.value, choice.seed],
        "shared": selection.shared.value,
        "align": selection.align.value,
        "tables": storage.written_tables(selection.tables),
        "within": written_selections(selection.within),
        "nodes": [[n.tag_of(type(node)), *_fields(node, place)] for node in order],
        "roots": [place[node] for node in roots],
    }


def _units(units: s.Units) -> list[Any]:
    return [units.size, units.every, units.whole]


def _fields(node: Node, place: dict[Node, int]) -> list[Any]:
    (written,) = storage.written_nodes([node], place)
    return [_units(each) if isinstance(each, s.Units) else each for each in written[1:]]


def read_selections(items: Field, depth: int = 0) -> tuple[s.Selection, ...]:
    """The selections that were written.

    Raises:
        ValueError: what was expected in a field, and what stands there.
    """
    if depth > _DEEPEST:
        raise items.wrong("no selections within so many others")
    return tuple(_read(each, depth) for each in items.items())


def _read(item: Field, depth: int) -> s.Selection:
    tables = tuple(storage.read_table(each) for each in item.part("tables").items())
    align = item.part("align").one_of(Align)
    frame = Mask(logic.TRUE, FLAT, FLAT, tables, align)
    if (fault := mask_fault(frame)) is not None:
        raise ValueError(f"{item.path}: {fault}")
    reader = _Reader(frame, list(item.part("nodes").items(1)))
    score, where, keeping, amount = item.part("roots").row("score", "where", "keeping", "amount")
    how, seed = item.part("take").row("how", "seed")
    take = how.one_of(s.Take)
    kind = Sort.INT if take in (s.Take.TOP, s.Take.SAMPLE) else Sort.REAL
    queries = item.part("queries")
    made = s.Selection(
        item.part("name").name(),
        _read_units(item.part("units")),
        None if queries.value is None else _read_units(queries),
        reader.whole(score, Sort.REAL),
        reader.whole(where, Sort.BOOL),
        reader.whole(keeping, Sort.BOOL),
        s.Choice(take, reader.whole(amount, kind), seed.number()),
        item.part("shared").one_of(s.Shared),
        tables,
        align,
        read_selections(item.part("within"), depth + 1),
        item.part("doc").text(),
    )
    wrong = s.selection_fault(made)
    if wrong is not None:
        raise ValueError(f"{item.path}.{wrong[0]}: {wrong[1]}")
    if tables_read(*made.expressions()) != {table.name for table in tables}:
        raise item.part("tables").wrong("the inputs that it reads")
    return made


def with_selections(mask: Mask, selections: Iterable[s.Selection]) -> Mask:
    """The mask with those of the selections whose tables it reads.

    Raises:
        ValueError: it declares a table of that name in another way.
    """
    declared = {table.name: table for table in mask.tables}
    own = tuple(each for each in selections if each.name in declared)
    for each in own:
        if declared[each.name] != each.table:
            raise ValueError(f"tables: {each.name!r} is not that of the selection")
    return replace(mask, selections=own)


def _read_units(item: Field) -> s.Units:
    size, every, whole = item.row("size", "every", "whole")
    tokens = size.number(1, _LARGEST_UNIT)
    return s.Units(tokens, every.number(1, tokens), whole.truth())


class _Reader(RealReader):
    """Nodes of selections among others."""

    classes: ClassVar[dict[str, type[Node]]] = {**RealReader.classes, **_CLASSES}

    def arguments(self, cls: type[Node], given: list[Field]) -> list[Any]:
        """The fields of a node."""
        match cls, given:
            case s.Pooled, [how, side, units]:
                return [how.one_of(s.Pool), side.one_of(Side), _read_units(units)]
            case s.Bound, [units]:
                return [_read_units(units)]
            case s.Scale, []:
                return []
            case s.Reduced, [how, units, item, where, by_share]:
                over: s.Units | s.Shared = (
                    units.one_of(s.Shared) if isinstance(units.value, str) else _read_units(units)
                )
                inner = self.node(item, Sort.REAL), self.node(where, Sort.BOOL)
                return [how.one_of(s.Fold), over, *inner, by_share.truth()]
            case s.Series, [level, start, stop, body]:
                limits = self.node(start, Sort.INT), self.node(stop, Sort.INT)
                if (limits[0].deps | limits[1].deps) & ~Deps.NONE:
                    raise start.wrong("limits that are the same for all pairs")
                number = level.number(0, storage.DEEPEST)
                return [number, *limits, self.node(body, Sort.REAL)]
            case _:
                return super().arguments(cls, given)
