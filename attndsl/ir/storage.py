"""Masks as JSON: a list of nodes, children before parents. Reading one never runs anything."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

from attndsl.ir import loops
from attndsl.ir import nodes as n
from attndsl.ir.mask import Align, Axis, Mask, Segment, Space, Table
from attndsl.ir.nodes import Deps, Node, Side, Sort
from attndsl.source import AttnDslError, Diagnostic

FORMAT = 1

_CLASSES: dict[str, type[Node]] = {
    n.tag_of(cls): cls
    for cls in (
        n.Const, n.Pos, n.Coord, n.Size, n.Var, n.Index, n.Sum, n.Mul, n.FloorDiv, n.Mod, n.Min,
        n.Max, n.Abs, n.ILog2, n.Pow2, n.Select, n.Load, n.BoolConst, n.Inside, n.Le, n.Eq,
        n.Not, n.And, n.Or, n.Exists, n.Total,
    )
}  # fmt: skip


def dump(mask: Mask) -> str:
    """The mask as JSON text. ``load(dump(mask)) == mask``."""
    order = list(dict.fromkeys((*n.postorder(mask.zeros), *n.postorder(mask.root))))
    place = {node: index for index, node in enumerate(order)}
    document = {
        "format": FORMAT,
        "name": mask.name,
        "doc": mask.doc,
        "align": mask.align.value,
        "spaces": [_space(mask.queries), _space(mask.keys)],
        "tables": [[t.name, t.kind.value, list(t.dims), t.is_list] for t in mask.tables],
        "unread": list(mask.unread),
        "nodes": [[n.tag_of(type(node)), *_fields(node, place)] for node in order],
        "root": place[mask.root],
        "zeros": place[mask.zeros],
    }
    return json.dumps(document)


def load(text: str) -> Mask:
    """The mask that ``dump`` wrote.

    Raises:
        AttnDslError: A405, the text is not one.
    """
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']}, this version reads {FORMAT}")
        made: list[Node] = []
        for name, *values in document["nodes"]:
            made.append(_node(name, values, made))
        spaces = [_read_space(item) for item in document["spaces"]]
        tables = tuple(
            Table(name, Sort(kind), tuple(dims), is_list)
            for name, kind, dims, is_list in document["tables"]
        )
        root, zeros = made[document["root"]], made[document["zeros"]]
        if root.sort is not Sort.BOOL:
            raise ValueError("the root is not a truth value")
        if zeros.sort is not Sort.INT or zeros.deps & Deps.KEY:
            raise ValueError("the zero keys are not a count for each query")
        align = Align(document["align"])
        queries, keys = spaces
        name, doc = document["name"], document["doc"]
        unread = tuple(map(str, document.get("unread", ())))
        return Mask(root, queries, keys, tables, align, name, doc, zeros=zeros, unread=unread)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise AttnDslError(
            (Diagnostic(code="A405", title="not a saved pattern", notes=(str(error),)),)
        ) from error


def _fields(node: Node, place: dict[Node, int]) -> list[Any]:
    return [_plain(getattr(node, f.name), place) for f in fields(node) if f.init]


def _plain(value: Any, place: dict[Node, int]) -> Any:
    """Nodes become {"n": index}; enums their values."""
    match value:
        case Node():
            return {"n": place[value]}
        case tuple():
            return [_plain(item, place) for item in value]
        case Deps():
            return int(value)
        case Side() | Sort():
            return value.value
        case _:
            return value


def _node(name: str, values: list[Any], made: list[Node]) -> Node:
    """The node, rebuilt by its smart constructor: what is not canonical becomes so."""
    cls = _CLASSES[name]
    types = [f.name for f in fields(cls) if f.init]
    if len(types) != len(values):
        raise ValueError(f"{name} takes {len(types)} fields")
    arguments = [_rich(cls, key, value, made) for key, value in zip(types, values, strict=True)]
    node: Node = cls(*arguments)
    return node if isinstance(node, n.Loop) else loops.rebuild(node, n.children(node))


def _rich(cls: type[Node], key: str, value: Any, made: list[Node]) -> Any:
    match value:
        case {"n": int(index)} if 0 <= index < len(made):
            return made[index]
        case list():
            return tuple(_rich(cls, "", item, made) for item in value)
        case str() if key == "side":
            return Side(value)
        case str() if key == "kind":
            return Sort(value)
        case int() if key == "ambient":
            return Deps(value)
        case str() | int():
            return value
        case _:
            raise ValueError(f"unexpected {value!r} in {cls.__name__}")


def _space(space: Space) -> list[Any]:
    return [
        space.name,
        [[s.name, [[a.name, a.extent] for a in s.axes]] for s in space.segments],
    ]


def _read_space(item: list[Any]) -> Space:
    name, segments = item
    return Space(
        name,
        tuple(Segment(s, tuple(Axis(a, extent) for a, extent in axes)) for s, axes in segments),
    )
