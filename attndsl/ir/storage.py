"""Masks as JSON: a list of nodes, children before parents. Reading one never runs anything.

Each field is checked, and named if it is wrong, before anything is built of it: what is read obeys the rules
that the language has for names, sizes, types and scopes, so that all that follows may rely on them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterable
from dataclasses import fields, replace
from typing import Any, ClassVar, Final, TypeVar

from attndsl.ir import logic, loops
from attndsl.ir import nodes as n
from attndsl.ir.documents import Field, not_saved, parsed
from attndsl.ir.interning import Deps, Node, Side, Sort, field_names, tag_of
from attndsl.ir.mask import Align, Axis, Condition, Mask, Segment, Space, Table
from attndsl.ir.rules import DIM_WORDS, is_name, mask_fault, space_fault, table_fault
from attndsl.ir.selection import Series
from attndsl.ir.sizing import axes_named
from attndsl.ir.walks import LARGEST, largest, postorder

FORMAT: Final = 1
DEEPEST: Final = 100  # quantifiers within each other; evaluating them recurses
_VARIABLES: Final = ("head", "heads", "batch", "layer")
_FIELDS: Final = (
    "format",
    "name",
    "doc",
    "align",
    "spaces",
    "tables",
    "unread",
    "nodes",
    "root",
    "zeros",
    "conditions",
)


_CLASSES: dict[str, type[Node]] = {
    tag_of(cls): cls
    for cls in (
        n.Const, n.Pos, n.Coord, n.Size, n.Var, n.Index, n.Sum, n.Mul, n.FloorDiv, n.Mod, n.Min,
        n.Max, n.Abs, n.ILog2, n.Pow2, n.Select, n.Load, n.BoolConst, n.Inside, n.Le, n.Eq,
        n.Not, n.And, n.Or, n.Exists, n.Total, n.Entry,
    )
}  # fmt: skip


def dump(mask: Mask) -> str:
    """The mask as JSON text. ``load(dump(mask)) == mask``."""
    roots = (mask.zeros, mask.root, *(each.node for each in mask.conditions))
    order = list(dict.fromkeys(itertools.chain.from_iterable(map(postorder, roots))))
    place = {node: index for index, node in enumerate(order)}
    document = {
        "format": FORMAT,
        "name": mask.name,
        "doc": mask.doc,
        "align": mask.align.value,
        "spaces": [written_space(mask.queries), written_space(mask.keys)],
        "tables": written_tables(mask.tables),
        "unread": list(mask.unread),
        "nodes": written_nodes(order, place),
        "root": place[mask.root],
        "zeros": place[mask.zeros],
    }
    if mask.conditions:
        document["conditions"] = [[each.text, place[each.node]] for each in mask.conditions]
    return json.dumps(document)


def written_tables(tables: Iterable[Table]) -> list[list[Any]]:
    """Inputs as data."""
    return [[t.name, t.kind.value, list(t.dims), t.is_list] for t in tables]


def written_nodes(order: Iterable[Node], place: dict[Node, int]) -> list[list[Any]]:
    """Nodes as data, their parts by their places."""
    return [[tag_of(type(node)), *_fields(node, place)] for node in order]


def _fields(node: Node, place: dict[Node, int]) -> list[Any]:
    return [_plain(getattr(node, name), place) for name in field_names(type(node))]


def _plain(value: Any, place: dict[Node, int]) -> Any:
    """Nodes become {"n": index}; enums their values."""
    if type(value) is int:
        return value
    if isinstance(value, Node):
        return {"n": place[value]}
    match value:
        case tuple():
            return [_plain(item, place) for item in value]
        case Deps():
            return int(value)
        case Side() | Sort():
            return value.value
        case _:
            return value


def written_space(space: Space) -> list[Any]:
    """A space as data; ``read_space`` gives its equal."""
    return [
        space.name,
        [[s.name, [[a.name, a.extent] for a in s.axes]] for s in space.segments],
    ]


# ---------------------------------------------------------------------------- reading


def load(text: str, also: Collection[str] = ()) -> Mask:
    """The mask that ``dump`` wrote.

    Args:
        text: The JSON.
        also: Fields that may stand in it beside those of a mask; whoever wrote them reads them.

    Raises:
        AttnDslError: A405, the text is not one; the note names the field.
    """
    try:
        return _mask(Field(parsed(text), ""), also)
    except (ValueError, RecursionError) as error:
        raise not_saved(str(error)) from error


def _mask(document: Field, also: Collection[str]) -> Mask:
    if (version := document.part("format").number()) != FORMAT:
        raise ValueError(f"format: {version}, this version reads {FORMAT}")
    if strange := sorted(set(document.value) - {*_FIELDS, *also}):
        raise ValueError(f"there is no field {strange[0]!r:.60}")
    name, doc = document.part("name").text(), document.part("doc").text()
    if name and not (is_name(name) or name.isidentifier()):
        raise document.part("name").wrong("a name")
    queries, keys = map(read_space, document.part("spaces").row("queries", "keys"))
    tables = tuple(map(read_table, document.part("tables").items()))
    align = document.part("align").one_of(Align)
    names = document.part("unread").items() if "unread" in document.value else ()
    unread = tuple(each.name() for each in names)
    frame = Mask(logic.TRUE, queries, keys, tables, align, name, doc, unread=unread)
    if (fault := mask_fault(frame)) is not None:
        raise ValueError(fault)
    reader = Reader(frame, list(document.part("nodes").items(1)))
    made = reader.mask(document.part("root"), document.part("zeros"))
    given = document.part("conditions").items() if "conditions" in document.value else ()
    return replace(made, conditions=tuple(map(reader.condition, given)))


def read_space(item: Field) -> Space:
    """The space that was written.

    Raises:
        ValueError: there is no such space.
    """
    name, segments = item.row("name", "segments")
    made = Space(name.text(), tuple(map(_read_segment, segments.items())))
    return _sound(item, made, space_fault(made))


def _read_segment(item: Field) -> Segment:
    name, axes = item.row("name", "axes")
    return Segment(name.text(), tuple(map(_read_axis, axes.items())))


def _read_axis(item: Field) -> Axis:
    name, extent = item.row("name", "extent")
    return Axis(name.text(), None if extent.value is None else extent.number(1))


def read_table(item: Field) -> Table:
    """An input."""
    name, kind, dims, is_list = item.row("name", "kind", "dims", "is_list")
    sizes = tuple(
        dim.text() if isinstance(dim.value, str) else dim.number(1) for dim in dims.items()
    )
    made = Table(name.text(), kind.one_of(Sort), sizes, is_list.truth())
    return _sound(item, made, table_fault(made))


M = TypeVar("M", Space, Table)


def _sound(item: Field, made: M, fault: str | None) -> M:
    if fault is not None:
        raise ValueError(f"{item.path}: {fault}")
    return made


# ---------------------------------------------------------------------------- nodes


class Reader:
    """Nodes in the order in which they stand, each of those before it."""

    classes: ClassVar[dict[str, type[Node]]] = _CLASSES

    def __init__(self, frame: Mask, items: list[Field]) -> None:
        self._frame = frame
        self.tables = {table.name: table for table in frame.tables}
        self._spaces = {Side.QUERY: frame.queries, Side.KEY: frame.keys}
        self._axes = {
            side: [f"{s.name}.{axis.name}" for s in space.segments for axis in s.axes]
            for side, space in self._spaces.items()
        }
        self._sizes = ["q", "k", *self._axes[Side.QUERY], *self._axes[Side.KEY], *_dims(frame)]
        self._made: list[Node] = []
        self._open: dict[Node, frozenset[int]] = {}  # levels whose quantifier stands further out
        self._deepest: dict[Node, int] = {}  # level of a quantifier inside, -1 without
        for item in items:
            self._made.append(self._read(item))

    def mask(self, root: Field, zeros: Field) -> Mask:
        """The mask of two of the nodes."""
        relation, count = self.whole(root, Sort.BOOL), self.whole(zeros, Sort.INT)
        if count.deps & Deps.KEY:
            raise zeros.wrong("a count that does not depend on the key")
        return replace(self._frame, root=relation, zeros=count)

    def condition(self, item: Field) -> Condition:
        """A demand on calls, by one of the nodes."""
        text, at = item.row("text", "node")
        node = self.whole(at, Sort.BOOL)
        if node.deps & Deps.PAIR:
            raise at.wrong("a condition that depends on no position")
        return Condition(node, text.text())

    def whole(self, item: Field, *sorts: Sort) -> Node:
        """One of the nodes, of one of the sorts, without open variables."""
        node = self._made[item.number(0, len(self._made) - 1)]
        if node.sort not in sorts or self._open[node]:
            raise item.wrong(f"a whole expression of sort {' or '.join(sorts)}")
        return node

    def _read(self, item: Field) -> Node:
        head = next(item.items(1))
        cls = self.classes[head.declared(self.classes)]
        names = [each.name for each in fields(cls) if each.init]
        _, *given = item.row("class", *names)
        raw = cls(*self.arguments(cls, given))
        match raw:
            case (
                n.Exists(level=level, body=body)
                | n.Total(level=level, body=body)
                | Series(level=level, body=body)
            ):
                if level != self._deepest[body] + 1 or level not in self._open[body]:
                    raise item.wrong("the level above those inside, and a body that reads it")
                made: Node = raw
            case _:
                made = loops.rebuild(raw, raw.parts)
        self._learn(made, item)
        return made

    def _learn(self, made: Node, item: Field) -> None:
        """Notes what is open in a node, and in those that its canonical form brought in."""
        waiting = [made]
        while waiting:
            node = waiting[-1]
            if new := [part for part in node.parts if part not in self._open]:
                waiting += new
                continue
            waiting.pop()
            if largest(node) >= LARGEST:
                raise item.wrong("numbers below 2**62")
            opened = frozenset[int]().union(*(self._open[part] for part in node.parts))
            deepest = max((self._deepest[part] for part in node.parts), default=-1)
            match node:
                case n.Index(level=level):
                    opened |= {level}
                case n.Exists() | n.Total() | Series():
                    limits = self._open[node.start] | self._open[node.stop]
                    opened = limits | self._open[node.body] - {node.level}
                    deepest = max(deepest, node.level)
                case _:
                    pass
            self._open[node], self._deepest[node] = opened, deepest

    def arguments(self, cls: type[Node], given: list[Field]) -> list[Any]:  # noqa: C901
        """The fields of a node: one arm for each shape."""
        match cls, given:
            case n.Const, [value]:
                return [value.number()]
            case n.BoolConst, [value]:
                return [value.truth()]
            case n.Pos, [side]:
                return [side.one_of(Side)]
            case n.Coord, [side, axis]:
                return [at := side.one_of(Side), axis.declared(self._axes[at])]
            case n.Inside, [side, segment]:
                at = side.one_of(Side)
                return [at, segment.declared([each.name for each in self._spaces[at].segments])]
            case n.Size, [name]:
                return [name.declared(self._sizes)]
            case n.Var, [name]:
                return [name.word(*_VARIABLES)]
            case n.Index, [level]:
                return [level.number(0, DEEPEST)]
            case n.Sum, [terms, constant]:
                pairs = [each.row("term", "factor") for each in terms.items(1)]
                return [
                    tuple((self.node(x, Sort.INT), c.number()) for x, c in pairs),
                    constant.number(),
                ]
            case ((n.Min | n.Max), [items]):
                return [tuple(self.node(each, Sort.INT) for each in items.items(2))]
            case ((n.And | n.Or), [items]):
                return [tuple(self.node(each, Sort.BOOL) for each in items.items(2))]
            case n.Select, [cond, yes, no]:
                return [self.node(cond, Sort.BOOL), *self._numbers(yes, no)]
            case n.Load, [table, kind, index, ambient]:
                return self._load(table, kind, index, ambient)
            case ((n.Le | n.Eq), [item, bound]):
                return [self.node(item, Sort.INT), bound.number()]
            case n.Entry, [values, index]:
                return [tuple(each.number() for each in values.items(1)), *self._numbers(index)]
            case n.Not, [item]:
                return [self.node(item, Sort.BOOL)]
            case ((n.Exists | n.Total), [level, start, stop, body]):
                sort = Sort.BOOL if cls is n.Exists else Sort.INT
                limits = self._numbers(start, stop)
                return [level.number(0, DEEPEST), *limits, self.node(body, sort)]
            case _:  # Mul, FloorDiv, Mod, Abs, ILog2, Pow2
                return self._numbers(*given)

    def _numbers(self, *items: Field) -> list[Node]:
        return [self.node(each, Sort.INT) for each in items]

    def node(self, item: Field, sort: Sort) -> Node:
        """One of the nodes before: what comes later, or the node itself, is not there yet."""
        node = self._made[item.part("n").number(0, len(self._made) - 1)]
        if node.sort is not sort:
            raise ValueError(f"{item.path}: expected a node of sort {sort.value}")
        return node

    def _load(self, table: Field, kind: Field, index: Field, ambient: Field) -> list[Any]:
        found = self.tables[table.declared(self.tables)]
        kind.word(found.kind.value)
        ambient.number(int(found.ambient), int(found.ambient))
        places = self._numbers(*index.items())
        if len(places) != len(found.indexed_dims):
            raise index.wrong(f"{len(found.indexed_dims)} of them")
        return [found.name, found.kind, tuple(places), found.ambient]


def _dims(frame: Mask) -> list[str]:
    """The lengths of dims of tables that nothing else tells, as nodes name them."""
    return [
        f"{table.name}:{dim}"
        for table in frame.tables
        for dim in table.indexed_dims
        if isinstance(dim, str) and dim not in DIM_WORDS and not axes_named(frame, dim)
    ]
