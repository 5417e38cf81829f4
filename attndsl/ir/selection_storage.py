"""Selections as JSON, beside the mask that asks them: ``written_selections``, ``read_selections``."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar, Final

from attndsl.ir import logic, storage
from attndsl.ir import selection as s
from attndsl.ir.attention import tables_read
from attndsl.ir.documents import Field
from attndsl.ir.interning import Deps, Node, Side, Sort, tag_of
from attndsl.ir.mask import FLAT, Align, Mask, Space, Table
from attndsl.ir.real_storage import RealReader
from attndsl.ir.rules import mask_fault
from attndsl.ir.walks import postorder

_CLASSES: Final[dict[str, type[Node]]] = {
    cls.__name__: cls
    for cls in (
        s.Pooled, s.Unit, s.Bound, s.Antidiagonal, s.Scale, s.Reduced, s.RowFold, s.QueryFold, s.Exceeds, s.Series,
    )
}  # fmt: skip
_DEEPEST: Final = 8  # selections that ask each other


def written_selections(selections: Iterable[s.Chosen]) -> list[dict[str, Any]]:
    """Selections as data; ``read_selections`` gives their equals."""
    return [_written(each) for each in selections]


def _written(chosen: s.Chosen) -> dict[str, Any]:
    roots = list(chosen.expressions())
    order = list(dict.fromkeys(itertools.chain.from_iterable(map(postorder, roots))))
    place = {node: index for index, node in enumerate(order)}
    own = _own(chosen, place) if isinstance(chosen, s.Selection) else {"side": chosen.side.value}
    return {
        "name": chosen.name,
        "doc": chosen.doc,
        **own,
        "align": chosen.align.value,
        "tables": storage.written_tables(chosen.tables),
        "within": written_selections(chosen.within),
        "nodes": [[tag_of(type(node)), *_fields(node, place)] for node in order],
        "roots": [place[node] for node in roots],
    }


def _own(selection: s.Selection, place: dict[Node, int]) -> dict[str, Any]:
    """The fields that a rank lacks."""
    choice = selection.choice
    return {
        "units": _rows(selection.units, place),
        "queries": _rows(selection.queries, place),
        "take": [choice.take.value, choice.seed, selection.by_column],
        "shared": selection.shared.value,
    } | (
        {"spaces": [*map(storage.written_space, selection.spaces)]} if selection.is_on_grid else {}
    )


def _rows(each: s.Groups | s.Numbers | None, place: dict[Node, int]) -> Any:
    """Units by their sizes, numbers by the place of the one behind their last."""
    if each is None:
        return None
    return place[each.stop] if isinstance(each, s.Numbers) else _units(each)


def _units(units: s.Groups) -> list[Any] | dict[str, Any]:
    if isinstance(units, s.Tiles):
        return {"grid": storage.written_space(units.space), "sizes": [*units.sizes]}
    return [units.size, units.every, units.whole]


def _fields(node: Node, place: dict[Node, int]) -> list[Any]:
    (written,) = storage.written_nodes([node], place)
    return [_units(each) if isinstance(each, s.Groups) else each for each in written[1:]]


def read_selections(items: Field, depth: int = 0) -> tuple[s.Chosen, ...]:
    """The selections that were written.

    Raises:
        ValueError: what was expected in a field, and what stands there.
    """
    if depth > _DEEPEST:
        raise items.wrong("no selections within so many others")
    return tuple(_read(each, depth) for each in items.items())


def _read(item: Field, depth: int) -> s.Chosen:
    tables = tuple(storage.read_table(each) for each in item.part("tables").items())
    align = item.part("align").one_of(Align)
    frame = Mask(logic.TRUE, *_read_spaces(item), tables, align)
    if (fault := mask_fault(frame)) is not None:
        raise ValueError(f"{item.path}: {fault}")
    reader = _Reader(frame, list(item.part("nodes").items(1)))
    within = read_selections(item.part("within"), depth + 1)
    made: s.Chosen
    if "side" in item.value:
        side = item.part("side").one_of(Side)
        keys = tuple(
            reader.whole(each, Sort.INT, Sort.REAL) for each in item.part("roots").items(1)
        )
        if any(s.sides_read(node, folds_all=True) & ~side.deps for node in keys):
            raise item.part("roots").wrong("numbers of one side")
        if side is Side.QUERY and any(node.sort is Sort.REAL for node in keys):
            raise item.part("roots").wrong("ints, of queries")
        made = s.Rank(
            item.part("name").name(), side, keys, tables, align, within, item.part("doc").text()
        )
    else:
        made = _selection(item, reader, replace(frame, selections=within))
    if tables_read(*made.expressions()) != {table.name for table in tables}:
        raise item.part("tables").wrong("the inputs that it reads")
    return made


def _read_spaces(item: Field) -> tuple[Space, Space]:
    if "spaces" not in item.value:
        return FLAT, FLAT
    queries, keys = map(storage.read_space, item.part("spaces").row("queries", "keys"))
    return queries, keys


def _selection(item: Field, reader: _Reader, frame: Mask) -> s.Selection:
    score, where, keeping, amount, *_ = item.part("roots").items(4)
    how, seed, by_column = item.part("take").row("how", "seed", "by_column")
    take = how.one_of(s.Take)
    kind = Sort.INT if take in (s.Take.TOP, s.Take.SAMPLE) else Sort.REAL
    units = _read_rows(item.part("units"), reader)
    if units is None:
        raise item.part("units").wrong("units")
    made = s.Selection(
        item.part("name").name(),
        units,
        _read_rows(item.part("queries"), reader),
        reader.whole(score, Sort.REAL),
        reader.whole(where, Sort.BOOL),
        reader.whole(keeping, Sort.BOOL),
        s.Choice(take, reader.whole(amount, kind), seed.number()),
        item.part("shared").one_of(s.Shared),
        frame.tables,
        frame.align,
        frame.selections,
        item.part("doc").text(),
        by_column.truth(),
        (frame.queries, frame.keys),
    )
    wrong = s.selection_fault(made)
    if wrong is not None:
        raise ValueError(f"{item.path}.{wrong[0]}: {wrong[1]}")
    return made


def _read_rows(item: Field, reader: _Reader) -> s.Groups | s.Numbers | None:
    if isinstance(item.value, int):
        stop = reader.whole(item, Sort.INT)
        if stop.deps & ~Deps.NONE:
            raise item.wrong("a number that is the same for all pairs")
        return s.Numbers(stop)
    return None if item.value is None else _read_units(item)


def with_selections(mask: Mask, selections: Iterable[s.Chosen]) -> Mask:
    """The mask with those of the selections whose tables it reads.

    Raises:
        ValueError: it declares a table of that name in another way.
    """
    return replace(mask, selections=making(selections, mask.tables))


def making(selections: Iterable[s.Chosen], tables: Iterable[Table]) -> tuple[s.Chosen, ...]:
    """Selections that make some of the tables, of those given.

    Raises:
        ValueError: a table of that name is declared in another way.
    """
    declared = {table.name: table for table in tables}
    own = tuple(each for each in selections if each.name in declared)
    for each in own:
        if declared[each.name] != each.table:
            raise ValueError(f"tables: {each.name!r} is not that of the selection")
    return own


def _read_units(item: Field) -> s.Groups:
    if isinstance(item.value, dict):
        return _read_tiles(item)
    return _read_blocks(item)


def _read_tiles(item: Field) -> s.Tiles:
    space, sizes = storage.read_space(item.part("grid")), [*item.part("sizes").items(1)]
    if len(space.segments) != 1 or len(space.segments[0].axes) != len(sizes):
        raise item.wrong("tiles of one grid, a size for each axis")
    return s.Tiles(space, tuple(each.number(1, s.LARGEST_UNIT) for each in sizes))


def _read_blocks(item: Field) -> s.Units:
    size, every, whole = item.row("size", "every", "whole")
    if item.value == _units(s.WHOLE):
        return s.WHOLE
    tokens = size.number(1, s.LARGEST_UNIT)
    return s.Units(tokens, every.number(1, tokens), whole.truth())


class _Reader(RealReader):
    """Nodes of selections among others."""

    classes: ClassVar[dict[str, type[Node]]] = {**RealReader.classes, **_CLASSES}

    def arguments(self, cls: type[Node], given: list[Field]) -> list[Any]:
        """The fields of a node."""
        match cls, given:
            case s.Pooled, [how, side, units, normal]:
                return [how.one_of(s.Pool), side.one_of(Side), _read_units(units), normal.truth()]
            case s.Unit, [vector]:
                return [self.node(vector, Sort.VECTOR)]
            case ((s.Bound | s.Antidiagonal), [units]):
                return [_read_units(units)]
            case s.Exceeds, [left, right, or_equal]:
                return [*(self.node(each, Sort.REAL) for each in (left, right)), or_equal.truth()]
            case s.Scale, []:
                return []
            case s.Reduced, [how, units, item, where, by_share]:
                over: s.Groups | s.Shared = (
                    units.one_of(s.Shared) if isinstance(units.value, str) else _read_units(units)
                )
                return [how.one_of(s.Fold), over, *self._folded(item, where), by_share.truth()]
            case s.RowFold, [how, units, item, where]:
                return [how.one_of(s.Fold), _read_units(units), *self._folded(item, where)]
            case s.QueryFold, [how, units, item, where, by_distance]:
                fold = how.one_of(s.Fold), _read_blocks(units)
                return [*fold, *self._folded(item, where), by_distance.truth()]
            case s.Series, [level, start, stop, body]:
                limits = self.node(start, Sort.INT), self.node(stop, Sort.INT)
                if (limits[0].deps | limits[1].deps) & ~Deps.NONE:
                    raise start.wrong("limits that are the same for all pairs")
                number = level.number(0, storage.DEEPEST)
                return [number, *limits, self.node(body, Sort.REAL)]
            case _:
                return super().arguments(cls, given)

    def _folded(self, item: Field, where: Field) -> tuple[Node, Node]:
        return self.node(item, Sort.REAL), self.node(where, Sort.BOOL)
