"""Layouts: in which order the tokens of one side are taken into tiles.

A layout is a list of *keys*, expressions of one position. Storage order is the stable sort of the
positions by those keys: the first key first, and position order among equals. So every layout is a
bijection by construction, at every length, whether or not a box divides the extents, and a run-time
sort by a table is no different from a permutation of digits:

    residues(8)         keys  q % 8                    residue classes, one after the other
    boxes(y=8, x=16)    keys  q.y // 8, q.x // 16      boxes of an image, each row-major inside
    axes(x, y)          keys  q.x, q.y                 transposed
    morton(y, x)        keys  interleaved bits         a space-filling order
    sorted(doc)         keys  doc[q]                   documents, clusters, identifiers
    banded(nbr)         keys  rank by reverse Cuthill-McKee of the listed neighbours

Substituting an order into the IR means: a per-query term of storage row ``s`` is the term at position
``rows[s]``. Its exact range on a tile of storage is a minimum and maximum like any other, so nothing in
the analysis has to know. A kernel needs one thing more: the row of a storage index.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from attndsl import ir
from attndsl.passes import lower_root
from attndsl.schedule.model import IntArray
from attndsl.source import AttnDslError, Diagnostic, suggest

_Q = ir.Pos(ir.Side.QUERY)
_MORTON_BITS = 20  # per axis: extents up to a million
_LARGEST_GRAPH = 1 << 16  # tokens; networkx walks them one by one


@dataclass(frozen=True, slots=True)
class Layout:
    """Positions sorted by ``keys``.

    Keys are written for a query, and read as a key's where they serve that side; coordinates may
    leave out the segment.
    """

    name: str
    keys: tuple[ir.Node, ...] = ()

    def __str__(self) -> str:
        return self.name


NATURAL: Final = Layout("natural")


def read_layout(text: str) -> Layout:
    """The layout of that name: ``natural``, ``residues(8)``, ``boxes(y=8, x=16)``, ``sorted(doc)``...

    Raises:
        AttnDslError: A410, there is no such layout, or its arguments make no sense.
    """
    name, given = _parsed(text)
    if name == "natural" and not given:
        return NATURAL
    if name not in _FORMS:
        near = suggest(name, ["natural", *_FORMS])
        raise _fault(
            f"there is no layout {text!r}",
            f"layouts: natural, {', '.join(_FORMS)}",
            helps=(f"did you mean {near!r}?" if near else _EXAMPLE,),
        )
    wanted, make = _FORMS[name]
    words = [word for word, size in given if size is None]
    sizes = {word: size for word, size in given if size is not None}
    once = len(words) + len(sizes) == len(given) and ("" not in sizes or len(sizes) == 1)
    fits = {"sizes": not words, "words": not sizes, "word": not sizes and len(words) == 1}
    if not (given and once and fits[wanted]) or min(sizes.values(), default=1) < 1:
        raise _fault(f"layout {text!r}: these arguments make no sense", helps=(_EXAMPLE,))
    spelled = [word if size is None else f"{word}={size}" for word, size in given]
    plain = ", ".join(spelled).replace("=", "") if "" in sizes else ", ".join(spelled)
    return Layout(f"{name}({plain})", make(sizes or words))


def read_layouts(text: str) -> tuple[Layout, Layout]:
    """The layouts of queries and keys: one name for both, or two with a slash between.

    Raises:
        AttnDslError: A410, as ``read_layout``.
    """
    first, slash, second = text.partition("/")
    of_queries = read_layout(first)
    return of_queries, read_layout(second) if slash else of_queries


_EXAMPLE = 'for example "residues(8)", "boxes(y=8, x=16)", "axes(x, y)", "sorted(doc)"'


def _parsed(text: str) -> tuple[str, list[tuple[str, int | None]]]:
    whole = re.fullmatch(r"\s*(\w+)\s*(?:\((.*)\))?\s*", text)
    if whole is None:
        raise _fault(f"there is no layout {text!r}", helps=(_EXAMPLE,))
    given: list[tuple[str, int | None]] = []
    for item in filter(None, (part.strip() for part in (whole[2] or "").split(","))):
        found = re.fullmatch(r"(?:([A-Za-z_][\w.]*)\s*=\s*)?(\d{1,12})|([A-Za-z_][\w.]*)", item)
        if found is None:
            raise _fault(f"layout {text!r}: cannot read {item!r}", helps=(_EXAMPLE,))
        axis, size, word = found.groups()
        given.append((word, None) if word else (axis or "", int(size)))
    return whole[1], given


def _fault(title: str, *notes: str, helps: tuple[str, ...] = ()) -> AttnDslError:
    return AttnDslError(Diagnostic("A410", title, notes=notes, helps=helps))


def _axis(name: str) -> ir.Node:
    return ir.Coord(ir.Side.QUERY, name) if name else _Q


def _residues(sizes: Mapping[str, int]) -> tuple[ir.Node, ...]:
    return tuple(ir.mod(_axis(axis), ir.Const(size)) for axis, size in sizes.items())


def _boxes(sizes: Mapping[str, int]) -> tuple[ir.Node, ...]:
    return tuple(ir.floordiv(_axis(axis), ir.Const(size)) for axis, size in sizes.items())


def _axes(names: Sequence[str]) -> tuple[ir.Node, ...]:
    return tuple(_axis(name) for name in names)


def _morton(names: Sequence[str]) -> tuple[ir.Node, ...]:
    two = ir.Const(2)
    return tuple(
        ir.mod(ir.floordiv(_axis(name), ir.Const(1 << bit)), two)
        for bit in reversed(range(_MORTON_BITS))
        for name in names
    )


def _sorted(names: Sequence[str]) -> tuple[ir.Node, ...]:
    return (ir.Load(names[0], ir.Sort.INT, (_Q,), ir.Deps.NONE),)


def _banded(names: Sequence[str]) -> tuple[ir.Node, ...]:
    return (ir.Load(rank_table(names[0]), ir.Sort.INT, (_Q,), ir.Deps.NONE),)


_RANK = "rank of "  # no table of a program can bear such a name

_FORMS: Final[dict[str, tuple[str, Any]]] = {
    "residues": ("sizes", _residues),
    "boxes": ("sizes", _boxes),
    "axes": ("words", _axes),
    "morton": ("words", _morton),
    "sorted": ("word", _sorted),
    "banded": ("word", _banded),
}


# ---------------------------------------------------------------------------- on one side of a mask


def keys_on(side: ir.Side, layout: Layout, mask: ir.Mask) -> tuple[ir.Node, ...]:
    """The keys as expressions of that side's position alone: coordinates lowered, tables declared.

    Raises:
        AttnDslError: A410, the side has no such axis, or the mask no such table.
    """
    space = mask.queries if side is ir.Side.QUERY else mask.keys
    axes: dict[str, str] = {}
    for segment in space.segments:
        for axis in segment.axes:
            full = f"{segment.name}.{axis.name}"
            axes |= {full: full, axis.name: full}
    tables = {table.name: table for table in mask.tables}
    first_query = ir.first_query(mask.align)

    def rule(node: ir.Node) -> ir.Node:
        match node:
            case ir.Pos():
                return ir.Pos(side)
            case ir.Coord(axis=name):
                if name not in axes:
                    have = ", ".join(axes) or "none"
                    raise _fault(
                        f"layout {layout.name}: no axis {name!r} on the side of {side}",
                        f"axes there: {have}",
                    )
                return ir.Coord(side, axes[name])
            case ir.Load(table=name, index=index):
                table = tables.get(name.removeprefix(_RANK))
                if table is not None and table.indexed_dims == (ir.Side.QUERY.value,):
                    index = (ir.sub(index[0], first_query),)  # it counts rows, not positions
                return _read(layout, table, name, index)
            case _:
                return node

    lowered = (ir.transform(key, rule) for key in layout.keys)
    return tuple(lower_root(key, mask) for key in lowered)


def _read(layout: Layout, table: ir.Table | None, name: str, index: tuple[ir.Node, ...]) -> ir.Node:
    bare = name.removeprefix(_RANK)
    wants_list = name != bare
    if table is None or table.is_list != wants_list or len(table.indexed_dims) != 1 + wants_list:
        kind = "list[q, slots]" if wants_list else "int[pos]"
        raise _fault(f"layout {layout.name}: the pattern reads no table {bare!r} of kind {kind}")
    return ir.Load(name, table.kind, index, table.ambient)


# ---------------------------------------------------------------------------- orders


def stable_order(columns: Sequence[IntArray]) -> IntArray:
    """The permutation that sorts by the columns, first column first, stable."""
    code, count = _from_zero(columns[0])
    for column, width in map(_from_zero, columns[1:]):
        if count * width > 1 << 62:
            (code, count), (column, width) = _ranks(code), _ranks(column)
        code = code * width + column
        count *= width
    return _order(code, count)


def _from_zero(column: IntArray) -> tuple[IntArray, int]:
    """Numbers >= 0 in the same order, and what they are less than."""
    low, high = int(column.min(initial=0)), int(column.max(initial=0))
    return (column - low, high - low + 1) if high - low < 1 << 62 else _ranks(column)


def _ranks(column: IntArray) -> tuple[IntArray, int]:
    distinct, ranks = np.unique(column, return_inverse=True)
    return ranks.reshape(-1), max(1, len(distinct))


def _order(code: IntArray, count: int) -> IntArray:
    """Stable argsort of numbers from 0 up to the count.

    NumPy sorts 16-bit numbers in linear time. Larger ones are sorted with their places packed behind them, because
    sorting numbers is several times faster than an argsort.
    """
    if count <= 1 << 16:
        return np.argsort(code.astype(np.uint16), kind="stable")
    bits = len(code).bit_length()
    if count > 1 << (63 - bits):
        code, _ = _ranks(code)
    return np.sort((code << bits) | np.arange(len(code))) & ((1 << bits) - 1)


def band_ranks(neighbours: np.ndarray[Any, Any]) -> IntArray:
    """The place of each token in the reverse Cuthill-McKee order of its neighbour lists [n, slots].

    Cuthill and McKee 1969, as networkx implements it: neighbours come close to each other, so the
    live tiles gather at the diagonal. Negative entries and those outside are no neighbours.

    Raises:
        AttnDslError: A411, the graph is too large for it.
    """
    count = len(neighbours)
    if count > _LARGEST_GRAPH:
        raise AttnDslError(
            Diagnostic(
                "A411",
                f"a banded layout of {count:,} tokens would take too long",
                notes=(f"at most {_LARGEST_GRAPH:,} are allowed",),
                helps=("sort by an identifier instead: sorted(...)",),
            )
        )
    import networkx as nx  # here, for it takes longer to load than most patterns to compile

    graph = nx.Graph()
    graph.add_nodes_from(range(count))
    for token, row in enumerate(neighbours.tolist()):
        graph.add_edges_from((token, other) for other in row if 0 <= other < count)
    graph.remove_edges_from(list(nx.selfloop_edges(graph)))
    found = list(nx.utils.reverse_cuthill_mckee_ordering(graph))
    ranks = np.empty(count, dtype=np.int64)
    ranks[found] = np.arange(count)
    return ranks


def rank_table(name: str) -> str:
    """The table of ranks of those neighbour lists."""
    return _RANK + name


def ranked_table(name: str) -> str | None:
    """The neighbour lists behind the name of a table of ranks."""
    return name.removeprefix(_RANK) if name.startswith(_RANK) else None
