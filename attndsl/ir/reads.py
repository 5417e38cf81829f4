"""Tables read at positions or their blocks, ``t[q]``, ``t[k // 64]``: they must have an entry for each."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

from attndsl.ir.arithmetic import linear, sub
from attndsl.ir.interning import Deps, Node, Side
from attndsl.ir.mask import Align, Mask, Table, first_query
from attndsl.ir.nodes import Const, Coord, FloorDiv, Le, Load, Pos, Size, Var
from attndsl.ir.walks import postorder


@dataclass(frozen=True, slots=True)
class Read:
    """A dim of a table that is read at each position, or coordinate, of a side."""

    table: Table
    place: int  # of the dim among those that are indexed
    position: str  # as the language spells it
    length: str  # how many of them there are, as ``Size`` nodes name it
    block: int = 1  # how many read one entry

    @property
    def dim(self) -> str | int:
        """The dim, as it is declared."""
        return self.table.indexed_dims[self.place]

    @property
    def index(self) -> str:
        """The index, as the language spells it."""
        return self.position if self.block == 1 else f"{self.position} // {self.block}"


@functools.lru_cache(maxsize=256)  # every call asks
def reads(mask: Mask) -> tuple[Read, ...]:
    """All reads, except those that a comparison of the index with the size of the dim stands for.

    A read outside a table is 0 by the rules of the language. At ``t[q - 1]`` that is meant; a table that is shorter
    than the sequence is a mistake of the call, unless the pattern asks ``q < len(t.n)``.
    """
    tables = {table.name: table for table in mask.tables}
    nodes = dict.fromkeys((*postorder(mask.root), *postorder(mask.zeros))) if tables else {}
    limits = {node for node in nodes if isinstance(node, Le)}
    found: dict[Read, None] = {}
    for node in nodes:
        if isinstance(node, Load):
            table = tables[node.table]
            dims = table.indexed_dims[: len(table.indexed_dims) - table.is_list]
            for place, (dim, index) in enumerate(zip(dims, node.index, strict=False)):
                read = _read(mask, table, place, _position(mask, dim, index))
                if read is not None and (table.is_list or not _asks(limits, table, dim, index)):
                    found[read] = None
    return tuple(found)


def reads_inputs(root: Node) -> bool:
    """Whether it depends on what the run-time inputs hold, or on their sizes."""
    return any(
        isinstance(node, Load) or (isinstance(node, Size) and ":" in node.name)
        for node in postorder(root, Load, Size)
    )


def varies_by_call(root: Node) -> bool:
    """Whether calls of one layer differ in it, and no pairs of a call: by inputs, lengths, heads or batch elements."""
    return not root.deps & Deps.PAIR and any(
        isinstance(node, Load | Size) or (isinstance(node, Var) and node.name != "layer")
        for node in postorder(root, Load, Size, Var)
    )


def _position(mask: Mask, dim: str | int, index: Node) -> Node:
    """The position that an index is; a dim of the queries holds those of one call alone."""
    shift = first_query(mask.align)
    if dim == "q":
        found = linear(index)[0]
        for side in Side:
            if Pos(side) in found and index is sub(Pos(side), shift):
                return Pos(side)
    return index


def _read(mask: Mask, table: Table, place: int, index: Node) -> Read | None:
    match index:
        case Pos(side=side) if table.indexed_dims[place] != side:
            ends = side is Side.KEY or mask.align is Align.END
            return Read(table, place, side.value, "k" if ends else "q")
        case Coord(side=side, axis=axis):
            return Read(table, place, f"{side}.{axis.partition('.')[2]}", axis)
        case FloorDiv(left=left, right=Const(value=block)) if block > 0:
            whole = _read(mask, table, place, left)
            return None if whole is None else replace(whole, block=whole.block * block)
        case _:
            return None


def _asks(limits: set[Le], table: Table, dim: str | int, index: Node) -> bool:
    """Whether the pattern asks if the index is within the dim."""
    size = Const(dim) if isinstance(dim, int) else Size(f"{table.name}:{dim}")
    terms, constant = linear(sub(index, size))
    return any(linear(limit.item)[0] == terms and limit.bound <= -1 - constant for limit in limits)
