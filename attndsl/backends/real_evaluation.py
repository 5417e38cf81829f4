"""Values of real expressions at the pairs of a piece of a strip, and the way back from gains to what they read.

Values are tensors [items, heads, queries, keys], 1 where they do not depend on it. A value is *free* where all items
of a strip have the same: ``q - k`` is where queries and keys move on by equal steps, ``table[q // 64]`` where the
steps are multiples of 64. Free values are computed once a strip; those that follow from the call alone are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from torch import Tensor

from attndsl import ir
from attndsl.backends.draws import drawn
from attndsl.backends.pair_products import Vectors, inner, inner_gains
from attndsl.backends.places import IntArray
from attndsl.backends.scores import BoundScore
from attndsl.backends.table_reads import give, take

reals = ir.reals

_KEPT_BYTES = 1 << 26  # of values that are kept with the kernels of a call

_FUNCTIONS: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "exp": torch.exp,
    "exp2": torch.exp2,
    "log": torch.log,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": lambda x: torch.logaddexp(x, torch.zeros((), dtype=x.dtype)),
    "relu": torch.relu,
    "sqrt": torch.sqrt,
    "abs": torch.abs,
    "sign": torch.sign,
    "step": lambda x: (x > 0).to(x.dtype),
}

_INTO: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "exp": torch.exp_,
    "exp2": torch.exp2_,
    "log": torch.log_,
    "tanh": torch.tanh_,
    "sigmoid": torch.sigmoid_,
    "relu": torch.relu_,
    "sqrt": torch.sqrt_,
    "abs": torch.abs_,
}

Read: TypeAlias = ir.Load | reals.Row
Taken: TypeAlias = tuple[
    Tensor, Tensor | None
]  # entries of a table, counted flat, and where they are inside it


@dataclass(frozen=True, slots=True)
class Spot:
    """Where the pairs of a piece stand: positions of queries [items, 1, n, 1] and keys [items, 1, 1, m].

    ``name`` tells the piece from all others of the kernels; that of a free value leaves out the items.
    """

    q: IntArray
    k: IntArray
    batch: int
    heads: slice
    name: tuple[Any, ...]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Items, heads, queries and keys."""
        items = max(len(self.q), len(self.k))
        return items, self.heads.stop - self.heads.start, self.q.shape[2], self.k.shape[3]


@dataclass(frozen=True, slots=True)
class Kept:
    """Values that every call needs again, as many as fit; the first ones stay."""

    found: dict[Any, Any] = field(default_factory=dict)
    size: list[int] = field(default_factory=lambda: [0])

    @property
    def nbytes(self) -> int:
        """Bytes of all that is kept."""
        return self.size[0]

    def __call__(self, key: Any, make: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
        found: tuple[Any, ...] | None = self.found.get(key)
        if found is not None:
            return found
        made = make()
        more = sum(x.nbytes for x in made if isinstance(x, Tensor))
        if self.size[0] + more <= _KEPT_BYTES:
            self.size[0] += more
            self.found[key] = made
        return made


@dataclass(slots=True)
class Values:
    """The values of one piece. ``tables`` are the real ones, [heads or 1, ...] of the heads of the spot.

    ``own`` are the vectors of queries and keys, [items, heads, rows, width]. ``free`` nodes are those of ``outer``,
    whose items are one. ``constants`` follow from the call alone, whatever its tensors hold.
    """

    bound: BoundScore
    spot: Spot
    tables: Mapping[str, Tensor]
    kept: Kept
    dtype: torch.dtype
    constants: Set[ir.Node] = frozenset()
    free: Set[ir.Node] = frozenset()
    outer: Values | None = None
    own: Mapping[ir.Side, Tensor] = field(default_factory=dict)
    spent: Set[ir.Node] = frozenset()
    memo: dict[ir.Node, Tensor] = field(default_factory=dict)

    def __call__(self, root: ir.Node) -> Tensor:
        """The value of a real expression."""
        stack = [root]
        while stack:
            node = stack[-1]
            if node in self.memo:
                stack.pop()
            elif self.outer is not None and node in self.free:
                self.memo[node] = self.outer(node)
            elif node in self.constants:
                self.memo[node] = self._constant(node)
            elif missing := [part for part in self._parts(node) if part not in self.memo]:
                stack += missing
            else:
                self.memo[node] = self._step(node)
        return self.memo[root]

    def _step(self, node: ir.Node) -> Tensor:
        at = self.memo
        match node:
            case reals.Number(value=value):
                return torch.tensor(value, dtype=self.dtype)
            case reals.FromInt(item=item) | reals.Choose(cond=item) as chosen:
                found = self._whole(item, chosen)
                if isinstance(chosen, reals.Choose):
                    return torch.where(found, at[chosen.yes], at[chosen.no])
                return found
            case reals.Plus(items=items):
                return self._sum(items)
            case reals.Times(left=left, right=right):
                return torch.mul(at[left], at[right], out=self._into(left, right))
            case reals.Over(left=left, right=right):
                return torch.div(at[left], at[right], out=self._into(left, right))
            case reals.Apply(function=function, item=item):
                into = self._into(item) if function in _INTO else None
                return _FUNCTIONS[function](at[item]) if into is None else _INTO[function](into)
            case reals.Least(left=left, right=right) | reals.Greatest(left=left, right=right):
                least = isinstance(node, reals.Least)
                return (torch.minimum if least else torch.maximum)(at[left], at[right])
            case ir.Load():
                return take(self.table(node)[..., None], *self.entries(node))[..., 0]
            case reals.Drawn(least=least, left=left, right=right):
                return drawn(self._number(left), self._number(right), least, self.dtype)
            case reals.Dot(left=left, right=right):
                return inner(vectors(self, left), vectors(self, right))
            case _:
                raise AssertionError(f"{type(node).__name__} has no value at a pair")

    def _parts(self, node: ir.Node) -> list[ir.Node]:
        """The real nodes whose values a step takes."""
        if isinstance(node, reals.Plus):
            return [part for item in node.items for part in self._factors(item)[1]]
        return [part for part in node.parts if part.sort is ir.Sort.REAL]

    def _sum(self, items: Sequence[ir.Node]) -> Tensor:
        """The sum of products, each multiplied and added at once."""
        at = self.memo
        ordered = sorted(items, key=lambda item: self._factors(item)[0] != 1.0)
        total: Tensor | None = None
        into: Tensor | None = None
        for item in ordered:
            factor, parts = self._factors(item)
            values = [at[part] for part in parts]
            if total is None:
                total = values[0] if len(values) == 1 else values[0] * values[1]
                total = total if factor == 1.0 else total * factor
                into = None if total is at.get(item) and not self._is_spent(item) else total
            elif len(values) == 1:
                total = torch.add(
                    total, values[0], alpha=factor, out=self._fits(into, total, *values)
                )
            else:
                into = self._fits(into, total, *values)
                total = torch.addcmul(total, *values, value=factor, out=into)
        assert total is not None
        return total

    def _factors(self, node: ir.Node) -> tuple[float, tuple[ir.Node, ...]]:
        """A number and one or two nodes whose product is the node; known products stay, as their parts may be spent."""
        match node:
            case _ if node in self.memo:
                return 1.0, (node,)
            case reals.Times(left=reals.Number(value=factor), right=right):
                inner, parts = self._factors(right)
                return factor * inner, parts
            case reals.Times(left=left, right=right):
                return 1.0, (left, right)
            case _:
                return 1.0, (node,)

    def _is_spent(self, node: ir.Node) -> bool:
        return node in self.spent and node not in self.free and node not in self.constants

    def _into(self, node: ir.Node, *others: ir.Node) -> Tensor | None:
        """The value of a part, if the result with others may be written there."""
        if not self._is_spent(node):
            return None
        return self._fits(self.memo[node], *(self.memo[other] for other in others))

    @staticmethod
    def _fits(into: Tensor | None, *others: Tensor) -> Tensor | None:
        """``into`` where it is as large as a result with others."""
        if into is None:
            return None
        shapes = [other.shape for other in others]
        return into if np.broadcast_shapes(into.shape, *shapes) == into.shape else None

    def table(self, node: Read) -> Tensor:
        """A real table with its indexed dims as one, [heads or 1, entries], of a row [heads or 1, entries, width]."""
        given = self.tables[node.table]
        return given.flatten(1, len(node.index)) if node.index else given[:, None]

    def entries(self, node: Read) -> Taken:
        """The entry of the flattened table for each pair, int64 [items, heads, n, m], and where it is inside."""
        sizes = tuple(self.tables[node.table].shape[1 : 1 + len(node.index)])
        what, deps = (node.index, sizes), _deps(node.index)
        found: Taken = self._kept(what, deps, lambda: self._entries(node.index, sizes))
        return found

    def distinct(self, node: Read) -> tuple[Tensor, Tensor, Tensor]:
        """The entries that pairs read, each once, whether inside; and which of them each pair reads."""
        sizes = tuple(self.tables[node.table].shape[1 : 1 + len(node.index)])

        def make() -> tuple[Any, ...]:
            entries, inside = self.entries(node)
            marked = entries if inside is None else entries.masked_fill(~inside, -1)
            found, which = torch.unique(marked, return_inverse=True)
            return found.clamp(min=0), found >= 0, which

        what, deps = ("distinct", node.index, sizes), _deps(node.index)
        kept: tuple[Tensor, Tensor, Tensor] = self._kept(what, deps, make)
        return kept

    def _kept(self, what: Any, deps: ir.Deps, make: Callable[[], tuple[Any, ...]]) -> Any:
        """Keeps what ``make`` gives, under all that it depends on."""
        spot = self.spot
        batch = spot.batch if deps & ir.Deps.BATCH else None
        heads = (spot.heads.start, spot.heads.stop) if deps & ir.Deps.HEAD else None
        return self.kept((spot.name, batch, heads, self.dtype, what), make)

    def _constant(self, node: ir.Node) -> Tensor:
        scratch = replace(self, constants=frozenset(), memo={})
        found: tuple[Tensor] = self._kept(node, node.deps, lambda: (scratch(node),))
        return found[0]

    def _whole(self, node: ir.Node, user: ir.Node) -> Tensor:
        """An int or bool expression, as its user takes it: a truth value, or a real."""

        def make() -> tuple[Tensor]:
            found = torch.from_numpy(np.array(self._ints(node)))
            return (found if isinstance(user, reals.Choose) else found.to(self.dtype),)

        kept: tuple[Tensor] = self._kept((node, type(user)), node.deps, make)
        return kept[0]

    def _number(self, node: ir.Node) -> Tensor:
        """An int below 2**31 as int32."""
        return torch.from_numpy(np.asarray(self._ints(node)).astype(np.int32))

    def _ints(self, node: ir.Node) -> Any:
        """An int or bool expression, exactly; broadcast over [items, heads, n, m]."""
        spot, heads = self.spot, self.spot.heads
        env = ir.Env(
            q=spot.q,
            k=spot.k,
            sizes={},
            tables={t.name: self._table(t) for t in self.bound.declared},
            batch=spot.batch,
            head=np.arange(heads.start, heads.stop)[None, :, None, None],
        )
        return ir.evaluate(node, env)

    def _table(self, table: ir.Table) -> Any:
        """An int table, one entry of batch and head for all written as many."""
        given = np.asarray(self.bound.tables[table.name])
        ambient = [dim for dim in table.dims if dim in ("batch", "head")]
        least = {"batch": self.spot.batch + 1, "head": self.spot.heads.stop}
        shape = [
            least[str(dim)] if size == 1 else size
            for dim, size in zip(ambient, given.shape, strict=False)
        ]
        return np.broadcast_to(given, (*shape, *given.shape[len(ambient) :]))

    def _entries(self, index: Sequence[ir.Node], sizes: Sequence[int]) -> tuple[Any, ...]:
        flat: Any = np.zeros((1, 1, 1, 1), np.int64)
        inside: Any = np.ones((1, 1, 1, 1), bool)
        for item, size in zip(index, sizes, strict=True):
            at = np.asarray(self._ints(item))
            inside = inside & (at >= 0) & (at < size)
            flat = flat * size + np.clip(at, 0, max(size - 1, 0)).astype(np.int64)
        if inside.all():
            return torch.from_numpy(flat), None
        shape = np.broadcast_shapes(flat.shape, inside.shape)
        whole = np.broadcast_to(np.where(inside, flat, 0), shape)
        return torch.from_numpy(np.array(whole)), torch.from_numpy(np.array(inside))


def _deps(nodes: Sequence[ir.Node]) -> ir.Deps:
    found = ir.Deps.NONE
    for node in nodes:
        found |= node.deps
    return found


# ---------------------------------------------------------------- leaves


def vectors(values: Values, node: ir.Node) -> Vectors:
    """An operand of an inner product."""
    if isinstance(node, reals.Own):
        return Vectors(values.own[node.side], node.side)
    assert isinstance(node, reals.Row)
    table, deps = values.table(node), _deps(node.index)
    if deps & ir.Deps.PAIR == ir.Deps.PAIR:
        found, inside, which = values.distinct(node)
        rows = table.index_select(1, found).masked_fill(~inside[:, None], 0.0)
        return Vectors(rows[None], None, which)
    entries, inside_or_all = values.entries(node)
    rows = take(table, entries, inside_or_all)  # [items, heads, n or 1, m or 1, width]
    if deps & ir.Deps.KEY:
        return Vectors(rows[:, :, 0], ir.Side.KEY)
    return Vectors(rows[:, :, :, 0], ir.Side.QUERY if deps & ir.Deps.QUERY else None)


def give_leaf(
    values: Values,
    leaf: ir.Node,
    gain: Tensor,
    totals: Mapping[str, Tensor],
    own: Mapping[ir.Side, Tensor],
) -> None:
    """Adds what a leaf gained, [items, heads, n, m], to the tables and the own vectors that it reads.

    ``totals``: tables [heads or 1, ...]; ``own``: [items, heads, rows, width] of the queries and keys of the piece.
    """
    gain = gain.sum_to_size(values(leaf).shape)
    if isinstance(leaf, ir.Load):
        total = totals[leaf.table]
        flat = total.view(len(total), -1, 1)
        give(flat, *values.entries(leaf), gain[..., None])
        return
    assert isinstance(leaf, reals.Dot)
    left, right = vectors(values, leaf.left), vectors(values, leaf.right)
    gains = inner_gains(left, right, gain)
    for side, each in zip((leaf.left, leaf.right), gains, strict=True):
        if isinstance(side, reals.Own):
            own[side.side].add_(each)
        else:
            assert isinstance(side, reals.Row)
            total = totals[side.table]
            _give_vectors(values, side, each, total.view(len(total), -1, total.shape[-1]))


def _give_vectors(values: Values, node: ir.Node, gain: Tensor, total: Tensor) -> None:
    """Adds what rows gained to the table that they were read from, [heads or 1, entries, width]."""
    assert isinstance(node, reals.Row)
    found = vectors(values, node)
    if found.which is not None:
        rows, inside, _ = values.distinct(node)
        each = gain.sum(0).masked_fill(~inside[:, None], 0.0)
        total.index_add_(1, rows, each)
        return
    gain = gain[:, :, None] if found.side is ir.Side.KEY else gain[:, :, :, None]
    give(total, *values.entries(node), gain)
