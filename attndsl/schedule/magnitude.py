"""Refuse patterns whose numbers would not fit: 64-bit arithmetic must be exact on every backend."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from attndsl import ir
from attndsl.analysis import Interpreter, Range, Truths
from attndsl.schedule.summaries import TileAxis

LIMIT = 1 << 62


def check_magnitude(root: ir.Node, queries: TileAxis, keys: TileAxis) -> None:
    """Interval arithmetic over all positions, in unbounded integers.

    Raises:
        AttnDslError: A403, some intermediate value can pass 2**62.
    """
    sides = (range(x.start, x.start + x.length) for x in (queries, keys))
    bounds = tuple((name, queries.table_bounds(name)) for name in _tables(root))
    _check_once(root, *sides, bounds)


@functools.lru_cache(maxsize=1024)
def _tables(root: ir.Node) -> tuple[str, ...]:
    """The tables of integers that a relation reads."""
    loads = (x for x in ir.postorder(root) if isinstance(x, ir.Load) and x.kind is ir.Sort.INT)
    return tuple(dict.fromkeys(load.table for load in loads))


@functools.lru_cache(maxsize=1024)
def _check_once(
    root: ir.Node, queries: range, keys: range, bounds: tuple[tuple[str, tuple[int, int]], ...]
) -> None:
    """Remembers what passed; what is refused is refused each time."""
    check_bounded(root, queries, keys, dict(bounds))


def check_bounded(
    root: ir.Node, queries: range, keys: range, bounds: Mapping[str, tuple[int, int]]
) -> None:
    """Like ``check_magnitude``, at these positions and of tables whose values lie between bounds.

    The number of a batch element or head, where it is not bound, lies between those of "<batch>" or "<head>".
    """
    known = _known(queries, keys, bounds.__getitem__)
    _check(root, Interpreter(known, np.zeros(1, dtype=object)))


def _known(
    queries: range, keys: range, bounds_of: Callable[[str], tuple[int, int]]
) -> Callable[[ir.Node], Range | Truths | None]:
    def known(node: ir.Node) -> Range | Truths | None:
        match node:
            case ir.Pos(side=side):
                at = queries if side is ir.Side.QUERY else keys
                return Range.between(at.start, at.start + max(len(at), 1) - 1)
            case ir.Load(table=table, kind=ir.Sort.INT):
                return Range.between(*bounds_of(table))
            case ir.Var(name=name):
                return Range.between(*bounds_of(f"<{name}>"))
            case _:
                return None

    return known


def _check(root: ir.Node, interpreter: Interpreter) -> None:
    """Bound variables lie between the limits of their loops."""
    for node in _outside_loops(root):
        if isinstance(node, ir.Loop):
            _check(node.body, interpreter.inside(node))
        if node.sort is ir.Sort.INT:
            found = interpreter.range(node)
            if max(abs(int(found.low[0])), abs(int(found.high[0]))) >= LIMIT:
                raise ir.too_large()


def _outside_loops(root: ir.Node) -> Iterator[ir.Node]:
    """Every distinct node but those in bodies of loops, parts first: too large a number is refused, not squared."""
    seen: set[ir.Node] = set()
    stack = [(root, False)]
    while stack:
        node, is_ready = stack.pop()
        if is_ready:
            yield node
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            parts = (node.start, node.stop) if isinstance(node, ir.Loop) else node.parts
            stack.extend((part, False) for part in parts)
