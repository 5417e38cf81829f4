"""A mask: a relation between query and key positions, with the spaces and tables it speaks of."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from attndsl.ir.arithmetic import ZERO, sub
from attndsl.ir.interning import Deps, Node, Sort
from attndsl.ir.nodes import Const, Load, Size
from attndsl.ir.walks import postorder
from attndsl.source import NOWHERE, Span

if TYPE_CHECKING:
    from attndsl.ir.claims import Claim
    from attndsl.ir.selection import Chosen


class Align(StrEnum):
    """The ends of the two sequences that coincide when their lengths differ."""

    END = "end"
    START = "start"


def first_query(align: Align) -> Node:
    """The position of query 0."""
    return sub(Size("k"), Size("q")) if align is Align.END else ZERO


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a segment; ``extent`` is None when it is known only at the call."""

    name: str
    extent: int | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of tokens laid out row-major over its axes, the last axis fastest."""

    name: str
    axes: tuple[Axis, ...]


@dataclass(frozen=True, slots=True)
class Space:
    """Segments one after the other. Without segments: a plain sequence of any length."""

    name: str = ""
    segments: tuple[Segment, ...] = ()

    def segment(self, name: str) -> Segment | None:
        """The segment of that name, if any."""
        return next((s for s in self.segments if s.name == name), None)


FLAT = Space()
NO_ZEROS = Const(0)


@dataclass(frozen=True, slots=True)
class Table:
    """A run-time input. ``dims`` are "batch", "head", "pos", "q", "k", an axis, a free name or a size.

    The leading "batch" and "head" dims, if declared, are indexed implicitly by the batch element and
    the query head. ``is_list``: the last dim holds slots, negative entries are empty. ``span`` says for errors where
    it was declared, and takes no part in equality.
    """

    name: str
    kind: Sort
    dims: tuple[str | int, ...]
    is_list: bool = False
    span: Span = field(default=NOWHERE, compare=False, repr=False)

    @property
    def ambient(self) -> Deps:
        """The rank that every read of the table has: batch, head, both or none."""
        deps = Deps.NONE
        for dim, flag in (("batch", Deps.BATCH), ("head", Deps.HEAD)):
            deps |= flag if dim in self.dims else Deps.NONE
        return deps

    @property
    def indexed_dims(self) -> tuple[str | int, ...]:
        """The dims that a read names, in order."""
        return tuple(dim for dim in self.dims if dim not in ("batch", "head"))


@dataclass(frozen=True, slots=True)
class Condition:
    """A demand on the inputs, lengths and heads of a call: a truth value that depends on no position.

    ``text`` is the condition as the language spells it.
    """

    node: Node
    text: str
    span: Span = NOWHERE


@dataclass(frozen=True, slots=True)
class Mask:
    """``root`` is true for exactly the pairs that are in the pattern.

    With ``align`` END the position of query ``i`` is ``i + len(k) - len(q)``; with START it is ``i``,
    which is the rule between different spaces. A query at a negative position is no token and sees nothing,
    whatever ``root`` and ``zeros`` say of it, see `absent`.
    ``zeros`` is how many zero keys each query sees beside its keys: an int >= 0 that does not depend on
    the key. A zero key has score 0 and value 0: it counts in the softmax, and adds nothing to the output.
    ``name`` and ``doc`` are for people, ``claims`` for those who judge them, ``unread`` names inputs that
    were declared and may be given though nothing reads them, ``conditions`` refuse calls, ``places`` say for errors
    where loops that are left in ``root`` and ``zeros`` were written: these take no part in equality or in the digest.
    ``selections`` make inputs of those names where a call does not bring them; equal masks have equal ones, and the
    digest, that of the pairs, knows none. ``dump`` does not write places, nor claims and selections, which have
    functions of their own.
    """

    root: Node
    queries: Space = FLAT
    keys: Space = FLAT
    tables: tuple[Table, ...] = ()
    align: Align = Align.END
    name: str = field(default="", compare=False)
    doc: str = field(default="", compare=False)
    claims: tuple[Claim, ...] = field(default=(), compare=False, repr=False)
    zeros: Node = NO_ZEROS
    unread: tuple[str, ...] = field(default=(), compare=False, repr=False)
    conditions: tuple[Condition, ...] = field(default=(), compare=False, repr=False)
    places: tuple[tuple[Node, Span], ...] = field(default=(), compare=False, repr=False)
    selections: tuple[Chosen, ...] = field(default=(), repr=False)

    @property
    def digest(self) -> str:
        """Stable across processes and machines: 32 hex digits of everything that has meaning."""
        parts = (self.queries, self.keys, self.tables, self.align.value)
        hasher = hashlib.blake2b(self.root.digest + self.zeros.digest, digest_size=16)
        hasher.update(repr(parts).encode())
        return hasher.hexdigest()

    @property
    def is_rectangular(self) -> bool:
        """Whether queries and keys live in different spaces."""
        return self.queries != self.keys

    @property
    def is_placed(self) -> bool:
        """Whether it asks where a query stands; all queries are alike to a mask that does not."""
        return bool((self.root.deps | self.zeros.deps) & Deps.QUERY)

    def absent(self, q_len: int, k_len: int) -> int:
        """How many queries, the first ones, would stand before the first token: there are none there."""
        return max(0, -self.shift(q_len, k_len)) if self.is_placed else 0

    def shift(self, q_len: int, k_len: int) -> int:
        """The position of query 0."""
        return k_len - q_len if self.align is Align.END else 0

    def with_root(self, root: Node) -> Mask:
        """The same mask around another relation; tables that are not read are dropped, but for their names."""
        read: set[str] = set()
        roots = (root, self.zeros, *(each.node for each in self.conditions))
        for node in (node for each in roots for node in postorder(each, Load, Size)):
            match node:
                case Load(table=name):
                    read.add(name)
                case Size(name=name) if ":" in name:  # a dim of a table
                    read.add(name.partition(":")[0])
                case _:
                    pass
        kept = tuple(table for table in self.tables if table.name in read)
        unread = (*self.unread, *(t.name for t in self.tables if t.name not in read))
        return replace(self, root=root, tables=kept, unread=unread)
